"""Dispatch by virtual usage."""

from dataclasses import dataclass

import numpy as np

from simpod.policies.roles import RouteRequest, RouterView


@dataclass(frozen=True, slots=True)
class Llumnix:
    """The freest target: (KV capacity - virtual usage) / requests, the steps that it can still go.

    Virtual usage is the KV held plus the prompts that wait, so that a queue counts as load, plus a
    headroom for each request above priority 0 that is to run undisturbed. The same measure chooses
    who moves where: see the migration policy of this name.

    Source: Sun et al., Llumnix, OSDI 2024 (arXiv:2406.03243).
    Sees: KV usage as last reported, requests and prompts that were sent since.
    """

    headroom_tokens: int = 0
    """Extra demand that an urgent request (priority above 0) must find free; at least 0."""

    def __post_init__(self) -> None:
        if self.headroom_tokens < 0:
            raise ValueError(f"headroom_tokens: must be >= 0, got {self.headroom_tokens}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        free = view.kv_capacity_tokens - view.kv_tokens - view.queued_tokens
        if request.priority > 0:
            free = free - self.headroom_tokens
        requests = np.maximum(1, view.held_seqs)
        freeness = np.where(free > 0, free / requests, free)  # a negative one is not spread
        return int(freeness.argmax())
