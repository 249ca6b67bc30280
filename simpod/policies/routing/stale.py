"""Decisions on load that was reported some time ago."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from simpod.errors import ConfigError
from simpod.policies.catalogue import BUILT_IN
from simpod.policies.resolve import resolve
from simpod.policies.roles import Ints, PolicyRef, RouteRequest, RouterView


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A router's view as of the last report; arrays [num_targets] are copies."""

    live: RouterView
    seen_s: float  # when it was reported
    waiting_seqs: Ints
    running_seqs: Ints
    held_seqs: Ints
    queued_tokens: Ints
    computing_tokens: Ints
    kv_tokens: Ints

    @property
    def now_s(self) -> float:
        """The moment of the decision; the load is that of `seen_s`."""
        return self.live.now_s

    @property
    def num_targets(self) -> int:
        """How many ranks there are."""
        return self.live.num_targets

    @property
    def max_num_seqs(self) -> int:
        """Slots of one target."""
        return self.live.max_num_seqs

    @property
    def kv_capacity_tokens(self) -> int:
        """KV capacity of one target."""
        return self.live.kv_capacity_tokens

    @property
    def ranks_per_instance(self) -> int:
        """Targets of one instance."""
        return self.live.ranks_per_instance

    @property
    def prompt_tokens_per_s(self) -> float:
        """Measured speed of one target."""
        return self.live.prompt_tokens_per_s

    @property
    def rng(self) -> np.random.Generator:
        """Random stream of this router alone."""
        return self.live.rng

    def hit_tokens(self, request: RouteRequest, /) -> Ints:
        """Leading tokens in each target's prefix cache: an index that is kept up to date."""
        return self.live.hit_tokens(request)

    def reusable_tokens(self, request: RouteRequest, /) -> Ints:
        """What each target has cached or can read: the same index."""
        return self.live.reusable_tokens(request)


@dataclass(slots=True)
class Stale:
    """Another router, but it decides on load that is reported every `period_s`.

    Between two reports all that it sees of the targets' load stays the same, its own decisions
    included: the bulletin board of queueing theory, in which choosing the best makes a herd.

    Source: Mitzenmacher, How useful is old information?, IEEE TPDS 2000.
    Sees: what the router in it sees, as of the last report.
    """

    router: str = "least_requests"
    """Built-in router that decides, with its default parameters."""

    period_s: float = 1.0
    """Time between two reports; above 0."""

    _decide: Callable[[RouterView, RouteRequest], int] = field(init=False)
    _board: Board | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.period_s > 0:
            raise ValueError(f"period_s: must be > 0, got {self.period_s}")
        if self.router == "stale" or self.router not in BUILT_IN["router"]:
            names = ", ".join(name for name in BUILT_IN["router"] if name != "stale")
            raise ValueError(f"router: must be one of {names}, got {self.router}")
        try:
            self._decide = resolve("router", PolicyRef(self.router))()
        except ConfigError as error:
            raise ValueError(f"router: {error}") from error

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        board = self._board
        if board is None or view.now_s - board.seen_s >= self.period_s:
            board = Board(
                live=view,
                seen_s=view.now_s // self.period_s * self.period_s,
                waiting_seqs=view.waiting_seqs.copy(),
                running_seqs=view.running_seqs.copy(),
                held_seqs=view.held_seqs.copy(),
                queued_tokens=view.queued_tokens.copy(),
                computing_tokens=view.computing_tokens,
                kv_tokens=view.kv_tokens.copy(),
            )
        elif board.live is not view:
            board = replace(board, live=view)
        self._board = board
        return self._decide(board, request)
