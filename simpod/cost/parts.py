"""What each part of a step costs one die, as a function of token counts.

The layers of a model are alike, so a part is its operators' seconds times the number of layers. An
MTP draft is one more pass of a whole layer over the same tokens ("two tokens per request through
every operator", CloudMatrix-Infer 4.2.4), and all of its work is booked under `mtp`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from simpod.cost import operators as op
from simpod.cost.collectives import (
    Exchange,
    all_gather_s,
    all_reduce_s,
    combine_message_bytes,
    dispatch_message_bytes,
    expert_exchange,
    meets_in_layers,
)
from simpod.cost.layout import Layout
from simpod.cost.roofline import Roofline, smooth_max
from simpod.cost.work import Amount, Floats, Ints, Work
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec
from simpod.records.columns import STEP_PARTS

NUM_PARTS = len(STEP_PARTS)
ATTENTION, DISPATCH_WAIT, COMBINE_WAIT, MTP = (
    STEP_PARTS.index(name) for name in ("attention", "dispatch_wait", "combine_wait", "mtp")
)
ATTENTION_KERNELS = 2  # the decode kernel's two launches; a prefill kernel replaces them

FIRST_BLOCK = 256  # counts that a table starts with
NO_EXCHANGE = Exchange(0.0, 0.0)


def by_part(size: int, **seconds: Amount) -> Floats:
    """[size, NUM_PARTS]: seconds of the named parts, 0 in the others."""
    table = np.zeros((size, NUM_PARTS))
    for name, value in seconds.items():
        table[:, STEP_PARTS.index(name)] += value
    return table


@dataclass(slots=True, eq=False)
class Table:
    """Seconds by part for every count 0, 1, 2, ...; computed once, in blocks that double.

    fill(counts [n]) returns [n, NUM_PARTS]. Looking beyond the end raises IndexError: then `grow`.
    """

    fill: Callable[[Floats], Floats]
    parts: Floats = field(default_factory=lambda: np.empty((0, NUM_PARTS)))
    total: Floats = field(default_factory=lambda: np.empty(0))

    def grow(self, count: int) -> None:
        """Make room for `count`, block by block: an entry never depends on when it was made."""
        while len(self.total) <= count:
            start, end = len(self.total), max(FIRST_BLOCK, 2 * len(self.total))
            more = self.fill(np.arange(start, end, dtype=np.float64))
            self.parts = np.concatenate([self.parts, more])
            self.total = np.concatenate([self.total, more.sum(axis=1)])

    def seconds(self, count: int) -> float:
        """Sum over the parts."""
        self.grow(count)
        return self.total.item(count)

    def means(self, counts: Ints, mean: Floats) -> tuple[Floats, Floats]:
        """For `counts` [num_ranks]: total of each rank, and parts averaged by weights `mean`."""
        try:
            total = self.total.take(counts)
        except IndexError:
            self.grow(int(counts.max()))
            total = self.total.take(counts)
        return total, mean.dot(self.parts.take(counts, axis=0))


class PartCosts:
    """Prices the parts of one step of one die with arrays of token counts."""

    def __init__(self, model: ModelSpec, hardware: HardwareProfile, layout: Layout) -> None:
        self.model, self.hardware, self.layout = model, hardware, layout
        self.roofline = Roofline(hardware)
        self.meets = meets_in_layers(model, layout)
        self.mtp = layout.mtp_layers
        self.num_layers = model.num_layers + self.mtp
        self.num_moe_layers = model.num_moe_layers + (self.mtp if model.moe else 0)
        units = [op.prefill_attention(model, layout, *unit) for unit in np.eye(3).tolist()]
        self._prefill_compute_s = [float(self.roofline.compute_s(unit)) for unit in units]
        self._prefill_memory_s = [float(self.roofline.memory_s(unit)) for unit in units]
        self.dispatch = self.combine = NO_EXCHANGE
        if self.meets:
            sent = dispatch_message_bytes(model, layout)
            returned = combine_message_bytes(model)
            self.dispatch = expert_exchange(hardware, model, layout, sent)
            self.combine = expert_exchange(hardware, model, layout, returned)

    def attention_s_per_kv_token(self) -> float:
        """Decode attention of one layer, per cached token of the rank's sequences.

        Operations and bytes are both proportional to cached tokens, so their smooth maximum is too.
        """
        return float(self.roofline.busy_s(op.decode_attention(self.model, self.layout, 1.0, 0.0)))

    def attention_s_per_query(self) -> float:
        """Decode attention of one layer, per new token: its query in and its output out."""
        return float(self.roofline.busy_s(op.decode_attention(self.model, self.layout, 0.0, 1.0)))

    def prefill_attention_s(self, pairs: Amount, kv_tokens: Amount, queries: Amount) -> Amount:
        """Attention of prompt chunks in one layer; its work is linear in each of the counts."""
        compute, memory = self._prefill_compute_s, self._prefill_memory_s
        return smooth_max(
            pairs * compute[0] + kv_tokens * compute[1] + queries * compute[2],
            pairs * memory[0] + kv_tokens * memory[1] + queries * memory[2],
        )

    def tokens(self, tokens: Floats) -> Floats:
        """Everything that a rank does before it meets the others, but for its reads of KV.

        A rank without tokens runs one dummy token, as idle ranks of a lock-step group do.
        """
        t = np.maximum(tokens, 1.0)
        model, layers = self.model, self.model.num_layers
        attention_s = ATTENTION_KERNELS * self.hardware.calibration.kernel_overhead_s
        projections_s = self._price(op.attention_projections(model, self.layout, t))
        passes_s = self._price((op.layer_elementwise(model, self.layout, t),))
        dense_s = self._price(op.dense_ffn(model, self.layout, t))
        shared_s = self._price(op.shared_experts(model, self.layout, t))
        sparse_s = shared_s + self._price(op.router(model, t))
        dense_reduce_s, sparse_reduce_s = self._all_reduces(t)
        last_s = sparse_s + sparse_reduce_s if model.moe else dense_s + dense_reduce_s
        draft_s = attention_s + projections_s + passes_s + last_s
        draft_s = draft_s + self._price((op.mtp_join(model, t), op.embedding(model, t)))
        return by_part(
            len(t),
            attention=layers * attention_s,
            projections=layers * projections_s,
            ffn=model.num_dense_layers * dense_s + model.num_moe_layers * sparse_s,
            elementwise=layers * passes_s + self._price((op.embedding(model, t),)),
            all_reduce=model.num_dense_layers * dense_reduce_s
            + model.num_moe_layers * sparse_reduce_s,
            mtp=self.mtp * draft_s,
        )

    def experts(self, group_tokens: Floats) -> Floats:
        """Routed experts, and dispatch and combine of the mean die, for all tokens of the group."""
        if self.model.moe is None:
            return np.zeros((len(group_tokens), NUM_PARTS))
        layers = self.model.num_moe_layers
        mean_tokens = group_tokens / self.layout.dies
        experts_s = self._price(op.routed_experts(self.model, self.layout, group_tokens))
        dispatch_s = self.dispatch.fixed_s + self.dispatch.s_per_token * mean_tokens
        combine_s = self.combine.fixed_s + self.combine.s_per_token * mean_tokens
        return by_part(
            len(group_tokens),
            experts=layers * experts_s,
            dispatch=layers * dispatch_s,
            combine=layers * combine_s,
            mtp=self.mtp * (experts_s + dispatch_s + combine_s),
        )

    def head(self, rows: Floats) -> Floats:
        """Head, sampling and the gap between steps; a draft samples one row in 1 + mtp_layers."""
        drafted = rows / self.layout.tokens_per_decode
        return by_part(
            len(rows),
            head=self._head_s(rows),
            sampling=self._sampling_s(rows),
            mtp=self.mtp * (self._head_s(drafted) + self._sampling_s(drafted)),
            host_gap=self.hardware.calibration.step_overhead_s,
        )

    def _price(self, works: tuple[Work, ...]) -> Amount:
        return self.roofline.seconds(*works)

    def _sampling_s(self, rows: Floats) -> Amount:
        return self._price((op.sampling(self.model, rows),))

    def _head_s(self, rows: Floats) -> Amount:
        logits_bytes = rows * (self.model.vocab_size * op.BF16_BYTES)
        product_s = self._price((op.lm_head(self.model, self.layout, rows),))
        return product_s + all_gather_s(self.hardware, logits_bytes, self.layout.tp)

    def _all_reduces(self, tokens: Floats) -> tuple[Amount, Amount]:
        """Of a dense and of a sparse layer, over the dies of a rank.

        After attention and after the feed-forward. Where ranks meet, a rank scatters its tokens
        over its dies before dispatch and gathers them after combine: together one all-reduce.
        One rank alone whose experts lie on all its dies reduces their results like a feed-forward.
        """
        size_bytes = tokens * (self.model.hidden_size * op.BF16_BYTES)
        once = all_reduce_s(self.hardware, size_bytes, self.layout.tp)
        return 2.0 * once, (1.0 if self.meets else 2.0) * once
