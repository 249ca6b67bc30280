"""Decisions on load that was reported some time ago."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simpod.policies.reported_load import Board, router_in
from simpod.policies.roles import Router, RouteRequest, RouterView


@dataclass(slots=True)
class Stale:
    """Another router, but it decides on load that is reported every `period_s`.

    Between two reports all that it sees of the targets' load stays the same, its own decisions
    included: the bulletin board of queueing theory, in which choosing the best makes a herd. Where
    only the KV statistics are old and requests are counted as they are sent, `least_kv` has a
    period of its own.

    Source: Mitzenmacher, How useful is old information?, IEEE TPDS 2000.
    Sees: what the router in it sees, as of the last report.
    """

    router: str | Mapping[str, Any] = "least_requests"
    """Router that decides: a name, or `use:` and its parameters."""

    period_s: float = 1.0
    """Time between two reports; above 0."""

    _decide: Router = field(init=False)
    _board: Board | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.period_s > 0:
            raise ValueError(f"period_s: must be > 0, got {self.period_s}")
        self._decide = router_in(self.router, "stale")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        self._board = Board.at(self._board, view, self.period_s)
        return self._decide(self._board, request)
