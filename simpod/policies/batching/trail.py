"""Shortest predicted remaining output first, with limited preemption."""

from dataclasses import dataclass

from simpod.policies.batching.best_first import serve_best
from simpod.policies.batching.chunks import UNLIMITED, check_at_least, expected_tokens
from simpod.policies.roles import BatchPlan, BatchView, SequenceView


@dataclass(frozen=True, slots=True)
class Trail:
    """Shortest predicted remaining output first (SRPT); who is nearly done is not preempted.

    A running request may be preempted while it has emitted less than `preemptible_frac` of its
    predicted output: beyond that its large KV would be lost for little. 1: plain SRPT with the
    prediction as the length; 0: none is preempted. What makes way is recomputed. The prediction is
    the one at arrival; the paper refreshes it from an intermediate layer at every token.

    Source: Shahout et al., TRAIL, ICLR 2025 (arXiv:2410.01035), with C = 0.8.
    Sees: what the length predictor says, tokens emitted so far.
    """

    preemptible_frac: float = 0.8
    """Share of its predicted output up to which a request may be preempted; 0 to 1."""

    max_chunk_tokens: int = UNLIMITED
    """Longest chunk of one prompt; at least 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.preemptible_frac <= 1:
            raise ValueError(f"preemptible_frac: must be from 0 to 1, got {self.preemptible_frac}")
        check_at_least("max_chunk_tokens", self.max_chunk_tokens, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        return serve_best(
            view,
            lambda seq: (remaining_tokens(seq), seq.seq_id),
            self._displaces,
            max_chunk_tokens=self.max_chunk_tokens,
        )

    def _displaces(self, seq: SequenceView, running: SequenceView) -> bool:
        is_open = running.emitted_tokens < self.preemptible_frac * expected_tokens(running)
        return is_open and remaining_tokens(seq) < remaining_tokens(running)


def remaining_tokens(seq: SequenceView) -> float:
    """Output that is still to come, as predicted; 0 when it has outlived its prediction."""
    return max(0.0, expected_tokens(seq) - seq.emitted_tokens)
