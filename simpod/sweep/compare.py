"""Variants of one experiment under the same arrivals: means, differences with intervals, ranks.

Every variant runs with the same seeds, and random streams are named by their use, so that a pair of
runs differs by the variant alone (common random numbers). Differences are paired by seed; intervals
are those of `bootstrap`, corrected for all comparisons of a metric: with the first variant in the
cells, of every pair in the ranks. Metrics are not corrected for each other.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from simpod.errors import ConfigError
from simpod.sweep.bootstrap import half_widths

Summary = Mapping[str, Any]

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

MAX_RATE: Final = "max_rate_per_s"
"""Not of a summary: highest rate within the SLO, found for every seed."""

_MORE_IS_BETTER: Final = ("throughput", "goodput", "attainment", "hit_frac", MAX_RATE, "completed")
_SATURATED: Final = "BACKLOGGED"
_STEADY: Final = frozenset({"STABLE", "BURST"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One metric of one variant; the differences are to the first variant, None for itself.

    Interval bounds are None with one seed. A metric that a run does not have makes all None.
    first_rank, last_rank: 1 + variants shown to be better, and how many are not shown to be worse;
    None with one seed.
    """

    mean: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    first_rank: int | None = None
    last_rank: int | None = None

    @property
    def is_shown(self) -> bool:
        """The interval does not hold 0: a difference is shown at 95 %."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Cells by metric, in the order of `labels`.

    unlike: metric -> for each variant the variants that it is shown to differ from.
    saturated, unsteady: label -> seeds whose load was beyond what the variant serves, and seeds
    whose run was otherwise no steady state.
    is_random: False if every seed gave the same figures; an interval then says nothing.
    """

    experiment: str
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: Mapping[str, tuple[Cell, ...]]
    unlike: Mapping[str, tuple[frozenset[str], ...]]
    saturated: Mapping[str, tuple[int, ...]]
    unsteady: Mapping[str, tuple[int, ...]]
    is_random: bool

    def ranking(self, metric: str) -> list[int]:
        """Variants from the best mean to the worst; those without a figure last."""
        cells, sign = self.cells[metric], -1 if more_is_better(metric) else 1
        return sorted(
            range(len(cells)),
            key=lambda i: (
                (mean is None, sign * (mean or 0.0))
                if (mean := cells[i].mean) is not None
                else (True, 0.0)
            ),
        )


def more_is_better(metric: str) -> bool:
    """Whether a greater figure is the better one: throughput, goodput, attainment, hits, rates."""
    return any(word in metric for word in _MORE_IS_BETTER)


def compare(
    experiment: str,
    names: tuple[Sequence[str], Sequence[str]],
    seeds: Sequence[int],
    summaries: Sequence[Sequence[Summary]],
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> Comparison:
    """Statistics of summaries [variant][seed]; metrics are keys of a summary, dotted if nested.

    names: keys that vary, and labels of the variants.
    """
    keys, labels = names
    table = {
        metric: [[metric_of(summary, metric) for summary in row] for row in summaries]
        for metric in metrics
    }
    found = {metric: _statistics(rows, labels, metric) for metric, rows in table.items()}
    return Comparison(
        experiment=experiment,
        keys=tuple(keys),
        labels=tuple(labels),
        seeds=tuple(seeds),
        cells={metric: cells for metric, (cells, _) in found.items()},
        unlike={metric: unlike for metric, (_, unlike) in found.items()},
        saturated=_seeds_where(labels, summaries, seeds, is_saturated),
        unsteady=_seeds_where(labels, summaries, seeds, _is_unsteady),
        is_random=len(seeds) < 2
        or any(len(set(row)) > 1 for rows in table.values() for row in rows),
    )


def metric_of(summary: Summary, metric: str) -> float | None:
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


def is_saturated(summary: Summary) -> bool:
    """More was offered than served: latencies are those of the run's length."""
    return bool(summary["stationarity"]["verdict"] == _SATURATED)


def _is_unsteady(summary: Summary) -> bool:
    """A burst has no steady state to miss: it is not counted."""
    return summary["stationarity"]["verdict"] not in {*_STEADY, _SATURATED}


def _seeds_where(
    labels: Sequence[str],
    summaries: Sequence[Sequence[Summary]],
    seeds: Sequence[int],
    holds: Any,
) -> dict[str, tuple[int, ...]]:
    found = {
        label: tuple(seed for seed, summary in zip(seeds, row, strict=True) if holds(summary))
        for label, row in zip(labels, summaries, strict=True)
    }
    return {label: chosen for label, chosen in found.items() if chosen}


def _statistics(
    rows: Sequence[Sequence[float | None]], labels: Sequence[str], metric: str
) -> tuple[tuple[Cell, ...], tuple[frozenset[str], ...]]:
    """Cells of one metric, and from which others each variant is shown to differ."""
    known = [index for index, row in enumerate(rows) if None not in row]
    values = np.array([rows[index] for index in known], dtype=np.float64)
    means = dict(zip(known, values.mean(axis=1).tolist() if known else (), strict=True))
    several = len(rows[0]) > 1
    differences = _to_first(values, known, several=several)
    shown = _shown_pairs(values, known) if several else set()
    sign = -1 if more_is_better(metric) else 1
    cells, unlike = [], []
    for index in range(len(rows)):
        others = {b if a == index else a for a, b in shown if index in (a, b)}
        unlike.append(frozenset(labels[other] for other in others))
        if index not in means:
            cells.append(Cell(mean=None))
            continue
        better = sum(sign * means[other] < sign * means[index] for other in others)
        worse = len(others) - better
        difference, low, high = differences.get(index, (None, None, None))
        cells.append(
            Cell(
                mean=means[index],
                difference=difference,
                low=low,
                high=high,
                first_rank=1 + better if several else None,
                last_rank=len(known) - worse if several else None,
            )
        )
    return tuple(cells), tuple(unlike)


def _to_first(
    values: Any, known: Sequence[int], *, several: bool
) -> dict[int, tuple[float, float | None, float | None]]:
    """Variant -> difference to variant 0 and its bounds."""
    if 0 not in known or len(known) < 2:
        return {}
    pairs = values[1:] - values[0]
    means = pairs.mean(axis=1)
    if not several:
        return {
            index: (float(mean), None, None) for index, mean in zip(known[1:], means, strict=True)
        }
    half = half_widths(pairs)
    return {
        index: (float(mean), float(mean - h), float(mean + h))
        for index, mean, h in zip(known[1:], means, half, strict=True)
    }


def _shown_pairs(values: Any, known: Sequence[int]) -> set[tuple[int, int]]:
    """Pairs of variants whose simultaneous interval does not hold 0."""
    if len(known) < 2:
        return set()
    first, second = zip(*itertools.combinations(range(len(known)), 2), strict=True)
    pairs = values[list(second)] - values[list(first)]
    is_shown = np.abs(pairs.mean(axis=1)) > half_widths(pairs)
    return {
        (known[a], known[b]) for a, b, shown in zip(first, second, is_shown, strict=True) if shown
    }
