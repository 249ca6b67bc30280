"""The role of a router: which rank gets a request."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class RouteRequest(Protocol):
    """What a router knows of the request that it places."""

    @property
    def seq_id(self) -> int:
        """Identity within the run, ascending in order of submission."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""

    @property
    def session_id(self) -> int:
        """Conversation that it belongs to, or -1."""

    @property
    def prefix_hashes(self) -> Sequence[int]:
        """Ids of the prompt's prefix blocks, first block first; empty if unknown."""

    @property
    def ttft_deadline_s(self) -> float:
        """Arrival plus the TTFT target; infinity without one."""

    @property
    def tenant(self) -> int:
        """Who pays for it, 0, 1, ...; 0 where the workload names nobody."""

    @property
    def priority(self) -> int:
        """Importance; larger is more urgent, 0 where the workload says nothing."""

    @property
    def predicted_tokens(self) -> float:
        """Output length (or score that grows with it) that the length predictor gave; NaN without
        a predictor."""


class RouterView(Protocol):
    """The targets of a pool: its data-parallel ranks.

    Arrays are [num_targets] and read-only.
    """

    @property
    def now_s(self) -> float:
        """The moment of the decision."""

    @property
    def num_targets(self) -> int:
        """How many ranks there are."""

    @property
    def waiting_seqs(self) -> Ints:
        """Requests sent there that hold no slot yet; up to date."""

    @property
    def running_seqs(self) -> Ints:
        """Requests that hold a slot; up to date."""

    @property
    def held_seqs(self) -> Ints:
        """Requests there, `waiting_seqs` + `running_seqs`; up to date."""

    @property
    def max_num_seqs(self) -> int:
        """Slots of one target."""

    @property
    def queued_tokens(self) -> Ints:
        """Prompt tokens sent there and not in a step yet; up to date."""

    @property
    def computing_tokens(self) -> Ints:
        """Prompt tokens of the step that each target is in; up to date."""

    @property
    def kv_tokens(self) -> Ints:
        """KV tokens held, as each rank reported at its last admission or release."""

    @property
    def kv_capacity_tokens(self) -> int:
        """KV capacity of one target."""

    @property
    def ranks_per_instance(self) -> int:
        """Targets of one instance, which are neighbours: they step together."""

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens a second of one target, measured so far over all; 0: none yet."""

    def hit_tokens(self, request: RouteRequest, /) -> Ints:
        """[num_targets] leading tokens of the prompt that are in each target's prefix cache now."""

    def reusable_tokens(self, request: RouteRequest, /) -> Ints:
        """[num_targets] the same, with those behind them that it can read from shared memory."""

    @property
    def rng(self) -> np.random.Generator:
        """Random stream of this router alone."""


class Router(Protocol):
    """Chooses the rank that gets a request."""

    def __call__(self, view: RouterView, request: RouteRequest, /) -> int:
        """Return a target, 0 <= target < view.num_targets."""
