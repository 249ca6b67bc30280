"""SLO curves: attainment and latency over the rate."""

from collections.abc import Sequence
from dataclasses import replace

from simpod.errors import ConfigError
from simpod.sweep.search.max_rate import MaxRate, RateSearch, RateTarget
from simpod.sweep.search.measure import Measure, Overrides, Probe

FIRST_FRAC, LAST_FRAC = 0.4, 1.3
"""Of the highest rate: where a curve starts and ends."""

COARSE_FRAC = 0.1
"""Tolerance of the search that finds out where a curve is to lie."""


def slo_curve(
    measure: Measure, key: str, overrides: Overrides, rates: Sequence[float], seeds: int
) -> list[Probe]:
    """Measure every rate with every seed, all at once."""
    settings = [(*overrides, f"{key}={rate!r}") for rate in rates]
    found = measure(settings, seeds)
    return [Probe(rate=rate, by_seed=by_seed) for rate, by_seed in zip(rates, found, strict=True)]


def curve_rates(
    measure: Measure, key: str, target: RateTarget, start: tuple[Overrides, float], points: int
) -> list[float]:
    """Rates from 0.4 to 1.3 times the highest one, which is first found roughly, with one seed.

    Where no rate keeps the SLO, the capacity that the first run shows stands for the highest rate.
    start: overrides, and the rate where that search begins.
    """
    rough = replace(target, tolerance_frac=COARSE_FRAC, seeds=1, most_seeds=1)
    found = RateSearch(measure, key, rough, start[0]).run(start[1])
    highest = found.rate if found.status == "found" else _capacity(found, start[1])
    if highest is None:
        raise ConfigError(
            f"--curve: the SLO is {found.status} met at the rates that were tried; name rates with"
            " --rates"
        )
    step = (LAST_FRAC - FIRST_FRAC) / (points - 1)
    return [round_to(highest * (FIRST_FRAC + step * n)) for n in range(points)]


def _capacity(found: MaxRate, start: float) -> float | None:
    """Capacity by the run at the first rate; None where it is unknown."""
    capacities = [p.mean("capacity_rate_per_s") for p in found.probes if p.rate == start]
    return capacities[0] if capacities else None


def round_to(rate: float, digits: int = 3) -> float:
    """Few digits: a table is read by people."""
    return float(f"{rate:.{digits}g}")
