"""What experts cost when dies get different loads: the slowest die's layer, and the wait for it.

A layer's dispatch, experts and combine end together on all dies: when the slowest die is through.
What that takes beyond the mean die is *waiting*, which the others spend in combine. How long a die
takes depends on its tokens and on how many of its slots get any, whose weights are read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Final, Protocol

import numpy as np

from simpod.cost.gather_exchange import AnyExchange
from simpod.cost.kernels.expert_load import ExpertLoads, loads_of
from simpod.cost.kernels.pricer import ExpertWork, KernelPricer
from simpod.cost.layout import Layout
from simpod.cost.normal_law import TINY
from simpod.cost.operators import expert_work, part_dtype
from simpod.cost.stragglers import VaryingDies, last_of, leads_of
from simpod.cost.work import Floats, Ints
from simpod.model.spec import ModelSpec

MOST_KEPT: Final = 512
"""Numbers of tokens whose loads are kept."""
BUSY: Final = 4
"""Dies with most work of which one is taken to be the slowest."""
LEAST_GROWTH: Final = 1e-3
"""Of a die's seconds with twice its tokens: what is less counts as this."""
FEW_TOKENS: Final = 16.0
"""Of a slot, while its weights take longer to read than its tokens to multiply."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerLoads:
    """Tokens of the experts on a few dies of each layer, [num_layers, slots of a die].

    A slot that a die lacks, or that takes nothing, has 0.
    """

    busy: Floats
    """[num_layers, dies, slots of a die]: of dies of which one takes longest."""
    most: Floats
    """[num_layers]: of the die with most."""
    mean: Floats
    """Mean over dies, fullest slot first."""
    mean_hit: Floats
    """Share of dies where such a slot gets any: weights of the others are not read."""
    leads: Floats | None = None
    """`stragglers.leads_of` all dies; None: not known."""

    @property
    def imbalance(self) -> Floats:
        """[num_layers]: most over mean; 1 where nothing arrives."""
        return self.over_mean(self.most)

    def over_mean(self, die_tokens: Floats) -> Floats:
        """Tokens [num_layers] of dies over the mean; 1 where nothing arrives."""
        mean = self.mean.sum(axis=-1)
        return np.where(mean > 0.0, die_tokens / np.where(mean > 0.0, mean, 1.0), 1.0)

    @classmethod
    def of(cls, slot_tokens: Floats, hit_tokens: float = 0.0) -> "LayerLoads":
        """From tokens of all slots of all dies, [num_layers, num_dies, slots of a die].

        hit_tokens: `hit_tokens_of` the experts. Fast where tokens of one slot lie side by side in
        memory, as `ExpertPlacement.table` has it.
        """
        ordered = fullest_first(slot_tokens)
        row, total = np.arange(len(slot_tokens)), ordered.sum(axis=0)
        effort = total + hit_tokens * np.count_nonzero(ordered, axis=0)
        busy = [ordered[:, row, die].T for die in largest(effort, BUSY)]
        return cls(
            busy=np.stack(busy, axis=1),
            most=total.max(axis=-1),
            mean=ordered.mean(axis=-1).T,
            mean_hit=np.count_nonzero(ordered, axis=-1).T / total.shape[-1],
            leads=leads_of(effort),
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


def largest(values: Floats, count: int) -> Iterator[Ints]:
    """[num_layers]: die with the largest of [num_layers, num_dies], with the next one, ..."""
    left, row = values.copy(), np.arange(len(values))
    for _ in range(min(count, values.shape[1])):
        die = left.argmax(axis=1)
        yield die
        left[row, die] = -np.inf


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

    def __call__(self, group_tokens: float, hit_tokens: float = 0.0, /) -> LayerLoads:
        """Of equally likely steps, all layers of one after the other: as many as a mean takes.

        hit_tokens: see `LayerLoads.of`.
        """

    def slot_tokens(self, group_tokens: float, /) -> Floats:
        """[num_layers, num_dies, slots of a die] of one step: what each die gets. Dies that share
        their experts count as one."""


class KeptLoads:
    """What a model of loads gives, kept for the next who asks."""

    is_drawn = False

    def __init__(self, loads: LoadModel) -> None:
        self.num_layers = loads.num_layers
        self.slot_tokens = loads.slot_tokens
        self._found = lru_cache(MOST_KEPT)(loads)

    def __call__(self, group_tokens: float, hit_tokens: float = 0.0) -> LayerLoads:
        """Of equally likely steps."""
        return self._found(group_tokens, hit_tokens)


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

    @classmethod
    def of(cls, model: ModelSpec, layout: Layout) -> "ExpertSite":
        """Those of a model, as they are laid out."""
        work = expert_work(model, layout, np.ones(1))
        return cls(
            hidden_size=work.hidden_size,
            inter_size=work.inter_size,
            top_k=work.top_k,
            dtype=part_dtype(model, "experts", layout.weight_dtype),
        )


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

    def by_layer(self, num_layers: int) -> "DieTimes":
        """Of several draws, all layers of one after the other: [num_layers, num_dies] means."""
        each = {field.name: getattr(self, field.name) for field in fields(self)}
        means = {
            name: seconds.reshape(-1, num_layers, seconds.shape[1]).mean(axis=0)
            for name, seconds in each.items()
        }
        return DieTimes(**means)


def die_experts_s(
    kernels: KernelPricer, site: ExpertSite, slot_tokens: Floats, hit: Floats | None = None
) -> Floats:
    """Grouped GEMMs of dies whose experts have tokens [n, slots of a die].

    hit: probability that a slot gets any; None: those with tokens do.
    """
    slot_tokens = np.asfortranarray(slot_tokens)  # sums over few slots of many dies are slow else
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


def hit_tokens_of(kernels: KernelPricer, exchange: AnyExchange | None, site: ExpertSite) -> float:
    """Tokens more that take a die as long as one more of its slots that gets any.

    While few come: from three dies, the second of which has as many tokens as the first on two
    slots, the third twice as many on one.
    """
    slots = FEW_TOKENS * np.array([[1.0, 0.0], [0.5, 0.5], [2.0, 0.0]])
    seconds = die_experts_s(kernels, site, slots)
    if exchange is not None:
        own, over_mean = np.full(3, FEW_TOKENS / site.top_k), slots.sum(axis=-1) / FEW_TOKENS
        for name in ("dispatch", "combine"):
            seconds = seconds + exchange.seconds(name, own, over_mean)
    first, wide, tall = seconds.tolist()
    return float(FEW_TOKENS * max(wide - first, 0.0) / max(tall - first, LEAST_GROWTH * first))


def busy_experts_s(kernels: KernelPricer, site: ExpertSite, loads: LayerLoads) -> Floats:
    """[num_layers, dies]: grouped GEMMs of the busy dies."""
    slots = loads.busy.reshape(-1, loads.busy.shape[-1])
    return die_experts_s(kernels, site, slots).reshape(loads.busy.shape[:2])


def slowest_experts_s(kernels: KernelPricer, site: ExpertSite, loads: LayerLoads) -> Floats:
    """[num_layers]: grouped GEMMs of the die that takes longest."""
    return np.asarray(busy_experts_s(kernels, site, loads).max(axis=1))


def sparse_times(
    kernels: KernelPricer,
    exchange: AnyExchange | None,
    site: ExpertSite,
    loads: LayerLoads,
    own: Floats,
    varying: VaryingDies | None = None,
) -> SparseTimes:
    """Price the mean die and the slowest of each layer; each die sends tokens `own` [num_layers].

    exchange: None where all dies have all tokens, and add up what their experts gave.
    varying: how kernels vary, of dies that are ahead as `leads` says. None: they don't.

    The wait is never negative: small loads may leave the fullest die no later than the mean.
    """
    dispatch_s = combine_s = np.zeros(len(own))
    experts_s = die_experts_s(kernels, site, loads.mean, loads.mean_hit)
    busy_s = busy_experts_s(kernels, site, loads)
    slowest_s = busy_s.max(axis=1)  # of its experts alone
    if exchange is not None:
        dispatch_s, combine_s = (exchange.seconds(name, own) for name in ("dispatch", "combine"))
        over_mean = loads.over_mean(loads.busy.sum(axis=-1).T)  # [dies, num_layers]
        sent = np.tile(own, len(over_mean))
        for name in ("dispatch", "combine"):
            exchange_s = exchange.seconds(name, sent, over_mean.ravel())
            busy_s = busy_s + exchange_s.reshape(over_mean.shape).T
    wait_s = np.maximum(busy_s.max(axis=1) - dispatch_s - combine_s - experts_s, 0.0)
    if varying is not None and loads.leads is not None:
        ahead_s = loads.leads * wait_s[:, np.newaxis]
        own_s = experts_s[:, np.newaxis] + loads.leads * (slowest_s - experts_s)[:, np.newaxis]
        wait_s = last_of(ahead_s, varying.spread_frac * own_s, varying.sizes)
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
