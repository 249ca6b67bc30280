"""The price of a step whose micro-batches run on two streams of each die (see `pipeline.streams`).

The attention stream has `attention_cores` (16 of 24 on a 910C die), the expert stream the rest;
both see all of the memory's and the links' bandwidth.
"""

import numpy as np

from simpod.cost.block_table import BlockTable
from simpod.cost.core_split import share_of_cores
from simpod.cost.expert_imbalance import LoadModel
from simpod.cost.exposed import exposed
from simpod.cost.launches import PromptLaunches
from simpod.cost.layer_times import LayerTimes, of_streams
from simpod.cost.layout import Layout
from simpod.cost.micro_batches import MicroBatches, RankCosts
from simpod.cost.parts import PartCosts
from simpod.cost.pipeline.streams import CoreSplit, StreamTimes, alike_s, period_s
from simpod.cost.prompt_streams import PromptStreams
from simpod.cost.semantics import Semantics, semantics_of
from simpod.cost.step_parts import MTP
from simpod.cost.step_prices import Batch, StepPrices
from simpod.cost.table import Table
from simpod.cost.work import Floats, Ints
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec


class StreamStepPricer:
    """Prices the steps of a lock-step group with micro-batches; each step by itself."""

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        layout: Layout,
        semantics: Semantics | str | None = None,
        loads: LoadModel | None = None,
    ) -> None:
        chosen = semantics_of(semantics, hardware.family)
        split = CoreSplit.of(hardware.die.num_cores, layout.attention_cores)
        first = share_of_cores(hardware, split.attention_frac)
        second = share_of_cores(hardware, split.expert_frac)
        costs = PartCosts(model, first, layout, chosen, is_gate_apart=True)
        self._micro = MicroBatches(costs, layout.dp, layout.micro_batches)
        self._count = layout.micro_batches
        self._served = PartCosts(model, second, layout, chosen, loads)
        self._num_ranks = layout.dp
        self._experts = BlockTable(self._second_stream)
        whole = PartCosts(model, hardware, layout, chosen)
        self._head = Table(whole.head)
        self._prompts = (
            PromptStreams(model, hardware, layout, whole, loads)
            if hardware.family == "ascend" and whole.meets
            else None
        )
        self._num_layers = costs.num_layers
        self._launches = PromptLaunches(model, layout, chosen)
        self.mtp_share = costs.mtp / costs.num_layers  # of attention

    def renew(self, loads: LoadModel) -> None:
        """From now on experts have these loads."""
        self._served.renew(loads)
        if self._prompts is not None:
            self._prompts.renew(loads)
        self._experts = BlockTable(self._second_stream)

    def _second_stream(self, group_tokens: Floats) -> Floats:
        """Gate, dispatch, experts, combine (CloudMatrix-Infer 4.2.3) [n, NUM_PARTS]."""
        gate = self._served.gate(group_tokens / self._num_ranks)
        return gate + self._served.experts(group_tokens)

    def _alike(self, layers_s: Floats, group_tokens: Ints) -> tuple[float, Floats]:
        """Sparse layers alike but for those of MTP, and all micro-batches: seconds, and parts of
        the second stream. The step ends as with one of the others last.

        layers_s [layers]: of the first. Dense layers come first and have nothing for the second.
        """
        parts = self._experts.many(group_tokens)
        sparse, mtp = self._served.num_moe_layers, self._served.mtp
        first_s, micro = layers_s[-1], self._count
        mtp_s = parts[:, MTP].max() / max(mtp, 1)
        own_s = (parts.sum(axis=1) - parts[:, MTP]).max() / max(sparse - mtp, 1)
        sparse_s = alike_s(first_s, own_s, micro_batches=micro, layers=sparse)
        longer_s = np.diff(period_s(first_s, [own_s, mtp_s], micro_batches=micro)).item()
        dense_s = micro * layers_s[:-sparse].sum()
        return float(dense_s + sparse_s + mtp * longer_s), parts.sum(axis=0)

    def _drawn(self, layers_s: Floats, group_tokens: Ints) -> tuple[float, Floats]:
        """The same with loads drawn for every sparse layer of every micro-batch."""
        gate = self._served.gate(group_tokens / self._num_ranks)
        expert_s = np.zeros((self._count, self._num_layers))
        parts = gate.sum(axis=0)
        for own_s, gate_s, tokens in zip(
            expert_s, gate.sum(axis=1).tolist(), group_tokens.tolist(), strict=True
        ):
            sparse_s, own_parts = self._served.drawn_experts(tokens)
            own_s[-len(sparse_s) :] = sparse_s + gate_s / len(sparse_s)
            parts += own_parts
        times = StreamTimes.of(layers_s[np.newaxis], expert_s)
        return float(times.total_s), parts

    def layer_times(self, batch: Batch) -> LayerTimes | None:
        """Of a step's sparse layers; None for prompts alone on three engines, and without EP."""
        served, is_alone = self._served, self._prompts is not None and not batch.decode_seqs.any()
        if is_alone or not served.meets:
            return None
        costs = self._micro.price(batch)
        tokens = costs.tokens.sum(axis=1).astype(np.float64)
        gate_s = served.gate(tokens / self._num_ranks).sum(axis=1) / served.num_moe_layers
        dies = [served.die_times(each).by_layer(served.num_moe_layers) for each in tokens.tolist()]
        return of_streams(_longest_s(costs), costs.sparse_s, gate_s, dies)

    def price(self, batch: Batch) -> StepPrices:
        """The next step; of unlike micro-batches the longest stands for all."""
        if not batch.prefill_tokens.any():
            return self._price(batch)
        alone = self._prompts if not batch.decode_seqs.any() else None
        prices = alone.price(batch) if alone is not None else self._price(batch)
        return prices.launched(self._count * self._launches.seconds(batch))

    def _price(self, batch: Batch) -> StepPrices:
        """Of decodes, alone or beside prompts.

        The first stream is busy as with the longest micro-batch of the slowest rank throughout:
        what the mean rank is less, it waits for others. Then comes what the second leaves exposed.
        """
        costs = self._micro.price(batch)
        group_tokens = costs.tokens.sum(axis=1)
        first_s = _longest_s(costs)
        together = self._drawn if self._served.draws_loads else self._alike
        layers_s, served = together(first_s, group_tokens)
        head_s = self._head.seconds(costs.rows)
        mean_s = float(costs.parts_s.sum()) + costs.attention_s
        slowest_s = self._count * float(first_s.sum())
        shown = exposed(served, layers_s - mean_s, slowest_s - mean_s)
        return StepPrices(
            base_s=layers_s + head_s,
            slope_s=0.0,
            fixed_s=costs.parts_s + self._head.parts[costs.rows] + shown,
            attention_s=costs.attention_s,
            attention_slope_s=0.0,
            mtp_share=self.mtp_share,
            rank_busy_s=costs.busy_s,
            room_tokens=0,
        )


def _longest_s(costs: RankCosts) -> Floats:
    """[num_layers] of the first stream: the longest micro-batch of the slowest rank."""
    first_s = np.full(costs.num_layers, costs.sparse_s.max())
    first_s[: costs.dense_layers] = costs.dense_s.max()
    return first_s
