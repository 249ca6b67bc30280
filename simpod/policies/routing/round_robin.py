"""One target after the other."""

from dataclasses import dataclass, field

from simpod.policies.roles import RouteRequest, RouterView


@dataclass(slots=True)
class RoundRobin:
    """One target after the other.

    Source: textbook; the base line of DeepSpeed-MII and of many gateways.
    Sees: nothing.
    """

    _next: int = field(default=0, init=False)

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        target = self._next % view.num_targets
        self._next = target + 1
        return target
