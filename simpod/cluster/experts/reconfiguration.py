"""From one placement of experts to the next while serving goes on (xDeepServe 4.5).

Four phases: the weights of the new experts are fetched into spare memory of their dies (bytes that
cross the fabric); their slots are taken out of the map, so tokens go to other copies; the weights
are copied into the slots (bytes inside the die); the slots come back with their new experts. Slots
change in waves, because at each moment every expert must have a slot in service; where only a ring
of single copies is left, the last wave takes what was fetched in place of what was there.

Without so much spare memory weights go straight into their slots, wave by wave, which are out of
the map while the fabric brings them; nothing can be served while it brings a ring.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.experts.placement import EMPTY, ExpertPlacement

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightTransfers:
    """Weights that cross the fabric: one expert of one layer each; arrays [n]."""

    source_die: Ints
    destination_die: Ints
    expert_bytes: float

    @property
    def staged_bytes(self) -> float:
        """Of the die that takes most: memory that they need before they are in their slots."""
        return float(np.bincount(self.destination_die).max(initial=0)) * self.expert_bytes

    @property
    def total_bytes(self) -> float:
        """All of them."""
        return len(self.source_die) * self.expert_bytes

    def by_pair(self) -> Iterator[tuple[int, int, float]]:
        """Source, destination and bytes of each pair of dies: the transfers for a fabric."""
        pairs = np.stack([self.source_die, self.destination_die], axis=1)
        found, counts = np.unique(pairs, axis=0, return_counts=True)
        for (source, destination), count in zip(found.tolist(), counts.tolist(), strict=True):
            yield source, destination, count * self.expert_bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wave:
    """Slots that change together."""

    slots: Flags
    """[num_layers, num_slots]"""
    during: ExpertPlacement | None
    """What serves while they are loaded; None: a ring of single copies, without which nothing
    does."""
    after: ExpertPlacement
    transfers: WeightTransfers
    """What its slots need, from the dies that have it when the wave begins."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconfiguration:
    """The whole change."""

    transfers: WeightTransfers
    waves: tuple[Wave, ...]

    def local_bytes(self, wave: Wave) -> float:
        """Weights that the busiest die copies into its slots in one wave."""
        return _most_on_a_die(wave) * self.transfers.expert_bytes


def _most_on_a_die(wave: Wave) -> int:
    slots = wave.after.slots
    per_slot = wave.slots.sum(axis=0)
    counts = np.bincount(slots.die_of_slot, weights=per_slot, minlength=slots.num_dies)
    return int(counts.max())


def aligned(old: ExpertPlacement, experts: Ints) -> ExpertPlacement:
    """`experts` [num_layers, num_slots] with those that stay on their die in their old slots."""
    slots = old.slots
    ends = np.cumsum(slots.slots_of_die)
    found = experts.copy()
    for first, end in zip((ends - slots.slots_of_die).tolist(), ends.tolist(), strict=True):
        if end - first > 1:
            for layer in range(old.num_layers):
                found[layer, first:end] = _kept(
                    old.experts[layer, first:end], found[layer, first:end]
                )
    return ExpertPlacement(slots=slots, experts=found)


def _kept(old: Ints, new: Ints) -> Ints:
    """A permutation of `new` [slots of a die] that changes as few of `old` as possible."""
    left = new.tolist()
    found: list[int] = []
    for expert in old.tolist():
        stays = expert in left
        found.append(expert if stays else EMPTY)
        if stays:
            left.remove(expert)
    return np.array([left.pop(0) if expert == EMPTY else expert for expert in found])


def reconfiguration(
    old: ExpertPlacement, new: ExpertPlacement, expert_bytes: float
) -> Reconfiguration:
    """The transfers and the waves from `old` to `new`, of experts of `expert_bytes` each."""
    return Reconfiguration(
        transfers=_transfers(old, new, expert_bytes),
        waves=tuple(_waves(old, new, expert_bytes)),
    )


def _transfers(old: ExpertPlacement, new: ExpertPlacement, expert_bytes: float) -> WeightTransfers:
    """Each new copy reads from a die that has the expert: the copies take turns in giving.

    A die that has the expert in another slot already reads nothing.
    """
    dies = old.slots.die_of_slot.tolist()
    layers = zip(old.experts.tolist(), new.experts.tolist(), strict=True)
    pairs = [pair for before, after in layers for pair in _of_layer(dies, before, after)]
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return WeightTransfers(
        source_die=found[:, 0], destination_die=found[:, 1], expert_bytes=expert_bytes
    )


def _of_layer(
    dies: Sequence[int], before: Sequence[int], after: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Source and destination; dies and experts by slot."""
    wanted: dict[int, set[int]] = {}
    for die, leaving, coming in zip(dies, before, after, strict=True):
        if leaving != coming:
            wanted.setdefault(coming, set()).add(die)
    holders: dict[int, dict[int, None]] = {expert: {} for expert in wanted}
    for die, expert in zip(dies, before, strict=True):
        if expert in holders:
            holders[expert][die] = None
    for expert, takers in sorted(wanted.items()):
        givers = list(holders[expert])
        for turn, taker in enumerate(sorted(takers.difference(givers))):
            yield givers[turn % len(givers)], taker


def _waves(old: ExpertPlacement, new: ExpertPlacement, expert_bytes: float) -> Iterator[Wave]:
    """Of what is left to change, as much as leaves each expert a slot; at last the rest at once."""
    now = old
    left = old.experts != new.experts
    while left.any():
        free = _replaceable(now, left)
        if not free.any():
            transfers = _transfers(now, new, expert_bytes)
            yield Wave(slots=left, during=None, after=new, transfers=transfers)
            return
        experts = np.where(free, new.experts, now.experts)
        after = ExpertPlacement(slots=old.slots, experts=experts)
        transfers = _transfers(now, after, expert_bytes)
        yield Wave(slots=free, during=now.without(free), after=after, transfers=transfers)
        now, left = after, left & ~free


def _replaceable(now: ExpertPlacement, left: Flags) -> Flags:
    """[num_layers, num_slots] of `left`: all but one copy of experts that have no other slot."""
    copies = now.copies
    leaving = np.zeros(copies.shape, dtype=np.int64)
    free = np.zeros(left.shape, dtype=bool)
    for layer, slot in np.argwhere(left).tolist():
        expert = now.experts[layer, slot]
        if leaving[layer, expert] + 1 < copies[layer, expert]:
            leaving[layer, expert] += 1
            free[layer, slot] = True
    return free
