"""Tokens of each die in one step from their moments: the fast mode.

Tokens are independent, so a slot's count is binomial(n / copies, p), and two experts of one token
are weakly exclusive: cov = -v v' / sum v with v = p (1 - p) (Hajek 1964). A die's count is taken
to be normal with these moments and the third one (Cornish-Fisher); the counts of all dies add up to
n * top_k exactly, so deviations are drawn independently, a little wider, and their sum is taken
back from each in proportion to its variance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.experts.placement import ExpertPlacement, sums_by_die

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DieMoments:
    """Of tokens on a die in one step, per token of the group; arrays [num_layers, num_dies].

    mean, variance and third central moment all grow in proportion to the tokens of the step.
    """

    mean: Floats
    variance: Floats
    third: Floats

    @classmethod
    def of(cls, placement: ExpertPlacement, shares: Floats) -> "DieMoments":
        """For popularity [num_layers, num_experts]."""
        slots = placement.slots
        own = np.take_along_axis(shares, np.maximum(placement.experts, 0), axis=1)
        portion = placement.slot_share
        spread = own * (1.0 - own)
        total = (shares * (1.0 - shares)).sum(axis=1, keepdims=True)
        joint = sums_by_die(slots, portion * spread)
        same = sums_by_die(slots, (portion * spread) ** 2)
        exclusive = (joint**2 - same) / np.where(total > 0.0, total, 1.0)
        return cls(
            mean=sums_by_die(slots, portion * own) + placement.shared_tokens(1.0),
            variance=np.maximum(sums_by_die(slots, portion * spread) - exclusive, 0.0),
            third=sums_by_die(slots, portion * spread * (1.0 - 2.0 * own)),
        )

    def sample(self, num_tokens: float, rng: np.random.Generator) -> Floats:
        """[num_layers, num_dies] tokens of one step of `num_tokens` tokens of all ranks."""
        deviation, skew = self.spread(num_tokens)
        z = rng.standard_normal(self.mean.shape)
        moved = deviation * (z + skew / 6.0 * (z * z - 1.0))
        total = self.variance.sum(axis=1, keepdims=True)
        part = self.variance / np.where(total > 0.0, total, 1.0)
        moved -= part * moved.sum(axis=1, keepdims=True)
        return np.maximum(num_tokens * self.mean + moved, 0.0)

    def spread(self, num_tokens: float) -> tuple[Floats, Floats]:
        """Standard deviation before the sum is taken back, and skewness."""
        total = self.variance.sum(axis=1, keepdims=True)
        part = self.variance / np.where(total > 0.0, total, 1.0)
        variance = num_tokens * self.variance / np.maximum(1.0 - part, 0.5)
        safe = np.where(variance > 0.0, variance, 1.0)
        skew = np.where(variance > 0.0, num_tokens * self.third / safe**1.5, 0.0)
        return np.sqrt(variance), np.clip(skew, -1.0, 1.0)
