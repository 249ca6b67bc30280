"""Prefill load over data-parallel ranks that step together."""

from dataclasses import dataclass, field

import numpy as np

from simpod.policies.roles import Floats, RouteRequest, RouterView


@dataclass(slots=True)
class CollaborativePrefill:
    """The target where the request costs least, by a cost model of prompts: tokens and attention.

    Ranks of an instance step together, so the slowest sets the pace. Cost of a prompt of u uncached
    and h cached tokens: u + u (h + u/2) / attention_tokens. A target's load is that of its queued
    tokens, at the mean cost per token of what was sent to it lately.

    Source: xDeepServe (arXiv:2508.02520), collaborative prefill scheduling: a leader gathers the
    ranks' states and assigns prompts by a cost model with prefix hits and lengths.
    Sees: contents of the prefix caches, prompt tokens at every target, what it sent itself.
    """

    attention_tokens: float = 32_768.0
    """Context at which attention costs as much as everything else; above 0."""

    _per_token: Floats = field(default_factory=lambda: np.zeros(0), init=False)

    def __post_init__(self) -> None:
        if not self.attention_tokens > 0:
            raise ValueError(f"attention_tokens: must be > 0, got {self.attention_tokens}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        if len(self._per_token) != view.num_targets:
            self._per_token = np.ones(view.num_targets)
        hits = view.hit_tokens(request)
        uncached = request.prompt_tokens - hits
        cost = uncached * (1.0 + (hits + uncached / 2) / self.attention_tokens)
        total = view.queued_tokens * self._per_token + cost
        target = int(np.lexsort((view.held_seqs, total))[0])
        queued, own = int(view.queued_tokens[target]), int(uncached[target])
        self._per_token[target] = total[target] / max(1, queued + own)
        return target
