"""KV blocks of the ranks of one lock-step group, without a clock of its own.

All decoding sequences of a group gain the same tokens in every step, so one *token clock* V tells
how far each has grown: a sequence that joined at V0 with T resident tokens has T - V0 + V now and
fills ceil((T - V0 + V) / B) blocks of B tokens. Summed over a rank this needs only the sum of the
offsets o = T - V0, their number, and a histogram of o modulo B:

    sum of ceil((o + V) / B) = (sum of (o + V) + sum of (-(o + V) mod B)) / B.

So steps cost nothing here, joining and leaving O(1); exact usage is computed when it is asked for.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.counters import Counters, float_array, integer_array
from simpod.cluster.prefix import PrefixCache
from simpod.errors import InvariantError

Ints = NDArray[np.int64]


class KvBlocks:
    """Blocks in use per rank, growth of the decoding sequences, and the prefix caches.

    A rank's usage counts what sequences hold, shared prefix units once. Idle prefix units fill what
    is left and are evicted when their room is needed: usage + idle <= capacity whenever one looks.

    growing [num_ranks]: decoding sequences; offsets [num_ranks]: their resident tokens are
    offsets + growing * clock.
    _by_residue [num_ranks, block_tokens]: growing sequences by offset mod B.
    """

    __slots__ = (
        "_by_residue _caches _growing _held _most _offsets _padding _residues _slack "
        "block_tokens capacity_blocks clock growing offsets tokens_beside unit_blocks "
        "unit_tokens"
    ).split()

    def __init__(
        self,
        *,
        num_ranks: int,
        capacity_blocks: int,
        block_tokens: int,
        prefix_unit_tokens: int = 0,
        make_cache: Callable[[], PrefixCache] = PrefixCache,
    ) -> None:
        self.capacity_blocks = capacity_blocks
        self.block_tokens = block_tokens
        self.unit_tokens = prefix_unit_tokens
        self.unit_blocks = prefix_unit_tokens // block_tokens
        self.clock = 0
        self.tokens_beside = 0  # of blocks held on all ranks, less resident tokens of the growing
        self._held = [0] * num_ranks  # blocks that do not grow (less those counted as growing)
        counters = Counters(num_ranks * (2 + block_tokens))
        self._growing = counters.integers(num_ranks)
        self._offsets = counters.integers(num_ranks)
        self._residues = counters.floats(num_ranks * block_tokens)
        self.growing = integer_array(self._growing)
        self.offsets = integer_array(self._offsets)
        self._by_residue = float_array(self._residues).reshape(num_ranks, block_tokens)
        residues = np.arange(2 * block_tokens, 0, -1) % block_tokens
        self._padding = residues.astype(np.float64)  # [i : i + B]: -(o + V) mod B, by residue of o
        self._slack = capacity_blocks  # lower bound of the free blocks of any rank
        self._most = 0  # upper bound of the growing sequences of any rank
        self._caches = [make_cache() for _ in range(num_ranks)] if prefix_unit_tokens else []

    def blocks_for(self, tokens: int) -> int:
        """Blocks that `tokens` resident tokens fill."""
        return -(-tokens // self.block_tokens)

    # --- how full it is -------------------------------------------------------------------------

    def used(self, rank: int, ahead: int = 0) -> int:
        """Blocks in use on a rank, `ahead` clock tokens from now."""
        clock = self.clock + ahead
        count = self._growing[rank]
        if not count:
            return self._held[rank]
        padding = int(self._by_residue[rank].dot(self._padding_at(clock)))
        return (
            self._held[rank] + (self._offsets[rank] + count * clock + padding) // self.block_tokens
        )

    def used_everywhere(self, ahead: int = 0) -> Ints:
        """[num_ranks] blocks in use, `ahead` clock tokens from now."""
        clock = self.clock + ahead
        padding = self._by_residue.dot(self._padding_at(clock)).astype(np.int64)
        filled: Ints = (self.offsets + clock * self.growing + padding) // self.block_tokens
        filled += np.array(self._held)
        return filled

    def _padding_at(self, clock: int) -> NDArray[np.float64]:
        first = clock % self.block_tokens
        return self._padding[first : first + self.block_tokens]

    def tokens_held(self, rank: int) -> int:
        """What a rank reports as its KV usage: resident tokens (held blocks count as full)."""
        held = self._held[rank] * self.block_tokens
        return held + self._offsets[rank] + self._growing[rank] * self.clock

    def free(self, rank: int, ahead: int = 0) -> int:
        """Blocks that could be given out, those of idle prefix units included."""
        return self.capacity_blocks - self.used(rank, ahead)

    def fits(self, rank: int, blocks: int, ahead: int = 0) -> bool:
        """Can `blocks` more be given out, if the clock is to advance by `ahead`?"""
        count = self._growing[rank]
        grown = (
            (self._offsets[rank] + count * (self.clock + ahead)) // self.block_tokens + count + 1
        )
        if self._held[rank] + grown + blocks <= self.capacity_blocks:  # even if all are rounded up
            return True
        return blocks <= self.free(rank, ahead)

    def surely_fits(self, tokens: int) -> bool:
        """The clock can advance by `tokens` on every rank: a cheap bound, may err by no."""
        blocks_each = tokens // self.block_tokens + 1
        if self._most * blocks_each <= self._slack:
            return True
        self._slack = self.capacity_blocks - int(self.used_everywhere().max())
        self._most = int(self.growing.max())
        return self._most * blocks_each <= self._slack

    def short_ranks(self, tokens: int) -> list[int]:
        """Ranks on which the clock can't advance by `tokens` for lack of blocks."""
        return np.flatnonzero(self.used_everywhere(tokens) > self.capacity_blocks).tolist()

    def most_tokens(self, tokens: int) -> int:
        """The most tokens, up to `tokens`, that the clock can advance before blocks run out."""
        if self.surely_fits(tokens) or not self.short_ranks(tokens):
            return tokens
        low, high = 0, tokens
        while low < high - 1:
            middle = (low + high) // 2
            if self.short_ranks(middle):
                high = middle
            else:
                low = middle
        return low

    # --- what changes it ------------------------------------------------------------------------

    def take(self, rank: int, blocks: int) -> None:
        """Give out `blocks`; the caller has checked that they fit."""
        self._held[rank] += blocks
        self.tokens_beside += blocks * self.block_tokens
        self._slack -= blocks

    def release(self, rank: int, blocks: int) -> None:
        """Take back `blocks`."""
        if self._caches:
            self._evict(rank)  # what was full until now had no room for idle units
        self._held[rank] -= blocks
        self.tokens_beside -= blocks * self.block_tokens
        if self._held[rank] < 0 and not self._growing[rank]:
            raise InvariantError(f"rank {rank} released {blocks} KV blocks that nobody held")

    def join(self, rank: int, tokens: int) -> int:
        """Let a sequence of `tokens` resident tokens grow with the clock; return its offset."""
        offset = tokens - self.clock
        blocks = self.blocks_for(tokens)
        self._held[rank] -= blocks
        self.tokens_beside -= blocks * self.block_tokens
        self._offsets[rank] += offset
        self._residues[rank * self.block_tokens + offset % self.block_tokens] += 1
        self._growing[rank] += 1
        self._most = max(self._most, self._growing[rank])
        return offset

    def leave(self, rank: int, offset: int) -> int:
        """Stop the growth of a sequence that joined with `offset`; return its tokens."""
        tokens = offset + self.clock
        blocks = self.blocks_for(tokens)
        self._held[rank] += blocks
        self.tokens_beside += blocks * self.block_tokens
        self._offsets[rank] -= offset
        self._residues[rank * self.block_tokens + offset % self.block_tokens] -= 1
        self._growing[rank] -= 1
        return tokens

    def advance(self, tokens: int) -> None:
        """Let the clock pass `tokens`; decoding sequences take their blocks."""
        self.clock += tokens
        self._slack -= self._most * (tokens // self.block_tokens + 1)

    # --- prefix units ---------------------------------------------------------------------------

    def match(self, rank: int, ids: Sequence[int]) -> int:
        """Count the leading prefix units of `ids` that are resident."""
        if not self._caches:
            return 0
        self._evict(rank)
        return self._caches[rank].match(ids)

    def blocks_to_pin(self, rank: int, ids: Sequence[int]) -> int:
        """Blocks by which usage would rise if the resident units `ids` were pinned."""
        return self.unit_blocks * self._caches[rank].count_idle(ids) if ids else 0

    def pin(self, rank: int, ids: Sequence[int]) -> None:
        """Share resident prefix units; idle ones count as used from now on."""
        self.take(rank, self.unit_blocks * self._caches[rank].pin(ids))

    def publish(self, rank: int, ids: Sequence[int], depth: int = 0) -> list[int]:
        """Make computed units shareable; return the new ones (owned by the cache from now).

        depth: units of the same prefix before the first of `ids`.
        """
        cache = self._caches[rank]
        return [unit for place, unit in enumerate(ids, depth) if cache.add(unit, place)]

    def unpin(self, rank: int, ids: Sequence[int]) -> None:
        """Stop sharing units; those that nobody uses stay as idle cache."""
        self._evict(rank)
        blocks = self.unit_blocks * self._caches[rank].unpin(ids)
        self._held[rank] -= blocks
        self.tokens_beside -= blocks * self.block_tokens

    def forget_prefixes(self, rank: int) -> None:
        """Drop every unit that nobody uses."""
        for cache in self._caches[rank : rank + 1]:
            while cache.num_idle:
                cache.evict()

    def _evict(self, rank: int) -> None:
        """Drop idle units, least recently used first, that had to make room."""
        cache = self._caches[rank]
        if cache.num_idle:
            free = self.free(rank)
            while cache.num_idle * self.unit_blocks > free:
                cache.evict()
