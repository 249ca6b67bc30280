"""Several routers beside each other, none of which knows what the others do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simpod.policies.reported_load import Board, router_in
from simpod.policies.roles import Router, RouteRequest, RouterView


@dataclass(slots=True)
class JobExecutors:
    """Copies of another router; a request goes through one of them, drawn at random (xDeepServe).

    Each copy has a memory of its own. It sees the targets' load as it was last reported to it, with
    what it has sent there itself since; what the others send it sees with the next report, which
    comes with its first request of a period.

    Source: the job executors of xDeepServe (arXiv:2508.02520), one of which gets a request at
    random and places it; how many there are and how often they hear of load is not published.
    Sees: what the router in it sees, as of the last report, and what it sent itself.
    """

    router: str | Mapping[str, Any] = "least_requests"
    """Router that each executor is: a name, or `use:` and its parameters."""

    num_executors: int = 4
    """How many there are; 1 to 1024."""

    period_s: float = 1.0
    """Time between two reports to an executor; above 0."""

    _routers: list[Router] = field(default_factory=list, init=False)
    _boards: dict[int, Board] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.num_executors <= 1024:
            raise ValueError(f"num_executors: must be 1 to 1024, got {self.num_executors}")
        if not self.period_s > 0:
            raise ValueError(f"period_s: must be > 0, got {self.period_s}")
        self._routers = [router_in(self.router, "job_executors") for _ in range(self.num_executors)]

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        chosen = int(view.rng.integers(self.num_executors))
        board = Board.at(self._boards.get(chosen), view, self.period_s)
        self._boards[chosen] = board
        target = self._routers[chosen](board, request)
        board.add(target, request.prompt_tokens)
        return target
