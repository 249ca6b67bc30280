"""Prompt chunks of a step, counted as they are granted."""

from simpod.cluster import Counters, KvBlocks, float_array, integer_array
from simpod.cost import Batch


class PromptCounters:
    """Prompt chunks of the next step, per rank: what `Batch` says of them, written one by one."""

    def __init__(self, num_ranks: int) -> None:
        counters = Counters(4 * num_ranks)
        self.tokens = counters.integers(num_ranks)
        self.pairs = counters.floats(num_ranks)
        self.context = counters.integers(num_ranks)
        self.chunks = counters.integers(num_ranks)

    def batch(self, kv: KvBlocks) -> Batch:
        """A batch that always shows the present counts."""
        return Batch(
            decode_seqs=kv.growing,
            context_tokens=kv.offsets,
            prefill_tokens=integer_array(self.tokens),
            prefill_pairs=float_array(self.pairs),
            prefill_context=integer_array(self.context),
            num_chunks=integer_array(self.chunks),
        )
