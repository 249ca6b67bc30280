"""Where the experts of a model lie: slots on dies, copies in slots, and what each die then gets.

A layer's routed experts 0..E-1 each have one slot or more; a *redundant* slot holds a second copy.
The shared expert that every token visits is either computed on each token's own die, or has copies
on dies of their own (`shared_dies`), which tokens reach by dispatch like any routed expert. Expert
parallelism may so be wider than the number of experts: 256 routed + 32 redundant + 32 shared copies
fill 320 dies of one slot (CloudMatrix-Infer 5.1); 256 + 288 + 32 fill 288 dies of two (xDeepServe
7.1).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simpod.errors import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EMPTY = -1
"""In place of an expert: the slot takes no tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertSlots:
    """Slots for routed experts, the same in every layer; shared copies have theirs apart.

    `die_of_slot` [num_slots], ascending; `node_of_die` [num_dies]; `shared_dies` [num_copies] hold
    a copy of the shared expert.
    """

    num_experts: int
    die_of_slot: Ints
    node_of_die: Ints
    shared_dies: Ints

    @property
    def num_dies(self) -> int:
        """Expert-parallel degree."""
        return len(self.node_of_die)

    @property
    def num_slots(self) -> int:
        """Of routed experts, redundant ones included."""
        return len(self.die_of_slot)

    @property
    def slots_of_die(self) -> Ints:
        """[num_dies]: slots for routed experts."""
        return np.bincount(self.die_of_slot, minlength=self.num_dies)


def expert_slots(
    *,
    num_dies: int,
    num_experts: int,
    redundant_slots: int = 0,
    shared_copies: int = 0,
    dies_per_node: int = 0,
    experts_per_token: int = 0,
) -> ExpertSlots:
    """Spread routed, redundant and shared slots over dies as evenly as they go.

    Dies with a shared copy are spread over the group, and have one routed slot less; what does not
    divide makes some dies' slots one more: of those without a shared copy, where that has at least
    the tokens of a mean slot, else of those with one.
    dies_per_node: 0 for a group inside one node. Dies that share each slot's expert are one.
    experts_per_token: 0: shared copies have as many tokens as slots.
    """
    if min(num_dies, num_experts) < 1 or redundant_slots < 0:
        raise ConfigError(
            f"expert slots: needs num_dies, num_experts >= 1 and redundant_slots >= 0,"
            f" got {num_dies}, {num_experts}, {redundant_slots}"
        )
    if not 0 <= shared_copies <= num_dies:
        raise ConfigError(f"shared_copies: must be 0 to {num_dies} dies, got {shared_copies}")
    shared_dies = np.arange(shared_copies, dtype=np.int64) * num_dies // max(shared_copies, 1)
    shared = np.bincount(shared_dies, minlength=num_dies)
    per_die, more = divmod(num_experts + redundant_slots + shared_copies, num_dies)
    counts = per_die - shared
    is_full = num_experts + redundant_slots >= experts_per_token * shared_copies
    first = shared if is_full and per_die else -shared
    counts[np.argsort(first, kind="stable")[:more]] += 1
    nodes = np.arange(num_dies) // (dies_per_node or num_dies)
    return ExpertSlots(
        num_experts=num_experts,
        die_of_slot=np.repeat(np.arange(num_dies), counts),
        node_of_die=nodes,
        shared_dies=shared_dies,
    )


def in_order(slots: ExpertSlots, num_layers: int) -> Ints:
    """[num_layers, num_slots]: experts one after the other, redundant slots begin again.

    What an engine starts with: nothing is known of the load yet.
    """
    return np.tile(np.arange(slots.num_slots) % slots.num_experts, (num_layers, 1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertPlacement:
    """Who serves what: `experts` [num_layers, num_slots], EMPTY where a slot takes no tokens.

    Tokens of an expert are dealt to its copies by their position in the batch modulo the number of
    copies (xDeepServe 4.5): each copy gets an even share without any communication.
    """

    slots: ExpertSlots
    experts: Ints

    def __post_init__(self) -> None:
        if self.experts.ndim != 2 or self.experts.shape[1] != self.slots.num_slots:
            raise ConfigError(
                f"a placement of {self.slots.num_slots} slots has shape {self.experts.shape}"
            )
        missing = np.argwhere(self.copies == 0)
        if len(missing):
            layer, expert = missing[0]
            raise ConfigError(
                f"expert {expert} of layer {layer} has no slot ({len(missing)} in all)"
            )

    @property
    def num_layers(self) -> int:
        """Sparse layers."""
        return len(self.experts)

    @property
    def copies(self) -> Ints:
        """[num_layers, num_experts]: slots of each expert."""
        width = self.slots.num_experts + 1
        shifted = self.experts + 1 + width * np.arange(len(self.experts))[:, np.newaxis]
        counts = np.bincount(shifted.ravel(), minlength=width * len(self.experts))
        return counts.reshape(-1, width)[:, 1:]

    @property
    def slot_share(self) -> Floats:
        """[num_layers, num_slots]: share of its expert's tokens that a slot gets."""
        own = np.take_along_axis(self.copies, np.maximum(self.experts, 0), axis=1)
        return np.where(self.experts == EMPTY, 0.0, 1.0 / np.maximum(own, 1))

    def slot_tokens(self, load: Floats) -> Floats:
        """[num_layers, num_slots] of expert loads [num_layers, num_experts]."""
        return self.slot_share * np.take_along_axis(load, np.maximum(self.experts, 0), axis=1)

    def die_tokens(self, load: Floats, tokens: float = 0.0) -> Floats:
        """[num_layers, num_dies]: what each die gets of expert loads [num_layers, num_experts].

        tokens: of the whole group; they are dealt evenly to the copies of the shared expert.
        """
        return self.by_die(self.slot_tokens(load)) + self.shared_tokens(tokens)

    def by_die(self, slot_values: Floats) -> Floats:
        """[..., num_dies]: sums over the slots of each die of [..., num_slots]."""
        return sums_by_die(self.slots, slot_values)

    def shared_tokens(self, tokens: float) -> Floats:
        """[num_dies]: tokens that a shared copy gets."""
        found = np.zeros(self.slots.num_dies)
        found[self.slots.shared_dies] = tokens / max(len(self.slots.shared_dies), 1)
        return found

    def table(self, slot_values: Floats, tokens: float = 0.0) -> Floats:
        """[num_layers, num_dies, slots of a die]: slot values by die, 0 where a die has fewer.

        The last column is the copy of the shared expert, if there are any; `tokens` of the group.
        """
        slots = self.slots
        first = np.searchsorted(slots.die_of_slot, np.arange(slots.num_dies))
        has_shared = int(len(slots.shared_dies) > 0)
        place = np.full((int(slots.slots_of_die.max()) + has_shared, slots.num_dies), -1)
        column = np.arange(slots.num_slots) - first[slots.die_of_slot]
        place[column, slots.die_of_slot] = np.arange(slots.num_slots)
        none = np.zeros((len(slot_values), 1))
        found = np.concatenate([slot_values, none], axis=1).take(place, axis=1)
        if has_shared:
            found[:, -1] = self.shared_tokens(tokens)
        return found.swapaxes(1, 2)

    def without(self, changed: NDArray[np.bool_]) -> "ExpertPlacement":
        """The same while the slots in `changed` [num_layers, num_slots] are out of service."""
        return replace(self, experts=np.where(changed, EMPTY, self.experts))


def sums_by_die(slots: ExpertSlots, slot_values: Floats) -> Floats:
    """[..., num_dies]: sums over the slots of each die of [..., num_slots]."""
    before = np.concatenate(
        [np.zeros((*slot_values.shape[:-1], 1)), np.cumsum(slot_values, axis=-1)], axis=-1
    )
    ends = np.cumsum(slots.slots_of_die)
    return np.asarray(before[..., ends] - before[..., ends - slots.slots_of_die])


def imbalance(die_tokens: Floats) -> Floats:
    """[...] of [..., num_dies]: most over mean, 1 where nothing arrives."""
    mean = die_tokens.mean(axis=-1)
    return np.where(mean > 0.0, die_tokens.max(axis=-1) / np.where(mean > 0.0, mean, 1.0), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotsSeen:
    """What a balancer sees of a placement; see `ExpertSlotsView` of the policies."""

    placement: ExpertPlacement
    tokens: float = 0.0
    """Of the group, in the unit of the load that the balancer gets."""

    @property
    def num_dies(self) -> int:
        """Expert-parallel degree."""
        return self.placement.slots.num_dies

    @property
    def die_of_slot(self) -> Ints:
        """[num_slots], ascending."""
        return self.placement.slots.die_of_slot

    @property
    def node_of_die(self) -> Ints:
        """[num_dies], ascending."""
        return self.placement.slots.node_of_die

    @property
    def experts(self) -> Ints:
        """[num_layers, num_slots]."""
        return self.placement.experts

    @property
    def resident_tokens(self) -> Floats:
        """[num_dies]: of shared copies."""
        return self.placement.shared_tokens(self.tokens)
