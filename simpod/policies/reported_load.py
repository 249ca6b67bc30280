"""The targets' load as reported some time ago, and the router that decides on it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from simpod.errors import ConfigError
from simpod.policies.resolve import resolve
from simpod.policies.roles import Ints, PolicyRef, Router, RouteRequest, RouterView


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

    @classmethod
    def of(cls, view: RouterView, period_s: float) -> Self:
        """What is reported now, for the period that `view.now_s` is in."""
        return cls(
            live=view,
            seen_s=view.now_s // period_s * period_s,
            waiting_seqs=view.waiting_seqs.copy(),
            running_seqs=view.running_seqs.copy(),
            held_seqs=view.held_seqs.copy(),
            queued_tokens=view.queued_tokens.copy(),
            computing_tokens=view.computing_tokens,
            kv_tokens=view.kv_tokens.copy(),
        )

    @classmethod
    def at(cls, board: "Board | None", view: RouterView, period_s: float) -> "Board":
        """The board itself, or after its period what is reported now."""
        if board is None or view.now_s - board.seen_s >= period_s:
            return cls.of(view, period_s)
        return board if board.live is view else replace(board, live=view)

    def add(self, target: int, prompt_tokens: int) -> None:
        """A request was sent since, by who reads this board."""
        self.waiting_seqs[target] += 1
        self.held_seqs[target] += 1
        self.queued_tokens[target] += prompt_tokens

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


def router_in(entry: str | Mapping[str, Any], wrapper: str) -> Router:
    """A fresh router as `router:` of another one names it: a name, or `use:` and parameters.

    Raises ValueError, as a policy does for its parameters, for anything else.
    """
    params = dict(entry) if isinstance(entry, Mapping) else {"use": entry}
    use = params.pop("use", None)
    if not isinstance(use, str):
        raise ValueError(f"router: must be a name, or {{use: name}} and parameters, got {entry!r}")
    if use == wrapper:
        raise ValueError(f"router: {wrapper} in {wrapper}: must be another router")
    try:
        made: Router = resolve("router", PolicyRef(use, params))()
    except ConfigError as error:
        text = "; ".join(each.removeprefix("policies.") for each in error.problems)
        raise ValueError(text if text.startswith("router: ") else f"router: {text}") from error
    return made
