"""Least slack first."""

from dataclasses import dataclass

from simpod.policies.batching.chunks import (
    UNLIMITED,
    beside_decodes,
    check_at_least,
    check_positive,
    fill,
    ongoing_first,
)
from simpod.policies.roles import BatchPlan, BatchView, SequenceView


@dataclass(frozen=True, slots=True)
class LeastSlack:
    """Chunked prefill; the prompt that can wait least, given the work it needs, goes first.

    slack = deadline - now - uncached tokens / (prompt tokens per second of this kind of rank, as
    measured so far). Prompts that can't make it go last: the time is better spent on others.

    Source: Mok, MIT 1983 (least laxity); SLO-aware schedulers such as Mooncake's and SCORPIO's.
    Sees: arrival, the TTFT target, prompt lengths, prefix hits, the measured speed.
    """

    prompt_tokens_per_s: float = 10_000.0
    """Speed to assume until one is measured; above 0."""

    max_chunk_tokens: int = UNLIMITED
    """Longest chunk of one prompt; at least 1."""

    def __post_init__(self) -> None:
        check_positive("prompt_tokens_per_s", self.prompt_tokens_per_s)
        check_at_least("max_chunk_tokens", self.max_chunk_tokens, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        speed = view.prompt_tokens_per_s or self.prompt_tokens_per_s
        now_s = view.now_s

        def urgency(seq: SequenceView) -> tuple[bool, float, int]:
            slack_s = seq.ttft_deadline_s - now_s - seq.uncached_tokens / speed
            return slack_s < 0, slack_s, seq.seq_id

        by_urgency = sorted(view.prefilling, key=urgency)
        order = ongoing_first(view, by_urgency)
        return BatchPlan(fill(view, order, beside_decodes(view), self.max_chunk_tokens))
