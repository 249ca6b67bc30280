"""Earliest deadline first."""

from dataclasses import dataclass

from simpod.policies.batching.chunks import (
    UNLIMITED,
    beside_decodes,
    check_at_least,
    fill,
    ongoing_first,
)
from simpod.policies.roles import BatchPlan, BatchView


@dataclass(frozen=True, slots=True)
class EarliestDeadline:
    """Chunked prefill; the prompt whose TTFT deadline comes first goes first.

    Prompts under way give way to more urgent ones at every step. Optimal on one server if all
    deadlines can be met; under overload `late_last` keeps hopeless ones from making others late.

    Source: Liu and Layland, JACM 1973.
    Sees: arrival, the TTFT target, prompt lengths.
    """

    max_chunk_tokens: int = UNLIMITED
    """Longest chunk of one prompt; at least 1."""

    late_last: bool = False
    """Prompts whose deadline has passed go after all others."""

    def __post_init__(self) -> None:
        check_at_least("max_chunk_tokens", self.max_chunk_tokens, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        late_s = view.now_s if self.late_last else float("-inf")
        by_urgency = sorted(
            view.prefilling,
            key=lambda s: (s.ttft_deadline_s < late_s, s.ttft_deadline_s, s.seq_id),
        )
        order = ongoing_first(view, by_urgency)
        return BatchPlan(fill(view, order, beside_decodes(view), self.max_chunk_tokens))
