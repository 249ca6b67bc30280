"""Loads of the experts of a group for any number of tokens: what the price of a step asks for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.experts.moments import DieMoments
from simpod.cluster.experts.placement import ExpertPlacement
from simpod.cost.expert_imbalance import LayerLoads

Floats = NDArray[np.float64]

DRAWS = 4
"""Steps that a mean is taken over; each has all sparse layers of the model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnLoads:
    """Loads of `DRAWS` steps, from moments; the same draws for every number of tokens."""

    placement: ExpertPlacement
    ordered: Floats
    """[num_layers, num_dies, slots of a die]: means per token of the group, fullest slot first."""
    moments: DieMoments
    seed: int

    @classmethod
    def of(cls, placement: ExpertPlacement, shares: Floats, seed: int) -> "DrawnLoads":
        """For a placement and a popularity [num_layers, num_experts]."""
        means = placement.table(placement.slot_tokens(shares), tokens=1.0)
        moments = DieMoments.of(placement, shares)
        ordered = -np.sort(-means, axis=-1)
        return cls(placement=placement, ordered=ordered, moments=moments, seed=seed)

    def __call__(self, group_tokens: float) -> LayerLoads:
        """[DRAWS x num_layers]: the fullest die's slots in proportion to their means."""
        rng = np.random.default_rng(self.seed)
        row = np.arange(len(self.ordered))
        fullest = []
        for _ in range(DRAWS):
            drawn = self.moments.sample(group_tokens, rng)
            die = drawn.argmax(axis=1)
            slots = self.ordered[row, die]
            total = np.maximum(slots.sum(axis=1), 1e-300)
            fullest.append(slots * (drawn[row, die] / total)[:, np.newaxis])
        mean = group_tokens * self.ordered.mean(axis=1)
        return LayerLoads(fullest=np.concatenate(fullest), mean=np.tile(mean, (DRAWS, 1)))
