"""Loads of the experts of a group for any number of tokens: what the price of a step asks for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.experts.counts import Luck, SlotCounts
from simpod.cluster.experts.placement import ExpertPlacement
from simpod.cluster.experts.routing import of_step
from simpod.cluster.experts.sampling import Choices, CopyTable
from simpod.cost.expert_imbalance import LayerLoads, LoadModel

Floats = NDArray[np.float64]

DRAWS = 4
"""Steps that a mean is taken over; each has all sparse layers of the model."""
BLOCK_SLOTS = 32768
"""Of layers that are drawn together: arrays of more slots leave the cache, smaller ones cost more
calls.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MomentLoads:
    """Loads of `DRAWS` steps, each slot for itself; the same luck for every number of tokens."""

    is_drawn: ClassVar[bool] = False

    placement: ExpertPlacement
    blocks: tuple[tuple[SlotCounts, Luck], ...]
    """Layers of all steps, one step after the other, in blocks."""

    @classmethod
    def of(
        cls, placement: ExpertPlacement, shares: Floats, seed: int, step_log_scale: float = 0.0
    ) -> "MomentLoads":
        """For a placement and a popularity [num_layers, num_experts].

        Steps are pairs of opposite deviations, so that few of them have the right mean.
        """
        rng, of_luck = np.random.default_rng([seed, 1]), np.random.default_rng(seed)
        popular: list[Floats] = []
        for _ in range(DRAWS // 2):
            deviations = step_log_scale * rng.standard_normal(shares.shape)
            popular += [of_step(shares, deviations), of_step(shares, -deviations)]
        experts, of_each = np.tile(placement.experts, (DRAWS, 1)), np.concatenate(popular)
        count = -(-experts.size // BLOCK_SLOTS)
        counts = [
            SlotCounts.of(replace(placement, experts=rows), own)
            for rows, own in zip(
                np.array_split(experts, count), np.array_split(of_each, count), strict=True
            )
        ]
        return cls(placement=placement, blocks=tuple((each, each.luck(of_luck)) for each in counts))

    @property
    def num_layers(self) -> int:
        """Of the placement."""
        return self.placement.num_layers

    def __call__(self, group_tokens: float, hit_tokens: float = 0.0) -> LayerLoads:
        """[DRAWS x num_layers]."""
        return LayerLoads.joined(
            [LayerLoads.of(block, hit_tokens) for block in self._drawn(group_tokens)]
        )

    def slot_tokens(self, group_tokens: float) -> Floats:
        """[num_layers, num_dies, slots of a die] of the first of these steps."""
        return np.concatenate(list(self._drawn(group_tokens)))[: self.num_layers]

    def _drawn(self, group_tokens: float) -> Iterator[Floats]:
        return (counts.sample(group_tokens, luck) for counts, luck in self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepLoads:
    """Loads of one step, top-k choices of its tokens drawn whenever it is asked."""

    is_drawn: ClassVar[bool] = True

    placement: ExpertPlacement
    choices: Choices
    table: CopyTable
    rng: np.random.Generator
    step_log_scale: float

    @classmethod
    def of(
        cls,
        placement: ExpertPlacement,
        choices: Choices,
        rng: np.random.Generator,
        step_log_scale: float = 0.0,
    ) -> "StepLoads":
        """For a placement, and choices of the same layers."""
        return cls(
            placement=placement,
            choices=choices,
            table=CopyTable.of(placement),
            rng=rng,
            step_log_scale=step_log_scale,
        )

    @property
    def num_layers(self) -> int:
        """Of the placement."""
        return self.placement.num_layers

    def __call__(self, group_tokens: float, hit_tokens: float = 0.0) -> LayerLoads:
        """[num_layers]: of the next step, which has so many tokens."""
        return LayerLoads.of(self.slot_tokens(group_tokens), hit_tokens)

    def slot_tokens(self, group_tokens: float) -> Floats:
        """[num_layers, num_dies, slots of a die]: of the next step."""
        num_tokens = round(group_tokens)
        chosen = self.choices.of_step(self.step_log_scale, self.rng).draw(num_tokens, self.rng)
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
    step_log_scale: float = 0.0

    def __call__(self, placement: ExpertPlacement, shares: Floats) -> MomentLoads:
        """For a popularity [num_layers, num_experts]."""
        return MomentLoads.of(placement, shares, self.seed, self.step_log_scale)


class ExactSampler:
    """Each step for itself; one stream for all placements, in the order of the steps."""

    def __init__(self, top_k: int, rng: np.random.Generator, step_log_scale: float = 0.0) -> None:
        self._top_k, self._rng, self._step_log_scale = top_k, rng, step_log_scale
        self._shares: Floats | None = None
        self._choices: Choices

    def __call__(self, placement: ExpertPlacement, shares: Floats) -> StepLoads:
        """For a popularity [num_layers, num_experts], whose odds are kept for the next time."""
        if shares is not self._shares:
            self._shares, self._choices = shares, Choices.of(shares, self._top_k)
        return StepLoads.of(placement, self._choices, self._rng, self._step_log_scale)
