"""Prices as `Table` has them, of counts that lie close together: the tokens of a whole group.

What depends on the loads of experts is dear, and priced anew whenever these change: so a block is
filled when one of its counts is asked for, and those below it may never be.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from simpod.cost.table import BLOCK_POINTS, between, block_after
from simpod.cost.work import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Counts from `start` on."""

    start: int
    parts: Floats
    """[size, columns]"""
    total: Floats


@dataclass(slots=True, eq=False)
class BlockTable:
    """Seconds by part for every count 0, 1, 2, ...; entries are those of `Table`.

    fill(counts [n]) returns [n, columns].
    """

    fill: Callable[[Floats], Floats]
    _blocks: dict[int, Block] = field(default_factory=dict)

    def one(self, count: int) -> tuple[float, Floats]:
        """Sum over the parts, and the parts [columns]."""
        block = self._block(count)
        return block.total.item(count - block.start), block.parts[count - block.start]

    def many(self, counts: Ints) -> Floats:
        """[..., columns]: parts of counts [...]."""
        block = self._block(int(counts.max()))
        if counts.min() >= block.start:
            return np.asarray(block.parts[counts - block.start])
        rows = [self.one(count)[1] for count in counts.ravel().tolist()]
        return np.stack(rows).reshape(*counts.shape, -1)

    def _block(self, count: int) -> Block:
        """The block that a count is in: below 256, then each up to twice its start."""
        doublings = (count // BLOCK_POINTS).bit_length()
        found = self._blocks.get(doublings)
        if found is None:
            start = BLOCK_POINTS << (doublings - 1) if doublings else 0
            end, points = block_after(start)
            parts = between(points, self.fill(points), start, end)
            found = Block(start=start, parts=parts, total=parts.sum(axis=1))
            self._blocks[doublings] = found
        return found
