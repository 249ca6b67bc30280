"""The role of a prefill leader: which waiting prompts the ranks of an instance compute next."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from simpod.policies.roles.batch import SequenceView
from simpod.policies.roles.route import Ints, RouteRequest


class LeaderView(Protocol):
    """One prefill instance before a step: ranks that step together, and prompts for any of them.

    Arrays are [num_ranks] and read-only.
    """

    @property
    def now_s(self) -> float:
        """Start of the step."""

    @property
    def num_ranks(self) -> int:
        """Ranks of the instance."""

    @property
    def max_step_tokens(self) -> int:
        """Token budget of a step of one rank."""

    @property
    def waiting(self) -> Sequence[SequenceView]:
        """Prompts that hold nothing yet, in order of arrival; prefix hits count as uncached."""

    @property
    def under_way(self) -> Iterable[tuple[int, SequenceView]]:
        """Prompts computed in part, each with the rank that goes on with it in this step."""

    @property
    def free_tokens(self) -> Ints:
        """Tokens whose KV finds room, idle cached prefixes included."""

    def hit_tokens(self, prompt: RouteRequest, /) -> Ints:
        """[num_ranks] leading tokens of a prompt that are in each rank's prefix cache now."""

    def reusable_tokens(self, prompt: RouteRequest, /) -> Ints:
        """[num_ranks] the same, with those behind them that a rank can read from shared memory."""


class PrefillLeader(Protocol):
    """Gives waiting prompts to the ranks of an instance; asked before each of its steps."""

    def __call__(self, view: LeaderView, /) -> Mapping[int, int]:
        """Return seq_id -> rank, 0 <= rank < view.num_ranks; a prompt that is left out waits.

        Each rank's batch scheduler then sees what it was given. Where nothing is under way, at
        least one prompt must be given.
        """
