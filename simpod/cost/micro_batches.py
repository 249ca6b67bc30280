"""A step's batch cut into micro-batches, and what each costs a rank up to the experts."""

from dataclasses import dataclass

import numpy as np

from simpod.cost.parts import PartCosts
from simpod.cost.step_prices import Batch
from simpod.cost.table import ContextTable, PromptTable, Table
from simpod.cost.work import Floats, Ints

NO_GRAPH = np.zeros(1, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankCosts:
    """What ranks do before their tokens leave for the experts, all layers."""

    tokens: Ints
    """[micro_batches, num_ranks]"""
    sparse_s: Floats
    """[micro_batches, num_ranks]: of one sparse layer, attention over the cache included."""
    dense_s: Floats
    """[micro_batches, num_ranks]: of one dense layer, which has its feed-forward here."""
    num_layers: int
    dense_layers: int
    attention_s: float
    """Attention over the cache: mean over ranks, all micro-batches."""
    parts_s: Floats
    """[NUM_PARTS]: the rest, mean over ranks, all micro-batches."""
    rows: int
    """Of the fullest rank, that are sampled."""

    @property
    def busy_s(self) -> Floats:
        """[num_ranks]: all layers, all micro-batches."""
        sparse_layers = self.num_layers - self.dense_layers
        both_s = sparse_layers * self.sparse_s + self.dense_layers * self.dense_s
        return np.asarray(both_s.sum(axis=0))


class MicroBatches:
    """Prices of the micro-batches of a group; the first ones are a sequence larger.

    Chunks of prompts ride with the first. Decodes by themselves run as the graph of the fullest
    rank, cut likewise, where graphs mask their dummies; else as they are. A gate in the stream of
    experts is priced without dummies: of 3 and of 120 rows it takes 23 and 26 us.
    """

    def __init__(self, costs: PartCosts, num_ranks: int, micro_batches: int) -> None:
        self._rank = Table(costs.tokens)
        self._dense_more = Table(costs.dense_more)
        self._num_layers, self._dense_layers = costs.num_layers, costs.model.num_dense_layers
        self._attention = ContextTable(costs.decode_attention_s)
        self._prompts = PromptTable(costs.prefill_attention_s)
        self._tokens_per_decode = costs.layout.tokens_per_decode
        graphs = costs.semantics.graphs.of_rank(costs.layout.max_num_seqs)
        padded = graphs.padded_tokens(self._tokens_per_decode) if graphs.masks_dummies else None
        self._padded = padded or []
        self._count = micro_batches
        self._mean = np.full(num_ranks, 1.0 / num_ranks)

    def price(self, batch: Batch) -> RankCosts:
        """Of all ranks."""
        context = batch.context_tokens + batch.decode_seqs * batch.gained_tokens
        has_prompts = bool(batch.prefill_tokens.any())
        graph_seqs = self._graph_seqs(batch, has_prompts)
        sparse, dense, tokens = [], [], []
        parts, attention_mean_s = 0.0 * self._mean[0], 0.0
        for index in range(self._count):
            seqs = self._cut(batch.decode_seqs, index)
            own = seqs * self._tokens_per_decode
            chunks_s: Floats | float = 0.0
            if index == 0 and has_prompts:
                own = own + batch.prefill_tokens
                chunks_s = self._chunks_s(batch)
            share = seqs / np.maximum(batch.decode_seqs, 1)
            resident = np.rint(context * share).astype(np.int64)
            attention_s = self._attention.many(seqs, resident)[0] + chunks_s
            rows = np.maximum(own, self._cut(graph_seqs, index) * self._tokens_per_decode)
            base_s, mean_parts = self._rank.means(rows, self._mean)
            more_s = self._dense_more.means(rows, self._mean)[0]
            layer_s = (base_s + attention_s - self._dense_layers * more_s) / self._num_layers
            sparse.append(layer_s)
            dense.append(layer_s + more_s)
            tokens.append(own)
            parts = parts + mean_parts
            attention_mean_s += float(self._mean @ attention_s)
        sampled = batch.decode_seqs * self._tokens_per_decode + batch.num_chunks
        return RankCosts(
            tokens=np.stack(tokens),
            sparse_s=np.stack(sparse),
            dense_s=np.stack(dense),
            num_layers=self._num_layers,
            dense_layers=self._dense_layers,
            attention_s=attention_mean_s,
            parts_s=np.asarray(parts),
            rows=int(sampled.max()),
        )

    def _graph_seqs(self, batch: Batch, has_prompts: bool) -> Ints:
        """[1] sequences of the graph that all ranks run; 0: each runs what it has."""
        tokens = int(batch.decode_seqs.max()) * self._tokens_per_decode
        if has_prompts or tokens >= len(self._padded):
            return NO_GRAPH
        return np.array([self._padded[tokens] // self._tokens_per_decode])

    def _cut(self, seqs: Ints, index: int) -> Ints:
        """Sequences of one micro-batch."""
        return np.asarray((seqs + self._count - 1 - index) // self._count)

    def _chunks_s(self, batch: Batch) -> Floats:
        prompt = batch.prefill_tokens
        keys = batch.prefill_pairs / np.maximum(prompt, 1)
        return self._prompts.many(prompt.astype(np.float64), keys)
