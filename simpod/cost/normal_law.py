"""The normal law and its quantiles, looked up in tables of even steps: a bisection takes ten times
as long.
"""

from math import erfc, log, sqrt
from statistics import NormalDist
from typing import Final

import numpy as np

from simpod.cost.work import Floats

FARTHEST: Final = 8.0
"""Normal numbers beyond it, 1e-15 of all, count as it."""
STEPS: Final = 4000
"""Of each table; between its entries, 3e-6 off at most."""
TINY: Final = 1e-300
"""Instead of a divisor of 0."""

_LAW: Final = [
    0.5 * erfc(-z / sqrt(2.0)) for z in np.linspace(-FARTHEST, FARTHEST, STEPS + 1).tolist()
]
_LOG_ODDS: Final = -log(_LAW[0])
_UPPER: Final = np.array(
    [
        -NormalDist().inv_cdf(1.0 / (1.0 + np.exp(y)))
        for y in np.linspace(0.0, _LOG_ODDS, STEPS // 2 + 1).tolist()
    ]
)
LAW: Final = np.array(_LAW)
LOG_LAW: Final = np.log(LAW)
QUANTILES: Final = np.concatenate([-_UPPER[:0:-1], _UPPER])
"""By the logarithm of the odds of a share, in which they are nearly straight."""


def normal_law(z: Floats) -> Floats:
    """Share of normal numbers below z."""
    return _between(LAW, z / FARTHEST)


def log_normal_law(z: Floats) -> Floats:
    """Its logarithm at the nearest entry, 2e-3 from z."""
    place = z * (STEPS / 2 / FARTHEST) + (STEPS / 2 + 0.5)
    return np.asarray(LOG_LAW.take(np.minimum(np.maximum(place, 0.0), STEPS).astype(np.int64)))


def normal_quantiles(share: Floats) -> Floats:
    """Normal number below which there is such a share."""
    odds = np.maximum(share, TINY) / np.maximum(1.0 - share, TINY)
    return _between(QUANTILES, np.log(odds) / _LOG_ODDS)


def _between(table: Floats, where: Floats) -> Floats:
    """Of a table over [-1, 1], linear between its entries and constant beyond."""
    place = (np.minimum(np.maximum(where, -1.0), 1.0) + 1.0) * (STEPS / 2)
    left = np.minimum(place.astype(np.int64), STEPS - 1)
    low = table.take(left)
    return np.asarray(low + (place - left) * (table.take(left + 1) - low))
