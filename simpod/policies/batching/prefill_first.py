"""Prompts go first and decodes pause."""

from dataclasses import dataclass

from simpod.policies.batching.chunks import fill
from simpod.policies.roles import BatchPlan, BatchView


@dataclass(frozen=True, slots=True)
class PrefillFirst:
    """Prompts first, decodes pause: a step is either prefill or decode.

    Source: vLLM v0 without chunked prefill.
    Sees: order of arrival, prompt lengths, prefix hits.
    """

    def __call__(self, view: BatchView) -> BatchPlan:
        chunks = fill(view, view.prefilling, view.max_step_tokens)
        return BatchPlan(chunks, decode=not chunks)
