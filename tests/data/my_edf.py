"""my_edf.py: serve the prompt whose TTFT deadline comes first."""

from dataclasses import dataclass

from simpod.policies import BatchPlan, BatchView


@dataclass(frozen=True)
class EarliestDeadline:
    max_chunk_tokens: int = 2048

    def __call__(self, view: BatchView) -> BatchPlan:
        budget, chunks = view.max_step_tokens - view.num_decoding, {}
        for seq in sorted(view.prefilling, key=lambda s: (s.ttft_deadline_s, s.seq_id)):
            chunk = min(seq.uncached_tokens, self.max_chunk_tokens, budget)
            if chunk <= 0 or len(chunks) == view.free_seq_slots:
                break
            chunks[seq.seq_id] = chunk
            budget -= chunk
        return BatchPlan(prefill_chunks=chunks)
