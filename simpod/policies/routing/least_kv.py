"""The lowest KV usage."""

from dataclasses import dataclass, field

import numpy as np

from simpod.policies.roles import Ints, RouteRequest, RouterView

UNLIMITED = 1 << 62


@dataclass(slots=True)
class LeastKv:
    """The target with the lowest KV usage among those below the batch limit (xDeepServe).

    Usage is what the rank last reported, plus the prompts that are on their way to it, plus a
    reserve for the output of each of its requests. If all are at the limit, all count, and the
    request waits in front of the one it gets, its KV where the prompt was computed.

    Source: xDeepServe (arXiv:2508.02520), decode load balancing of FlowServe.
    Sees: KV usage as last reported, requests and prompts that were sent since.
    """

    reserve_tokens: int = 0
    """Space set aside for the output of each request; at least 0."""

    period_s: float = 0.0
    """Time between two reports of KV usage; 0: each admission and release is reported at once.

    Requests of a target are counted as they are sent and as they end, and prompts are added as they
    are sent. What a request that has ended held is seen to be free with the next report only, which
    comes with the first request of a period."""

    _seen_s: float = field(default=-np.inf, init=False)
    _usage: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64), init=False)

    def __post_init__(self) -> None:
        if self.reserve_tokens < 0:
            raise ValueError(f"reserve_tokens: must be >= 0, got {self.reserve_tokens}")
        if not 0 <= self.period_s < np.inf:
            raise ValueError(f"period_s: must be >= 0 and finite, got {self.period_s}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        held = view.held_seqs
        load = self._reported(view) if self.period_s else view.kv_tokens + view.queued_tokens
        if self.reserve_tokens:
            load = load + self.reserve_tokens * held
        if held.item(held.argmax()) >= view.max_num_seqs > held.item(held.argmin()):
            load = np.where(held >= view.max_num_seqs, UNLIMITED, load)
        target = int(load.argmin())
        if self.period_s:
            self._usage[target] += request.prompt_tokens
        return target

    def _reported(self, view: RouterView) -> Ints:
        """[num_targets] the last report, with the prompts that were sent since."""
        if view.now_s - self._seen_s >= self.period_s:
            self._seen_s = view.now_s // self.period_s * self.period_s
            self._usage = view.kv_tokens + view.queued_tokens
        return self._usage
