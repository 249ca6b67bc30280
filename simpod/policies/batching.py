"""Batch scheduling: which prompts take part in the next step of a rank."""

from collections.abc import Iterable
from dataclasses import dataclass

from simpod.policies.roles import BatchPlan, BatchView, SequenceView


def _fill(
    view: BatchView, order: Iterable[SequenceView], budget: int, longest: int
) -> dict[int, int]:
    """Give the token budget to the prompts in `order` until it, or the slots, run out."""
    slots = view.free_seq_slots
    chunks: dict[int, int] = {}
    for seq in order:
        if budget <= 0 or len(chunks) >= slots:
            break
        chunk = min(seq.uncached_tokens, budget, longest)
        chunks[seq.seq_id] = chunk
        budget -= chunk
    return chunks


def _check_chunk(max_chunk_tokens: int) -> None:
    if max_chunk_tokens < 1:
        raise ValueError(f"max_chunk_tokens: must be >= 1, got {max_chunk_tokens}")


UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Fcfs:
    """Continuous batching with chunked prefill: decodes first, then prompts in order of arrival.

    The scheduler of vLLM v1 (and Sarathi-Serve's stall-free batches): every running decode gets
    its token, the rest of the step's budget goes to prompts, cut into chunks where it must.
    """

    max_chunk_tokens: int = UNLIMITED
    """Longest chunk of one prompt (vLLM: long_prefill_token_threshold); at least 1."""

    def __post_init__(self) -> None:
        _check_chunk(self.max_chunk_tokens)

    def __call__(self, view: BatchView) -> BatchPlan:
        budget = view.max_step_tokens - view.num_decoding
        return BatchPlan(_fill(view, view.prefilling, budget, self.max_chunk_tokens))


@dataclass(frozen=True, slots=True)
class PrefillFirst:
    """Prompts first, decodes pause: a step is either prefill or decode (Orca-era vLLM, v0)."""

    def __call__(self, view: BatchView) -> BatchPlan:
        chunks = _fill(view, view.prefilling, view.max_step_tokens, UNLIMITED)
        return BatchPlan(chunks, decode=not chunks)


@dataclass(frozen=True, slots=True)
class ShortestPrompt:
    """Chunked prefill, least work left first; prompts under way before new ones."""

    max_chunk_tokens: int = UNLIMITED
    """Longest chunk of one prompt; at least 1."""

    def __post_init__(self) -> None:
        _check_chunk(self.max_chunk_tokens)

    def __call__(self, view: BatchView) -> BatchPlan:
        order = sorted(
            view.prefilling, key=lambda s: (not s.is_running, s.uncached_tokens, s.seq_id)
        )
        budget = view.max_step_tokens - view.num_decoding
        return BatchPlan(_fill(view, order, budget, self.max_chunk_tokens))
