"""Mean, spread and percentiles of a sample, plain or weighted."""

from dataclasses import dataclass

import numpy as np

from simpod.records.columns import Floats, Ints

PERCENTILES = (50, 90, 95, 99)

MAX_EXACT_VALUES = 10_000_000
"""Weighted samples with more distinct entries than this are binned by `LOG_BIN` before sorting."""

LOG_BIN = np.log(1.001)
"""Bins 0.1 % wide: a percentile is then within 0.1 % of the exact one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Summary of a sample; unitless here, its user knows the unit. NaN when the sample is empty.

    `std` is that of the population, percentiles interpolate linearly: both as numpy and vLLM do.
    """

    count: int
    mean: float
    std: float
    p50: float
    p90: float
    p95: float
    p99: float


def describe(values: Floats) -> Distribution:
    """Summarise a plain sample [n]."""
    if len(values) == 0:
        return _distribution(0, np.nan, np.nan, np.full(len(PERCENTILES), np.nan))
    points = np.percentile(values, PERCENTILES)
    return _distribution(len(values), float(np.mean(values)), float(np.std(values)), points)


def describe_weighted(values: Floats, weights: Ints) -> Distribution:
    """Summarise the sample in which values[i] occurs weights[i] times, without writing it out."""
    total = int(weights.sum())
    if total == 0:
        return describe(np.empty(0))
    mean = float(np.dot(values, weights) / total)
    variance = float(np.dot((values - mean) ** 2, weights) / total)
    if len(values) > MAX_EXACT_VALUES:
        values, weights = log_bins(values, weights)
    points = weighted_percentiles(values, weights, PERCENTILES)
    return _distribution(total, mean, variance**0.5, points)


def weighted_percentiles(values: Floats, weights: Ints, percentiles: tuple[int, ...]) -> Floats:
    """Equal `np.percentile(np.repeat(values, weights), percentiles)`, by one sort of `values`."""
    order = np.argsort(values)
    ordered = values[order]
    last_index = np.cumsum(weights[order])  # exclusive: entries up to and including each value
    position = np.asarray(percentiles) / 100 * (int(last_index[-1]) - 1)
    below = np.floor(position)
    low = ordered[np.searchsorted(last_index, below, side="right")]
    high = ordered[np.searchsorted(last_index, np.ceil(position), side="right")]
    return low + (high - low) * (position - below)


def log_bins(values: Floats, weights: Ints) -> tuple[Floats, Ints]:
    """Merge values less than 0.1 % apart into their weighted mean; keeps the total weight."""
    positive = values > 0
    bins = np.zeros(len(values), dtype=np.int64)  # bin 0: zeros
    bins[positive] = np.floor(np.log(values[positive]) / LOG_BIN)
    bins[positive] += 1 - bins[positive].min(initial=0)
    counts = np.bincount(bins, weights).astype(np.int64)
    sums = np.bincount(bins, values * weights)
    used = counts > 0
    return sums[used] / counts[used], counts[used]


def _distribution(count: int, mean: float, std: float, points: Floats) -> Distribution:
    p50, p90, p95, p99 = (float(point) for point in points)
    return Distribution(count=count, mean=mean, std=std, p50=p50, p90=p90, p95=p95, p99=p99)
