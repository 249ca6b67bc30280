"""The role of a migration policy: which running requests move to another rank."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from simpod.policies.roles.batch import SequenceView
from simpod.policies.roles.route import RouterView


class MigrationView(Protocol):
    """The ranks of the pool that decodes, at a regular moment."""

    @property
    def now_s(self) -> float:
        """The moment of the decision."""

    @property
    def targets(self) -> RouterView:
        """Load of the ranks, as a router sees it."""

    def decoding(self, target: int, /) -> Iterable[SequenceView]:
        """Sequences that decode on a rank and are not on the move, in order of admission."""


@dataclass(frozen=True, slots=True)
class Move:
    """A live migration: the KV is copied while the sequence goes on decoding, then it follows."""

    seq_id: int
    source: int
    destination: int


class Migration(Protocol):
    """Moves running requests between the ranks of a pool, every so often."""

    @property
    def period_s(self) -> float:
        """Time between two decisions."""

    def __call__(self, view: MigrationView, /) -> Sequence[Move]:
        """Name the moves to start now; one whose destination has no room is not made."""
