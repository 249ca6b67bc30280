"""Prompts of mixed lengths on a prefill instance: ranks of a die each, or that share attention."""

from functools import cache
from typing import Any

import pytest

from simpod.config import load_experiment
from simpod.run import run

MIXED = (
    "expert_routing=null",
    "policies.experts=null",
    "workload.prompt_tokens={distribution: lognormal, mean: 6000, cv: 1.5, min: 128, max: 65536}",
    "workload.arrivals.concurrency=160",
    "workload.num_requests=480",
    "deployment.prefill.max_num_seqs=64",
)


@cache
def summary(tp: int, parallelism: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Of CloudMatrix-Infer's instance of 32 dies in ranks of `tp`, 8,192 tokens of a die a step."""
    pool = {
        "dp": 32 // tp,
        "tp": tp,
        "attention_parallelism": parallelism,
        "max_step_tokens": 8192 * tp,
    }
    changes = [f"deployment.prefill.{key}={value}" for key, value in pool.items()]
    name = "cloudmatrix-infer-prefill"
    return run(load_experiment(name, [*MIXED, *changes, *more])).summary


def tokens_per_s(tp: int, parallelism: str) -> float:
    pool = summary(tp, parallelism)["utilization"]["prefill"]
    return float(pool["prompt_tokens_per_s_per_npu"])


def waiting(tp: int, parallelism: str) -> float:
    """Share of a step that ranks wait for the slowest."""
    steps = summary(tp, parallelism)["step_breakdown"]["prefill"]
    return float(steps["mean_s"]["dispatch_wait"] / steps["mean_step_s"])


def test_what_ranks_apart_leave_uneven_is_evened_out() -> None:
    shares = [waiting(1, "tensor"), *(waiting(tp, "sp_tp_sp") for tp in (4, 32))]
    assert shares[0] > 0.4
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] == pytest.approx(0.0, abs=1e-9)
    apart, four, all_together = (
        tokens_per_s(1, "tensor"),
        *(tokens_per_s(tp, "sp_tp_sp") for tp in (4, 32)),
    )
    assert four > 1.2 * apart
    assert all_together > 1.5 * four


def test_all_reduces_cost_more_than_latents_and_heads() -> None:
    """Tensor parallelism evens out as well, but copies down-projections and reduces sums."""
    assert tokens_per_s(16, "sp_tp_sp") > 1.2 * tokens_per_s(16, "tensor")


def test_length_aware_placement_works_over_ranks_that_share_attention() -> None:
    """A leader that knows costs of prompts spares long ones the queue behind each other."""

    def p99_ms(router: str) -> float:
        changes = ("workload.num_requests=960", f"policies.router={router}")
        found = (summary(4, "sp_tp_sp", (*changes, f"seed={seed}")) for seed in range(3))
        return sum(float(each["p99_ttft_ms"]) for each in found)

    assert p99_ms("earliest_prefill") < 0.85 * p99_ms("round_robin")


def test_short_prompts_first_works_over_ranks_that_share_attention() -> None:
    mean_ms = {
        batching: summary(4, "sp_tp_sp", (f"policies.batching={batching}",))["mean_ttft_ms"]
        for batching in ("fcfs", "shortest_prompt")
    }
    assert mean_ms["shortest_prompt"] < 0.7 * mean_ms["fcfs"]
