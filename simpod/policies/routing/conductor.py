"""KV-centric scheduling by estimated TTFT."""

from dataclasses import dataclass

import numpy as np

from simpod.policies.roles import RouteRequest, RouterView


@dataclass(frozen=True, slots=True)
class Conductor:
    """The target with the least estimated TTFT: its queue, and the prompt less its cached prefix.

    TTFT = (queued tokens + uncached tokens) / prompt tokens per second, as measured so far; where
    the prefix of another target is longer by more than `balancing_ratio`, it may be fetched at
    `transfer_tokens_per_s` instead (0: it can't, the pool shares no KV). Of equal estimates the
    target with the longer prefix is taken.

    Source: Qin et al., Mooncake (arXiv:2407.00079), algorithm 1.
    Sees: contents of the prefix caches, prompt tokens at every target, the measured speed.
    """

    prompt_tokens_per_s: float = 10_000.0
    """Speed to assume until one is measured; above 0."""

    transfer_tokens_per_s: float = 0.0
    """KV that a target can fetch from another one; 0: none."""

    balancing_ratio: float = 1.0
    """Fetch where the longest prefix is longer than so many times the target's own; at least 1."""

    def __post_init__(self) -> None:
        if not self.prompt_tokens_per_s > 0:
            raise ValueError(f"prompt_tokens_per_s: must be > 0, got {self.prompt_tokens_per_s}")
        if not self.transfer_tokens_per_s >= 0:
            raise ValueError(
                f"transfer_tokens_per_s: must be >= 0, got {self.transfer_tokens_per_s}"
            )
        if not self.balancing_ratio >= 1:
            raise ValueError(f"balancing_ratio: must be >= 1, got {self.balancing_ratio}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        speed = view.prompt_tokens_per_s or self.prompt_tokens_per_s
        hits = view.hit_tokens(request)
        work_s = (view.queued_tokens + request.prompt_tokens - hits) / speed
        if self.transfer_tokens_per_s:
            best = int(hits.max())
            fetched_s = (best - hits) / self.transfer_tokens_per_s
            other_s = (view.queued_tokens + request.prompt_tokens - best) / speed + fetched_s
            work_s = np.where(best > self.balancing_ratio * hits, other_s, work_s)
        return int(np.lexsort((view.held_seqs, -hits, work_s))[0])
