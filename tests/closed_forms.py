"""The expected load of the fullest die in closed form, beside what is drawn from moments."""

from math import erf, sqrt

import numpy as np

from simpod.cluster.experts.moments import DieMoments

GRID = 96
"""Points of the integral."""
REACH = 6.0
"""Standard deviations to either side that it covers."""

normal_cdf = np.vectorize(lambda z: 0.5 * (1.0 + erf(z / sqrt(2.0))), otypes=[np.float64])


def standard_normal_of(x: np.ndarray, skew: np.ndarray) -> np.ndarray:
    """z with z + skew / 6 (z^2 - 1) = x: Cornish and Fisher's expansion turned round."""
    small = np.abs(skew) < 1e-6
    g = np.where(small, 1.0, skew / 6.0)
    root = np.sqrt(np.maximum(1.0 + 4.0 * g * (x + g), 0.0))
    return np.where(small, x, (root - 1.0) / (2.0 * g))


def expected_max(moments: DieMoments, num_tokens: float) -> np.ndarray:
    """[num_layers]: E max = top - integral of P(max <= x) up to the top, dies independent."""
    deviation, skew = moments.spread(num_tokens)
    mean = num_tokens * moments.mean
    top = (mean + REACH * deviation * (1.0 + skew)).max(axis=1)
    low = np.maximum((mean - REACH * deviation).max(axis=1), 0.0)
    at = low[:, np.newaxis] + np.linspace(0.0, 1.0, GRID) * (top - low)[:, np.newaxis]
    below = np.ones(at.shape)
    for die in range(mean.shape[1]):
        spread = deviation[:, die, np.newaxis]
        certain = spread <= 0.0
        x = (at - mean[:, die, np.newaxis]) / np.where(certain, 1.0, spread)
        z = standard_normal_of(x, skew[:, die, np.newaxis])
        below *= np.where(certain, x >= 0.0, normal_cdf(z))
    return top - np.trapezoid(below, at, axis=1)
