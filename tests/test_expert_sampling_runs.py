"""Runs whose steps draw their experts' tokens, and the same with loads from moments."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from expert_cases import FEW_LAYERS, SMALL

from simpod.config import load_experiment
from simpod.errors import ConfigError
from simpod.records.columns import RunRecords
from simpod.run import run

EXACT = "expert_routing.sampling=exact"
COLOCATED = (
    "xdeepserve-colocated-288",
    *SMALL,
    "policies.experts={use: none, redundant_slots: 0}",
)
REDUNDANT = (
    *COLOCATED,
    "workload.num_requests=1024",
    "workload.arrivals.concurrency=512",
    "workload.output_tokens.value=100",
    "deployment.decode.shared_expert_dies=4",
    "policies.experts={use: eplb, redundant_slots: 28}",
)
STREAMS = (
    "cloudmatrix-infer-decode",
    "expert_routing={kind: correlated, log_scale: 0.64}",
    "workload.num_requests=1024",
    "workload.arrivals.concurrency=512",
    "workload.output_tokens.value=100",
    "deployment.decode.dies=32",
    "deployment.decode.dp=32",
    "deployment.decode.ep=32",
    "deployment.decode.shared_expert_dies=0",
    "policies.experts.redundant_slots=0",
)
SPLIT = (
    "xdeepserve-disaggregated-768",
    "workload.num_requests=512",
    "workload.arrivals.concurrency=256",
    "workload.output_tokens.value=120",
    "deployment.decode.dies=8",
    "deployment.decode.dp=8",
    "deployment.decode.domains=2",
    "deployment.decode.expert_dies=32",
    "deployment.decode.shared_expert_dies=4",
    "policies.experts.redundant_slots=28",
)
ONE_RANK = (
    *COLOCATED,
    "workload.num_requests=96",
    "workload.arrivals.concurrency=48",
    "deployment.decode.dp=1",
    "deployment.decode.tp=32",
)
CASES = {
    "one rank": ONE_RANK,
    "colocated": COLOCATED,
    "redundant": REDUNDANT,
    "streams": STREAMS,
    "split": SPLIT,
    "split, experts bind": (*SPLIT, "deployment.decode.expert_dies=16"),
}


@lru_cache
def records_of(*words: str) -> RunRecords:
    name, *settings = words
    return run(load_experiment(name, settings)).records


def step_s(records: RunRecords) -> np.ndarray:
    """Seconds of every step in which all slots are taken."""
    steps = records.steps
    mean_s = (steps.end_s - steps.start_s) / steps.num_steps
    return np.repeat(mean_s, steps.num_steps * (steps.decode_seqs == steps.decode_seqs.max()))


QUICK = {"colocated"}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES]
)
def test_modes_agree_on_steps(case: str) -> None:
    """Means within 1 %, the 99th percentile within 3 %."""
    fast, exact = (step_s(records_of(*CASES[case], *more)) for more in ((), (EXACT,)))
    assert len(exact) > 80
    assert fast.mean() == pytest.approx(exact.mean(), rel=0.01)
    assert np.quantile(fast, 0.99) == pytest.approx(np.quantile(exact, 0.99), rel=0.03)


@pytest.mark.parametrize("case", ["colocated", pytest.param("redundant", marks=pytest.mark.slow)])
def test_modes_agree_on_where_the_time_goes(case: str) -> None:
    """Each part of a step within 1 % on average."""
    fast, exact = (records_of(*CASES[case], *more).steps for more in ((), (EXACT,)))

    def mean_s(steps: object) -> np.ndarray:
        return steps.parts_s.sum(axis=0) / steps.num_steps.sum()

    parts = mean_s(exact) > 1e-4
    np.testing.assert_allclose(mean_s(fast)[parts], mean_s(exact)[parts], rtol=0.01)


def test_each_step_is_drawn_and_the_seed_says_how() -> None:
    short = (
        *COLOCATED,
        *FEW_LAYERS,
        "workload.num_requests=128",
        "workload.output_tokens.value=40",
    )
    first = records_of(*short, EXACT)
    again = run(load_experiment(short[0], (*short[1:], EXACT))).records
    assert np.array_equal(first.steps.end_s, again.steps.end_s)
    other = records_of(*short, EXACT, "seed=1")
    assert not np.array_equal(first.steps.end_s, other.steps.end_s)
    assert first.steps.num_steps.max() == 1
    assert records_of(*short).steps.num_steps.max() > 1


def test_skipping_ahead_does_not_matter() -> None:
    """Also where placements change while steps are drawn."""
    drift = "expert_routing={kind: correlated, log_scale: 0.8, drift_s: 0.5, epoch_s: 0.2}"
    eplb = "policies.experts={use: eplb, redundant_slots: 32, every_s: 0.2}"
    short = (*FEW_LAYERS, "workload.num_requests=128", "workload.output_tokens.value=80")
    moving = load_experiment(COLOCATED[0], (*COLOCATED[1:], *short, drift, eplb, EXACT))
    first, again = run(moving).records, run(replace(moving, skip_ahead=False)).records
    np.testing.assert_allclose(first.steps.end_s, again.steps.end_s, rtol=1e-9)
    np.testing.assert_allclose(first.requests.finish_s, again.requests.finish_s, rtol=1e-9)


def test_prompts_are_drawn_too() -> None:
    words = (
        "cloudmatrix-infer-prefill",
        "expert_routing=power_law_1.01",
        "workload.num_requests=64",
        "workload.arrivals.concurrency=64",
    )
    fast, exact = (records_of(*words, *more).steps for more in ((), (EXACT,)))
    total_s = [float((steps.end_s - steps.start_s).sum()) for steps in (fast, exact)]
    assert total_s[0] != total_s[1]
    assert total_s[0] == pytest.approx(total_s[1], rel=0.01)


def test_a_mode_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="moments, exact"):
        load_experiment(COLOCATED[0], (*COLOCATED[1:], "expert_routing.sampling=drawn"))
