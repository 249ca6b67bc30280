"""Variants of one experiment under the same arrivals: means, and paired differences with intervals.

Every variant runs with the same seeds, and random streams are named by their use, so that a pair of
runs differs by the variant alone. The difference to the first variant is a mean over seeds with a
95 % interval by Student's t for pairs: mean +- t(0.975, n - 1) s / sqrt(n). It takes the
differences between seeds to be independent and roughly normal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simpod.errors import ConfigError
from simpod.sweep.jobs import Job

DEFAULT_METRICS: Final = (
    "mean_ttft_ms",
    "p99_ttft_ms",
    "mean_tpot_ms",
    "p99_tpot_ms",
    "mean_e2el_ms",
    "request_throughput",
    "output_throughput",
    "slo_attainment",
)
"""Keys of summary.json that are compared when none are named."""

CONFIDENCE: Final = 0.95

_PAIRS: Final = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One metric of one variant; the differences are to the first variant, None for itself.

    Interval bounds are None with one seed. A metric that a run does not have makes all None.
    """

    mean: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def is_shown(self) -> bool:
        """The interval does not hold 0: a difference is shown at 95 %."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Cells by metric, in the order of `values`."""

    experiment: str
    key: str
    values: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: Mapping[str, tuple[Cell, ...]]
    not_stationary: Mapping[str, tuple[int, ...]]  # value -> seeds whose run was no steady state
    is_random: bool  # False: every seed gave the same figures, an interval says nothing


def split_variation(text: str) -> tuple[str, tuple[str, ...]]:
    """`a.b=1,[2, 3],"x,y"` -> key and values; commas in brackets and quotes do not split."""
    key, sign, rest = text.partition("=")
    values = tuple(_split(rest)) if sign else ()
    if not key.strip() or len(values) < 2 or not all(values):
        raise ConfigError(
            f"--vary {text}: needs one key and two or more values;"
            " allowed: --vary policies.batching.use=fcfs,shortest_prompt"
        )
    if len(set(values)) < len(values):
        raise ConfigError(f"--vary {text}: the same value twice")
    if key.strip() == "seed":
        raise ConfigError("--vary seed: every variant runs with the same seeds; use --seeds N")
    return key.strip(), values


def _split(text: str) -> list[str]:
    parts, closing, quote = [""], list[str](), ""
    for character in text:
        if character == "," and not closing and not quote:
            parts.append("")
            continue
        parts[-1] += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in _PAIRS:
            closing.append(_PAIRS[character])
        elif closing and character == closing[-1]:
            closing.pop()
    return [part.strip() for part in parts]


def plan_jobs(
    experiment: str,
    overrides: Sequence[str],
    variation: tuple[str, Sequence[str]],
    first_seed: int,
    seeds: int,
) -> list[Job]:
    """Jobs, variant by variant, each with seeds first_seed, first_seed + 1, ..."""
    key, values = variation
    return [
        Job(experiment=experiment, overrides=(*overrides, f"{key}={value}", f"seed={seed}"))
        for value in values
        for seed in range(first_seed, first_seed + seeds)
    ]


def compare(
    experiment: str,
    variation: tuple[str, Sequence[str]],
    seeds: Sequence[int],
    summaries: Sequence[Sequence[Mapping[str, Any]]],
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> Comparison:
    """Statistics of summaries [variant][seed]; metrics are keys of a summary, dotted if nested."""
    key, values = variation
    table = {
        metric: [[metric_of(summary, metric) for summary in row] for row in summaries]
        for metric in metrics
    }
    return Comparison(
        experiment=experiment,
        key=key,
        values=tuple(values),
        seeds=tuple(seeds),
        cells={
            metric: tuple(_cell(row, rows[0], is_first=row is rows[0]) for row in rows)
            for metric, rows in table.items()
        },
        not_stationary={
            value: unsteady
            for value, row in zip(values, summaries, strict=True)
            if (unsteady := _unsteady(row, seeds))
        },
        is_random=len(seeds) < 2
        or any(len(set(row)) > 1 for rows in table.values() for row in rows),
    )


def metric_of(summary: Mapping[str, Any], metric: str) -> float | None:
    """A number of a summary, by dotted key; None where the run has none."""
    value: Any = summary
    for segment in metric.split("."):
        if not isinstance(value, Mapping) or segment not in value:
            raise ConfigError(
                f"--metric {metric}: no such figure in a summary; allowed: numbers of summary.json,"
                f" such as {', '.join(DEFAULT_METRICS)}, or utilization.POOL.busy_frac"
            )
        value = value[segment]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"--metric {metric}: is not a number (got {str(value)[:60]})")
    return float(value)


def _unsteady(summaries: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> tuple[int, ...]:
    """A burst has no steady state to miss: it is not counted."""
    return tuple(
        seed
        for seed, summary in zip(seeds, summaries, strict=True)
        if summary["stationarity"]["verdict"] not in {"STABLE", "BURST"}
    )


def _cell(row: Sequence[float | None], first: Sequence[float | None], *, is_first: bool) -> Cell:
    known, base = [v for v in row if v is not None], [v for v in first if v is not None]
    if len(known) < len(row):
        return Cell(mean=None)
    mean = math.fsum(known) / len(known)
    if is_first or len(base) < len(first):
        return Cell(mean=mean)
    pairs = [value - other for value, other in zip(known, base, strict=True)]
    difference = math.fsum(pairs) / len(pairs)
    if len(pairs) < 2:
        return Cell(mean=mean, difference=difference)
    variance = math.fsum((pair - difference) ** 2 for pair in pairs) / (len(pairs) - 1)
    half = t_quantile(0.5 + CONFIDENCE / 2, len(pairs) - 1) * math.sqrt(variance / len(pairs))
    return Cell(mean=mean, difference=difference, low=difference - half, high=difference + half)


def t_quantile(probability: float, degrees: int) -> float:
    """Student's t quantile for 0.5 <= probability < 1, by bisection of the exact distribution."""
    low, high = 0.0, 1.0
    while _t_within(high, degrees) < 2 * probability - 1:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if _t_within(middle, degrees) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_within(t: float, degrees: int) -> float:
    """P(|T| <= t), Abramowitz and Stegun 26.7.3 (odd degrees) and 26.7.4 (even degrees)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    is_odd = degrees % 2
    term = cosine if is_odd else 1.0
    total = 0.0 if degrees == 1 else term
    for k in range(2 + is_odd, degrees - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    if is_odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
