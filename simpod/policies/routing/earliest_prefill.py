"""Prefill load over data-parallel ranks that step together."""

from dataclasses import dataclass, field

import numpy as np

from simpod.policies.prompt_cost import prompt_cost
from simpod.policies.roles import Floats, RouteRequest, RouterView


@dataclass(slots=True)
class EarliestPrefill:
    """The target that would be done with the request first, by a cost model of prompts.

    Cost of a prompt of u tokens behind h that are cached or can be read, for tokens and attention:
    u + u (h + u/2) / attention_tokens. Ranks of an instance step together and the slowest sets the
    pace, so a target waits for the largest cost that its instance computes now, then for that of
    its own queue, at the mean cost per token of what was sent to it lately. Of equals, the instance
    with the least to do, then the rank.

    Source: the job executor of xDeepServe (arXiv:2508.02520), which places requests by load, cache
    status and queue of each prefill instance, here with the cost model of its leaders (policies
    `prefill_leader`, who may give a prompt to another rank of the instance).
    Sees: contents of the prefix caches and of the shared memory, prompt tokens queued and computed
    at every target, what it sent itself.
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
        reused = view.reusable_tokens(request)
        own = prompt_cost(request.prompt_tokens - reused, reused, self.attention_tokens)
        queued = view.queued_tokens * self._per_token
        under_way = view.computing_tokens * self._per_token
        by_instance = (-1, view.ranks_per_instance)
        slowest = under_way.reshape(by_instance).max(axis=1)
        waiting = queued.reshape(by_instance).sum(axis=1)
        ranks = view.ranks_per_instance
        done = slowest.repeat(ranks) + queued + own
        target = int(np.lexsort((view.held_seqs, waiting.repeat(ranks), done))[0])
        uncached = request.prompt_tokens - int(reused[target])
        tokens = int(view.queued_tokens[target]) + uncached
        self._per_token[target] = (queued[target] + own[target]) / max(1, tokens)
        return target
