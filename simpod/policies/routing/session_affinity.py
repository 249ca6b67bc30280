"""A conversation stays where it began."""

from dataclasses import dataclass, field

from simpod.policies.roles import RouteRequest, RouterView


@dataclass(slots=True)
class SessionAffinity:
    """Later turns of a conversation go where its first went; others to the fewest requests.

    With `max_spread_seqs` more requests at its target than at the least loaded, a conversation
    moves there for good.

    Source: consistent hashing and sticky sessions of common gateways (Envoy, vLLM router).
    Sees: the session, requests at every target.
    """

    max_spread_seqs: int = 1 << 62
    """Largest difference in requests that does not move a conversation; at least 0."""

    _home: dict[int, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.max_spread_seqs < 0:
            raise ValueError(f"max_spread_seqs: must be >= 0, got {self.max_spread_seqs}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        held = view.held_seqs
        least = int(held.argmin())
        if request.session_id < 0:
            return least
        home = self._home.get(request.session_id, least)
        if held[home] - held[least] > self.max_spread_seqs:
            home = least
        self._home[request.session_id] = home
        return home
