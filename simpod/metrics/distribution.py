"""Mean, spread and percentiles of a sample, plain or weighted."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simpod.records.columns import Floats, Ints

PERCENTILES = (50, 90, 95, 99)

NUM_BINS = 4096  # smaller samples are sorted
AT_ONCE = 2**14


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
    mean = _weighted_sum(values, weights) / total
    variance = _weighted_sum(values, weights, about=mean) / total
    points = weighted_percentiles(values, weights, PERCENTILES)
    return _distribution(total, mean, variance**0.5, points)


def weighted_percentiles(values: Floats, weights: Ints, percentiles: tuple[int, ...]) -> Floats:
    """Equal `np.percentile(np.repeat(values, weights), percentiles)`, without writing it out."""
    position = np.asarray(percentiles) / 100 * (int(weights.sum()) - 1)
    below = np.floor(position)
    ends = _at_ranks(values, weights, np.concatenate([below, np.ceil(position)]).astype(np.int64))
    low, high = np.split(ends, 2)
    return low + (high - low) * (position - below)


def _at_ranks(values: Floats, weights: Ints, ranks: Ints) -> Floats:
    """[len(ranks)] entries of the sample in ascending order, from 0: sorts only where they are.

    Values go into equal bins; each bin that holds a wanted rank is searched in the same way. The
    least and the largest value are never in one bin, so every bin is smaller than the sample.
    """
    low, high = values.min(), values.max()
    if len(values) < NUM_BINS or not high > low:
        order = np.argsort(values)
        last_index = np.cumsum(weights[order])  # exclusive: entries up to and including each value
        return values[order][np.searchsorted(last_index, ranks, side="right")]
    scale = (NUM_BINS - 1) / (high - low)
    held = np.zeros(NUM_BINS)
    for piece in _pieces(values):
        bins = ((values[piece] - low) * scale).astype(np.int64)
        held += np.bincount(bins, weights[piece], minlength=NUM_BINS)
    upto = np.cumsum(held).astype(np.int64)
    places = np.searchsorted(upto, ranks, side="right")
    found = np.empty(len(ranks))
    kept = _in_bins(values, low, scale, places)
    kept_bins = ((values[kept] - low) * scale).astype(np.int64)
    for place in np.unique(places):
        here, inside = places == place, kept[kept_bins == place]
        before = upto[place - 1] if place else 0
        found[here] = _at_ranks(values[inside], weights[inside], ranks[here] - before)
    return found


def _in_bins(values: Floats, low: float, scale: float, places: Ints) -> Ints:
    """Where the values of some bins are."""
    is_wanted = np.zeros(NUM_BINS, dtype=bool)
    is_wanted[places] = True
    found = [
        piece.start + np.flatnonzero(is_wanted[((values[piece] - low) * scale).astype(np.int64)])
        for piece in _pieces(values)
    ]
    return np.concatenate(found)


def _weighted_sum(values: Floats, weights: Ints, about: float | None = None) -> float:
    """Of the values, or of their squared distances from `about`."""
    total = 0.0
    for piece in _pieces(values):
        some = values[piece] if about is None else (values[piece] - about) ** 2
        total += float(np.dot(some, weights[piece]))
    return total


def _pieces(values: Floats) -> Iterator[slice]:
    """Parts of a long sample whose temporary arrays stay in the cache."""
    for first in range(0, len(values), AT_ONCE):
        yield slice(first, first + AT_ONCE)


def _distribution(count: int, mean: float, std: float, points: Floats) -> Distribution:
    p50, p90, p95, p99 = (float(point) for point in points)
    return Distribution(count=count, mean=mean, std=std, p50=p50, p90=p90, p95=p95, p99=p99)
