"""Instances for the load that is predicted, by a profile that is corrected by what was measured."""

from dataclasses import dataclass
from math import ceil, inf, isfinite

import numpy as np

from simpod.policies.roles import (
    AddInstance,
    Floats,
    PoolLoad,
    RemoveInstance,
    ScaleAction,
    ScalingView,
)


@dataclass(frozen=True, slots=True)
class DynamoPlanner:
    """Just enough instances to meet the TTFT and TPOT targets at the load of the last interval.

    The next interval is taken to be like the last one (the constant predictor). Prefill:
    ceil(prompt tokens/s x min(1, measured / expected TTFT) / `prefill_tokens_per_s`). Decode: the
    TPOT target is divided by measured / expected TPOT; with the profile TPOT = `tpot_at_0_s` + n x
    `tpot_per_seq_s` of n sequences an instance gives n / TPOT tokens/s at that target, and
    ceil(output tokens/s / that) instances are needed. A mixed pool gets the larger number.
    The profile is a straight line here; the planner interpolates a grid.

    Source: NVIDIA Dynamo, SLA-based planner: its scaling algorithm and correction factors.
    Sees: arrivals, prompt tokens, TTFT, TPOT and lengths of finished requests; a profile.
    """

    prefill_tokens_per_s: float
    """Prompt tokens that an instance computes within the TTFT target; above 0."""

    tpot_at_0_s: float
    """Time per output token of an instance that is nearly empty; above 0."""

    tpot_per_seq_s: float
    """What one more sequence of the instance adds to it; above 0."""

    min_instances: int = 1
    """Of a pool."""

    def __post_init__(self) -> None:
        for name in ("prefill_tokens_per_s", "tpot_at_0_s", "tpot_per_seq_s"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name}: must be > 0 and finite, got {getattr(self, name)}")
        if self.min_instances < 1:
            raise ValueError(f"min_instances: must be >= 1, got {self.min_instances}")

    def __call__(self, view: ScalingView) -> list[ScaleAction]:
        spare = view.spare_dies
        actions: list[ScaleAction] = []
        for pool in view.pools:
            change = self._wanted(view, pool) - pool.serving - pool.coming
            if change < 0:
                actions += [RemoveInstance(pool.name)] * min(-change, pool.serving - 1)
            else:
                more = min(change, spare // pool.dies_per_instance)
                spare -= more * pool.dies_per_instance
                actions += [AddInstance(pool.name)] * more
        return actions

    def _wanted(self, view: ScalingView, pool: PoolLoad) -> int:
        wanted = [self.min_instances]
        if pool.role != "decode":
            wanted.append(self._prefill(view))
        if pool.role != "prefill":
            wanted.append(self._decode(view, pool))
        return max(wanted)

    def _prefill(self, view: ScalingView) -> int:
        prompt = _mean(view.finished_prompt_tokens)
        expected_s = prompt / self.prefill_tokens_per_s
        correction = _mean(view.ttft_s) / expected_s if isfinite(expected_s) else 1.0
        load_per_s = _last(view, view.arrived_tokens_per_s)
        return ceil(load_per_s * min(1.0, correction) / self.prefill_tokens_per_s)

    def _decode(self, view: ScalingView, pool: PoolLoad) -> int:
        measured_s, output = _mean(view.tpot_s), _mean(view.finished_output_tokens)
        if not isfinite(measured_s) or not isfinite(output):
            return pool.serving + pool.coming  # nothing is known yet
        if not view.tpot_target_s < inf:
            raise ValueError("needs an SLO with tpot_s")
        held = _last(view, pool.running_seqs) / pool.serving
        expected_s = self.tpot_at_0_s + self.tpot_per_seq_s * held
        target_s = view.tpot_target_s * expected_s / measured_s
        seqs = (target_s - self.tpot_at_0_s) / self.tpot_per_seq_s
        load_per_s = _last(view, view.arrivals_per_s) * output
        if not seqs > 0:  # no instance is as fast as that
            return self.min_instances
        return ceil(load_per_s / (seqs / target_s))


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _last(view: ScalingView, samples: Floats) -> float:
    """Mean of the last interval."""
    return float(samples[-max(1, round(view.every_s / view.sample_s)) :].mean())
