"""Contract tests of policies on random views: what the engine will insist on, found before a run.

Built-in policies pass these in the project's tests; `simpod check` runs them on a user's policy.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any, get_args

import numpy as np

from simpod.errors import blaming
from simpod.policies.expert_checks import check_expert_balancer
from simpod.policies.fakes import (
    FakeAdmissionView,
    FakeBatchView,
    FakeLeaderView,
    FakeMigrationView,
    FakePredictorView,
    batch_views,
    cache_views,
    leader_views,
    migration_views,
    random_sequence,
    router_views,
)
from simpod.policies.roles import BatchPlan, Move, Pause, Prediction, Reserving
from simpod.policies.scaling_checks import check_scaling


def check_batch_scheduler(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random views, none if the contract holds.

    A plan names prompts that are there, with chunks of 1 to their uncomputed tokens; keeps the
    token budget and the free slots; is the same when two fresh policies are asked alike; and does
    not idle while a prompt waits, with budget, slots and blocks to spare and nothing else to do.
    `may_pull`, if there is one, says true or false, and true where nobody else is under way.
    """
    problems: list[str] = []
    first, second = make(), make()
    for index, view in enumerate(batch_views(np.random.default_rng(7), views)):
        plan = _call(first, name, view)
        again = _call(second, name, view)
        problems += [f"view {index}: {problem}" for problem in _plan_problems(view, plan)]
        if isinstance(plan, BatchPlan) and plan != again:
            problems.append(f"view {index}: two fresh policies, same views, other plans")
        for policy in (first, second):
            pulls = _pull_problems(policy, name, view)
            problems += [f"view {index}: {problem}" for problem in pulls]
    return problems


def _pull_problems(policy: Any, name: str, view: FakeBatchView) -> Iterator[str]:
    seq = next(iter(view.prefilling), None)
    if seq is None or not isinstance(policy, Reserving):
        return
    is_let_in = _call(policy.may_pull, name, view, [], seq)
    if not isinstance(is_let_in, (bool, np.bool_)):
        yield f"may_pull returned {is_let_in!r}; allowed: True or False"
    elif not is_let_in and not view.num_decoding and not any(view.paused):
        yield f"may_pull refuses sequence {seq.seq_id} where nobody is under way"


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
    yield from _pause_problems(view, plan)
    change = len(plan.resume) - len(plan.preempt)
    decoding = view.num_decoding + change
    budget = view.max_step_tokens - (decoding if plan.decode else 0)
    total = sum(chunks.values())
    if chunks and total > budget:
        yield f"chunks of {total} tokens; the budget left is {budget}"
    slots = view.free_seq_slots - change
    if (chunks or plan.resume) and len(chunks) > slots:
        yield f"{len(chunks)} prompts; {slots} slots are free"
    has_room = view.free_seq_slots > 0 and view.max_step_tokens > view.num_decoding
    does_nothing = not chunks and not plan.resume and (not plan.decode or decoding == 0)
    if uncached and has_room and does_nothing:
        yield f"idles while {len(uncached)} prompts wait"


def _pause_problems(view: FakeBatchView, plan: BatchPlan) -> Iterator[str]:
    decoding = {seq.seq_id for seq in view.decodes}
    for seq_id, how in plan.preempt.items():
        if seq_id not in decoding:
            yield f"preempts sequence {seq_id}, which does not decode"
        if how not in get_args(Pause) or (how == "swap" and not view.can_swap):
            yield f"preempts sequence {seq_id} by {how!r}"
    paused = {seq.seq_id for seq in view.pauses}
    if len(set(plan.resume)) < len(plan.resume) or not paused.issuperset(plan.resume):
        yield f"resumes {list(plan.resume)}; paused are {sorted(paused)}"
    if plan.review_tokens is not None and plan.review_tokens < 1:
        yield f"review_tokens {plan.review_tokens}; allowed: >= 1"


def check_router(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random views: the choice is a target, and the same for the same history.

    A router serves one pool all its life, so each size of pool has a pair of its own.
    """
    problems: list[str] = []
    pairs: dict[int, tuple[Any, Any]] = {}
    rng = np.random.default_rng(7)
    for index, view in enumerate(router_views(rng, views)):
        first, second = pairs.setdefault(view.num_targets, (make(), make()))
        request = random_sequence(rng, index)
        twin = replace(view, rng=np.random.default_rng(0))
        choice, again = _call(first, name, view, request), _call(second, name, twin, request)
        if not isinstance(choice, int | np.integer) or not 0 <= choice < view.num_targets:
            problems.append(f"view {index}: chose {choice!r} of {view.num_targets} targets")
        elif choice != again:
            problems.append(f"view {index}: two fresh policies, same views, other targets")
    return problems


def check_prefill_leader(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random views: waiting prompts, ranks that are there, no idling.

    The answer is the same when two fresh policies are asked alike.
    """
    problems: list[str] = []
    first, second = make(), make()
    for index, view in enumerate(leader_views(np.random.default_rng(7), views)):
        given, again = _call(first, name, view), _call(second, name, view)
        problems += [f"view {index}: {problem}" for problem in _leader_problems(view, given)]
        if given != again:
            problems.append(f"view {index}: two fresh policies, same views, other ranks")
    return problems


def _leader_problems(view: FakeLeaderView, given: Any) -> Iterator[str]:
    if not isinstance(given, Mapping):
        yield f"returned {given!r}, no mapping of sequences to ranks"
        return
    waiting = {seq.seq_id for seq in view.waiting}
    for seq_id, rank in given.items():
        if seq_id not in waiting:
            yield f"names sequence {seq_id!r}, which does not wait"
        if not isinstance(rank, Integral) or not 0 <= int(rank) < view.num_ranks:
            yield f"rank {rank!r} for sequence {seq_id}; allowed: 0 to {view.num_ranks - 1}"
    if waiting and not given and not view.under_way:
        yield f"idles while {len(waiting)} prompts wait"


def check_admission(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random views: the answer is a bool, and the same for the same history."""
    problems: list[str] = []
    rng = np.random.default_rng(7)
    pairs: dict[int, tuple[Any, Any]] = {}
    now_s = 0.0
    for index, entry in enumerate(router_views(rng, views)):
        first, second = pairs.setdefault(entry.num_targets, (make(), make()))
        now_s += float(rng.exponential(1.0))
        view = FakeAdmissionView(
            now_s=now_s,
            entry=entry,
            decode=entry,
            decode_step_s=rng.uniform(0.0, 0.1, entry.num_targets),
        )
        request = random_sequence(rng, index)
        answer, again = _call(first, name, view, request), _call(second, name, view, request)
        if not isinstance(answer, bool | np.bool_):
            problems.append(f"view {index}: answered {answer!r}; allowed: True, False")
        elif answer != again:
            problems.append(f"view {index}: two fresh policies, same views, other answers")
    return problems


def check_length_predictor(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random requests: positive predictions, the same for the same stream."""
    problems: list[str] = []
    rng = np.random.default_rng(7)
    for index in range(max(1, views // 25)):
        num = int(rng.integers(0, 200))
        columns = {
            "prompt_tokens": rng.integers(1, 9999, num),
            "output_tokens": rng.integers(1, 999, num),
        }
        answers = [
            _call(make(), name, FakePredictorView(rng=np.random.default_rng(index), **columns))
            for _ in range(2)
        ]
        problems += [f"view {index}: {problem}" for problem in _predictions(answers, num)]
    return problems


def _predictions(answers: list[Any], num: int) -> Iterator[str]:
    yield from (problems := list(prediction_problems(answers[0], num)))
    if not problems and not np.array_equal(*(a.predicted_tokens for a in answers)):
        yield "two fresh predictors, same stream, other lengths"


def prediction_problems(prediction: Any, num: int) -> Iterator[str]:
    """What is wrong with the prediction of `num` requests."""
    if not isinstance(prediction, Prediction):
        yield f"returned {prediction!r}, not a Prediction"
    elif np.shape(prediction.predicted_tokens) != (num,):
        yield f"predicted {np.shape(prediction.predicted_tokens)} lengths of {num} requests"
    elif not (np.isfinite(prediction.predicted_tokens) & (prediction.predicted_tokens > 0)).all():
        yield "predicted lengths that are not positive and finite"
    elif not 0 <= prediction.cost_s < float("inf"):
        yield f"cost_s {prediction.cost_s}; allowed: >= 0"


def check_cache(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random views: a block that is held, the same when asked twice alike."""
    problems: list[str] = []
    for index, view in enumerate(cache_views(np.random.default_rng(7), views)):
        victim, again = _call(make(), name, view), _call(make(), name, view)
        if victim not in view.counts:
            problems.append(f"view {index}: evicts {victim!r}, which is not held")
        elif victim != again:
            problems.append(f"view {index}: two fresh policies, same views, other victims")
    return problems


def check_migration(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random views: moves of sequences that decode there, each once."""
    problems: list[str] = []
    first, second = make(), make()
    for index, view in enumerate(migration_views(np.random.default_rng(7), views)):
        moves, again = _call(first, name, view), _call(second, name, view)
        problems += [f"view {index}: {problem}" for problem in _move_problems(view, moves)]
        if list(moves) != list(again):
            problems.append(f"view {index}: two fresh policies, same views, other moves")
    return problems


def _move_problems(view: FakeMigrationView, moves: Any) -> Iterator[str]:
    seen: set[int] = set()
    for move in moves:
        if not isinstance(move, Move):
            yield f"returned {move!r}, not a Move"
            return
        here = {seq.seq_id for seq in view.decoding(move.source)}
        if move.seq_id not in here or move.seq_id in seen:
            yield f"moves sequence {move.seq_id}, which does not decode on {move.source}"
        if not 0 <= move.destination < view.targets.num_targets or move.source == move.destination:
            yield f"moves from {move.source} to {move.destination}"
        seen.add(move.seq_id)


CHECKS: dict[str, Callable[..., list[str]]] = {
    "batching": check_batch_scheduler,
    "experts": check_expert_balancer,
    "router": check_router,
    "prefill_leader": check_prefill_leader,
    "admission": check_admission,
    "length_predictor": check_length_predictor,
    "cache": check_cache,
    "migration": check_migration,
    "scaling": check_scaling,
}
"""Role -> its contract test."""


def _call(policy: Callable[..., Any], name: str, *arguments: Any) -> Any:
    with blaming(name, " on a random view"):
        return policy(*arguments)
