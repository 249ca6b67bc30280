"""KV blocks against a plain model that knows every sequence, and the order of eviction."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simpod.cluster import KvBlocks, PrefixCache
from simpod.errors import InvariantError


def chain(family: int, length: int) -> list[int]:
    """Prefix ids of one family: an id stands for all that precedes it."""
    return [100 * family + depth for depth in range(length)]


@dataclass
class Resident:
    """A sequence of the model: nothing but its tokens and the units it shares."""

    rank: int
    tokens: int
    ids: list[int]
    units: list[int] = field(default_factory=list)
    offset: int | None = None  # set while it grows


class KvMachine(RuleBasedStateMachine):
    """Drives `KvBlocks` the way an engine does, and a dict of sequences beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.seqs: list[Resident] = []

    @initialize(
        num_ranks=st.integers(1, 3),
        capacity=st.integers(6, 40),
        block_tokens=st.sampled_from([1, 3, 4]),
        unit_blocks=st.sampled_from([0, 1, 2]),
    )
    def start(self, num_ranks: int, capacity: int, block_tokens: int, unit_blocks: int) -> None:
        self.block, self.unit_blocks = block_tokens, unit_blocks
        self.ranks, self.capacity = num_ranks, capacity
        self.kv = KvBlocks(
            num_ranks=num_ranks,
            capacity_blocks=capacity,
            block_tokens=block_tokens,
            prefix_unit_tokens=unit_blocks * block_tokens,
        )
        self.idle: list[list[int]] = [[] for _ in range(num_ranks)]  # oldest first
        self.known: set[int] = set()  # units that were ever published

    # --- the model --------------------------------------------------------------------------------

    def blocks(self, tokens: int) -> int:
        return math.ceil(tokens / self.block)

    def pinned(self, rank: int) -> set[int]:
        return {unit for s in self.seqs if s.rank == rank for unit in s.units}

    def model_used(self, rank: int, growth: int = 0) -> int:
        """Blocks held if every growing sequence had `growth` tokens more."""
        own = sum(
            self.blocks(s.tokens + (growth if s.offset is not None else 0))
            - len(s.units) * self.unit_blocks
            for s in self.seqs
            if s.rank == rank
        )
        return own + len(self.pinned(rank)) * self.unit_blocks

    def fits(self, growth: int) -> bool:
        return all(self.model_used(r, growth) <= self.capacity for r in range(self.ranks))

    def settle(self, rank: int) -> None:
        """Evict the oldest idle units of the model until all fits."""
        used = self.model_used(rank)
        while used + len(self.idle[rank]) * self.unit_blocks > self.capacity:
            self.idle[rank].pop(0)

    def forget(self, seq: Resident) -> None:
        """The sequence is gone; its units rest, the tail first, unless somebody else uses them."""
        self.seqs.remove(seq)
        still = self.pinned(seq.rank)
        self.idle[seq.rank] += [u for u in reversed(seq.units) if u not in still]

    # --- what an engine does ----------------------------------------------------------------------

    @rule(rank=st.integers(0, 2), tokens=st.integers(1, 30), family=st.integers(0, 2))
    def decode(self, rank: int, tokens: int, family: int) -> None:
        """A sequence comes to decode."""
        self.admit(rank, tokens, family, grows=True)

    @rule(rank=st.integers(0, 2), batch=st.lists(st.integers(1, 12), min_size=1, max_size=6))
    def decode_many(self, rank: int, batch: list[int]) -> None:
        """Several come at once, of as many families."""
        for family, tokens in enumerate(batch):
            self.admit(rank, tokens, family, grows=True)

    @rule(rank=st.integers(0, 2), tokens=st.integers(1, 30), family=st.integers(0, 2))
    def hold(self, rank: int, tokens: int, family: int) -> None:
        """A prompt comes and stays as long as it is."""
        self.admit(rank, tokens, family, grows=False)

    def admit(self, rank: int, tokens: int, family: int, *, grows: bool) -> None:
        """Share what is resident, take the rest, compute, publish, and perhaps decode."""
        rank %= self.ranks
        unit_tokens = self.unit_blocks * self.block
        full = tokens // unit_tokens if unit_tokens else 0
        ids = chain(family, full)
        known = self.pinned(rank) | set(self.idle[rank])
        hit = next((i for i, unit in enumerate(ids) if unit not in known), len(ids))
        assert self.kv.match(rank, ids) == hit
        woken = [u for u in ids[:hit] if u in self.idle[rank]]
        assert self.kv.blocks_to_pin(rank, ids[:hit]) == len(woken) * self.unit_blocks
        own = self.blocks(tokens) - hit * self.unit_blocks
        if own + len(woken) * self.unit_blocks > self.capacity - self.model_used(rank):
            return
        if hit:
            self.kv.pin(rank, ids[:hit])
        self.kv.take(rank, own)
        seq = Resident(rank, tokens, ids, units=ids[:hit])
        self.seqs.append(seq)
        self.idle[rank] = [u for u in self.idle[rank] if u not in woken]
        self.settle(rank)
        if unit_tokens:
            known = self.pinned(rank) | set(self.idle[rank])
            new = [u for u in ids[hit:] if u not in known]
            assert self.kv.publish(rank, ids[hit:]) == new
            seq.units += new
            self.known.update(new)
        if grows:
            seq.offset = self.kv.join(rank, tokens)

    @precondition(lambda self: len(self.seqs) > 2)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A sequence leaves; its own blocks and its units go back."""
        seq = data.draw(st.sampled_from(self.seqs))
        if seq.offset is not None:
            assert self.kv.leave(seq.rank, seq.offset) == seq.tokens
        self.kv.release(seq.rank, self.blocks(seq.tokens) - len(seq.units) * self.unit_blocks)
        if seq.units:
            self.kv.unpin(seq.rank, seq.units)
        self.forget(seq)

    @precondition(lambda self: sum(s.offset is not None for s in self.seqs) > 2)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        """A decoding sequence stops to grow but keeps its blocks."""
        seq = data.draw(st.sampled_from([s for s in self.seqs if s.offset is not None]))
        assert seq.offset is not None
        assert self.kv.leave(seq.rank, seq.offset) == seq.tokens
        seq.offset = None

    @rule(tokens=st.integers(1, 40))
    def ask(self, tokens: int) -> None:
        """The questions of a planner, answered by counting."""
        used = [self.model_used(r, tokens) for r in range(self.ranks)]
        assert self.kv.used_everywhere(tokens).tolist() == used
        short = [r for r in range(self.ranks) if used[r] > self.capacity]
        assert self.kv.short_ranks(tokens) == short
        assert not (self.kv.surely_fits(tokens) and short)
        most = max(n for n in range(tokens + 1) if self.fits(n))
        assert self.kv.most_tokens(tokens) == most
        for rank in range(self.ranks):
            free = self.capacity - used[rank]
            assert self.kv.free(rank, tokens) == free
            if free >= 0:
                assert self.kv.fits(rank, free, tokens)
            assert not self.kv.fits(rank, free + 1, tokens)

    @precondition(lambda self: any(s.offset is not None for s in self.seqs))
    @rule(tokens=st.integers(1, 12))
    def advance(self, tokens: int) -> None:
        """Let every growing sequence gain as many tokens as fit."""
        tokens = max(n for n in range(tokens + 1) if self.fits(n))
        self.kv.advance(tokens)
        for seq in self.seqs:
            seq.tokens += tokens if seq.offset is not None else 0
        for rank in range(self.ranks):
            self.settle(rank)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "kv"):
            return
        for rank in range(self.ranks):
            assert self.kv.used(rank) == self.model_used(rank)
            for unit in self.known - self.pinned(rank):
                assert self.kv.match(rank, [unit]) == (unit in self.idle[rank])
            assert self.kv.used(rank) + len(self.idle[rank]) * self.unit_blocks <= self.capacity
            mine = [s for s in self.seqs if s.rank == rank]
            if not any(s.units for s in mine):  # what does not grow is reported in full blocks
                grow = sum(s.tokens for s in mine if s.offset is not None)
                rest = sum(self.blocks(s.tokens) for s in mine if s.offset is None)
                assert self.kv.tokens_held(rank) == grow + rest * self.block
        assert self.kv.growing.sum() == sum(s.offset is not None for s in self.seqs)

    def teardown(self) -> None:
        """After the drain every block is free and nothing grows."""
        if not hasattr(self, "kv"):
            return
        for seq in list(self.seqs):
            if seq.offset is not None:
                self.kv.leave(seq.rank, seq.offset)
            self.kv.release(seq.rank, self.blocks(seq.tokens) - len(seq.units) * self.unit_blocks)
            if seq.units:
                self.kv.unpin(seq.rank, seq.units)
        assert not self.kv.used_everywhere(7 * self.block + 1).any()
        assert not self.kv.growing.any()
        assert self.kv.surely_fits(10**9)


KvMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestKvBlocks = KvMachine.TestCase


def test_units_are_evicted_oldest_first_and_tails_before_heads() -> None:
    cache = PrefixCache()
    first, second = chain(1, 3), chain(2, 2)
    for unit in first + second:
        assert cache.add(unit)
    assert not cache.add(first[0])
    assert cache.unpin(second) == 2
    assert cache.unpin(first) == 3
    assert cache.pin(second) == 2  # used again: the youngest when it rests once more
    cache.unpin(second)
    gone = []
    while cache.num_idle:
        before = [unit for unit in first + second if cache.match([unit])]
        cache.evict()
        gone += [unit for unit in before if not cache.match([unit])]
    assert gone == [102, 101, 100, 201, 200]


def test_a_unit_rests_only_when_its_last_user_left() -> None:
    cache = PrefixCache()
    cache.add(5)
    assert cache.pin([5]) == 0
    assert cache.unpin([5]) == 0
    assert cache.num_idle == 0
    assert cache.unpin([5]) == 1
    assert cache.count_idle([5]) == 1


def test_match_stops_at_the_first_gap() -> None:
    cache = PrefixCache()
    for unit in (0, 2):
        cache.add(unit)
    assert cache.match([0, 1, 2]) == 1
    assert cache.match([1]) == 0
    assert cache.match([]) == 0


def test_growth_of_two_sequences_by_hand() -> None:
    """Blocks of 4: with 4 tokens the next one opens a block, with 6 the third next."""
    kv = KvBlocks(num_ranks=2, capacity_blocks=3, block_tokens=4)
    for rank, tokens in ((0, 4), (1, 6)):
        kv.take(rank, kv.blocks_for(tokens))
        kv.join(rank, tokens)
    used = [kv.used_everywhere(n).tolist() for n in (0, 1, 2, 3, 5, 7)]
    assert used == [[1, 2], [2, 2], [2, 2], [2, 3], [3, 3], [3, 4]]
    assert kv.most_tokens(100) == 6
    assert kv.short_ranks(7) == [1]
    assert kv.short_ranks(9) == [0, 1]
    kv.advance(3)
    assert [kv.used(0), kv.used(1)] == [2, 3]


def test_releasing_what_nobody_held_is_our_bug() -> None:
    kv = KvBlocks(num_ranks=1, capacity_blocks=4, block_tokens=16)
    kv.take(0, 2)
    with pytest.raises(InvariantError, match="released 3 KV blocks"):
        kv.release(0, 3)
