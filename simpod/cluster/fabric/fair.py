"""Max-min fair rates by progressive filling: all rates rise together until links or caps stop them.

A link's level is what each of its unsettled transfers would get of what is left of it. Levels only
rise while transfers are settled. So every link whose transfers have no lower level elsewhere is
settled at once, not only the lowest of all: few rounds, each a handful of array operations.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def fair_rates(links: Ints, caps: Floats, room: Floats) -> Floats:
    """Rates of n transfers.

    links: [k, n] link ids of each; caps: [n] most that each takes;
    room: [L] what the links have for these transfers together (infinite: no limit).
    """
    rates = np.empty(links.shape[1])
    left = np.arange(links.shape[1])
    room = room.copy()
    count = np.bincount(links.ravel(), minlength=len(room)).astype(np.float64)
    is_ripe = np.empty(len(room), dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):  # links without transfers, never looked up
        while len(left):
            levels = (room / count).take(links)
            lowest = np.minimum(_all_rows(np.minimum, levels), caps)
            lower_elsewhere = levels > lowest
            is_ripe.fill(True)
            is_ripe[links[lower_elsewhere]] = False
            stopped = is_ripe.take(links)
            stopped &= ~lower_elsewhere
            settled = _all_rows(np.logical_or, stopped) | (lowest >= caps)
            done = settled.nonzero()[0]
            rate = np.maximum(lowest.take(done), 0.0)  # room may be -1e-6 of 1e11: rounding
            rates[left.take(done)] = rate
            gone = links.take(done, axis=1)
            for row in gone:
                room -= np.bincount(row, rate, len(room))
            count -= np.bincount(gone.ravel(), minlength=len(room))
            kept = (~settled).nonzero()[0]
            links, caps, left = links.take(kept, axis=1), caps.take(kept), left.take(kept)
    return rates


def _all_rows(combine: np.ufunc, table: NDArray[Any]) -> NDArray[Any]:
    """combine.reduce(table, axis=0), which is slow for so few rows."""
    out: NDArray[Any] = combine(table[0], table[1])
    for row in table[2:]:
        combine(out, row, out=out)
    return out


def few_fair_rates(
    paths: Sequence[Sequence[int]], caps: Sequence[float], room: dict[int, float]
) -> list[float]:
    """The same for a few transfers, without arrays; `room` has every link of the paths."""
    rates = [0.0] * len(paths)
    left = list(range(len(paths)))
    count = dict.fromkeys(room, 0)
    for path in paths:
        for link in path:
            count[link] += 1
    while left:
        level = min((room[link] / n for link, n in count.items() if n), default=inf)
        lowest = min(level, *(caps[i] for i in left))
        full = {link for link, n in count.items() if n and room[link] / n <= lowest}
        kept = []
        for i in left:
            if caps[i] > lowest and full.isdisjoint(paths[i]):
                kept.append(i)
                continue
            rates[i] = max(lowest, 0.0)
            for link in paths[i]:
                room[link] -= lowest
                count[link] -= 1
        left = kept
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
