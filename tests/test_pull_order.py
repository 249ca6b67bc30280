"""Decode ranks pull prompts in the order of the batch scheduler."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from engine_cases import EVERY_STEP_1S, assert_same, at, in_two_stages, pool_inputs, pool_spec
from engine_random import random_experiment, run

from simpod.errors import PolicyError
from simpod.policies import BUILT_IN, IN_ORDER_OF_ARRIVAL, BatchPlan, Prediction
from simpod.records.columns import RunRecords


def pulled(requests: Any, batching: Any, **changes: Any) -> RunRecords:
    """Four prefill ranks, and one decode rank with one slot."""
    return in_two_stages(
        requests,
        prefill=pool_inputs(pool_spec(role="prefill", name="prefill", dp=4), EVERY_STEP_1S),
        decode=pool_inputs(pool_spec(role="decode", name="decode", max_num_seqs=1)),
        transfer_s=0.25,
        batching=batching,
        **changes,
    )


def order(records: RunRecords) -> list[int]:
    return np.argsort(records.requests.transfer_start_s).tolist()


# four prompts, computed together at 1 s
LOAD = at([0.0] * 4, [40, 10, 30, 20], [3, 9, 2, 5], priority=np.array([0, 1, 3, 2]))


@pytest.mark.parametrize(
    ("batching", "expected"),
    [
        ("fcfs", [0, 1, 2, 3]),
        ("shortest_prompt", [1, 3, 2, 0]),
        ("sjf", [2, 0, 3, 1]),
        ("trail", [2, 0, 3, 1]),
        ("priority", [2, 3, 1, 0]),
        ("batchllm", [1, 3, 0, 2]),  # most output per prompt token: 0.9, 0.25, 0.075, 0.067
    ],
)
def test_who_is_first_is_pulled_first(batching: str, expected: list[int]) -> None:
    prediction = Prediction(LOAD.output_tokens.astype(float))
    records = pulled(LOAD, batching, prediction=prediction)
    assert order(records) == expected
    assert (records.requests.num_preemptions == 0).all()


def test_fairness_counts_what_is_decoded() -> None:
    """Tenant 0 has two long outputs, tenant 1 two: after the first of 0, both of 1 are behind it
    in tokens until they have got as many."""
    load = at([0.0] * 4, 10, [20, 20, 4, 4], tenant=np.array([0, 0, 1, 1]))
    assert order(pulled(load, "vtc")) == [0, 2, 3, 1]
    assert order(pulled(load, "fcfs")) == [0, 1, 2, 3]


def test_the_rest_follows_in_order_of_arrival() -> None:
    def third(view: Any) -> BatchPlan:
        chunks: Mapping[int, int] = {s.seq_id: s.uncached_tokens for s in view.prefilling}
        if view.max_step_tokens < 1 << 60:  # prompts to compute
            return BatchPlan(chunks)
        return BatchPlan({2: 1} if 2 in chunks else {})

    assert order(pulled(LOAD, lambda: third)) == [2, 0, 1, 3]


def test_a_prompt_that_does_not_wait_is_blamed() -> None:
    def wrong(view: Any) -> BatchPlan:
        if view.max_step_tokens < 1 << 60:
            return BatchPlan({s.seq_id: s.uncached_tokens for s in view.prefilling})
        return BatchPlan({99: 1})

    with pytest.raises(PolicyError, match="sequence 99, which does not wait here"):
        pulled(LOAD, lambda: wrong)


@pytest.mark.parametrize("batching", sorted(IN_ORDER_OF_ARRIVAL))
def test_who_takes_prompts_as_they_come_need_not_be_asked(batching: str) -> None:
    assert batching in BUILT_IN["batching"]
    for seed in range(6):
        case = random_experiment(seed, {"shape": ["split", "decode"][seed % 2]})
        case = random_experiment(seed, {"shape": case.shape, "batching": batching})
        assert_same(run(case)[1], run(case, orders_pulls=False)[1], rtol=0.0)
