"""The highest rate at which a share of the requests meets the SLO.

Attainment falls with the rate. A bracket of two rates, one that keeps the target and one that does
not, is found by steps outwards and halved (in ratios) until it is as narrow as asked, or as narrow
as the noise: with seeds 0 .. n - 1 the attainment at a rate has a standard error, which divided by
the slope of attainment over the logarithm of the rate is the relative error of the answer. While
that is more than the tolerance, seeds are added up to a limit; halving further would follow noise.
A rate under which a backlog grows in most seeds is never within the SLO, however short the run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from simpod.sweep.search.measure import Measure, Overrides, Probe

MOST_STEPS: Final = 24
"""Steps outwards before a search gives up."""

WARM_STEP: Final = 1.15
"""First step outwards from the answer of a neighbour."""


FLAT_FRAC: Final = 1e-3
FLAT_RATIO: Final = 1.9
"""Attainment that gains less than that share over that ratio of rates has no more to gain."""

AROUND: Final = 1.2
"""A slope is taken over the probes within this ratio of the bracket: its ends are too near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTarget:
    """What is asked, and how precisely."""

    attainment_frac: float = 0.99
    tolerance_frac: float = 0.02
    seeds: int = 4
    most_seeds: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxRate:
    """The answer; rates are in the unit of the key that was varied.

    status: found; always (no rate within reach leaves the SLO, `rate` is the highest tried); never
    (the SLO is not met even at the lowest rate tried).
    rate: where attainment crosses the target, between `low` and `high`, the bracket.
    error_frac: standard error of `rate` from the seeds, relative.
    """

    status: str
    rate: float
    low: float
    high: float
    error_frac: float
    seeds: int
    runs: int
    probes: tuple[Probe, ...]


class RateSearch:
    """One search; `Measure` remembers runs, so that searches may share them."""

    def __init__(
        self, measure: Measure, key: str, target: RateTarget, overrides: Overrides = ()
    ) -> None:
        self.measure, self.key, self.target, self.overrides = measure, key, target, overrides
        self.seeds = target.seeds
        self._probes: dict[float, Probe] = {}

    def run(self, start: float, step: float = 0.0) -> MaxRate:
        """Search outwards from `start`.

        step: first step as a ratio; 0: by the capacity that the run at `start` shows, else twice.
        """
        runs = self.measure.runs
        bracket = self._bracket(start, step)
        while bracket is not None:
            low, high = bracket
            noise = self._noise(low, high)
            if noise > self.target.tolerance_frac and self.seeds < self.target.most_seeds:
                self.seeds = min(2 * self.seeds, self.target.most_seeds)
                bracket = self._bracket(math.sqrt(low * high), math.sqrt(high / low))
                continue
            if math.log(high / low) <= max(self.target.tolerance_frac, noise):
                return self._answer("found", low, high, self.measure.runs - runs)
            middle = math.sqrt(low * high)
            bracket = (middle, high) if self._keeps(middle) else (low, middle)
        edge = self._edge()
        return self._answer(*edge, self.measure.runs - runs)

    def _probe(self, rate: float) -> Probe:
        known = self._probes.get(rate)
        if known is None or len(known.by_seed) < self.seeds:
            setting = (*self.overrides, f"{self.key}={rate!r}")
            known = Probe(rate=rate, by_seed=self.measure([setting], self.seeds)[0])
            self._probes[rate] = known
        return known

    def _keeps(self, rate: float) -> bool:
        probe = self._probe(rate)
        return not probe.is_saturated and probe.attainment_frac >= self.target.attainment_frac

    def _bracket(self, start: float, step: float) -> tuple[float, float] | None:
        """A rate that keeps the target and a higher one that does not; None if there is none."""
        keeps = self._keeps(start)
        inner, ratio = start, step or 2.0
        outer = start * ratio if keeps else start / ratio
        capacity = self._probe(start).mean("capacity_rate_per_s")
        if not step and capacity and math.isfinite(capacity):
            near = capacity * (1.05 if keeps else 0.9)
            if (near > 1.02 * start) if keeps else (near < start / 1.02):
                outer = near
        for _ in range(MOST_STEPS):
            if self._keeps(outer) != keeps:
                return (inner, outer) if keeps else (outer, inner)
            if not keeps and self._is_flat(outer, inner):
                return None
            ratio = min(ratio * ratio, 2.0)
            inner, outer = outer, outer * ratio if keeps else outer / ratio
        return None

    def _is_flat(self, low: float, high: float) -> bool:
        """Half the rate or less changed nothing: nobody waits, still lower rates are in vain.

        Where nobody meets the SLO at either rate, TTFT tells whether they wait.
        """
        below, above = self._probe(low), self._probe(high)
        if high < FLAT_RATIO * low or above.is_saturated:
            return False
        if above.attainment_frac == below.attainment_frac == 0:
            shorter_ms, longer_ms = below.mean("ttft_p99_ms"), above.mean("ttft_p99_ms")
            return shorter_ms is None or longer_ms is None or shorter_ms > 0.99 * longer_ms
        return below.attainment_frac - above.attainment_frac < FLAT_FRAC

    def _slope(self, low: float, high: float) -> float:
        """Fall of attainment per logarithm of the rate, over the probes around the bracket."""
        near = [rate for rate in self._probes if low / AROUND <= rate <= high * AROUND]
        first, last = min(near), max(near)
        fall = self._probe(first).attainment_frac - self._probe(last).attainment_frac
        return fall / math.log(last / first)

    def _noise(self, low: float, high: float) -> float:
        """Relative standard error of the rate at which attainment crosses the target."""
        ends = (self._probe(low), self._probe(high))
        nearest = min(ends, key=lambda p: abs(p.attainment_frac - self.target.attainment_frac))
        slope = self._slope(low, high)
        return nearest.attainment_error_frac / slope if slope > 0 else 0.0

    def _answer(self, status: str, low: float, high: float, runs: int) -> MaxRate:
        found = status == "found"
        return MaxRate(
            status=status,
            rate=self._crossing(low, high) if found else low,
            low=low,
            high=high,
            error_frac=self._noise(low, high) if found else math.inf,
            seeds=self.seeds,
            runs=runs,
            probes=tuple(self._probes[rate] for rate in sorted(self._probes)),
        )

    def _crossing(self, low: float, high: float) -> float:
        """Where the line through both ends, over the logarithm of the rate, meets the target."""
        over = self._probe(low).attainment_frac - self.target.attainment_frac
        fall = self._probe(low).attainment_frac - self._probe(high).attainment_frac
        share = over / fall if fall > 0 else 0.5
        return low * math.exp(math.log(high / low) * (share if 0 <= share <= 1 else 0.5))

    def _edge(self) -> tuple[str, float, float]:
        """Why there is no bracket: status, lowest and highest rate that was tried."""
        rates = sorted(self._probes)
        if self._keeps(rates[-1]):
            return "always", rates[-1], math.inf
        return "never", 0.0, rates[0]


def along(
    search_at: Callable[[Overrides], RateSearch], settings: list[Overrides], start: float
) -> list[MaxRate]:
    """Searches along a curve, each from the answer of the one before (warm start)."""
    found: list[MaxRate] = []
    step = 0.0
    for overrides in settings:
        answer = search_at(overrides).run(start, step)
        found.append(answer)
        if answer.status == "found":
            start, step = answer.rate, WARM_STEP
    return found
