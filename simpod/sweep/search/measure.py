"""One setting, measured: runs with several seeds, remembered, and what a search reads of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from simpod.config import ResolvedExperiment
from simpod.errors import ConfigError
from simpod.sweep.compare import is_saturated
from simpod.sweep.jobs import Job, Runner

Overrides = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a search keeps of a summary."""

    attainment_frac: float
    is_saturated: bool
    requests_per_s: float
    tokens_per_s_per_npu: float
    ttft_p99_ms: float | None
    tpot_p99_ms: float | None
    tpot_median_ms: float | None
    capacity_rate_per_s: float | None
    num_npus: float

    @property
    def tokens_per_s_per_user(self) -> float:
        """Speed that a user sees: 1 / median TPOT; infinite if every answer is one token."""
        return 1e3 / self.tpot_median_ms if self.tpot_median_ms else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A setting under several seeds."""

    rate: float
    by_seed: tuple[Figures, ...]

    @property
    def attainment_frac(self) -> float:
        """Mean over seeds."""
        return self.mean("attainment_frac") or 0.0

    @property
    def attainment_error_frac(self) -> float:
        """Standard error of that mean; 0 with one seed, of which nothing is known."""
        num = len(self.by_seed)
        if num < 2:
            return 0.0
        mean = self.attainment_frac
        squares = math.fsum((each.attainment_frac - mean) ** 2 for each in self.by_seed)
        return math.sqrt(squares / (num - 1) / num)

    @property
    def is_saturated(self) -> bool:
        """More than half of the seeds ended with a growing backlog."""
        return 2 * sum(each.is_saturated for each in self.by_seed) > len(self.by_seed)

    def mean(self, name: str) -> float | None:
        """Mean of a figure over seeds; None if a run has none."""
        values = [getattr(each, name) for each in self.by_seed]
        if any(value is None for value in values):
            return None
        return math.fsum(values) / len(values)


@dataclass(slots=True)
class Measure:
    """Runs settings of one experiment; the same setting and seed is run once.

    Seeds are first_seed, first_seed + 1, ... for every setting: common random numbers, so that two
    rates differ by the rate and not by luck.
    """

    experiment: str
    runner: Runner
    first_seed: int = 0
    on_run: Callable[[], None] = lambda: None
    runs: int = 0
    _known: dict[tuple[Overrides, int], Figures] = field(default_factory=dict)

    def __call__(self, settings: Sequence[Overrides], seeds: int) -> list[tuple[Figures, ...]]:
        """Figures of each setting under `seeds` seeds, all that is new in parallel."""
        every = range(self.first_seed, self.first_seed + seeds)
        wanted = [(setting, seed) for setting in settings for seed in every]
        new = [each for each in dict.fromkeys(wanted) if each not in self._known]
        jobs = [
            Job(experiment=self.experiment, overrides=(*setting, f"seed={seed}"))
            for setting, seed in new
        ]
        for each, figures in zip(new, self.runner.map(figures_of, jobs, self.on_run), strict=True):
            self._known[each] = figures
        self.runs += len(new)
        return [tuple(self._known[setting, seed] for seed in every) for setting in settings]


def figures_of(job: Job) -> Figures:
    """Run a job; in a worker, so that no whole summary crosses the border."""
    return figures(job.summary())


def figures(summary: dict[str, Any]) -> Figures:
    """Read a summary."""
    attainment = summary["slo_attainment"]
    return Figures(
        attainment_frac=0.0 if attainment is None else attainment,
        is_saturated=is_saturated(summary),
        requests_per_s=summary["request_throughput"] or 0.0,
        tokens_per_s_per_npu=summary["output_throughput_per_npu"] or 0.0,
        ttft_p99_ms=summary["p99_ttft_ms"],
        tpot_p99_ms=summary["p99_tpot_ms"],
        tpot_median_ms=summary["median_tpot_ms"],
        capacity_rate_per_s=summary["saturation"]["capacity_rate_per_s"],
        num_npus=summary["num_npus"],
    )


def require_slo(experiment: ResolvedExperiment) -> None:
    """Refuse an experiment without a target: every rate would be within it."""
    slo = experiment.slo
    if slo.ttft_s is None and slo.tpot_s is None and slo.e2e_s is None:
        raise ConfigError("slo: has no target; set one, e.g. -s slo.ttft_s=2 -s slo.tpot_s=0.05")


def rate_of(experiment: ResolvedExperiment) -> tuple[str, float]:
    """The key that scales the load, and its value: a rate, or the rate scale of a trace."""
    workload = experiment.document["workload"]
    arrivals = workload.get("arrivals") or {}
    if "rate_per_s" in arrivals:
        return "workload.arrivals.rate_per_s", float(arrivals["rate_per_s"])
    if workload.get("trace") is not None:
        return "workload.trace.rate_scale", float(workload["trace"].get("rate_scale", 1.0))
    process = arrivals.get("process")
    raise ConfigError(
        f"workload: has no rate to search ({process} arrivals); needs arrivals with rate_per_s, or"
        " a trace"
    )
