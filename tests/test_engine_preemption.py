"""Preemptions that a policy names, by hand: dropped, kept, swapped, resumed; reviews."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engine_cases import (
    LinearPricer,
    assert_same,
    at,
    each_step,
    pool_inputs,
    pool_spec,
    run_inputs,
    simulate,
)

from simpod.cost import KvTransfer
from simpod.engine import Simulation
from simpod.errors import PolicyError
from simpod.policies import BatchPlan, PolicyRef, resolve
from simpod.records.columns import RunRecords

Plan = Callable[[Any], BatchPlan]


def run(
    requests: Any, plan: Plan, *, swap_s: float | None = None, skip: bool = True, **spec: Any
) -> RunRecords:
    """One rank under a plan of one's own; a copy to or from the host takes `swap_s` a token."""
    entry = pool_inputs(pool_spec(**spec), LinearPricer())
    if swap_s is not None:
        link = KvTransfer(latency_s=0.0, bytes_per_token=1.0, s_per_token=swap_s)
        entry = replace(entry, host_link=link)
    inputs = run_inputs(requests, entry, batching=lambda: plan, skip_ahead=skip)
    return Simulation(inputs).run()


def second_first(pause: str) -> Plan:
    """The newest request has the one slot; who is paused goes on when it is done."""

    def plan(view: Any) -> BatchPlan:
        waiting = [seq for seq in view.prefilling if seq.seq_id > 0 or seq.emitted_tokens == 0]
        decoding = [seq.seq_id for seq in view.decoding]
        if waiting:
            chunks = {seq.seq_id: seq.uncached_tokens for seq in waiting[:1]}
            return BatchPlan(chunks, preempt=dict.fromkeys(decoding, pause))
        if decoding:
            return BatchPlan()
        paused = [seq.seq_id for seq in view.paused][:1]
        again = {seq.seq_id: seq.uncached_tokens for seq in view.prefilling}
        return BatchPlan({} if paused else again, resume=paused)

    return plan


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(
    ("pause", "finish_s", "prompt_tokens"),
    [
        # 0 has its tokens at 1, 2, 3; 1 arrives at 2.5 and has its own at 4, 5
        ("keep", 9.0, [4, 0, 0, 2, 0, 0, 0, 0, 0]),  # then 0 gets four more
        ("recompute", 9.0, [4, 0, 0, 2, 0, 7, 0, 0, 0]),  # the same: its prompt gives one
    ],
)
def test_who_makes_way_goes_on_later(
    pause: str, finish_s: float, prompt_tokens: list[int], *, skip: bool
) -> None:
    load = at([0.0, 2.5], [4, 2], [7, 2])
    records = run(load, second_first(pause), max_num_seqs=1, skip=skip)
    assert records.requests.finish_s.tolist() == [finish_s, 5.0]
    assert records.requests.num_preemptions.tolist() == [1, 0]
    assert each_step(records, "prefill_tokens") == prompt_tokens


@pytest.mark.parametrize("skip", [True, False])
def test_a_swapped_sequence_waits_for_both_copies(*, skip: bool) -> None:
    """Out from 3.0 to 4.5 (6 tokens), seen at 5; back from 5.0 to 6.5; four steps to 10.5."""
    load = at([0.0, 2.5], [4, 2], [7, 2])
    records = run(load, second_first("swap"), swap_s=0.25, max_num_seqs=1, skip=skip)
    assert records.requests.finish_s.tolist() == [10.5, 5.0]


def test_blocks_of_a_swapped_sequence_come_free_when_it_is_out() -> None:
    free: list[tuple[float, int, int]] = []
    inner = second_first("swap")

    def plan(view: Any) -> BatchPlan:
        free.append((view.now_s, view.free_blocks, view.freeing_blocks))
        return inner(view)

    load = at([0.0, 2.5, 3.5], [4, 2, 1], [7, 3, 1])
    run(load, plan, swap_s=0.25, max_num_seqs=1, kv_blocks=20)
    at_s = {now_s: (blocks, freeing) for now_s, blocks, freeing in free}
    assert at_s[3.0] == (20 - 7, 0)  # 6 tokens and the next
    # a second one is swapped out at 4: its 2 + 1 blocks beside the 6 that leave until 4.5
    assert at_s[4.0] == (20 - 6 - 3, 6)


def test_a_review_asks_after_so_many_tokens_and_changes_nothing() -> None:
    asked: list[float] = []

    def plan(view: Any) -> BatchPlan:
        asked.append(view.now_s)
        first = next(iter(view.prefilling))
        chunks = {} if view.num_decoding else {first.seq_id: first.uncached_tokens}
        return BatchPlan(chunks, review_tokens=3)

    load = at([0.0, 0.0], 1, 9)
    records = run(load, plan, max_num_seqs=1)
    # first token at 1; asked at 1 because a prompt waits; then every three tokens
    assert asked == [0.0, 1.0, 4.0, 7.0, 9.0]
    assert records.requests.finish_s.tolist() == [9.0, 18.0]
    assert_same(records, run(load, plan, max_num_seqs=1, skip=False))


@pytest.mark.parametrize(
    ("decision", "complaint"),
    [
        (BatchPlan(preempt={9: "keep"}), "preempts sequence 9, which does not decode here"),
        (BatchPlan(preempt={0: "swap"}), "swaps without a link to the host"),
        (BatchPlan(preempt={0: "hide"}), "by 'hide'; allowed: recompute, swap, keep"),
        (BatchPlan(resume=(1,)), "resumes sequence 1, which is not paused here"),
        (BatchPlan(review_tokens=0), "review_tokens 0; allowed: an integer >= 1"),
        (BatchPlan({1: 1}), "1 prompts in one step; 0 slots are free"),
    ],
)
def test_a_plan_that_breaks_the_rules_is_blamed(decision: BatchPlan, complaint: str) -> None:
    def plan(view: Any) -> BatchPlan:
        return decision if view.num_decoding else BatchPlan({0: 1})

    with pytest.raises(PolicyError, match=complaint):
        run(at([0.0, 0.0], 1, 9), plan, max_num_seqs=1)


def test_who_leaves_a_paused_sequence_for_ever_is_blamed() -> None:
    def plan(view: Any) -> BatchPlan:
        if view.num_decoding:
            return BatchPlan(preempt={seq.seq_id: "keep" for seq in view.decoding})
        return BatchPlan({s.seq_id: 1 for s in view.prefilling if s.seq_id == 0})

    with pytest.raises(PolicyError, match="idles for ever while 2 requests wait"):
        run(at([0.0, 0.0], 1, 9), plan)


# --- schedulers in a run --------------------------------------------------------------------------


def finish_of(batching: str, requests: Any, **given: Any) -> list[float]:
    spec = given.pop("spec", {})
    params = given.pop("params", {})
    make = resolve("batching", PolicyRef(batching, params))
    return simulate(
        requests, run={"batching": make, **given}, **({"max_num_seqs": 1} | spec)
    ).requests.finish_s.tolist()


def test_mlfq_interleaves_by_quanta_on_one_slot() -> None:
    """Three requests of 1 + 5 tokens; quanta 2 and 100: all get two tokens, then each its rest.

    0 runs from 0 to 2, 1 from 2 to 4, 2 from 4 to 6; then the lower queue in order of waiting.
    """
    params = {"quantum_tokens": 2, "ratio": 50, "num_queues": 2, "prompt_weight": 0.0}
    finish_s = finish_of("fastserve", at([0.0, 0.0, 0.0], 1, 5), params=params)
    assert finish_s == [9.0, 12.0, 15.0]


def test_srpt_preempts_for_the_shorter_and_sjf_does_not() -> None:
    from simpod.policies import Prediction

    load = at([0.0, 1.5], 1, [10, 2])
    told = {"prediction": Prediction(np.array([10.0, 2.0]))}
    assert finish_of("sjf", load, **told) == [10.0, 12.0]
    # preempted at 2 with two tokens; recomputed from 4 on, which gives the third
    assert finish_of("trail", load, **told) == [12.0, 4.0]


def test_priorities_preempt_at_the_next_step() -> None:
    load = at([0.0, 1.5], 1, [10, 3], priority=np.array([0, 1]))
    assert finish_of("priority", load) == [13.0, 5.0]
    assert finish_of("priority", load, params={"preempt": "none"}) == [10.0, 13.0]


def served(records: RunRecords, load: Any, until_s: float, weights: tuple[float, float]) -> Any:
    """[2] service of two tenants up to a time: prompts when computed, output tokens as they come.

    Each of a rank's steps lasts a second, so a request has a token for every second since its
    first.
    """
    requests = records.requests
    service = np.zeros(2)
    for row in range(len(load)):
        tenant = load.tenant[row]
        if requests.prefill_end_s[row] <= until_s:
            service[tenant] += weights[0] * requests.prompt_tokens[row]
            got = min(until_s, requests.finish_s[row]) - requests.first_token_s[row] + 1
            service[tenant] += weights[1] * got
    return service


def test_vtc_bounds_the_difference_of_two_backlogged_tenants() -> None:
    """Theorem 4.4 of the paper: at most 2 max(w_p x longest prompt, w_q x KV tokens)."""
    rng = np.random.default_rng(5)
    num = 240
    tenant = (rng.random(num) < 0.8).astype(np.int64)
    prompts, outputs = rng.integers(1, 40, num), rng.integers(1, 30, num)
    load = at(np.zeros(num), prompts, outputs, tenant=tenant)
    spec = {"max_num_seqs": 8, "kv_blocks": 600, "max_step_tokens": 64}
    weights = (1.0, 2.0)
    records = {
        name: simulate(load, run={"batching": resolve("batching", PolicyRef(name))}, **spec)
        for name in ("vtc", "fcfs")
    }
    waits_until_s = min(records["vtc"].requests.scheduled_s[tenant == who].max() for who in (0, 1))
    bound = 2 * max(weights[0] * prompts.max(), weights[1] * 600)
    gaps = {
        name: max(
            abs(float(np.subtract(*served(run, load, until_s, weights))))
            for until_s in np.arange(1.0, waits_until_s)
        )
        for name, run in records.items()
    }
    assert records["vtc"].requests.num_preemptions.max() == 0
    assert gaps["vtc"] <= bound
    assert gaps["fcfs"] > 2 * gaps["vtc"]
