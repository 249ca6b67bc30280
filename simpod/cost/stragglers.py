"""The slowest of many dies, which differ throughout and at random.

Attention over the cache varies from call to call (`Calibration.decode_kernel_spread_frac`), and so
do experts' kernels; dies that meet in every layer wait for the one that comes last. It counts where
nothing hides it: with one batch on all cores. Micro-batches on streams or on dies of their own have
another one to work on meanwhile.

Ranks also differ throughout, by batch and context. The last one takes on average

    max over k of  mean of the k longest + slowest_of(k) x standard deviation.

Each k gives a lower bound: the slowest of all is no faster than the slowest of any k of them, and
that is no faster on average than if these were alike. k = all is exact where ranks are alike, k = 1
where one is far ahead; between them it is up to 8 % short for 288 ranks that differ throughout as
much as at random (tests). It is linear in whatever times are linear in, as steps that are skipped
need it.

Dies differ throughout by the loads of their experts, of which nothing has to be linear: `last_of`
has the law of the last of all, the dies in groups of like ones, within 2 %, or 4 % where a tenth
of them is far ahead (tests). It is up to 8 % short for 32 dies, 15 % for 4, where all are alike but
for a few that are far behind: their group is as late as its mean.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from simpod.cost.normal_law import TINY, log_normal_law
from simpod.cost.work import Floats, Ints

NODE_STEP: Final = 0.5
NODES: Final = np.arange(-2.5, 5.0, NODE_STEP)
"""Of the integral over the law of the last die, in standard deviations from where the fullest
is on average: 2e-3 of one off, for up to 1000 dies.
"""
ROUNDING: Final = 1e-9
"""Of the mean: a lead that is none."""
BLOCK_ROWS: Final = 1024
"""Layers whose last dies are found together: what that needs stays in a core's cache."""


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


def group_sizes(num_dies: int, num_ranks: int) -> Floats:
    """[groups] of `counts_of`, without those that it counts already: ranks whose fullest die is
    there, on average of all ways in which the dies of a rank may lie among the others.

    num_dies: where each expert is cut over several dies, these are one. With fewer of them than
    ranks each stands for as many ranks as share it.
    """
    if num_dies < num_ranks:
        return group_sizes(num_dies, num_dies) * (num_ranks / num_dies)
    dies = num_dies // num_ranks
    left = num_dies - counts_of(num_dies)[:, np.newaxis] - np.arange(dies)
    is_missed = (np.maximum(left, 0) / (num_dies - np.arange(dies))).prod(axis=1)
    return np.diff(num_ranks * (1.0 - is_missed), prepend=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VaryingDies:
    """Dies whose kernels take unlike times."""

    spread_frac: float
    """Coefficient of variation."""
    sizes: Floats
    """`group_sizes`."""


def leads_of(die_work: Floats) -> Floats:
    """[num_layers, groups] for [num_layers, num_dies]: how far the die with most, the one after it,
    the two after that, ... (`counts_of`) are ahead of the mean die, as a share of the first's lead.
    """
    counts = counts_of(die_work.shape[-1])
    first = die_work.shape[-1] - counts[::-1]  # of each group, in ascending order
    sums = np.add.reduceat(np.sort(die_work, axis=-1), first, axis=-1)[:, ::-1]
    mean = die_work.mean(axis=-1, keepdims=True)
    ahead = sums / np.diff(counts, prepend=0) - mean
    leads = ahead / np.maximum(ahead[:, :1], ROUNDING * mean + TINY)
    leads[:, 0] = 1.0  # also where all have as much, of which one may take longer all the same
    return np.asarray(leads)


def last_of(ahead_s: Floats, late_s: Floats, sizes: Floats) -> Floats:
    """[n]: mean seconds that the last of many dies is ahead of the mean die.

    ahead_s [n, groups], the fullest die first: throughout. late_s [n, groups]: standard deviation
    of what varies. sizes [groups]: dies that vary by themselves. The integral over the law of the
    last,

        product over groups of  (normal law of (t - ahead) / late) ^ size.
    """
    rows = range(0, len(ahead_s), BLOCK_ROWS)
    blocks = ((ahead_s[i : i + BLOCK_ROWS], late_s[i : i + BLOCK_ROWS]) for i in rows)
    return np.concatenate([_last_of(ahead, late, sizes) for ahead, late in blocks])


def _last_of(ahead_s: Floats, late_s: Floats, sizes: Floats) -> Floats:
    late_s = np.maximum(late_s, TINY)
    first_s = late_s[:, :1]
    behind, wider = (ahead_s[:, :1] - ahead_s) / late_s, first_s / late_s
    laws = [np.exp(log_normal_law(behind + node * wider).dot(sizes)) for node in NODES.tolist()]
    above = len(laws) - np.add.reduce(laws) - 0.5 * (1.0 - laws[0])
    return np.asarray(ahead_s[:, 0] + first_s[:, 0] * (NODES[0] + NODE_STEP * above))


class SlowestRanks:
    """How long ranks take to their dispatches until the last one is there, all layers."""

    def __init__(self, num_ranks: int, spread_frac: float) -> None:
        self._counts = counts_of(num_ranks) if spread_frac else np.ones(1, dtype=np.int64)
        self._last = self._counts - 1
        self._late = spread_frac * np.array([slowest_of(n) for n in self._counts.tolist()])
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
