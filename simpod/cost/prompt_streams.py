"""The price of a step of prompts in micro-batches on the three engines of an Ascend die.

CloudMatrix-Infer 4.3: while the cube cores (AIC) compute one micro-batch, the vector cores (AIV)
prepare and collect the messages of another, and the copy engines (SDMA) move them. Each engine has
all of a die's to itself: nothing is split, so a layer takes as long as the busiest engine's work
for all micro-batches, or as one micro-batch's way through all three.
"""

from functools import lru_cache

import numpy as np

from simpod.cost import operators as op
from simpod.cost.expert_exchange import BULK_KERNEL, ExpertExchange
from simpod.cost.expert_imbalance import (
    ExpertSite,
    LayerLoads,
    LoadModel,
    die_experts_s,
    hit_tokens_of,
    slowest_experts_s,
)
from simpod.cost.exposed import exposed
from simpod.cost.kernels.expert_load import uniform_loads
from simpod.cost.layout import Layout
from simpod.cost.parts import PartCosts
from simpod.cost.pipeline.engines import EngineTimes, alike_layers_s
from simpod.cost.step_parts import ELEMENTWISE, HEAD_EXCHANGE, LATENT_GATHER, by_part
from simpod.cost.step_prices import Batch, StepPrices
from simpod.cost.table import PromptTable, Table
from simpod.cost.work import Floats
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec


class PromptStreams:
    """Prices steps that have prompts and no decodes."""

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        layout: Layout,
        costs: PartCosts,
        loads: LoadModel | None,
    ) -> None:
        """costs: of the whole die."""
        self._model, self._layout, self._costs, self._loads = model, layout, costs, loads
        self._rank = Table(costs.tokens)
        self._head = Table(costs.head)
        self._prompts = PromptTable(costs.prefill_attention_s)
        self._exchange = ExpertExchange(model, hardware, layout, BULK_KERNEL, is_bulk=True)
        self._site = ExpertSite.of(model, layout)
        self._hit_tokens = hit_tokens_of(costs.kernels, None, self._site)
        self._at_knot = lru_cache(512)(self._sparse_times)

    def renew(self, loads: LoadModel) -> None:
        """From now on experts have these loads."""
        self._loads = loads
        self._at_knot.cache_clear()

    def price(self, batch: Batch) -> StepPrices:
        """The next step: its prompts in micro-batches of as many tokens each."""
        micro, layers = self._layout.micro_batches, self._costs.num_layers
        tokens = -(-batch.prefill_tokens // micro)
        self._rank.grow(int(tokens.max()))
        own = self._rank.parts.take(tokens, axis=0)
        keys = batch.prefill_pairs / np.maximum(batch.prefill_tokens, 1)
        attention_s = self._prompts.many(batch.prefill_tokens / micro, keys)
        vector_s = own[:, ELEMENTWISE]
        copied_s = own[:, LATENT_GATHER] + own[:, HEAD_EXCHANGE]
        core_s = own.sum(axis=1) - vector_s - copied_s + attention_s
        busy_s, shown = self._sparse(int(tokens.sum()))
        own_s = np.array([core_s.max(), vector_s.max(), copied_s.max()])
        core_layer_s, vector_layer_s, link_layer_s = ((own_s + busy_s) / layers).tolist()
        engines = EngineTimes(core_s=core_layer_s, vector_s=vector_layer_s, link_s=link_layer_s)
        layers_s = alike_layers_s(engines, micro_batches=micro, layers=layers)
        rows = int(batch.num_chunks.max())
        head_s = self._head.seconds(rows)
        mean = own.mean(axis=0)
        hidden = by_part(
            1,
            elementwise=mean[ELEMENTWISE],
            latent_gather=mean[LATENT_GATHER],
            head_exchange=mean[HEAD_EXCHANGE],
        )[0]
        fixed_s = micro * (mean - hidden + shown[0])
        mean_attention_s = micro * float(attention_s.mean())
        left_s = layers_s - float(fixed_s.sum()) - mean_attention_s
        spread_s = micro * float(core_s.max() - core_s.mean())
        found = exposed(micro * (hidden + shown[1]), left_s, spread_s)
        fixed_s = fixed_s + found + self._head.parts[rows]
        return StepPrices(
            base_s=layers_s + head_s,
            slope_s=0.0,
            fixed_s=fixed_s,
            attention_s=mean_attention_s,
            attention_slope_s=0.0,
            mtp_share=self._costs.mtp / layers,
            rank_busy_s=micro * (core_s + vector_s + copied_s),
            room_tokens=0,
        )

    def _sparse(self, group_tokens: int) -> tuple[Floats, Floats]:
        """Of one micro-batch, all sparse layers: engines [3] of the fullest die, parts [2,
        NUM_PARTS]: the experts of the mean die, which cores show, and what others may hide.

        With loads that are not drawn, which take milliseconds to find, linear between two counts at
        most a sixteenth apart. Kernels have steps: cores are up to 0.9 % off with even popularity,
        0.3 with an uneven one.
        """
        if self._loads is None:
            row = self._at_knot(group_tokens)
        elif self._loads.is_drawn:
            row = self._sparse_times(group_tokens)
        else:
            stride = 1 << max(0, group_tokens.bit_length() - 5)
            below = group_tokens - group_tokens % stride
            share = (group_tokens - below) / stride
            row = self._at_knot(below)
            if share:
                row = (1.0 - share) * row + share * self._at_knot(below + stride)
        return row[:3], row[3:].reshape(2, -1)

    def _sparse_times(self, group_tokens: int) -> Floats:
        """[3 + 2 NUM_PARTS]: `_sparse` in one row."""
        loads = self._layer_loads(max(group_tokens, 1))
        layers = self._costs.num_moe_layers
        own = np.full(len(loads.mean), max(group_tokens, 1) / self._layout.dies)
        fullest_s = slowest_experts_s(self._costs.kernels, self._site, loads)
        mean_s = die_experts_s(self._costs.kernels, self._site, loads.mean, loads.mean_hit)
        sent, back = (
            self._exchange.breakdowns(operation, own, loads.imbalance)[0]
            for operation in ("dispatch", "combine")
        )
        sent_s, back_s = (layers * float(each.total_s.mean()) for each in (sent, back))
        moved = (np.mean(np.asarray(each.bytes_s, dtype=np.float64)) for each in (sent, back))
        link_s = layers * float(sum(moved))
        core_s = layers * float(fullest_s.mean())
        shown = by_part(1, experts=layers * float(mean_s.mean()))[0]
        hidden = by_part(
            1,
            dispatch=sent_s,
            combine=back_s,
            combine_wait=layers * float(np.mean(fullest_s - mean_s)),
        )[0]
        return np.concatenate([[core_s, sent_s + back_s - link_s, link_s], shown, hidden])

    def _layer_loads(self, group_tokens: int) -> LayerLoads:
        if self._loads is not None:
            return self._loads(float(group_tokens), self._hit_tokens)
        work = op.expert_work(self._model, self._layout, np.array([float(group_tokens)]))
        even = uniform_loads(work.group_tokens, work.num_experts, work.top_k, work.num_slots)
        slots = np.full((1, work.num_slots), float(even.pairs.item()) / work.num_slots)
        return LayerLoads(
            busy=slots[:, np.newaxis],
            most=slots.sum(axis=1),
            mean=slots,
            mean_hit=np.ones_like(slots),
        )
