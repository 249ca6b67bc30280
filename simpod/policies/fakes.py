"""Views out of thin air, for the contract tests and for cases by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import numpy as np

from simpod.policies.roles import Floats, Ints


@dataclass(frozen=True, slots=True)
class FakeSequence:
    """A `SequenceView` and `RouteRequest` out of thin air."""

    seq_id: int
    arrival_s: float
    prompt_tokens: int
    uncached_tokens: int
    is_running: bool
    ttft_deadline_s: float
    session_id: int = -1
    prefix_hashes: tuple[int, ...] = ()
    tenant: int = 0
    priority: int = 0
    predicted_tokens: float = float("nan")
    max_tokens: int = 0
    ignores_eos: bool = False
    emitted_tokens: int = 0
    context_tokens: int = 0
    held_blocks: int = 0
    since_s: float | None = None

    @property
    def queued_s(self) -> float:
        """Since when it waits."""
        return self.arrival_s if self.since_s is None else self.since_s


@dataclass(frozen=True, slots=True)
class FakeBatchView:
    """A `BatchView` out of thin air."""

    now_s: float
    max_step_tokens: int
    num_decoding: int
    sequences: tuple[FakeSequence, ...]
    free_seq_slots: int
    free_blocks: int
    block_tokens: int = 16
    decodes: tuple[FakeSequence, ...] = ()
    pauses: tuple[FakeSequence, ...] = ()
    can_swap: bool = False
    freeing_blocks: int = 0
    total_blocks: int = 8192
    tokens_per_decode: int = 1
    served_tokens: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    prompt_tokens_per_s: float = 0.0
    decode_steps: int = 0
    num_ranks: int = 1
    ranks_prefilling: int = 1
    ranks_decoding: int = 1

    @property
    def decoding(self) -> Iterator[FakeSequence]:
        """Sequences that decode."""
        return iter(self.decodes)

    @property
    def paused(self) -> Iterator[FakeSequence]:
        """Sequences that were paused."""
        return iter(self.pauses)

    @property
    def prefilling(self) -> Iterator[FakeSequence]:
        """Prompts computed in part, then waiting ones."""
        return iter(self.sequences)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeRouterView:
    """A `RouterView` out of thin air; arrays [num_targets] are read-only."""

    now_s: float
    num_targets: int
    waiting_seqs: Ints
    running_seqs: Ints
    queued_tokens: Ints
    kv_tokens: Ints
    max_num_seqs: int = 64
    kv_capacity_tokens: int = 1_000_000
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    ranks_per_instance: int = 1
    prompt_tokens_per_s: float = 0.0
    hits: Ints | None = None
    readable_tokens: int = 0
    computing: Ints | None = None

    @property
    def computing_tokens(self) -> Ints:
        """[num_targets] prompt tokens of the steps under way; 0 if not given."""
        none = np.zeros(self.num_targets, dtype=np.int64)
        return none if self.computing is None else self.computing

    def hit_tokens(self, request: Any, /) -> Ints:
        """[num_targets] tokens of any prompt in each target's prefix cache."""
        none = np.zeros(self.num_targets, dtype=np.int64)
        return none if self.hits is None else np.minimum(self.hits, request.prompt_tokens - 1)

    def reusable_tokens(self, request: Any, /) -> Ints:
        """[num_targets] the same, or what is in shared memory."""
        readable = min(self.readable_tokens, request.prompt_tokens - 1)
        reusable: Ints = np.maximum(self.hit_tokens(request), readable)
        return reusable

    @property
    def held_seqs(self) -> Ints:
        """Requests there, waiting or running."""
        held: Ints = self.waiting_seqs + self.running_seqs
        return held


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeAdmissionView:
    """An `AdmissionView` out of thin air."""

    now_s: float
    entry: FakeRouterView
    decode: FakeRouterView
    decode_step_s: Floats
    ttft_target_s: float = 2.0
    tpot_target_s: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class FakePredictorView:
    """A `PredictorView` out of thin air."""

    prompt_tokens: Ints
    output_tokens: Ints
    rng: np.random.Generator


def batch_views(rng: np.random.Generator, count: int) -> Iterator[FakeBatchView]:
    """Random ranks before a step: idle ones, full ones, without budget, without slots."""
    for _ in range(count):
        budget = int(rng.choice([64, 512, 2048, 8192]))
        decoding = int(rng.integers(0, 65)) if rng.random() < 0.8 else 0
        sequences = tuple(
            random_sequence(rng, seq_id) for seq_id in range(int(rng.integers(0, 12)))
        )
        decodes = tuple(_decoding(rng, 100 + place) for place in range(decoding))
        yield FakeBatchView(
            now_s=float(rng.uniform(10.0, 20.0)),
            max_step_tokens=budget,
            num_decoding=decoding,
            sequences=tuple(sorted(sequences, key=lambda s: (not s.is_running, s.arrival_s))),
            free_seq_slots=int(rng.integers(0, 9)),
            free_blocks=int(rng.integers(0, 4096)),
            decodes=decodes,
            pauses=tuple(_decoding(rng, 200 + k) for k in range(int(rng.integers(0, 3)))),
            can_swap=bool(rng.random() < 0.5),
            served_tokens={tenant: (int(rng.integers(1, 9999)), 100) for tenant in range(2)},
        )


def random_sequence(rng: np.random.Generator, seq_id: int) -> FakeSequence:
    """Return a prompt that waits, or is computed in part."""
    prompt = int(rng.integers(1, 20_000))
    arrival_s = float(rng.uniform(0.0, 10.0))
    return FakeSequence(
        seq_id=seq_id,
        arrival_s=arrival_s,
        prompt_tokens=prompt,
        uncached_tokens=int(rng.integers(1, prompt + 1)),
        is_running=bool(rng.random() < 0.2),
        ttft_deadline_s=arrival_s + 2.0 if rng.random() < 0.8 else float("inf"),
        session_id=int(rng.integers(-1, 4)),
        prefix_hashes=tuple(range(seq_id % 3, seq_id % 3 + int(rng.integers(0, 20)))),
        tenant=int(rng.integers(0, 3)),
        priority=int(rng.integers(0, 3)),
        predicted_tokens=float(rng.integers(1, 1000)) if rng.random() < 0.8 else float("nan"),
        max_tokens=int(rng.integers(600, 3000)) if rng.random() < 0.8 else 0,
        ignores_eos=bool(rng.random() < 0.5),
    )


def _decoding(rng: np.random.Generator, seq_id: int) -> FakeSequence:
    """A sequence that decodes, or is paused with its KV in place."""
    emitted = int(rng.integers(1, 500))
    seq = random_sequence(rng, seq_id)
    tokens = seq.prompt_tokens + emitted
    return replace(
        seq,
        uncached_tokens=0,
        is_running=True,
        emitted_tokens=emitted,
        context_tokens=tokens,
        held_blocks=-(-tokens // 16),
    )


def router_views(rng: np.random.Generator, count: int) -> Iterator[FakeRouterView]:
    """Random pools: one target to many, idle ones, full ones."""
    for _ in range(count):
        targets = int(rng.choice([1, 2, 3, 17, 288]))

        def counts(most: int, size: int = targets) -> Ints:
            values = rng.integers(0, most, size=size)
            values.flags.writeable = False
            return values

        yield FakeRouterView(
            now_s=float(rng.uniform(0.0, 10.0)),
            num_targets=targets,
            waiting_seqs=counts(4),
            running_seqs=counts(65),
            queued_tokens=counts(50_000),
            kv_tokens=counts(1_000_000),
            hits=counts(10_000),
            readable_tokens=int(rng.integers(0, 10_000)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeLeaderView:
    """A `LeaderView` out of thin air."""

    now_s: float
    num_ranks: int
    max_step_tokens: int
    waiting: tuple[FakeSequence, ...]
    under_way: tuple[tuple[int, FakeSequence], ...] = ()
    free_tokens: Ints
    hits: Ints | None = None  # [num_ranks] of any prompt
    readable_tokens: int = 0  # of any prompt

    def hit_tokens(self, prompt: Any, /) -> Ints:
        """[num_ranks] tokens of any prompt in each rank's prefix cache."""
        none = np.zeros(self.num_ranks, dtype=np.int64)
        return none if self.hits is None else np.minimum(self.hits, prompt.prompt_tokens - 1)

    def reusable_tokens(self, prompt: Any, /) -> Ints:
        """[num_ranks] the same, or what is in shared memory."""
        readable = min(self.readable_tokens, prompt.prompt_tokens - 1)
        reusable: Ints = np.maximum(self.hit_tokens(prompt), readable)
        return reusable


def leader_views(rng: np.random.Generator, count: int) -> Iterator[FakeLeaderView]:
    """Random instances of one rank to many: idle ones, full ones, prompts under way."""
    for _ in range(count):
        ranks = int(rng.choice([1, 2, 8, 17]))
        prompts = [random_sequence(rng, seq_id) for seq_id in range(int(rng.integers(0, 12)))]
        prompts.sort(key=attrgetter("arrival_s"))
        yield FakeLeaderView(
            now_s=float(rng.uniform(10.0, 20.0)),
            num_ranks=ranks,
            max_step_tokens=int(rng.choice([512, 8192, 65_536])),
            waiting=tuple(
                replace(seq, uncached_tokens=seq.prompt_tokens)
                for seq in prompts
                if not seq.is_running
            ),
            under_way=tuple((int(rng.integers(ranks)), seq) for seq in prompts if seq.is_running),
            free_tokens=rng.integers(0, 100_000, ranks),
            hits=rng.integers(0, 10_000, ranks),
            readable_tokens=int(rng.integers(0, 10_000)),
        )


@dataclass(frozen=True, slots=True)
class FakeCacheView:
    """A `CacheView` out of thin air."""

    by_last_use: tuple[int, ...]
    by_entry: tuple[int, ...]
    counts: Mapping[int, int]
    depths: Mapping[int, int] = field(default_factory=dict)
    wanted: Mapping[int, float] = field(default_factory=dict)

    @property
    def num_blocks(self) -> int:
        """Blocks held."""
        return len(self.by_entry)

    @property
    def by_hits(self) -> Iterator[int]:
        """Blocks, those with the fewest hits first."""
        return iter(sorted(self.by_last_use, key=self.counts.__getitem__))

    def hits(self, block: int, /) -> int:
        """Reads of a block."""
        return self.counts[block]

    @property
    def num_uses(self) -> int:
        """As many as there are blocks."""
        return len(self.by_last_use)

    def last_use(self, block: int, /) -> int:
        """Place in the order of last uses, from 1."""
        return 1 + self.by_last_use.index(block)

    def depth(self, block: int, /) -> int:
        """Blocks before it."""
        return self.depths.get(block, 0)

    def wanted_place(self, block: int, /) -> float:
        """Place in the queue of who waits for it."""
        return self.wanted.get(block, float("inf"))


def cache_views(rng: np.random.Generator, count: int) -> Iterator[FakeCacheView]:
    """Random full caches, of one block to many."""
    for _ in range(count):
        blocks = rng.permutation(int(rng.integers(1, 40))).tolist()
        yield FakeCacheView(
            by_last_use=tuple(rng.permutation(blocks).tolist()),
            by_entry=tuple(blocks),
            counts={block: int(rng.integers(0, 4)) for block in blocks},
            depths={block: int(rng.integers(0, 300)) for block in blocks},
            wanted={block: float(rng.integers(0, 9)) for block in blocks if rng.random() < 0.3},
        )


@dataclass(frozen=True, slots=True)
class FakeMigrationView:
    """A `MigrationView` out of thin air."""

    targets: FakeRouterView
    sequences: Mapping[int, tuple[FakeSequence, ...]]

    @property
    def now_s(self) -> float:
        """The moment of the decision."""
        return self.targets.now_s

    def decoding(self, target: int, /) -> Iterator[FakeSequence]:
        """Sequences that decode on a rank."""
        return iter(self.sequences.get(target, ()))


def migration_views(rng: np.random.Generator, count: int) -> Iterator[FakeMigrationView]:
    """Random pools with a few sequences on each target."""
    for targets in router_views(rng, count):
        yield FakeMigrationView(
            targets,
            {
                target: tuple(_decoding(rng, 10 * target + k) for k in range(target % 3))
                for target in range(targets.num_targets)
            },
        )
