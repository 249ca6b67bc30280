"""The laws of the engine on random small experiments; see docs/laws.md."""

import dataclasses
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_cases import assert_same, digest, tables
from engine_random import (
    EXAMPLES,
    FIXED_CASES,
    Experiment,
    assert_all_tokens,
    experiments,
    inputs_of,
    random_experiment,
    requests_of,
    run,
)
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from simpod.engine import Simulation
from simpod.metrics.attribution import ttft_parts_s
from simpod.policies import BUILT_IN, PolicyRef, resolve
from simpod.records.columns import FINISHED, LIVE, REFUSED, RunRecords

law = settings(max_examples=EXAMPLES)
TINY_S = 1e-9


def group_of(records: RunRecords, sim: Simulation) -> np.ndarray:
    """[n] index of the group that first works for each request."""
    requests = records.requests
    target = np.where(requests.prefill_target >= 0, requests.prefill_target, requests.decode_target)
    return target // sim.entry.spec.layout.dp


def gaps_between_steps(records: RunRecords, group: int) -> list[tuple[float, float]]:
    """Idle intervals of a group, between its first and its last step."""
    here = records.steps.group == group
    starts, ends = records.steps.start_s[here], records.steps.end_s[here]
    is_idle = starts[1:] > ends[:-1]
    return list(zip(ends[:-1][is_idle], starts[1:][is_idle], strict=True))


# --- conservation ---------------------------------------------------------------------------------


@law
@given(experiments())
@example(random_experiment(2, {}))  # two ranks whose prompts in turn pause each other's decodes
def test_every_request_that_was_sent_is_finished_or_refused(case: Experiment) -> None:
    sim, records = run(case)
    status = records.requests.status
    assert records.requests.request_id.tolist() == list(range(case.num_requests))
    assert (status == FINISHED).sum() + (status == REFUSED).sum() == case.num_requests
    assert sim.source.num_sent == case.num_requests
    lengths = records.requests.prompt_tokens + records.requests.output_tokens
    drafts = 1 if case.acceptance else 0
    if case.shape != "split":
        capacity = -(-case.kv_tokens // case.block_tokens) * case.block_tokens - drafts
        np.testing.assert_array_equal(status == REFUSED, lengths > capacity)


@law
@given(experiments(), st.floats(0.05, 0.95))
def test_a_run_that_is_cut_off_is_the_start_of_the_whole(case: Experiment, part: float) -> None:
    """Arrived = finished + refused + live; what has finished did so at the same times."""
    _, whole = run(case)
    cut_s = part * whole.end_s
    assume(cut_s > 0)
    sim, cut = run(case, duration_s=cut_s)
    ids, status = cut.requests.request_id, cut.requests.status
    assert sim.source.num_sent == len(ids)
    assert np.isin(status, [FINISHED, REFUSED, LIVE]).all()
    assert len(sim.live) == (status == LIVE).sum()
    np.testing.assert_array_equal(ids, np.flatnonzero(whole.requests.arrival_s < cut_s))
    finish_s = whole.requests.finish_s[ids]
    np.testing.assert_array_equal(status == FINISHED, finish_s < cut_s)
    done = status == FINISHED
    np.testing.assert_array_equal(cut.requests.finish_s[done], finish_s[done])
    np.testing.assert_array_equal(
        cut.requests.first_token_s[done], whole.requests.first_token_s[ids][done]
    )
    assert (cut.steps.end_s <= cut_s).all()


@law
@given(experiments())
def test_every_finished_request_got_its_tokens(case: Experiment) -> None:
    sim, records = run(case)
    assert_all_tokens(case, sim, records)
    requests = records.requests
    for row in np.flatnonzero(requests.status == FINISHED).tolist():
        passes = sim.tokens_of_prompts[int(requests.request_id[row])]
        assert passes <= 1 + requests.num_preemptions[row]


@law
@given(experiments())
def test_prompt_tokens_are_computed_once_unless_cached_or_preempted(case: Experiment) -> None:
    sim, records = run(case)
    requests, steps = records.requests, records.steps
    accepted = requests.status == FINISHED
    uncached = (requests.prompt_tokens - requests.cached_tokens)[accepted].sum()
    if case.shape == "decode":
        uncached = 0
    scheduled = steps.prefill_tokens.sum()
    assert scheduled >= uncached
    if not requests.num_preemptions.any():
        assert scheduled == uncached
    elif not case.prefix_caching:
        # what a preempted prompt had computed in part is lost on top of this
        assert scheduled >= sum(sim.computed.values())
    assert (requests.cached_tokens < requests.prompt_tokens)[accepted].all()
    assert (requests.cached_tokens[accepted] == 0).all() or case.prefix_caching


JOIN_AT_ONCE = Experiment(
    shape="mixed",
    dp=4,
    instances=2,
    slots=5,
    step_tokens=512,
    block_tokens=1,
    kv_tokens=43,
    prefix_caching=True,
    reserve_full_prompt=False,
    acceptance=0.5,
    batching="splitfuse",
    router="prefix_affinity",
    real_prices=True,
    first_token_from_decode=False,
    swaps=True,
    migrates=False,
    has_paces=False,
    leads=False,
    load="ticks",
    num_requests=29,
    seed=198,
)
"""Two prompts begin to decode at once where nothing decoded, and fill the last blocks together."""


@law
@given(experiments())
@example(JOIN_AT_ONCE)
def test_prefix_hits_are_whole_units_of_what_others_computed_before(case: Experiment) -> None:
    case = replace(case, prefix_caching=True, shape="mixed", migrates=False)
    _, records = run(case)
    load, requests = requests_of(case), records.requests
    for row in np.flatnonzero(requests.cached_tokens > 0).tolist():
        cached = int(requests.cached_tokens[row])
        assert cached % max(4, case.block_tokens) == 0
        needed = load.prefix_ids(row)[cached // 4 - 1]
        # one of its chunks was done: a prompt is shared chunk by chunk
        before = requests.scheduled_s < requests.scheduled_s[row] - TINY_S
        same_rank = requests.prefill_target == requests.prefill_target[row]
        assert any(needed in load.prefix_ids(other) for other in np.flatnonzero(before & same_rank))


@law
@given(experiments())
def test_nothing_is_left_after_the_drain(case: Experiment) -> None:
    sim, _ = run(case)
    assert not sim.live
    for group in sim.groups:
        assert not group.kv.used_everywhere(100).any()
        assert not group.kv.growing.any()
        assert not group.batch.decode_seqs.any()
        assert not group.batch.prefill_tokens.any()
        assert (group.num_decoding, group.context_tokens, group.prefill_tokens) == (0, 0, 0)
        for rank in group.ranks:
            held = (rank.inbox, rank.waiting, rank.partial, rank.running, rank.pinned, rank.chunks)
            assert not any((*held, rank.paused))
            assert not rank.at_boundary
            assert rank.host is None or not (rank.host.leaving or rank.host.held)
            assert (rank.num_decoding, rank.num_pulling) == (0, 0)
    for pool in sim.pools:
        for name in ("waiting_seqs", "running_seqs", "held_seqs", "queued_tokens", "kv_tokens"):
            assert not np.asarray(getattr(pool.dispatch, name)).any(), name


# --- time -----------------------------------------------------------------------------------------


@law
@given(experiments())
def test_causes_come_before_effects(case: Experiment) -> None:
    _, records = run(case)
    requests = records.requests
    done = requests.status == FINISHED
    chain = ["arrival_s", "scheduled_s", "prefill_end_s", "first_token_s", "finish_s"]
    times_s = np.array([getattr(requests, name)[done] for name in chain])
    assert not np.isnan(times_s).any()
    assert (np.diff(times_s, axis=0) >= 0).all()
    pulled = done & ~np.isnan(requests.transfer_start_s)
    moves = ["prefill_end_s", "transfer_start_s", "transfer_end_s", "finish_s"]
    times_s = np.array([getattr(requests, name)[pulled] for name in moves])
    assert (np.diff(times_s, axis=0) >= 0).all()
    if case.shape == "split":
        assert (np.diff(times_s, axis=0)[1:] > 0).all()
    late = requests_of(case)
    for row in np.flatnonzero(late.after >= 0).tolist():
        end_s = requests.finish_s[late.after[row]]
        if not np.isnan(end_s):
            assert requests.arrival_s[row] == end_s + late.think_s[row]


@law
@given(experiments())
def test_steps_of_a_group_follow_each_other(case: Experiment) -> None:
    _, records = run(case)
    steps = records.steps
    assert (steps.end_s > steps.start_s).all()
    assert (steps.decode_seqs + steps.prefill_tokens > 0).all()
    for index, group in enumerate(records.groups):
        here = steps.group == index
        assert (steps.start_s[here][1:] >= steps.end_s[here][:-1]).all()
        np.testing.assert_array_equal(
            steps.first_step[here], np.cumsum(steps.num_steps[here]) - steps.num_steps[here]
        )
        assert group.num_steps == steps.num_steps[here].sum()
        assert group.busy_s == pytest.approx((steps.end_s - steps.start_s)[here].sum())
        assert (np.diff(group.decode_end_s) > 0).all()
        ends = steps.end_s[here & (steps.decode_seqs > 0)]
        np.testing.assert_allclose(np.intersect1d(group.decode_end_s, ends), ends, rtol=1e-12)


@law
@given(experiments())
def test_parts_add_up(case: Experiment) -> None:
    """The parts of a step add up to it, the parts of a TTFT add up to it, and none is negative."""
    _, records = run(case)
    steps, requests = records.steps, records.requests
    assert (steps.parts_s >= 0).all()
    np.testing.assert_allclose(steps.parts_s.sum(axis=1), steps.end_s - steps.start_s, rtol=1e-9)
    parts = ttft_parts_s(requests)
    done = requests.status == FINISHED
    ttft_s = (requests.first_token_s - requests.arrival_s)[done]
    np.testing.assert_allclose(sum(parts.values())[done], ttft_s, rtol=1e-9, atol=TINY_S)
    for name, part in parts.items():
        assert (part[done] >= -TINY_S).all(), name


@law
@given(experiments())
def test_steps_keep_slots_and_budget(case: Experiment) -> None:
    sim, records = run(case)
    for index, group in enumerate(sim.groups):
        here = records.steps.group == index
        ranks = group.spec.layout.dp
        decodes, prompts = records.steps.decode_seqs[here], records.steps.prefill_tokens[here]
        assert (decodes <= case.slots * ranks).all()
        assert (prompts <= case.step_tokens * ranks).all()
        if ranks == 1 and case.shape != "decode":  # there, prompts come with their KV in between
            assert (decodes + prompts <= max(case.step_tokens, case.slots)).all()
        if case.batching == "prefill_first" and ranks == 1:
            assert (np.minimum(decodes, prompts) == 0).all()


@law
@given(experiments())
def test_no_group_idles_while_work_waits(case: Experiment) -> None:
    """Between two steps with a pause, the group has no request that it could work for.

    Not counted: prompts that find no blocks because other prompts of the rank wait to be pulled,
    requests that change the group, and runs in which KV was on its way to or from hosts.
    """
    case = replace(case, migrates=False)
    sim, records = run(case)
    requests = records.requests
    assume(not (case.swaps and requests.num_preemptions.any()))
    groups = group_of(records, sim)
    for index in range(len(sim.entry.groups)):
        here = (groups == index) & (requests.status == FINISHED)
        if case.shape == "split":
            here &= requests.num_preemptions == 0
            came, left = requests.scheduled_s[here], requests.prefill_end_s[here]
        else:
            came, left = requests.arrival_s[here], requests.finish_s[here]
        for start_s, end_s in gaps_between_steps(records, index):
            assert not ((came < end_s) & (left > start_s)).any()
    if case.shape == "split" and not requests.num_preemptions.any():
        index = len(sim.entry.groups)
        done = (requests.status == FINISHED) & ~np.isnan(requests.transfer_end_s)
        came, left = requests.transfer_end_s[done], requests.finish_s[done]
        for start_s, end_s in gaps_between_steps(records, index):
            assert not ((came < end_s) & (left > start_s)).any()


# --- sameness -------------------------------------------------------------------------------------


@settings(max_examples=4 * EXAMPLES)
@given(experiments())
@example(random_experiment(12, {}))  # a decode ends at the instant of a hand-over
def test_skipping_ahead_changes_nothing(case: Experiment) -> None:
    _, fast = run(case)
    _, slow = run(case, skip_ahead=False)
    assert_same(fast, slow)


@law
@given(experiments())
def test_the_same_experiment_gives_the_same_bytes(case: Experiment) -> None:
    assert digest(run(case)[1]) == digest(run(case)[1])


IN_ANOTHER_PROCESS = """
from engine_cases import digest
from engine_random import FIXED_CASES, run
print(*(digest(run(case)[1]) for case in FIXED_CASES))
"""


def test_two_processes_give_the_same_bytes() -> None:
    here = Path(__file__).parent
    paths = [str(here), str(here.parent)]
    other_seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        env=os.environ | {"PYTHONHASHSEED": other_seed, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    mine = [digest(run(case)[1]) for case in FIXED_CASES]
    assert done.stdout.split() == mine
    assert len(set(mine)) == len(FIXED_CASES)


def has_a_clock_of_its_own(role: str, name: str) -> bool:
    """The policy has a parameter in seconds, or a speed."""
    make = BUILT_IN[role][name]
    module, _, attribute = make.partition(":")
    policy = getattr(import_module(module), attribute)
    names = [f.name for f in dataclasses.fields(policy)] if dataclasses.is_dataclass(policy) else []
    return any(field.endswith("_s") for field in names)


@law
@given(experiments(real_prices=False))
def test_twice_as_slow_takes_twice_as_long(case: Experiment) -> None:
    """All prices and arrivals doubled: every time doubles to the bit, every count stays."""
    assume(not has_a_clock_of_its_own("batching", case.batching))
    assume(not has_a_clock_of_its_own("router", case.router))
    once, twice = tables(run(case)[1]), tables(run(case, time_scale=2.0)[1])
    for name, column in once.items():
        if name.endswith("_s"):
            np.testing.assert_array_equal(2.0 * column, twice[name], err_msg=name)
        elif column.dtype.kind == "i":
            np.testing.assert_array_equal(column, twice[name], err_msg=name)


@law
@given(experiments(shape="mixed", instances=1, migrates=False), st.permutations(range(4)))
def test_ranks_have_no_names(case: Experiment, order: list[int]) -> None:
    """The same requests on renamed ranks of a group take the same times."""
    names = [rank for rank in order if rank < case.dp]
    plain = run(case, router=lambda view, seq: (7 * seq.seq_id) % case.dp)[1].requests
    named = run(case, router=lambda view, seq: names[(7 * seq.seq_id) % case.dp])[1].requests
    for name in ("scheduled_s", "prefill_end_s", "first_token_s", "finish_s", "cached_tokens"):
        first, second = getattr(plain, name), getattr(named, name)
        if case.load in ("poisson", "ticks"):
            np.testing.assert_allclose(first, second, rtol=1e-9, err_msg=name)
        else:  # who finishes first among equals decides who is followed
            np.testing.assert_allclose(np.sort(first), np.sort(second), rtol=1e-9, err_msg=name)


# --- what policies may know ---------------------------------------------------------------------


def decisions(case: Experiment, outputs: np.ndarray) -> tuple[list[Any], RunRecords]:
    """Every decision of a run, with its time, under other output lengths."""
    log: list[Any] = []
    make = resolve("batching", PolicyRef(case.batching))
    make_router = resolve("router", PolicyRef(case.router))
    routers: dict[int, Any] = {}  # of each pool, which has one view

    def make_logging() -> Any:
        policy = make()

        def plan(view: Any) -> Any:
            decision = policy(view)
            switches = (dict(decision.preempt), tuple(decision.resume), decision.review_tokens)
            log.append((view.now_s, dict(decision.prefill_chunks), decision.decode, *switches))
            return decision

        return plan

    def route(view: Any, request: Any) -> int:
        target = routers.setdefault(id(view), make_router())(view, request)
        log.append((view.now_s, request.seq_id, target))
        return target

    requests = replace(requests_of(case), output_tokens=outputs)
    inputs = inputs_of(case, batching=make_logging, router=route, requests=requests)
    return log, Simulation(inputs).run()


@law
@given(experiments(), st.floats(0.0, 0.9))
def test_no_decision_depends_on_an_output_to_come(case: Experiment, part: float) -> None:
    """Whatever has not finished by T may turn out longer: all decisions before T are the same.

    Room is left so that the longer ones are not refused.
    """
    case = replace(case, kv_tokens=case.kv_tokens + 100)
    outputs = requests_of(case).output_tokens
    log, records = decisions(case, outputs)
    horizon_s = part * records.end_s
    finish_s = records.requests.finish_s
    longer = np.where(finish_s > horizon_s, outputs + 13, outputs)
    other_log, _ = decisions(case, longer)
    before = [entry for entry in log if entry[0] < horizon_s]
    assert before == [entry for entry in other_log if entry[0] < horizon_s]
