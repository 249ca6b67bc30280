"""KV blocks of the ranks of one lock-step group, without a clock.

Running decodes grow by the same number of tokens in every step, so the blocks that they will take are
known in advance from one histogram per rank: how many sequences cross a block boundary when the group's
*token clock* reaches each residue modulo the block size. A step costs O(ranks), not O(sequences).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.prefix import PrefixCache
from simpod.errors import InvariantError

Ints = NDArray[np.int64]


class KvBlocks:
    """Blocks in use per rank, growth of the decoding sequences, and the prefix caches.

    `used` [num_ranks] counts blocks that sequences hold, shared prefix units once. Idle prefix units
    fill what is left and are evicted when their room is needed: used + idle <= capacity, always.
    """

    def __init__(
        self,
        *,
        num_ranks: int,
        capacity_blocks: int,
        block_tokens: int,
        prefix_unit_tokens: int = 0,
    ) -> None:
        self.capacity_blocks = capacity_blocks
        self.block_tokens = block_tokens
        self.unit_tokens = prefix_unit_tokens
        self.unit_blocks = prefix_unit_tokens // block_tokens
        self.used: Ints = np.zeros(num_ranks, dtype=np.int64)
        self.peak: Ints = np.zeros(num_ranks, dtype=np.int64)
        self.growing: Ints = np.zeros(num_ranks, dtype=np.int64)
        self.clock = 0
        self._due: Ints = np.zeros((block_tokens, num_ranks), dtype=np.int64)
        self._caches = [PrefixCache() for _ in range(num_ranks)] if prefix_unit_tokens else []
        self._slack = capacity_blocks  # lower bound of the free blocks of any rank
        self._most = 0  # upper bound of the growing sequences of any rank
        self._idle: Ints = np.zeros(num_ranks, dtype=np.int64)  # blocks of idle prefix units

    def blocks_for(self, tokens: int) -> int:
        """Blocks that `tokens` resident tokens fill."""
        return -(-tokens // self.block_tokens)

    def take(self, rank: int, blocks: int) -> None:
        """Give out `blocks`; the caller has checked that they fit."""
        used = self.used[rank] + blocks
        self.used[rank] = used
        if used > self.peak[rank]:
            self.peak[rank] = used
        if self.capacity_blocks - used < self._slack:
            self._slack = int(self.capacity_blocks - used)
        if self._caches:
            self._make_room(rank)

    def release(self, rank: int, blocks: int) -> None:
        """Take back `blocks`."""
        self.used[rank] -= blocks
        if self.used[rank] < 0:
            raise InvariantError(f"rank {rank} released {blocks} KV blocks that nobody held")

    # --- decoding sequences -------------------------------------------------------------------

    def join(self, rank: int, tokens: int) -> int:
        """Let a sequence of `tokens` resident tokens grow with the clock; return its phase."""
        phase = (self.clock + 1 - tokens) % self.block_tokens
        self._due[phase, rank] += 1
        growing = self.growing[rank] + 1
        self.growing[rank] = growing
        if growing > self._most:
            self._most = int(growing)
        return phase

    def leave(self, rank: int, phase: int) -> None:
        """Stop the growth of a sequence that joined with `phase`."""
        self._due[phase, rank] -= 1
        self.growing[rank] -= 1

    def growth(self, tokens: int) -> Ints:
        """Blocks [num_ranks] that decoding sequences take while the clock advances by `tokens`."""
        full, part = divmod(tokens, self.block_tokens)
        first = (self.clock + 1) % self.block_tokens
        if part == 1:
            blocks = self._due[first]
        else:
            blocks = self._due[first : first + part].sum(axis=0)
            over = first + part - self.block_tokens
            if over > 0:
                blocks += self._due[:over].sum(axis=0)
        return blocks + full * self.growing if full else blocks

    def short_ranks(self, tokens: int) -> list[int]:
        """Ranks on which the clock can't advance by `tokens` for lack of blocks."""
        return np.flatnonzero(self.used + self.growth(tokens) > self.capacity_blocks).tolist()

    def surely_fits(self, tokens: int) -> bool:
        """The clock can advance by `tokens` on every rank: a cheap bound, which may err by saying no."""
        blocks_each = tokens // self.block_tokens + 1
        if self._most * blocks_each <= self._slack:
            return True
        self._slack = self.capacity_blocks - int(self.used.max())
        self._most = int(self.growing.max())
        return self._most * blocks_each <= self._slack

    def most_tokens(self, tokens: int) -> int:
        """The most tokens, up to `tokens`, by which the clock can advance before blocks run out."""
        low, high = 0, tokens
        if self.surely_fits(tokens) or not self.short_ranks(tokens):
            return tokens
        while low < high - 1:
            middle = (low + high) // 2
            if self.short_ranks(middle):
                high = middle
            else:
                low = middle
        return low

    def advance(self, tokens: int) -> None:
        """Let the clock pass `tokens`; decoding sequences take their blocks."""
        self.used += self.growth(tokens)
        self.clock += tokens
        self._slack -= self._most * (tokens // self.block_tokens + 1)
        np.maximum(self.peak, self.used, out=self.peak)
        if self._caches:
            for rank in np.flatnonzero(self.used + self._idle > self.capacity_blocks).tolist():
                self._make_room(rank)

    # --- prefix units -------------------------------------------------------------------------

    def match(self, rank: int, ids: Sequence[int]) -> int:
        """Count the leading prefix units of `ids` that are resident."""
        return self._caches[rank].match(ids) if self._caches else 0

    def blocks_to_pin(self, rank: int, ids: Sequence[int]) -> int:
        """Blocks by which `used` would rise if the resident units `ids` were pinned."""
        return self.unit_blocks * self._caches[rank].count_idle(ids) if ids else 0

    def pin(self, rank: int, ids: Sequence[int]) -> None:
        """Share resident prefix units; idle ones count as used from now on."""
        woken = self.unit_blocks * self._caches[rank].pin(ids)
        self.take(rank, woken)
        self._idle[rank] -= woken

    def publish(self, rank: int, ids: Sequence[int]) -> list[int]:
        """Make computed units shareable; return those that were new (they change owner, not number)."""
        cache = self._caches[rank]
        return [unit for unit in ids if cache.add(unit)]

    def unpin(self, rank: int, ids: Sequence[int]) -> None:
        """Stop sharing units; those that nobody uses stay as idle cache."""
        rested = self.unit_blocks * self._caches[rank].unpin(ids)
        self.used[rank] -= rested
        self._idle[rank] += rested

    def idle_blocks(self, rank: int) -> int:
        """Blocks of prefix units that nobody uses: free for the taking."""
        return int(self._idle[rank])

    def _make_room(self, rank: int) -> None:
        free = self.capacity_blocks - int(self.used[rank])
        while self._idle[rank] > free:
            self._caches[rank].evict()
            self._idle[rank] -= self.unit_blocks
