"""Contract tests of policies on random views: what the engine will insist on, found before a run.

Built-in policies pass these in the project's tests; `simpod check` runs them on a user's policy.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np

from simpod.errors import PolicyError
from simpod.policies.expert_checks import check_expert_balancer
from simpod.policies.roles import BatchPlan, Ints


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

    @property
    def held_seqs(self) -> Ints:
        """Requests there, waiting or running."""
        held: Ints = self.waiting_seqs + self.running_seqs
        return held


def batch_views(rng: np.random.Generator, count: int) -> Iterator[FakeBatchView]:
    """Random ranks before a step: idle ones, full ones, without budget, without slots."""
    for _ in range(count):
        budget = int(rng.choice([64, 512, 2048, 8192]))
        decoding = int(rng.integers(0, 65)) if rng.random() < 0.8 else 0
        sequences = tuple(_sequence(rng, seq_id) for seq_id in range(int(rng.integers(0, 12))))
        yield FakeBatchView(
            now_s=float(rng.uniform(10.0, 20.0)),
            max_step_tokens=budget,
            num_decoding=decoding,
            sequences=tuple(sorted(sequences, key=lambda s: (not s.is_running, s.arrival_s))),
            free_seq_slots=int(rng.integers(0, 9)),
            free_blocks=int(rng.integers(0, 4096)),
        )


def _sequence(rng: np.random.Generator, seq_id: int) -> FakeSequence:
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
        )


def check_batch_scheduler(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random views, none if the contract holds.

    A plan names prompts that are there, with chunks of 1 to their uncomputed tokens; keeps the
    token budget and the free slots; is the same when two fresh policies are asked alike; and does
    not idle while a prompt waits, with budget, slots and blocks to spare and nothing else to do.
    """
    problems: list[str] = []
    first, second = make(), make()
    for index, view in enumerate(batch_views(np.random.default_rng(7), views)):
        plan = _call(first, name, view)
        again = _call(second, name, view)
        problems += [f"view {index}: {problem}" for problem in _plan_problems(view, plan)]
        if isinstance(plan, BatchPlan) and plan != again:
            problems.append(f"view {index}: two fresh policies, same views, other plans")
    return problems


def _plan_problems(view: FakeBatchView, plan: Any) -> Iterator[str]:
    if not isinstance(plan, BatchPlan):
        yield f"returned {plan!r}, not a BatchPlan"
        return
    chunks = plan.prefill_chunks
    if not isinstance(chunks, Mapping):
        yield f"prefill_chunks {chunks!r} is no mapping of sequences to tokens"
        return
    if odd := [chunk for chunk in chunks.values() if not isinstance(chunk, Integral)]:
        yield f"chunk of {odd[0]!r}; allowed: an integer >= 1"
        return
    uncached = {seq.seq_id: seq.uncached_tokens for seq in view.sequences}
    for seq_id, chunk in chunks.items():
        if seq_id not in uncached:
            yield f"names sequence {seq_id}, which is not there"
        elif not 1 <= chunk <= uncached[seq_id]:
            yield f"chunk of {chunk} tokens; allowed: 1 to {uncached[seq_id]}"
    budget = view.max_step_tokens - (view.num_decoding if plan.decode else 0)
    total = sum(chunks.values())
    if chunks and total > budget:
        yield f"chunks of {total} tokens; the budget left is {budget}"
    if len(chunks) > view.free_seq_slots:
        yield f"{len(chunks)} prompts; {view.free_seq_slots} slots are free"
    has_room = view.free_seq_slots > 0 and view.max_step_tokens > view.num_decoding
    if uncached and not chunks and has_room and (not plan.decode or view.num_decoding == 0):
        yield f"idles while {len(uncached)} prompts wait"


def check_router(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random views: the choice is a target, and the same for the same history.

    A router serves one pool all its life, so each size of pool has a pair of its own.
    """
    problems: list[str] = []
    pairs: dict[int, tuple[Any, Any]] = {}
    rng = np.random.default_rng(7)
    for index, view in enumerate(router_views(rng, views)):
        first, second = pairs.setdefault(view.num_targets, (make(), make()))
        request = _sequence(rng, index)
        twin = FakeRouterView(**{f: getattr(view, f) for f in _ROUTER_FIELDS})
        choice, again = _call(first, name, view, request), _call(second, name, twin, request)
        if not isinstance(choice, int | np.integer) or not 0 <= choice < view.num_targets:
            problems.append(f"view {index}: chose {choice!r} of {view.num_targets} targets")
        elif choice != again:
            problems.append(f"view {index}: two fresh policies, same views, other targets")
    return problems


_ROUTER_FIELDS = (
    "now_s",
    "num_targets",
    "waiting_seqs",
    "running_seqs",
    "queued_tokens",
    "kv_tokens",
)

CHECKS: dict[str, Callable[..., list[str]]] = {
    "batching": check_batch_scheduler,
    "experts": check_expert_balancer,
    "router": check_router,
}
"""Role -> its contract test."""


def _call(policy: Callable[..., Any], name: str, *arguments: Any) -> Any:
    try:
        return policy(*arguments)
    except Exception as error:  # the policy's code: whatever it raises, the policy is to blame
        raise PolicyError(name, f"raised {error!r} on a random view") from error
