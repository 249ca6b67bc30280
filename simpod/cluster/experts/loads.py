"""Loads of the experts of a group for any number of tokens: what the price of a step asks for."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.experts.moments import DieMoments
from simpod.cluster.experts.placement import ExpertPlacement
from simpod.cluster.experts.sampling import Choices, CopyTable
from simpod.cost.expert_imbalance import LayerLoads, LoadModel
from simpod.cost.stragglers import TINY, leads_of

Floats = NDArray[np.float64]

DRAWS = 4
"""Steps that a mean is taken over; each has all sparse layers of the model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MomentLoads:
    """Loads of `DRAWS` steps, from moments; the same draws for every number of tokens."""

    is_drawn: ClassVar[bool] = False

    placement: ExpertPlacement
    ordered: Floats
    """[num_layers, num_dies, slots of a die]: means per token of the group, fullest slot first."""
    moments: DieMoments
    seed: int

    @classmethod
    def of(cls, placement: ExpertPlacement, shares: Floats, seed: int) -> "MomentLoads":
        """For a placement and a popularity [num_layers, num_experts]."""
        means = placement.table(placement.slot_tokens(shares), tokens=1.0)
        moments = DieMoments.of(placement, shares)
        ordered = -np.sort(-means, axis=-1)
        return cls(placement=placement, ordered=ordered, moments=moments, seed=seed)

    def __call__(self, group_tokens: float) -> LayerLoads:
        """[DRAWS x num_layers]: the fullest die's slots in proportion to their means.

        A slot gets none with probability exp(-mean), its count being nearly Poisson.
        """
        rng = np.random.default_rng(self.seed)
        row = np.arange(len(self.ordered))
        fullest, leads = [], []
        for _ in range(DRAWS):
            drawn = self.moments.sample(group_tokens, rng)
            die = drawn.argmax(axis=1)
            leads.append(leads_of(drawn))
            fullest.append(_in_proportion(self.ordered[row, die], drawn[row, die]))
        mean = group_tokens * self.ordered.mean(axis=1)
        hit = -np.expm1(-group_tokens * self.ordered).mean(axis=1)
        return LayerLoads(
            fullest=np.concatenate(fullest),
            mean=np.tile(mean, (DRAWS, 1)),
            mean_hit=np.tile(hit, (DRAWS, 1)),
            leads=np.concatenate(leads),
        )

    def slot_tokens(self, group_tokens: float) -> Floats:
        """[num_layers, num_dies, slots of a die] of the first of these steps.

        Slots that get none are drawn; if that is all of a die, its fullest has what it gets.
        """
        rng = np.random.default_rng(self.seed)
        drawn = self.moments.sample(group_tokens, rng)
        is_hit = rng.random(self.ordered.shape) < -np.expm1(-group_tokens * self.ordered)
        is_hit[..., 0] |= ~is_hit.any(axis=-1)
        return _in_proportion(self.ordered * is_hit, drawn)


def _in_proportion(means: Floats, tokens: Floats) -> Floats:
    """[..., slots of a die]: `tokens` [...] of a die in proportion to the slots' means."""
    total = np.maximum(means.sum(axis=-1), TINY)
    return np.asarray(means * (tokens / total)[..., np.newaxis])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepLoads:
    """Loads of one step, top-k choices of its tokens drawn whenever it is asked."""

    is_drawn: ClassVar[bool] = True

    placement: ExpertPlacement
    choices: Choices
    table: CopyTable
    rng: np.random.Generator

    @classmethod
    def of(
        cls, placement: ExpertPlacement, choices: Choices, rng: np.random.Generator
    ) -> "StepLoads":
        """For a placement, and choices of the same layers."""
        table = CopyTable.of(placement)
        return cls(placement=placement, choices=choices, table=table, rng=rng)

    def __call__(self, group_tokens: float) -> LayerLoads:
        """[num_layers]: of the next step, which has so many tokens."""
        return LayerLoads.of(self.slot_tokens(group_tokens))

    def slot_tokens(self, group_tokens: float) -> Floats:
        """[num_layers, num_dies, slots of a die]: of the next step."""
        num_tokens = round(group_tokens)
        chosen = self.choices.draw(num_tokens, self.rng)
        slot_tokens = self.table.deal(chosen, num_tokens, self.rng).astype(np.float64)
        return self.placement.table(slot_tokens, group_tokens)


class LoadSampler(Protocol):
    """Makes the loads of a placement."""

    def __call__(self, placement: ExpertPlacement, shares: Floats, /) -> LoadModel:
        """For a popularity [num_layers, num_experts]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentSampler:
    """Means over a few steps; every placement with the same random numbers."""

    seed: int

    def __call__(self, placement: ExpertPlacement, shares: Floats) -> MomentLoads:
        """For a popularity [num_layers, num_experts]."""
        return MomentLoads.of(placement, shares, self.seed)


class ExactSampler:
    """Each step for itself; one stream for all placements, in the order of the steps."""

    def __init__(self, top_k: int, rng: np.random.Generator) -> None:
        self._top_k, self._rng = top_k, rng
        self._shares: Floats | None = None
        self._choices: Choices

    def __call__(self, placement: ExpertPlacement, shares: Floats) -> StepLoads:
        """For a popularity [num_layers, num_experts], whose odds are kept for the next time."""
        if shares is not self._shares:
            self._shares, self._choices = shares, Choices.of(shares, self._top_k)
        return StepLoads.of(placement, self._choices, self._rng)
