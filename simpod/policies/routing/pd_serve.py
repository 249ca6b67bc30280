"""Idle prefill instances first."""

from dataclasses import dataclass, field

from simpod.policies.roles import RouteRequest, RouterView


@dataclass(slots=True)
class PdServe:
    """The next idle target in turn; with none idle, the one with the fewest tokens to compute.

    The gateway forwards a request on demand: a prefill instance that is busy refuses, and the
    gateway tries the next. A request that nobody takes would wait at the gateway; here it waits
    where the queue will be done first, which comes to the same while prompts are alike.

    Source: Jin et al., P/D-Serve (arXiv:2408.08147), on-demand forwarding.
    Sees: whether a target is idle; else the prompt tokens at every target.
    """

    _next: int = field(default=0, init=False)

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        held = view.held_seqs
        for step in range(view.num_targets):
            target = (self._next + step) % view.num_targets
            if held[target] == 0:
                self._next = target + 1
                return target
        return int((view.queued_tokens + view.running_seqs).argmin())
