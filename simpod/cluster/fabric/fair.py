"""Max-min fair rates by progressive filling: all rates rise together until links or caps stop them.

A link's level is what each of its unsettled transfers would get of what is left of it. The link
with the lowest level is full first: its transfers are settled there, those with lower caps before.
Levels only rise while transfers are settled, so a link's place in the heap is looked after only
when it comes to the top.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace
from math import inf


def fair_rates(
    paths: Sequence[Sequence[int]], caps: Sequence[float], room: dict[int, float]
) -> list[float]:
    """Rates of transfers, in plain loops (`kernel` has the same compiled).

    paths: links of each, one at least; caps: most that each takes; room: what each link of the
    paths has for these transfers together; used up.
    """
    members: dict[int, list[int]] = {link: [] for link in room}
    for i, path in enumerate(paths):
        for link in path:
            members[link].append(i)
    count = {link: len(mine) for link, mine in members.items()}
    rates = [-1.0] * len(paths)  # -1: not settled
    heap = [(room[link] / n, link) for link, n in count.items() if n]
    heapify(heap)
    while heap:
        before, link = heap[0]
        if not count[link]:
            heappop(heap)
            continue
        level = room[link] / count[link]
        if level > before:
            heapreplace(heap, (level, link))
            continue
        level = max(level, 0.0)  # room may be -1e-6 of 1e11: rounding
        mine = members[link] = [i for i in members[link] if rates[i] < 0.0]
        for i in [i for i in mine if caps[i] <= level] or mine:
            rate = rates[i] = min(caps[i], level)
            for used in paths[i]:
                room[used] -= rate
                count[used] -= 1
    return rates


def first_full_level(room: float, limits: Sequence[float]) -> float:
    """The level at which a link fills up, if every transfer takes the level up to its limit.

    Infinite if it never fills up.
    """
    left = room
    for position, limit in enumerate(sorted(limits)):
        level = left / (len(limits) - position)
        if level <= limit:
            return level
        left -= limit
    return inf
