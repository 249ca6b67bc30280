"""Running requests go before new ones."""

from dataclasses import dataclass

from simpod.policies.batching.chunks import fill
from simpod.policies.roles import BatchPlan, BatchView


@dataclass(frozen=True, slots=True)
class DecodeFirst:
    """Decodes go on alone; prompts wait until so few decode that a new batch may form.

    With `refill_seqs: 0` a batch runs until its last request is done: request-level (static)
    batching. Decodes pause while prompts are computed, as nothing is to be fused.

    Source: FasterTransformer's batches as described by Yu et al., Orca, OSDI 2022, and the
    decode-prioritising schedule of Agrawal et al., Sarathi-Serve (arXiv:2403.02310).
    Sees: order of arrival, prompt lengths, the number of decodes.
    """

    refill_seqs: int = 0
    """Prompts may start while at most so many sequences decode; at least 0."""

    def __post_init__(self) -> None:
        if self.refill_seqs < 0:
            raise ValueError(f"refill_seqs: must be >= 0, got {self.refill_seqs}")

    def __call__(self, view: BatchView) -> BatchPlan:
        if view.num_decoding > self.refill_seqs and not _is_forming(view):
            return BatchPlan()
        chunks = fill(view, view.prefilling, view.max_step_tokens)
        return BatchPlan(chunks, decode=not chunks)


def _is_forming(view: BatchView) -> bool:
    """A prompt is computed in part: the batch that it belongs to is not complete."""
    return any(seq.is_running for seq in view.prefilling)
