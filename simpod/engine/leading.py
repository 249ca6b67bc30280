"""A leader of the ranks that step together: which waiting prompts it gives to which of them."""

from collections.abc import Iterator, Mapping
from numbers import Integral
from operator import attrgetter
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from simpod.engine.facades import SequenceFacade, hits_of, reusable_of
from simpod.engine.handing_over import forget
from simpod.engine.intake import take_in
from simpod.engine.sequence import Sequence
from simpod.errors import PolicyError, blaming
from simpod.policies import Ints, PrefillLeader, RouteRequest

if TYPE_CHECKING:
    from simpod.engine.group import Group
    from simpod.engine.rank import Rank


class GroupFacade:
    """Read-only view of an instance before a step: `policies.LeaderView`."""

    __slots__ = ("_group",)

    def __init__(self, group: "Group") -> None:
        self._group = group

    @property
    def now_s(self) -> float:
        """Start of the step."""
        return self._group.clock.now

    @property
    def num_ranks(self) -> int:
        """Ranks that step together."""
        return len(self._group.ranks)

    @property
    def max_step_tokens(self) -> int:
        """Token budget of a step of a rank."""
        return self._group.spec.max_step_tokens

    @property
    def waiting(self) -> list[SequenceFacade]:
        """Prompts that hold nothing yet, in order of arrival."""
        seqs = (seq for rank in self._group.ranks for seq in rank.waiting.values())
        return [SequenceFacade(seq) for seq in sorted(seqs, key=attrgetter("arrival_s", "seq_id"))]

    @property
    def under_way(self) -> Iterator[tuple[int, SequenceFacade]]:
        """Prompts computed in part, with the rank that goes on with each."""
        for rank in self._group.ranks:
            for seq in rank.partial.values():
                yield rank.index, SequenceFacade(seq)

    @property
    def free_tokens(self) -> Ints:
        """[num_ranks] tokens whose KV finds room."""
        free = [rank.free_blocks for rank in self._group.ranks]
        return np.array(free, dtype=np.int64) * self._group.spec.block_tokens

    def hit_tokens(self, prompt: RouteRequest, /) -> Ints:
        """[num_ranks] leading tokens that are in each rank's prefix cache."""
        return hits_of(self._group.ranks, prompt)

    def reusable_tokens(self, prompt: RouteRequest, /) -> Ints:
        """[num_ranks] leading tokens that each rank has cached or can read."""
        return reusable_of(self._group.ranks, prompt)


class Leading:
    """Before each step of a group: its leader gives waiting prompts to ranks, and holds others."""

    def __init__(self, group: "Group", policy: PrefillLeader, name: str) -> None:
        self._group = group
        self._policy = policy
        self._name = name
        self._view = GroupFacade(group)
        self.held: set[int] = set()  # waiting prompts that take no part in the next step
        for rank in group.ranks:
            rank.held = self.held

    @property
    def has_waiting(self) -> bool:
        """Prompts wait at some rank, given to it or not."""
        return any(rank.waiting for rank in self._group.ranks)

    def assign(self) -> None:
        """Ask the leader, if prompts wait; move them to the ranks that it names."""
        group = self._group
        if group.unseen:
            take_in(group)
        waiting = {seq_id: rank for rank in group.ranks for seq_id in rank.waiting}
        self.held.clear()
        if not waiting:
            return
        given = self._ask(waiting)
        self.held.update(waiting.keys() - given.keys())
        for seq_id, index in given.items():
            rank, other = waiting[seq_id], group.ranks[index]
            if other is not rank:
                _move(rank.waiting[seq_id], rank, other)
            other.touch()
        if not given and not any(group.dispatch.running_seqs[r.target] for r in group.ranks):
            self._blame(
                f"gives none of {len(waiting)} prompts to a rank while nothing is under way"
            )

    def _ask(self, waiting: Mapping[int, "Rank"]) -> Mapping[int, int]:
        with blaming(self._name):
            given = self._policy(self._view)
        if not isinstance(given, Mapping):
            self._blame(f"returned {given!r}, no mapping of sequences to ranks")
        for seq_id, index in given.items():
            if seq_id not in waiting:
                self._blame(f"gives sequence {seq_id!r} to a rank, but it does not wait here")
            if not isinstance(index, Integral) or not 0 <= index < len(self._group.ranks):
                allowed = f"0 to {len(self._group.ranks) - 1}"
                self._blame(f"gives sequence {seq_id} to rank {index!r}; allowed: {allowed}")
        return given

    def _blame(self, rule: str) -> NoReturn:
        raise PolicyError(self._name, f"{rule} ({self._group.clock.now:.6f} s)")


def _move(seq: Sequence, rank: "Rank", other: "Rank") -> None:
    """A waiting prompt goes to another rank of its group."""
    forget(rank, seq)
    del rank.waiting[seq.seq_id]
    other.waiting[seq.seq_id] = seq
    other.group.dispatch.join_queue(seq, other.target)
    seq.prefill_target = other.target
