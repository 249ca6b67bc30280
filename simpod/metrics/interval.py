"""Intervals of means: of a few independent values, and of a long series that is not independent."""

import math
from dataclasses import dataclass

import numpy as np

from simpod.records.columns import Floats

CONFIDENCE = 0.95
NUM_BATCHES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and the ends of its confidence interval; NaN ends where one value stands alone."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of its width; unit of the mean."""
        return (self.high - self.low) / 2


def mean_interval(values: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of the mean of independent values [n]."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        return Interval(mean=float(known[0]) if len(known) else np.nan, low=np.nan, high=np.nan)
    mean = float(np.mean(known))
    error = float(np.std(known, ddof=1)) / math.sqrt(len(known))
    half = t_quantile(0.5 + confidence / 2, len(known) - 1) * error
    return Interval(mean=mean, low=mean - half, high=mean + half)


def batch_interval(series: Floats, num_batches: int = NUM_BATCHES) -> Interval:
    """Interval of the mean of a series [n] in order of time, whose neighbours are alike.

    Batch means (Conway 1963): means of consecutive stretches are nearly independent when a stretch
    is much longer than the memory of the queue. NaN ends below 5 values a batch.
    """
    known = series[~np.isnan(series)]
    if len(known) < 5 * num_batches:
        return Interval(
            mean=float(np.mean(known)) if len(known) else np.nan, low=np.nan, high=np.nan
        )
    means = np.array([float(np.mean(part)) for part in np.array_split(known, num_batches)])
    around = mean_interval(means)
    mean = float(np.mean(known))
    return Interval(mean=mean, low=mean - around.half, high=mean + around.half)


def t_quantile(probability: float, degrees: int) -> float:
    """Student's t quantile for 0.5 <= probability < 1, by bisection of the exact distribution."""
    low, high = 0.0, 1.0
    while _t_within(high, degrees) < 2 * probability - 1:
        high *= 2
    for _ in range(60):
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
