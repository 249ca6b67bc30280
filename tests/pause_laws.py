"""The longest of the pauses of many hosts: mean and quantiles by its distribution.

P(M <= x) is the product over causes of (1 - p exp(-x / mu))^n, for n dies.
"""

from collections.abc import Sequence

import numpy as np

from simpod.cost.pipeline.jitter import HostPause

POINTS = 2049
TAIL = 30.0
"""Means beyond the last one expected, to which the integral goes."""


def below_frac(causes: Sequence[HostPause], num_dies: int, x_s: np.ndarray) -> np.ndarray:
    """P(M <= x) [...] for x [...]."""
    found = np.ones(np.shape(x_s))
    for cause in causes:
        found = found * (1.0 - cause.frac * np.exp(-x_s / cause.mean_s)) ** num_dies
    return found


def expected_max_s(causes: Sequence[HostPause], num_dies: int) -> float:
    """Mean of the longest pause: integral of P(M > x)."""
    if not causes:
        return 0.0
    slowest = max(cause.mean_s for cause in causes)
    end = slowest * (np.log(num_dies + 1.0) + TAIL)
    x = end * np.linspace(0.0, 1.0, POINTS) ** 3  # most points where the short pauses are
    return float(np.trapezoid(1.0 - below_frac(causes, num_dies, x), x))


def quantile_s(causes: Sequence[HostPause], num_dies: int, share: float) -> float:
    """x with P(M <= x) = share, by bisection."""
    low, high = 0.0, max((cause.mean_s for cause in causes), default=0.0)
    high *= np.log(num_dies + 1.0) - np.log1p(-share) + 1.0
    if not causes or below_frac(causes, num_dies, np.zeros(())) >= share:
        return 0.0
    for _ in range(64):
        middle = 0.5 * (low + high)
        is_below = below_frac(causes, num_dies, np.asarray(middle)) < share
        low, high = (middle, high) if is_below else (low, middle)
    return float(high)
