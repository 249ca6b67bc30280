"""The rates of large tables, compiled; numba is imported with this, once loops have become dear.

Progressive filling as in `fair`, link by link, over arrays. Links without a limit (infinite) stop
nobody. A change spreads along the others and along transfers that can change, and only what it
reaches is worked out.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Ids = NDArray[np.uint32]  # without a sign, an index needs no second look

Function = TypeVar("Function", bound=Callable[..., object])


def _compiled(function: Function) -> Function:
    """Compiled when it is first called, and kept for other processes where anything can be kept."""
    try:
        kept: Function = njit(cache=True)(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        kept = njit(function)
    return kept


@_compiled
def fair_rates(
    active: Ints, links: Ints, slots: Floats, limits: Floats, least: float, changed: Ints
) -> tuple[Ints, Floats]:
    """Which of the transfers in `active` slots a change can reach, and their new rates.

    links: [k, n] of every slot; slots: [2, n] present rates, and the most that each takes; limits:
    [L] bytes/s of links; least: no transfer that is stopped below can notice; changed: links where
    it begins.
    """
    paths, count, room = _paths(active, links, slots[0], limits, least)
    caps = slots[1][active]
    first, members = _members(paths, count)
    heap, reached = _spread(paths, first, members, changed)
    new_rates = np.full(len(caps), -1.0)  # -1: not settled
    last = first[1:].copy()  # of a link: members[first:last], unsettled ones and settled ones
    levels = room / np.maximum(count, 1)
    size = len(heap)
    for place in range(size // 2 - 1, -1, -1):
        _sink(heap, size, place, levels)
    while size:
        link = heap[0]
        level = room[link] / max(count[link], 1)
        if not count[link]:
            size -= 1
            heap[0] = heap[size]
        elif level > levels[link]:
            levels[link] = level
        else:
            level = max(level, 0.0)  # room may be -1e-6 of 1e11: rounding
            start, end, num_open = first[link], first[link], count[link]
            for member in range(start, last[link]):
                flow = members[member]
                if new_rates[flow] < 0.0:
                    if caps[flow] <= level:
                        _stop(flow, caps[flow], paths, new_rates, room, count)
                    else:
                        members[end] = flow
                        end += 1
            last[link] = end
            if count[link] == num_open:  # nobody stopped below
                for member in range(start, end):
                    _stop(members[member], level, paths, new_rates, room, count)
        _sink(heap, size, 0, levels)
    return active[reached], new_rates[reached]


@_compiled
def _stop(flow: int, rate: float, paths: Ids, new_rates: Floats, room: Floats, count: Ints) -> None:
    """A transfer is settled at this rate."""
    new_rates[flow] = rate
    for row in range(paths.shape[1]):
        link = paths[flow, row]
        if link == len(count):
            break
        room[link] -= rate
        count[link] -= 1


@_compiled
def _sink(heap: Ids, size: int, place: int, levels: Floats) -> None:
    """A link of a heap sinks to where it belongs: the lowest level is at the top."""
    link = heap[place]
    child = 2 * place + 1
    while child < size:
        if child + 1 < size and levels[heap[child + 1]] < levels[heap[child]]:
            child += 1
        if levels[heap[child]] >= levels[link]:
            break
        heap[place] = heap[child]
        place, child = child, 2 * child + 1
    heap[place] = link


@_compiled
def _paths(
    active: Ints, links: Ints, rates: Floats, limits: Floats, least: float
) -> tuple[Ids, Ints, Floats]:
    """Limits of each transfer that can change, then L; how many on each link; their room."""
    num_rows = len(links)
    paths = np.empty((len(active), num_rows), dtype=np.uint32)
    count, room = np.zeros(len(limits), dtype=np.int64), limits.copy()
    for place in range(len(active)):
        slot, length = active[place], 0
        rate = rates[slot]
        can_change = rate >= least or rate == 0.0  # new ones have no rate yet
        for row in range(num_rows):
            link = np.uint32(links[row, slot])
            if not can_change:
                room[link] -= rate
            elif limits[link] < np.inf:
                count[link] += 1
                paths[place, length] = link
                length += 1
        for row in range(length, num_rows):
            paths[place, row] = len(limits)
    return paths, count, room


@_compiled
def _members(paths: Ids, count: Ints) -> tuple[Ints, Ids]:
    """Transfers by link: members[first[l] : first[l + 1]]."""
    first = np.zeros(len(count) + 1, dtype=np.int64)
    for link in range(len(count)):
        first[link + 1] = first[link] + count[link]
    place = first.copy()
    members = np.empty(first[-1], dtype=np.uint32)
    for flow in range(len(paths)):
        for row in range(paths.shape[1]):
            link = paths[flow, row]
            if link == len(count):
                break
            members[place[link]] = flow
            place[link] += 1
    return first, members


@_compiled
def _spread(paths: Ids, first: Ints, members: Ids, changed: Ints) -> tuple[Ids, Ids]:
    """Links and transfers that are joined to the `changed` links."""
    num_links = len(first) - 1
    found, is_found = np.empty(num_links, np.uint32), np.zeros(num_links, np.bool_)
    reached, is_reached = np.empty(len(paths), np.uint32), np.zeros(len(paths), np.bool_)
    for place in range(len(changed)):
        found[place] = changed[place]
        is_found[changed[place]] = True
    num_found, num_reached, place = len(changed), 0, 0
    while place < num_found:
        for member in range(first[found[place]], first[found[place] + 1]):
            flow = members[member]
            if not is_reached[flow]:
                is_reached[flow] = True
                reached[num_reached] = flow
                num_reached += 1
                for row in range(paths.shape[1]):
                    link = paths[flow, row]
                    if link == num_links:
                        break
                    if not is_found[link]:
                        is_found[link] = True
                        found[num_found] = link
                        num_found += 1
        place += 1
    return found[:num_found], reached[:num_reached]
