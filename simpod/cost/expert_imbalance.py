"""What experts cost when dies get different loads: the slowest die's layer, and the wait for it.

A layer's dispatch, experts and combine end together on all dies: when the die with most tokens is
through. What that takes beyond the mean die is *waiting*, which the others spend in combine.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simpod.cost.expert_exchange import ExpertExchange
from simpod.cost.kernels.expert_load import loads_of
from simpod.cost.kernels.pricer import ExpertWork, KernelPricer
from simpod.cost.work import Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerLoads:
    """Tokens of the experts on two dies of each layer, [num_layers, slots of a die].

    A slot that a die lacks, or that takes nothing, has 0.
    """

    fullest: Floats
    """Of the die with most tokens."""
    mean: Floats
    """Mean over dies, fullest slot first."""

    @property
    def imbalance(self) -> Floats:
        """[num_layers]: most over mean; 1 where nothing arrives."""
        mean = self.mean.sum(axis=-1)
        return np.where(
            mean > 0.0, self.fullest.sum(axis=-1) / np.where(mean > 0.0, mean, 1.0), 1.0
        )

    @classmethod
    def of(cls, slot_tokens: Floats) -> "LayerLoads":
        """From tokens of all slots of all dies, [num_layers, num_dies, slots of a die]."""
        ordered = -np.sort(-slot_tokens, axis=-1)
        fullest = ordered.sum(axis=-1).argmax(axis=-1)
        chosen = np.take_along_axis(ordered, fullest[:, np.newaxis, np.newaxis], axis=1)
        return cls(fullest=chosen[:, 0], mean=ordered.mean(axis=1))


class LoadModel(Protocol):
    """Tokens of experts for any number of tokens of the group."""

    def __call__(self, group_tokens: float, /) -> LayerLoads:
        """Of equally likely layers and steps, [rows]: as many rows as it takes for a mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertSite:
    """Experts of one layer on one die."""

    hidden_size: int
    inter_size: int
    """Of one expert on this die."""
    top_k: int
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparseTimes:
    """Of each layer [num_layers]: the mean die's work, and the wait for the fullest."""

    dispatch_s: Floats
    experts_s: Floats
    combine_s: Floats
    combine_wait_s: Floats

    @property
    def total_s(self) -> Floats:
        """[num_layers]: from dispatch to the end of combine, on every die."""
        return self.dispatch_s + self.experts_s + self.combine_s + self.combine_wait_s


def die_experts_s(kernels: KernelPricer, site: ExpertSite, slot_tokens: Floats) -> Floats:
    """Grouped GEMMs of dies whose experts have tokens [n, slots of a die]."""
    pairs = slot_tokens.sum(axis=-1)
    work = ExpertWork(
        group_tokens=pairs,
        arriving_tokens=pairs,
        num_experts=slot_tokens.shape[-1],
        top_k=site.top_k,
        num_slots=slot_tokens.shape[-1],
        hidden_size=site.hidden_size,
        inter_size=site.inter_size,
        loads=loads_of(slot_tokens),
    )
    return kernels.experts_s(work, site.dtype)


def sparse_times(
    kernels: KernelPricer,
    exchange: ExpertExchange | None,
    site: ExpertSite,
    loads: LayerLoads,
    tokens_per_die: float,
) -> SparseTimes:
    """Price the mean die and the fullest of each layer; `tokens_per_die` are sent by each die.

    exchange: None where all dies have all tokens, and add up what their experts gave.

    The wait is never negative: small loads may leave the fullest die no later than the mean.
    """
    own = np.full(len(loads.mean), tokens_per_die)
    dispatch_s = combine_s = np.zeros(len(own))
    both = die_experts_s(kernels, site, np.concatenate((loads.mean, loads.fullest)))
    experts_s, slowest_s = both[: len(own)], both[len(own) :]
    if exchange is not None:
        dispatch_s, combine_s = (exchange.seconds(name, own) for name in ("dispatch", "combine"))
        slowest_s = slowest_s + exchange.seconds("dispatch", own, loads.imbalance)
        slowest_s = slowest_s + exchange.seconds("combine", own, loads.imbalance)
    wait_s = slowest_s - dispatch_s - combine_s - experts_s
    return SparseTimes(
        dispatch_s=dispatch_s,
        experts_s=experts_s,
        combine_s=combine_s,
        combine_wait_s=np.maximum(wait_s, 0.0),
    )
