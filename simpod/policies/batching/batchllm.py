"""Requests with a common prefix together."""

from collections import defaultdict
from dataclasses import dataclass

from simpod.policies.batching.chunks import beside_decodes, expected_tokens
from simpod.policies.roles import BatchPlan, BatchView, SequenceView


@dataclass(frozen=True, slots=True)
class BatchLlm:
    """Prefix groups together, those with much output per prompt token first (offline batches).

    Requests whose first prefix block is the same form a group; the first of a group computes the
    prefix alone, the others follow once it is resident, before it can be evicted. Groups with a
    large share of decoding come first, so that their decodes can run beside later prompts; without
    a length predictor groups come in order of arrival.

    Source: Zheng et al., BatchLLM (arXiv:2412.03594).
    Sees: prefix identity, prompt lengths, prefix hits, what the length predictor says.
    """

    def __call__(self, view: BatchView) -> BatchPlan:
        groups: defaultdict[int, list[SequenceView]] = defaultdict(list)
        for seq in view.prefilling:
            groups[seq.prefix_hashes[0] if seq.prefix_hashes else -1 - seq.seq_id].append(seq)
        order = sorted(groups.values(), key=_precedence)
        budget = beside_decodes(view)
        chunks: dict[int, int] = {}
        for group in order:
            for position, seq in enumerate(sorted(group, key=lambda s: not s.is_running)):
                if position and seq.uncached_tokens >= seq.prompt_tokens and not seq.is_running:
                    continue  # the prefix is being computed by the first
                if budget <= 0 or len(chunks) >= view.free_seq_slots:
                    return BatchPlan(chunks)
                chunks[seq.seq_id] = min(seq.uncached_tokens, budget)
                budget -= chunks[seq.seq_id]
        return BatchPlan(chunks)


def _precedence(group: list[SequenceView]) -> tuple[bool, float, int]:
    outputs = sum(map(expected_tokens, group))
    prompts = sum(seq.uncached_tokens for seq in group)
    is_new = not any(seq.is_running for seq in group)
    return is_new, -outputs / max(1, prompts), min(seq.seq_id for seq in group)
