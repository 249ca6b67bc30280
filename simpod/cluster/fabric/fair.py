"""Max-min fair rates by progressive filling: all rates rise together until links or caps stop them.

A link's level is what each of its unsettled transfers would get of what is left of it. Levels only
rise while transfers are settled. So every link whose transfers have no lower level elsewhere is
settled at once, not only the lowest of all: few rounds, each a handful of array operations.
"""

from collections.abc import Sequence
from math import inf

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
    rows = list(links)
    room = room.copy()
    count = np.bincount(links.ravel(), minlength=len(room)).astype(np.float64)
    is_ripe = np.empty(len(room), dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):  # links without transfers, never looked up
        while len(left):
            level = room / count
            levels = [level.take(row) for row in rows]
            lowest = caps
            for row_levels in levels:
                lowest = np.minimum(lowest, row_levels)
            is_ripe.fill(True)
            for row, row_levels in zip(rows, levels, strict=True):
                is_ripe[row.compress(row_levels > lowest)] = False  # these are stopped elsewhere
            settled = lowest >= caps
            for row in rows:
                settled |= is_ripe.take(row)
            done = settled.nonzero()[0]
            rate = np.maximum(lowest.take(done), 0.0)  # room may be -1e-6 of 1e11: rounding
            rates[left.take(done)] = rate
            for row in rows:
                gone = row.take(done)
                room -= np.bincount(gone, rate, len(room))
                count -= np.bincount(gone, minlength=len(room))
            kept = (~settled).nonzero()[0]
            rows = [row.take(kept) for row in rows]
            caps, left = caps.take(kept), left.take(kept)
    return rates


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
