"""The shortest prompt first."""

from dataclasses import dataclass

from simpod.policies.batching.chunks import UNLIMITED, beside_decodes, check_at_least, fill
from simpod.policies.roles import BatchPlan, BatchView


@dataclass(frozen=True, slots=True)
class ShortestPrompt:
    """Chunked prefill, least work left first; prompts under way before new ones.

    Source: shortest job first (Conway, Maxwell, Miller 1967), applied to prefill.
    Sees: prompt lengths, prefix hits.
    """

    max_chunk_tokens: int = UNLIMITED
    """Longest chunk of one prompt; at least 1."""

    def __post_init__(self) -> None:
        check_at_least("max_chunk_tokens", self.max_chunk_tokens, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        order = sorted(
            view.prefilling, key=lambda s: (not s.is_running, s.uncached_tokens, s.seq_id)
        )
        return BatchPlan(fill(view, order, beside_decodes(view), self.max_chunk_tokens))
