"""Continuous batching, first come first served, with chunked prefill."""

from dataclasses import dataclass

from simpod.policies.batching.chunks import UNLIMITED, beside_decodes, check_at_least, fill
from simpod.policies.roles import BatchPlan, BatchView


@dataclass(frozen=True, slots=True)
class Fcfs:
    """Continuous batching with chunked prefill: decodes first, then prompts in order of arrival.

    Every running decode gets its token, the rest of the step's budget goes to prompts, cut into
    chunks where it must: Sarathi-Serve's stall-free batches.

    Source: vLLM v1; Agrawal et al., Sarathi-Serve, OSDI 2024 (arXiv:2403.02310).
    Sees: order of arrival, prompt lengths, prefix hits.
    """

    max_chunk_tokens: int = UNLIMITED
    """Longest chunk of one prompt (vLLM: long_prefill_token_threshold); at least 1."""

    def __post_init__(self) -> None:
        check_at_least("max_chunk_tokens", self.max_chunk_tokens, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        return BatchPlan(fill(view, view.prefilling, beside_decodes(view), self.max_chunk_tokens))
