"""The benchmark: its experiments are what they say, its figures follow from each other."""

import json
from dataclasses import replace

import pytest
from cli_runs import call

from simpod.config import resolve_document
from simpod.errors import ConfigError
from simpod.sweep.bench import (
    Timing,
    bare_timeout_s,
    cost_ratio,
    over_budget,
    peak_memory_bytes,
    time_here,
)
from simpod.sweep.bench_cases import CASES, case_named

TIMING = Timing(
    name="x", requests=100, wall_s=2.0, cpu_s=1.0, steps=50, peak_memory_bytes=2**20,
    bare_timeout_s=1e-3,
)  # fmt: skip


def test_figures_by_hand() -> None:
    assert TIMING.requests_per_s == 50.0
    assert TIMING.timeouts_per_request == pytest.approx(10.0)
    assert TIMING.timeouts_per_step == pytest.approx(20.0)
    assert cost_ratio([TIMING, replace(TIMING, cpu_s=1.5)]) == pytest.approx(1.5)


def test_limits_are_for_the_cases_own_number_of_requests() -> None:
    case = replace(case_named("dense_replica"), requests=100, limits={"timeouts_per_step": 19.0})
    assert over_budget(case, TIMING) == ("timeouts_per_step",)
    assert over_budget(replace(case, limits={"timeouts_per_step": 21.0}), TIMING) == ()
    assert over_budget(replace(case, requests=101), TIMING) == ()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_is_a_valid_experiment_of_known_limits(case: object) -> None:
    assert case in CASES
    found = next(each for each in CASES if each is case)
    number = f"workload.num_requests={found.requests}"
    resolve_document(found.document, (*found.overrides, number), source=found.name)
    assert all(hasattr(TIMING, name) for name in found.limits)


def test_the_pods_are_of_the_stated_size() -> None:
    pod = case_named("instances_24p24d")
    resolved = resolve_document(pod.document, ("workload.num_requests=1",), source=pod.name)
    assert [pool.instances for pool in resolved.pools] == [24, 24]
    assert sum(pool.instances * pool.layout.dies for pool in resolved.pools) == 2 * 384
    many = case_named("replicas_1024")
    resolved = resolve_document(
        many.document, (*many.overrides, "workload.num_requests=1"), source=many.name
    )
    assert resolved.hardware["server"].num_dies == resolved.pools[0].instances == 1024
    assert not resolve_document(
        case_named("dense_replica_stepwise").document,
        ("engine.skip_ahead=false", "workload.num_requests=1"),
    ).skip_ahead


def test_a_timing_is_of_this_process() -> None:
    timing = time_here(case_named("dense_replica"), 60)
    assert timing.requests == 60
    assert timing.steps > 60
    assert 0 < timing.bare_timeout_s < 1e-3
    assert timing.timeouts_per_request > 1
    assert peak_memory_bytes() > 10 * 2**20


def test_a_bare_timeout_takes_about_a_microsecond() -> None:
    assert 1e-8 < bare_timeout_s() < 1e-4


def test_json_has_the_documented_keys() -> None:
    done = call("bench", "--case", "dense_replica_stepwise", "-n", 40, "--json")
    assert done.exit_code == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert {
        "name", "requests", "wall_s", "cpu_s", "requests_per_s", "timeouts_per_request",
        "timeouts_per_step", "steps", "peak_memory_bytes",
    } <= set(found)  # fmt: skip
    assert (found["name"], found["requests"]) == ("dense_replica_stepwise", 40)
    assert found["requests_per_s"] == pytest.approx(40 / found["wall_s"])


def test_an_unknown_case_is_told() -> None:
    with pytest.raises(ConfigError, match="pod_lockstep_288"):
        case_named("pod")
    assert call("bench", "--case", "pod").exit_code == 2
