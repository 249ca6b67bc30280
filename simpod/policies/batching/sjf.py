"""The request with the shortest predicted output first."""

from dataclasses import dataclass

from simpod.policies.batching.chunks import (
    UNLIMITED,
    beside_decodes,
    check_at_least,
    expected_tokens,
    fill,
)
from simpod.policies.roles import BatchPlan, BatchView


@dataclass(frozen=True, slots=True)
class ShortestJobFirst:
    """Shortest predicted output first among waiting prompts; nothing that runs is preempted.

    Without `policies.length_predictor` all are alike, and this is `fcfs`.

    Source: Qiu et al., SSJF (arXiv:2404.08509): speculative shortest job first by a proxy model.
    Sees: what the length predictor says.
    """

    max_chunk_tokens: int = UNLIMITED
    """Longest chunk of one prompt; at least 1."""

    def __post_init__(self) -> None:
        check_at_least("max_chunk_tokens", self.max_chunk_tokens, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        order = sorted(
            view.prefilling, key=lambda s: (not s.is_running, expected_tokens(s), s.seq_id)
        )
        return BatchPlan(fill(view, order, beside_decodes(view), self.max_chunk_tokens))
