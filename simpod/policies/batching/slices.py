"""Slice-level scheduling: a fixed number of tokens at a time."""

from dataclasses import dataclass, field

from simpod.policies.batching.chunks import beside_decodes, check_at_least, fill
from simpod.policies.roles import BatchPlan, BatchView, Pause


@dataclass(slots=True)
class Slices:
    """Fixed slices: after so many output tokens a request goes to the end of the queue.

    Only while others wait. Its KV is dropped and recomputed with the next slice, so the memory that
    a slice needs is known when it starts.

    Source: Cheng et al., slice-level scheduling, SCLS (arXiv:2406.13511).
    Sees: tokens emitted so far, order of the queue.
    """

    slice_tokens: int = 128
    """Output tokens of a slice; at least 1."""

    _began: dict[int, int] = field(default_factory=dict, init=False)  # seq -> emitted at its start

    def __post_init__(self) -> None:
        check_at_least("slice_tokens", self.slice_tokens, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        waiting = sorted(
            view.prefilling, key=lambda seq: (not seq.is_running, seq.queued_s, seq.seq_id)
        )
        decoding = list(view.decoding)
        for seq in waiting:
            self._began[seq.seq_id] = seq.emitted_tokens
        here = {seq.seq_id for seq in (*waiting, *decoding)}
        self._began = {s: e for s, e in self._began.items() if s in here}
        preempt: dict[int, Pause] = {}
        left = []
        for seq in decoding:
            began = self._began.setdefault(seq.seq_id, seq.emitted_tokens)
            rest = self.slice_tokens - (seq.emitted_tokens - began)
            if rest <= 0 and waiting:
                preempt[seq.seq_id] = "recompute"
            elif rest > 0:
                left.append(rest)
        budget = beside_decodes(view) + len(preempt) * view.tokens_per_decode
        chunks = fill(view, waiting, budget, more_slots=len(preempt))
        review = min(left) if left and waiting else None
        return BatchPlan(chunks, preempt=preempt, review_tokens=review)
