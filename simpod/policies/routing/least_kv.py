"""The lowest KV usage."""

from dataclasses import dataclass

import numpy as np

from simpod.policies.roles import RouteRequest, RouterView

UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class LeastKv:
    """The target with the lowest KV usage among those below the batch limit (xDeepServe).

    Usage is what the rank last reported, plus the prompts that are on their way to it, plus a
    reserve for the output of each of its requests. If all are at the limit, all count.

    Source: xDeepServe (arXiv:2508.02520), decode load balancing of FlowServe.
    Sees: KV usage as last reported, requests and prompts that were sent since.
    """

    reserve_tokens: int = 0
    """Space set aside for the output of each request; at least 0."""

    def __post_init__(self) -> None:
        if self.reserve_tokens < 0:
            raise ValueError(f"reserve_tokens: must be >= 0, got {self.reserve_tokens}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        held = view.held_seqs
        load = view.kv_tokens + view.queued_tokens
        if self.reserve_tokens:
            load += self.reserve_tokens * held
        if held.item(held.argmax()) >= view.max_num_seqs > held.item(held.argmin()):
            load = np.where(held >= view.max_num_seqs, UNLIMITED, load)
        return int(load.argmin())
