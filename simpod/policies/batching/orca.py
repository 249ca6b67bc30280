"""Iteration-level scheduling of whole prompts."""

from dataclasses import dataclass

from simpod.policies.batching.chunks import beside_decodes
from simpod.policies.roles import BatchPlan, BatchView


@dataclass(frozen=True, slots=True)
class Orca:
    """Iteration-level batching of whole prompts, in order of arrival, beside the decodes.

    A prompt enters a step whole or not at all; one longer than a whole step's budget, which Orca
    would not accept, is cut, and has the step's prompts to itself.

    Source: Yu et al., Orca, OSDI 2022.
    Sees: order of arrival, prompt lengths, prefix hits.
    """

    def __call__(self, view: BatchView) -> BatchPlan:
        return BatchPlan(whole_prompts(view))


def whole_prompts(view: BatchView) -> dict[int, int]:
    """Prompts, each whole, in their order, in the budget that running decodes leave.

    One longer than a whole step's budget is cut, and has the step's prompts to itself.
    """
    budget = beside_decodes(view)
    chunks: dict[int, int] = {}
    for seq in view.prefilling:
        if budget <= 0 or len(chunks) >= view.free_seq_slots:
            break
        must_be_cut = seq.is_running or seq.uncached_tokens > view.max_step_tokens
        if seq.uncached_tokens > budget and (chunks or not must_be_cut):
            break
        chunks[seq.seq_id] = min(seq.uncached_tokens, budget)
        budget -= chunks[seq.seq_id]
    return chunks
