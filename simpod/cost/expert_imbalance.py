"""What experts cost when dies get different loads: the slowest die's layer, and the wait for it.

A layer's dispatch, experts and combine end together on all dies: when the die with most tokens is
through. What that takes beyond the mean die is *waiting*, which the others spend in combine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Final, Protocol

import numpy as np

from simpod.cost.gather_exchange import AnyExchange
from simpod.cost.kernels.expert_load import ExpertLoads, loads_of
from simpod.cost.kernels.pricer import ExpertWork, KernelPricer
from simpod.cost.stragglers import TINY, leads_of
from simpod.cost.work import Floats

MOST_KEPT: Final = 512
"""Numbers of tokens whose loads are kept."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerLoads:
    """Tokens of the experts on a few dies of each layer, [num_layers, slots of a die].

    A slot that a die lacks, or that takes nothing, has 0.
    """

    fullest: Floats
    """Of the die with most tokens."""
    mean: Floats
    """Mean over dies, fullest slot first."""
    mean_hit: Floats
    """Share of dies where such a slot gets any: weights of the others are not read."""
    most_hit: Floats | None = None
    """Of the die where most slots get any, which is the slowest if few tokens come; None: the
    fullest is taken to be such a die."""
    leads: Floats | None = None
    """`stragglers.leads_of` all dies; None: not known."""

    @property
    def slowest(self) -> tuple[Floats, ...]:
        """Tokens of dies of which one is the slowest."""
        return (self.fullest,) if self.most_hit is None else (self.fullest, self.most_hit)

    @property
    def imbalance(self) -> Floats:
        """[num_layers]: most over mean; 1 where nothing arrives."""
        return self.over_mean(self.fullest)

    def over_mean(self, slot_tokens: Floats) -> Floats:
        """[num_layers]: tokens of a die over the mean; 1 where nothing arrives."""
        mean = self.mean.sum(axis=-1)
        return np.where(mean > 0.0, slot_tokens.sum(axis=-1) / np.where(mean > 0.0, mean, 1.0), 1.0)

    @classmethod
    def of(cls, slot_tokens: Floats) -> "LayerLoads":
        """From tokens of all slots of all dies, [num_layers, num_dies, slots of a die].

        Fast where those of one slot lie side by side in memory, as `ExpertPlacement.table` has it.
        """
        ordered = fullest_first(slot_tokens)
        row, total = np.arange(len(slot_tokens)), ordered.sum(axis=0)
        hits = np.count_nonzero(ordered, axis=0)
        most_hit = hits + total / (1.0 + total.sum(axis=-1, keepdims=True))
        return cls(
            fullest=ordered[:, row, total.argmax(axis=-1)].T,
            mean=ordered.mean(axis=-1).T,
            mean_hit=np.count_nonzero(ordered, axis=-1).T / total.shape[-1],
            most_hit=ordered[:, row, most_hit.argmax(axis=-1)].T,
            leads=leads_of(total),
        )

    @classmethod
    def joined(cls, steps: Sequence["LayerLoads"]) -> "LayerLoads":
        """Layers of one after the other; nothing may be missing."""
        names = [field.name for field in fields(cls)]
        return cls(**{n: np.concatenate([getattr(step, n) for step in steps]) for n in names})


@lru_cache
def exchanges_of(count: int) -> tuple[tuple[int, int], ...]:
    """Places (i, j) that to exchange, one pair after the other, where wrong, sorts `count` numbers.

    Batcher's merge exchange (D. Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M).
    """
    found, most = [], 1 << (count - 1).bit_length()
    for half in (most >> step for step in range(1, most.bit_length())):
        reach, rest, apart = most >> 1, 0, half
        while True:
            found += [(i, i + apart) for i in range(count - apart) if i & half == rest]
            if reach == half:
                break
            apart, reach, rest = reach - half, reach >> 1, half
    return tuple(found)


def fullest_first(slot_tokens: Floats) -> Floats:
    """[slots of a die, num_layers, num_dies] of [num_layers, num_dies, slots of a die]: in order.

    A die has few slots, of which there are very many: a sort of each takes ten times as long.
    """
    slots = list(np.moveaxis(slot_tokens, -1, 0))
    for more, fewer in exchanges_of(len(slots)):
        first, second = slots[more], slots[fewer]
        slots[more], slots[fewer] = np.maximum(first, second), np.minimum(first, second)
    return np.stack(slots)


class LoadModel(Protocol):
    """Tokens of experts for any number of tokens of the group."""

    @property
    def num_layers(self) -> int:
        """Sparse layers, those of MTP last."""

    @property
    def is_drawn(self) -> bool:
        """Each call draws one step of its own, [num_layers]: prices are not kept for another."""

    def __call__(self, group_tokens: float, /) -> LayerLoads:
        """Of equally likely steps, all layers of one after the other: as many as a mean takes."""

    def slot_tokens(self, group_tokens: float, /) -> Floats:
        """[num_layers, num_dies, slots of a die] of one step: what each die gets."""


class KeptLoads:
    """What a model of loads gives, kept for the next who asks."""

    is_drawn = False

    def __init__(self, loads: LoadModel) -> None:
        self.num_layers = loads.num_layers
        self.slot_tokens = loads.slot_tokens
        self._found = lru_cache(MOST_KEPT)(loads)

    def __call__(self, group_tokens: float) -> LayerLoads:
        """Of equally likely steps."""
        return self._found(group_tokens)


def kept(loads: LoadModel) -> LoadModel:
    """The same; what is drawn for each step is not kept."""
    return loads if loads.is_drawn else KeptLoads(loads)


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
    def columns(self) -> Floats:
        """[4, num_layers]: all of them."""
        return np.array([self.dispatch_s, self.experts_s, self.combine_s, self.combine_wait_s])

    @property
    def total_s(self) -> Floats:
        """[num_layers]: from dispatch to the end of combine, on every die."""
        return self.dispatch_s + self.experts_s + self.combine_s + self.combine_wait_s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DieTimes:
    """Of each layer and die, [num_layers, num_dies]: its own work, without any waiting."""

    dispatch_s: Floats
    experts_s: Floats
    combine_s: Floats


def die_experts_s(
    kernels: KernelPricer, site: ExpertSite, slot_tokens: Floats, hit: Floats | None = None
) -> Floats:
    """Grouped GEMMs of dies whose experts have tokens [n, slots of a die].

    hit: probability that a slot gets any; None: those with tokens do.
    """
    pairs = slot_tokens.sum(axis=-1)
    loads = loads_of(slot_tokens)
    if hit is not None:
        loads = ExpertLoads(tokens=slot_tokens / np.where(hit > 0.0, hit, 1.0), experts=hit)
    work = ExpertWork(
        group_tokens=pairs,
        arriving_tokens=pairs,
        num_experts=slot_tokens.shape[-1],
        top_k=site.top_k,
        num_slots=slot_tokens.shape[-1],
        hidden_size=site.hidden_size,
        inter_size=site.inter_size,
        loads=loads,
    )
    return kernels.experts_s(work, site.dtype)


def slowest_experts_s(kernels: KernelPricer, site: ExpertSite, loads: LayerLoads) -> Floats:
    """[num_layers]: grouped GEMMs of the die that takes longest."""
    found = [die_experts_s(kernels, site, slot_tokens) for slot_tokens in loads.slowest]
    return np.asarray(np.maximum.reduce(found))


def sparse_times(
    kernels: KernelPricer,
    exchange: AnyExchange | None,
    site: ExpertSite,
    loads: LayerLoads,
    own: Floats,
    late: Floats | None = None,
) -> SparseTimes:
    """Price the mean die and the slowest of each layer; each die sends tokens `own` [num_layers].

    exchange: None where all dies have all tokens, and add up what their experts gave.
    late [counts]: of the experts' time, what the slowest of the `counts_of` fullest dies takes
    longer because kernels vary; dies take in proportion to their loads. None: they don't vary.

    The wait is never negative: small loads may leave the fullest die no later than the mean.
    """
    dispatch_s = combine_s = np.zeros(len(own))
    if exchange is not None:
        dispatch_s, combine_s = (exchange.seconds(name, own) for name in ("dispatch", "combine"))
    slots = np.concatenate((loads.mean, *loads.slowest))
    hit = np.concatenate((loads.mean_hit, *map(np.ones_like, loads.slowest)))
    experts_s, *dies_s = die_experts_s(kernels, site, slots, hit).reshape(-1, len(own))
    slowest_s = np.zeros(len(own))
    for slot_tokens, busy_s in zip(loads.slowest, dies_s, strict=True):
        die_s = busy_s
        if exchange is not None:
            over_mean = loads.over_mean(slot_tokens)
            die_s = die_s + exchange.seconds("dispatch", own, over_mean)
            die_s = die_s + exchange.seconds("combine", own, over_mean)
        slowest_s = np.maximum(slowest_s, die_s)
    wait_s = np.maximum(slowest_s - dispatch_s - combine_s - experts_s, 0.0)
    if late is not None and loads.leads is not None:
        late_s = experts_s[:, np.newaxis] * late
        wait_s = (loads.leads * wait_s[:, np.newaxis] + late_s).max(axis=1)
    return SparseTimes(
        dispatch_s=dispatch_s, experts_s=experts_s, combine_s=combine_s, combine_wait_s=wait_s
    )


def die_times(
    kernels: KernelPricer,
    exchange: AnyExchange,
    site: ExpertSite,
    slot_tokens: Floats,
    tokens_per_die: float,
) -> DieTimes:
    """Price every die by tokens [num_layers, num_dies, slots of a die]; see `sparse_times`."""
    shape = slot_tokens.shape[:2]
    die_tokens = slot_tokens.sum(axis=-1)
    mean = np.maximum(die_tokens.mean(axis=1, keepdims=True), TINY)
    over_mean = (die_tokens / mean).reshape(-1)
    own = np.full(len(over_mean), tokens_per_die)
    experts_s = die_experts_s(kernels, site, slot_tokens.reshape(len(own), -1))
    return DieTimes(
        dispatch_s=exchange.seconds("dispatch", own, over_mean).reshape(shape),
        experts_s=experts_s.reshape(shape),
        combine_s=exchange.seconds("combine", own, over_mean).reshape(shape),
    )
