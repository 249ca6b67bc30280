"""The price of a step whose micro-batches run on two streams of each die (see `pipeline.streams`).

The attention stream has two thirds of the cores (16 of 24 on a 910C die), the expert stream the
rest; both see all of the memory's and the links' bandwidth.
"""

import numpy as np

from simpod.cost.core_split import share_of_cores
from simpod.cost.expert_imbalance import LoadModel
from simpod.cost.layout import Layout
from simpod.cost.micro_batches import MicroBatches
from simpod.cost.parts import PartCosts
from simpod.cost.pipeline.streams import CoreSplit, alike_s
from simpod.cost.prompt_streams import PromptStreams
from simpod.cost.semantics import Semantics, semantics_of
from simpod.cost.split_step import exposed
from simpod.cost.step import Batch, StepPrices
from simpod.cost.table import Table
from simpod.cost.work import Floats
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
        split = CoreSplit()
        first = share_of_cores(hardware, split.attention_frac)
        second = share_of_cores(hardware, split.expert_frac)
        costs = PartCosts(model, first, layout, chosen, is_gate_apart=True)
        self._micro = MicroBatches(costs, layout.dp, layout.micro_batches)
        self._count = layout.micro_batches
        self._served = PartCosts(model, second, layout, chosen, loads)
        self._num_ranks = layout.dp
        self._experts = Table(self._second_stream)
        whole = PartCosts(model, hardware, layout, chosen)
        self._head = Table(whole.head)
        self._prompts = (
            PromptStreams(model, hardware, layout, whole, loads)
            if hardware.family == "ascend" and whole.meets
            else None
        )
        self._num_layers = costs.num_layers
        self.mtp_share = costs.mtp / costs.num_layers  # of attention

    def renew(self, loads: LoadModel) -> None:
        """From now on experts have these loads."""
        self._served.renew(loads)
        if self._prompts is not None:
            self._prompts.renew(loads)
        self._experts = Table(self._second_stream)

    def _second_stream(self, group_tokens: Floats) -> Floats:
        """Gate, dispatch, experts, combine (CloudMatrix-Infer 4.2.3) [n, NUM_PARTS]."""
        gate = self._served.gate(group_tokens / self._num_ranks)
        return gate + self._served.experts(group_tokens)

    def price(self, batch: Batch) -> StepPrices:
        """The next step; of unlike micro-batches the longest stands for all."""
        if self._prompts is not None and not batch.decode_seqs.any():
            return self._prompts.price(batch)
        costs = self._micro.price(batch)
        group_tokens = costs.tokens.sum(axis=1)
        self._experts.grow(int(group_tokens.max()))
        layers = self._num_layers
        layers_s = float(
            alike_s(
                costs.busy_s.max() / layers,
                self._experts.total[group_tokens].max() / layers,
                micro_batches=self._count,
                layers=layers,
            )
        )
        head_s = self._head.seconds(costs.rows)
        served = self._experts.parts[group_tokens].sum(axis=0)
        shown = exposed(served, layers_s - float(costs.parts_s.sum()) - costs.attention_s)
        return StepPrices(
            base_s=layers_s + head_s,
            slope_s=0.0,
            fixed_s=costs.parts_s + self._head.parts[costs.rows] + shown,
            attention_s=costs.attention_s,
            attention_slope_s=0.0,
            mtp_share=self.mtp_share,
            rank_busy_s=costs.busy_s.sum(axis=0),
            rank_slope_s=np.zeros(costs.busy_s.shape[1]),
            room_tokens=0,
        )
