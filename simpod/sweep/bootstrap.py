"""Simultaneous confidence intervals of paired differences: studentised bootstrap, max-T.

For each comparison T = mean / (s / sqrt(n)) over n seeds. The bootstrap gives the law of max |T|
over all comparisons of a family when nothing differs; its 95 % quantile c makes the intervals
mean +- c s / sqrt(n), which hold *together* in 95 % of the experiments (single-step max-T, Westfall
and Young 1993; Hothorn, Bretz and Westfall 2008). Seeds are drawn for all comparisons at once, so
that their dependence (a shared baseline, common random numbers) is kept and not paid for.

How samples are drawn depends on n. From 8 seeds on, seeds are resampled (bootstrap-t), which
follows skewed differences. Fewer seeds have too few resamples (126 distinct ones of 5): then
differences are drawn from a normal law with their own covariance (parametric bootstrap), which for
one comparison is Student's paired t. Its correlations, of n - 1 degrees of freedom, are shrunk by
1 / (n - 1).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 10_000
SEEDS_TO_RESAMPLE: Final = 8
_CHUNK: Final = 1000


def half_widths(differences: Floats) -> Floats:
    """Half widths of the intervals of one family, [m]; differences: [m, n] by comparison and seed.

    Differences that are alike to the last bits have width 0: what does not vary is known.
    """
    error = standard_error(differences)
    varies = error > 1e-12 * np.abs(differences).max(axis=1)
    width = np.zeros(len(differences))
    if varies.any():
        width[varies] = critical_value(differences[varies]) * error[varies]
    return width


def standard_error(differences: Floats) -> Floats:
    """Of the mean over seeds, [m]."""
    found: Floats = differences.std(axis=1, ddof=1) / np.sqrt(differences.shape[1])
    return found


def critical_value(differences: Floats) -> float:
    """The 95 % quantile of max |T| under the null; always the same for the same differences."""
    rng = np.random.default_rng(20_240_601)
    draw = _resampled if differences.shape[1] >= SEEDS_TO_RESAMPLE else _normal
    worst = np.concatenate(
        [_worst(draw(differences, _CHUNK, rng)) for _ in range(RESAMPLES // _CHUNK)]
    )
    return float(np.quantile(worst, CONFIDENCE))


def _worst(samples: Floats) -> Floats:
    """max |T| of each sample, [b]; samples: [b, m, n]. A sample without spread says nothing: 0."""
    error = samples.std(axis=2, ddof=1) / np.sqrt(samples.shape[2])
    spread = np.abs(samples).max(axis=2)
    mean = np.abs(samples.mean(axis=2))
    known = error > 1e-12 * spread
    found: Floats = np.divide(mean, error, out=np.zeros_like(mean), where=known).max(axis=1)
    return found


def _resampled(differences: Floats, count: int, rng: np.random.Generator) -> Floats:
    seeds = differences.shape[1]
    centred = differences - differences.mean(axis=1, keepdims=True)
    chosen = rng.integers(0, seeds, (count, seeds))
    return np.ascontiguousarray(centred[:, chosen].transpose(1, 0, 2))


def _normal(differences: Floats, count: int, rng: np.random.Generator) -> Floats:
    num, seeds = differences.shape
    centred = differences - differences.mean(axis=1, keepdims=True)
    scale = centred / np.sqrt(seeds - 1)
    normals = rng.standard_normal((count, seeds, seeds))
    together: Floats = np.einsum("mi,bin->bmn", scale, normals)
    if num == 1:
        return together
    alone = rng.standard_normal((count, num, seeds)) * differences.std(axis=1, ddof=1)[:, None]
    shrink = 1 / (seeds - 1)
    mixed: Floats = np.sqrt(1 - shrink) * together + np.sqrt(shrink) * alone
    return mixed
