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
    from simpod.engine.pool import Pool
    from simpod.engine.simulation import Simulation

DiePair = tuple[int, int, float]
"""Source and destination among the dies that hold one set of experts, and bytes."""


class ExpertChanges(Protocol):
    """Placements over time; the engine brings the weights that they need."""

    @property
    def next_decision_s(self) -> float:
        """When the balancer decides next; infinity: never."""

    def decide(self, now_s: float) -> Sequence[DiePair]:
        """Decide now: what must be fetched; nothing if the placement stays."""

    def arrived(self, now_s: float) -> None:
        """All that was to be fetched is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertPath:
    """How the weights of a pool's experts travel.

    dies: of each set of all experts, [sets][dies of a set], as endpoints of the fabric.
    """

    changes: ExpertChanges
    dies: Sequence[Sequence[int]]
    law: TransferLaw


class ExpertMover:
    """Asks for decisions when they are due, and sends what they fetch."""

    def __init__(self, sim: "Simulation", pool: "Pool", path: ExpertPath) -> None:
        self._sim = sim
        self._pool = pool
        self._path = path

    def start(self) -> None:
        """Put the next decision on the clock."""
        when_s = self._path.changes.next_decision_s
        if when_s < inf:
            self._sim.clock.tick_at(when_s, self._decide)

    def _decide(self) -> None:
        if self._sim.is_over or not self._sim.clock.is_busy:
            return  # nothing will ever happen again
        pairs = self._path.changes.decide(self._sim.clock.now)
        if pairs:
            self._send(pairs)
        self.start()

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
        self._path.changes.arrived(self._sim.clock.now)
        for group in self._pool.groups:
            group.poke()

    @property
    def _network(self) -> Network:
        if self._sim.network is None:
            raise InvariantError("no fabric for the weights of experts")
        return self._sim.network
