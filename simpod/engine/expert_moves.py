"""Weights of experts on their way to new slots, over the fabric, while serving goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Protocol

from simpod.engine.network import Network, Operation
from simpod.engine.transfer_log import EXPERT_WEIGHTS, NOWHERE
from simpod.errors import InvariantError
from simpod.hardware import TransferLaw

if TYPE_CHECKING:
    from simpod.engine.group import Group
    from simpod.engine.pool import Pool
    from simpod.engine.simulation import Simulation

DiePair = tuple[int, int, float]
"""Source and destination among the dies that hold one set of experts or of slices, and bytes."""


class ExpertChanges(Protocol):
    """Placements over time; the engine brings the weights that they need."""

    @property
    def next_decision_s(self) -> float:
        """When the balancer decides next; infinity: never."""

    @property
    def is_in_place(self) -> bool:
        """What is to be fetched goes into slots that are out of service from the next step on."""

    @property
    def holds_steps(self) -> bool:
        """The experts of these slots have no copy to serve meanwhile."""

    def decide(self, now_s: float) -> Sequence[DiePair]:
        """Decide now: what must be fetched; nothing if the placement stays."""

    def arrived(self, now_s: float) -> Sequence[DiePair]:
        """All that was to be fetched is there; what must be fetched next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertPath:
    """How the weights of a pool's experts travel.

    dies: of each set of all experts, or of one slice of each, [sets][dies of a set], as endpoints
    of the fabric.
    """

    changes: ExpertChanges
    dies: Sequence[Sequence[int]]
    law: TransferLaw


class ExpertMover:
    """Asks for decisions when they are due, and sends what they fetch.

    Weights that go straight into slots move when all groups of the pool have ended the step that
    they were in. Where experts have no other copy, no group begins a step until they are there.
    """

    def __init__(self, sim: "Simulation", pool: "Pool", path: ExpertPath) -> None:
        self._sim = sim
        self.pool = pool
        self._path = path
        self._next: Sequence[DiePair] = ()  # waits for groups to end their steps
        self._between: set[Group] = set()  # have done so
        self._is_held = False

    def holds(self, group: "Group") -> bool:
        """Whether a group that is between two steps must stay there."""
        if self._next:
            self._between.add(group)
            self._send_after_steps()
        return self._is_held

    def start(self) -> None:
        """Put the next decision on the clock."""
        when_s = self._path.changes.next_decision_s
        if when_s < inf:
            self._sim.clock.tick_at(when_s, self._decide)

    def _decide(self) -> None:
        if self._sim.is_over or not self._sim.clock.is_busy:
            return  # nothing will ever happen again
        pairs = self._path.changes.decide(self._sim.clock.now)
        self._fetch(pairs)
        self.start()

    def _fetch(self, pairs: Sequence[DiePair]) -> None:
        changes = self._path.changes
        if pairs and changes.is_in_place:
            self._next, self._is_held = pairs, changes.holds_steps
            self._between = {g for g in self.pool.groups if g.idleness.alarm is not None}
            for group in self.pool.groups:
                if group not in self._between:
                    group.poke()  # a run ends with the step under way
            self._send_after_steps()
        elif pairs:
            self._send(pairs)

    def _send_after_steps(self) -> None:
        if len(self._between) == len(self.pool.groups):
            pairs, self._next = self._next, ()
            self._send(pairs)

    def _send(self, pairs: Sequence[DiePair]) -> None:
        """Every set of experts of the pool changes alike."""
        network = self._network
        moves = (
            (dies[source], dies[destination], size_bytes)
            for dies in self._path.dies
            for source, destination, size_bytes in pairs
        )
        parts, start_up_s = network.parts_under(self._path.law, moves)
        network.send(parts, start_up_s, self._arrived)

    def _arrived(self, operation: Operation) -> None:
        for part in operation.parts:
            end_s = min(part.end_s, operation.end_s)
            where = (NOWHERE, NOWHERE, part.source, part.destination, NOWHERE)
            figures = (operation.start_s, end_s, part.size_bytes, 0.0, operation.alone_s)
            self._sim.transfers.add(NOWHERE, EXPERT_WEIGHTS, part.plane, where, figures)
        self._is_held = False
        self._fetch(self._path.changes.arrived(self._sim.clock.now))
        for group in self.pool.groups:
            group.poke()

    @property
    def _network(self) -> Network:
        if self._sim.network is None:
            raise InvariantError("no fabric for the weights of experts")
        return self._sim.network
