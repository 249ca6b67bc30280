"""Prices kept as tables, so that a step of the simulation looks them up.

A table is filled in blocks that double, on a stride that doubles with them, and is linear between:
an entry never depends on when it was made, and 256 evaluations price counts up to any power of two.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log2

import numpy as np

from simpod.cost.work import Floats, Ints
from simpod.records.columns import STEP_PARTS

NUM_PARTS = len(STEP_PARTS)
BLOCK_POINTS = 256
"""Exact entries of each block; counts below it are all exact."""


def block_after(size: int) -> tuple[int, Floats]:
    """End of the block that begins at `size`, and the counts to evaluate, the end included."""
    end = max(BLOCK_POINTS, 2 * size)
    if size == 0:
        return end, np.arange(end + 1, dtype=np.float64)
    return end, np.linspace(size, end, BLOCK_POINTS + 1)


def between(points: Floats, values: Floats, start: int, end: int) -> Floats:
    """[end - start, columns]: `values` [p, columns] at `points`, linear between them."""
    counts = np.arange(start, end, dtype=np.float64)
    columns = [np.interp(counts, points, column) for column in values.T]
    return np.stack(columns, axis=1)


@dataclass(slots=True, eq=False)
class Table:
    """Seconds by part for every count 0, 1, 2, ...

    fill(counts [n]) returns [n, NUM_PARTS]. Looking beyond the end raises IndexError: then `grow`.
    """

    fill: Callable[[Floats], Floats]
    parts: Floats = field(default_factory=lambda: np.empty((0, NUM_PARTS)))
    total: Floats = field(default_factory=lambda: np.empty(0))

    def grow(self, count: int) -> None:
        """Make room for `count`."""
        while len(self.total) <= count:
            start = len(self.total)
            end, points = block_after(start)
            more = between(points, self.fill(points), start, end)
            self.parts = np.concatenate([self.parts, more])
            self.total = np.concatenate([self.total, more.sum(axis=1)])

    def seconds(self, count: int) -> float:
        """Sum over the parts."""
        try:
            return self.total.item(count)
        except IndexError:
            self.grow(count)
            return self.total.item(count)

    def means(self, counts: Ints, mean: Floats) -> tuple[Floats, Floats]:
        """For `counts` [num_ranks]: total of each rank, and parts averaged by weights `mean`."""
        try:
            total = self.total.take(counts)
        except IndexError:
            self.grow(int(counts.max()))
            total = self.total.take(counts)
        return total, mean.dot(self.parts.take(counts, axis=0))


KNOTS_PER_DOUBLING = 2
CONTEXT_KNOTS = np.concatenate(
    [[0.0], 16.0 * 2.0 ** (np.arange(18 * KNOTS_PER_DOUBLING + 1) / KNOTS_PER_DOUBLING)]
)
"""Mean contexts at which decode attention is priced: steps of 41 % from 16 to 4 M tokens."""

_KNOTS = CONTEXT_KNOTS.tolist()
_NUM_KNOTS = len(_KNOTS)
_LAST = _NUM_KNOTS - 1
UNBOUNDED = 2.0**62


class ContextTable:
    """Decode attention of a rank: seconds by sequences, piecewise linear in their mean context.

    A kernel's time has steps in the context (waves, splits over the cache); a batch of unlike
    sequences smooths them, and so does the line between two knots.

    fill(seqs [n, 1], mean_context [knots]) returns [n, knots] seconds.
    """

    def __init__(self, fill: Callable[[Floats, Floats], Floats]) -> None:
        self._fill = fill
        self._size = 0
        self._at_zero = self._slopes = self._ends = np.empty(0)  # [seqs * knots], flat: the lines
        self._at_zero_list: list[float] = []  # the same: element access to arrays is slow
        self._slope_list: list[float] = []
        self._values = np.empty((0, _NUM_KNOTS))

    def _grow(self, seqs: int) -> None:
        values = self._values
        while self._size <= seqs:
            start = self._size
            end, points = block_after(start)
            priced = self._fill(np.maximum(points, 1.0)[:, np.newaxis], CONTEXT_KNOTS)
            priced[points == 0] = 0.0
            values = np.concatenate([values, between(points, priced, start, end)])
            self._size = end
        slopes = np.zeros_like(values)
        slopes[:, :-1] = np.diff(values, axis=1) / np.diff(CONTEXT_KNOTS)
        slopes[:, -1] = slopes[:, -2]
        ends = np.tile(np.append(CONTEXT_KNOTS[1:], np.inf), (len(values), 1))
        ends[0] = np.inf  # without sequences nothing changes, for ever
        self._values, self._ends = values, ends.reshape(-1)
        self._slopes = slopes.reshape(-1)
        self._at_zero = (values - CONTEXT_KNOTS * slopes).reshape(-1)
        self._at_zero_list, self._slope_list = self._at_zero.tolist(), self._slopes.tolist()

    def one(self, seqs: int, context: int) -> tuple[float, float, int]:
        """Seconds, seconds per token of mean context, and tokens up to which that holds.

        seqs >= 1 sequences with `context` resident tokens together.
        """
        if seqs >= self._size:
            self._grow(seqs)
        mean = context / seqs
        knot = bisect_right(_KNOTS, mean) - 1
        cell = seqs * _NUM_KNOTS + knot
        slope_s = self._slope_list[cell]
        room = _KNOTS[knot + 1] - mean if knot < _LAST else UNBOUNDED
        return self._at_zero_list[cell] + mean * slope_s, slope_s, int(room)

    def many(self, seqs: Ints, context: Ints) -> tuple[Floats, Floats, Floats]:
        """The same for ranks [r]; one without sequences costs nothing, for ever."""
        mean = context / np.maximum(seqs, 1)
        cell = seqs * _NUM_KNOTS
        cell += CONTEXT_KNOTS[1:].searchsorted(mean, side="right")
        try:
            slope_s = self._slopes.take(cell)
        except IndexError:
            self._grow(int(seqs.max()))
            slope_s = self._slopes.take(cell)
        seconds = mean * slope_s
        seconds += self._at_zero.take(cell)
        return seconds, slope_s, self._ends.take(cell) - mean


NODES_PER_DOUBLING = 2
NUM_NODES = 21 * NODES_PER_DOUBLING + 1
NODES = 2.0 ** (np.arange(NUM_NODES) / NODES_PER_DOUBLING)


class PromptTable:
    """Attention of prompt chunks: seconds by queries and by the mean number of keys of a query.

    Interpolated in logarithms, where a kernel's time is nearly a plane. A node stands for one
    sequence with resident tokens, or, where queries see fewer keys than one prompt of that length
    would give them, for several equal prompts.

    fill(num_seqs [n], query_tokens [n], resident_tokens [n]) returns [n] seconds.
    """

    def __init__(self, fill: Callable[[Floats, Floats, Floats], Floats]) -> None:
        queries, keys = (grid.reshape(-1) for grid in np.meshgrid(NODES, NODES, indexing="ij"))
        whole = np.maximum(1.0, 2.0 * keys - 1.0)  # a prompt whose queries see so many keys
        num_seqs = np.maximum(1.0, queries / whole)
        query_tokens = queries / num_seqs
        resident = np.maximum(0.0, keys - (query_tokens + 1.0) / 2.0)
        self._logs = np.log2(fill(num_seqs, query_tokens, resident))

    def one(self, queries: float, keys: float) -> float:
        """Seconds of `queries` tokens that see `keys` tokens each, on average; both >= 1."""
        x = NODES_PER_DOUBLING * log2(queries)
        y = NODES_PER_DOUBLING * log2(keys)
        i, j = min(int(x), NUM_NODES - 2), min(int(y), NUM_NODES - 2)
        x, y = x - i, y - j
        logs, cell = self._logs, i * NUM_NODES + j
        low = logs.item(cell) * (1.0 - y) + logs.item(cell + 1) * y
        cell += NUM_NODES
        high = logs.item(cell) * (1.0 - y) + logs.item(cell + 1) * y
        return float(2.0 ** (low * (1.0 - x) + high * x))

    def many(self, queries: Floats, keys: Floats) -> Floats:
        """The same for ranks [r]; 0 seconds without queries."""
        place = NODES_PER_DOUBLING * np.log2(np.maximum((queries, keys), 1.0))
        nodes = np.minimum(place.astype(np.int64), NUM_NODES - 2)
        place -= nodes
        (x, y), (left_x, left_y) = place, 1.0 - place
        logs, cell = self._logs, nodes[0] * NUM_NODES + nodes[1]
        low = logs.take(cell) * left_y + logs.take(cell + 1) * y
        cell += NUM_NODES
        high = logs.take(cell) * left_y + logs.take(cell + 1) * y
        return np.asarray(np.where(queries > 0, 2.0 ** (low * left_x + high * x), 0.0))
