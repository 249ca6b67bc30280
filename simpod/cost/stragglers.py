"""The slowest of many dies, which differ throughout and at random.

Attention over the cache varies from call to call (`Calibration.decode_kernel_spread_frac`), and so
do experts' kernels; dies that meet in every layer wait for the one that comes last. It counts where
nothing hides it: with one batch on all cores. Micro-batches on streams or on dies of their own have
another one to work on meanwhile.

Where dies also differ throughout, by batch and context or by the load of their experts, the last
one takes on average

    max over k of  mean of the k longest + slowest_of(k) x standard deviation.

Each k gives a lower bound: the slowest of all is no faster than the slowest of any k of them, and
that is no faster on average than if these were alike. k = all is exact where dies are alike, k = 1
where one is far ahead; between them it is up to 8 % short for 288 dies that differ throughout as
much as at random (tests). It is linear in whatever times are linear in.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from simpod.cost.work import Floats, Ints

TINY: Final = 1e-300
"""In place of a sum of 0 that something is divided by, which is 0 then, too."""


def slowest_of(num_dies: int) -> float:
    """Mean of the largest of `num_dies` standard normal numbers; 0 for one.

    The quantile (n - 3/8) / (n + 1/4) of G. Blom, Statistical Estimates and Transformed
    Beta-Variables, 1958: within 5 % of the integral for 2, 1 % from 8 on.
    """
    return NormalDist().inv_cdf((num_dies - 0.375) / (num_dies + 0.25))


def counts_of(num_dies: int) -> Ints:
    """How many of the longest are looked at: powers of two, and all."""
    doubled = 2 ** np.arange(max(num_dies - 1, 0).bit_length(), dtype=np.int64)
    return np.append(doubled, num_dies)


def lateness(num_dies: int, most: int) -> Floats:
    """`slowest_of` each of `counts_of`, of which no more than `most` vary by themselves."""
    counts = np.minimum(counts_of(num_dies), most)
    return np.array([slowest_of(count) for count in counts.tolist()])


def leads_of(die_tokens: Floats) -> Floats:
    """[num_layers, counts] for [num_layers, num_dies]: how far the `counts_of` fullest dies are
    ahead of the mean die on average, as a share of the fullest's lead; 1 of the fullest itself.
    """
    counts = counts_of(die_tokens.shape[-1])
    first = die_tokens.shape[-1] - counts[::-1]  # of the fullest ones, in ascending order
    between = np.add.reduceat(np.sort(die_tokens, axis=-1), first, axis=-1)[:, ::-1]
    means = between.cumsum(axis=-1) / counts - die_tokens.mean(axis=-1, keepdims=True)
    leads = np.maximum(means, 0.0) / np.maximum(means[:, :1], TINY)
    leads[:, 0] = 1.0  # also where all have as much, of which one may take longer all the same
    return np.asarray(leads)


class SlowestRanks:
    """How long ranks take to their dispatches until the last one is there, all layers."""

    def __init__(self, num_ranks: int, spread_frac: float) -> None:
        self._counts = counts_of(num_ranks) if spread_frac else np.ones(1, dtype=np.int64)
        self._last = self._counts - 1
        self._late = spread_frac * lateness(num_ranks, num_ranks)[: len(self._counts)]
        self._varies = spread_frac > 0.0

    def law(self, busy_s: Floats, attention_s: Floats, slope_s: Floats) -> tuple[float, float]:
        """Seconds, and their growth for each token that all sequences gain.

        busy_s, attention_s, slope_s [num_ranks]: without lateness; attention over the cache, which
        varies, of that; growth of either. Lateness is that of the longest attention. In such tokens
        the seconds are convex and piecewise linear.
        """
        if not self._varies:
            slowest = busy_s.argmax()
            return busy_s.item(slowest), slope_s.item(slowest)
        order = (-busy_s).argsort()
        mean_s = np.add.accumulate(busy_s.take(order)).take(self._last) / self._counts
        longest = attention_s.argmax()
        mean_s += self._late * attention_s.item(longest)
        best = mean_s.argmax()
        count = self._counts.item(best)
        slope = np.add.reduce(slope_s.take(order[:count])) / count
        late = self._late.item(best)
        return mean_s.item(best), float(slope) + late * slope_s.item(longest)


@dataclass(slots=True, eq=False)
class Arrivals:
    """When the ranks of one step are there; arrays as in `SlowestRanks.law`."""

    ranks: SlowestRanks
    busy_s: Floats
    attention_s: Floats
    slope_s: Floats

    def last(self, gained: int = 0) -> tuple[float, float]:
        """The last one's seconds, and their growth, once sequences have `gained` so many tokens."""
        if not gained:
            return self.ranks.law(self.busy_s, self.attention_s, self.slope_s)
        more_s = gained * self.slope_s
        return self.ranks.law(self.busy_s + more_s, self.attention_s + more_s, self.slope_s)
