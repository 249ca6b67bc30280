"""Learning to rank: shortest first by a predicted order."""

from dataclasses import dataclass
from typing import Any

from simpod.policies.batching.best_first import serve_best
from simpod.policies.batching.chunks import (
    UNLIMITED,
    beside_decodes,
    check_at_least,
    check_positive,
    expected_tokens,
    fill,
)
from simpod.policies.roles import BatchPlan, BatchView, SequenceView


@dataclass(frozen=True, slots=True)
class LearnedRanking:
    """Shortest first by a learned rank, and whoever has waited too long before all others.

    Only the order of the predictions counts, so the predictor `ranking` is made for it.

    Source: Fu et al., Efficient LLM Scheduling by Learning to Rank, NeurIPS 2024
    (arXiv:2408.15792): ranking, starvation guard.
    Sees: the predictor's score, time in the queue.
    """

    starvation_s: float = 10.0
    """Who has waited longer goes first; above 0 (infinity: no guard)."""

    preemptive: bool = False
    """Running requests of a higher rank make way as well, and are recomputed."""

    max_chunk_tokens: int = UNLIMITED
    """Longest chunk of one prompt; at least 1."""

    def __post_init__(self) -> None:
        check_positive("starvation_s", self.starvation_s)
        check_at_least("max_chunk_tokens", self.max_chunk_tokens, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        starving_since_s = view.now_s - self.starvation_s

        def key(seq: SequenceView) -> Any:
            waits = seq.emitted_tokens == 0 or not seq.is_running
            is_starving = waits and seq.queued_s < starving_since_s
            return not is_starving, expected_tokens(seq), seq.seq_id

        if self.preemptive:
            longest = self.max_chunk_tokens
            return serve_best(view, key, _outranks, max_chunk_tokens=longest)
        order = sorted(view.prefilling, key=lambda seq: (not seq.is_running, *key(seq)))
        return BatchPlan(fill(view, order, beside_decodes(view), self.max_chunk_tokens))


def _outranks(seq: SequenceView, running: SequenceView) -> bool:
    return expected_tokens(seq) < expected_tokens(running)
