"""Prompts go first and decodes pause."""

from dataclasses import dataclass, field

from simpod.policies.batching.chunks import check_at_least, fill
from simpod.policies.roles import BatchPlan, BatchView


@dataclass(slots=True)
class PrefillFirst:
    """Prompts first, decodes pause: a step is either prefill or decode (vLLM v0, SGLang).

    Source: vLLM v0 without chunked prefill; Zheng et al., SGLang (arXiv:2312.07104). The interval:
    SGLang's `scheduler_recv_skipper.py` (a decode counts 1, any other step as many as it takes).
    Sees: order of arrival, prompt lengths, prefix hits.
    """

    receive_interval: int = 1
    """Decode steps between two looks for new prompts (SGLang: scheduler_recv_interval); a step of
    prompts, and one without decodes, is followed by a look."""
    _looked: int = field(default=0, init=False, repr=False)
    _next: int | None = field(default=None, init=False, repr=False)
    _seen: set[int] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        check_at_least("receive_interval", self.receive_interval, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        if self.receive_interval == 1:
            chunks = fill(view, view.prefilling, view.max_step_tokens)
            return BatchPlan(chunks, decode=not chunks)
        prompts = list(view.prefilling)
        clock = view.decode_steps
        if self._next is None:
            over = (clock - self._looked) % self.receive_interval
            self._next = clock + self.receive_interval - over if over else clock
        if clock >= self._next or not view.num_decoding:
            self._seen = {seq.seq_id for seq in prompts}
            self._next = None
        seen = [seq for seq in prompts if seq.seq_id in self._seen or seq.emitted_tokens]
        chunks = fill(view, seen, view.max_step_tokens)
        if chunks:
            self._looked, self._next = clock, None
        unseen = len(seen) < len(prompts) and self._next is not None
        return BatchPlan(
            chunks,
            decode=not chunks,
            review_steps=self._next - clock if unseen and self._next is not None else None,
        )
