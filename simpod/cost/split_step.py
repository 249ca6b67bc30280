"""The price of a step whose attention and experts have dies of their own (xDeepServe 5.2, 7.1).

Attention dies of all domains are the ranks of one lock-step group; a step ends when the last domain
is done. MTP layers go through the pipeline like any other layer.
"""

from dataclasses import replace

import numpy as np

from simpod.cost import operators as op
from simpod.cost.block_table import BlockTable
from simpod.cost.collectives import combine_message_bytes, dispatch_message_bytes
from simpod.cost.exchange.breakdown import ExchangeTime
from simpod.cost.exchange.shapes import Fabric
from simpod.cost.exchange.trampoline import SplitShape, sending_s, trampoline_s
from simpod.cost.expert_imbalance import (
    ExpertSite,
    LayerLoads,
    LoadModel,
    die_experts_s,
    hit_tokens_of,
    kept,
    slowest_experts_s,
)
from simpod.cost.exposed import exposed
from simpod.cost.kernels.pricer import KernelPricer
from simpod.cost.launches import PromptLaunches
from simpod.cost.layer_times import LayerTimes, of_halves
from simpod.cost.layout import Layout
from simpod.cost.micro_batches import MicroBatches, RankCosts
from simpod.cost.parts import PartCosts
from simpod.cost.pipeline.disaggregated import (
    SplitStages,
    SplitTimes,
    alike_domain_s,
    split_times,
)
from simpod.cost.semantics import Semantics, semantics_of
from simpod.cost.step_parts import A2E, E2A, EXPERTS, by_part
from simpod.cost.step_prices import Batch, StepPrices
from simpod.cost.table import NUM_PARTS, Table
from simpod.cost.uneven import by_kind, chosen_points
from simpod.cost.work import Floats, Ints
from simpod.errors import ConfigError, InvariantError
from simpod.hardware.kernels.exchange import PullConstants
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

PERSISTENT = 0.0
"""Share of launches that persistent kernels leave (xDeepServe 5.2: they poll)."""


class ExpertSide:
    """Stages of one layer between attention and attention, for one micro-batch of one domain.

    A2E leaves rows in the order of experts, and E2A's receivers sum (xDeepServe 3.3).
    """

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        layout: Layout,
        loads: LoadModel | None = None,
    ) -> None:
        self._model, self._layout = model, layout
        self._experts = expert_layout(layout)
        self.renew(loads)
        self._kernels = KernelPricer(hardware, PERSISTENT, is_arranged=True)
        self._fabric = Fabric.of(hardware)
        self._dtype = op.part_dtype(model, "experts", layout.weight_dtype)
        self._site = ExpertSite.of(model, self._experts)
        self._hit_tokens = hit_tokens_of(self._kernels, None, self._site)
        fit = hardware.kernels.exchange.get("xccl_pull")
        if fit is None or not isinstance(fit.constants, PullConstants):
            raise ConfigError(
                f"hardware {hardware.name}: no constants of xccl_pull, which price A2E and E2A"
            )
        self._constants = fit.constants

    def renew(self, loads: LoadModel | None) -> None:
        """From now on experts have these loads; None: all alike."""
        self.loads = None if loads is None else kept(loads)

    def fill(self, domain_tokens: Floats) -> Floats:
        """[n, NUM_PARTS]: a2e, experts, e2a of one layer for tokens [n] of one micro-batch."""
        return self._stages(domain_tokens, 0)

    def fill_mtp(self, domain_tokens: Floats) -> Floats:
        """The same of an MTP layer."""
        return self._stages(domain_tokens, 1)

    def _stages(self, domain_tokens: Floats, kind: int) -> Floats:
        """kind: 0 for the model's own layers, 1 for those of MTP."""
        tokens = np.maximum(domain_tokens, 1.0)
        points = tokens if self.loads is None else chosen_points(tokens)
        experts_s, imbalance = self._experts_s(points, kind)
        stages = (
            self.hop(points, imbalance, to_experts=True).total_s,
            experts_s,
            self.hop(points, imbalance, to_experts=False).total_s,
        )
        a2e, experts, e2a = (np.interp(tokens, points, stage) for stage in stages)
        return by_part(len(tokens), a2e=a2e, experts=experts, e2a=e2a)

    def drawn(self, domain_tokens: Ints) -> Floats:
        """[..., sparse layers, NUM_PARTS] of one step, for tokens [...] of micro-batches."""
        if self.loads is None:
            raise InvariantError("no loads to draw from")
        counts = np.maximum(domain_tokens.ravel(), 1)
        loads = LayerLoads.joined([self.loads(float(n), self._hit_tokens) for n in counts.tolist()])
        imbalance, layers = loads.imbalance, len(loads.mean) // len(counts)
        tokens = np.repeat(counts.astype(np.float64), layers)
        stages = by_part(
            len(tokens),
            a2e=self.hop(tokens, imbalance, to_experts=True).total_s,
            experts=slowest_experts_s(self._kernels, self._site, loads),
            e2a=self.hop(tokens, imbalance, to_experts=False).total_s,
        )
        return stages.reshape(*domain_tokens.shape, layers, -1)

    def by_layer(self, domain_tokens: Ints, num_layers: int, mtp_layers: int) -> Floats:
        """[..., num_layers, NUM_PARTS] of sparse layers, MTP ones last: means over their draws."""
        if self.loads is not None:
            drawn = self.drawn(domain_tokens)
            by_draw = drawn.reshape(*domain_tokens.shape, -1, num_layers, NUM_PARTS)
            return np.asarray(by_draw.mean(axis=-3))
        tokens = domain_tokens.ravel().astype(np.float64)
        own, mtp = self.fill(tokens), self.fill_mtp(tokens)
        counts = [num_layers - mtp_layers, mtp_layers]
        layers = np.repeat(np.stack([own, mtp], axis=1), counts, axis=1)
        return layers.reshape(*domain_tokens.shape, num_layers, NUM_PARTS)

    def die_experts_s(self, domain_tokens: Ints, num_layers: int) -> Floats:
        """[..., num_layers, expert dies]: means over draws; MTP layers last."""
        num_dies = self._layout.expert_dies
        if self.loads is None:
            alike = self.by_layer(domain_tokens, num_layers, self._layout.mtp_layers)[..., EXPERTS]
            return np.repeat(alike[..., np.newaxis], num_dies, axis=-1)
        found = []
        for tokens in np.maximum(domain_tokens.ravel(), 1).tolist():
            slots = self.loads.slot_tokens(float(tokens))
            die_s = die_experts_s(self._kernels, self._site, slots.reshape(-1, slots.shape[-1]))
            found.append(die_s.reshape(-1, num_layers, num_dies).mean(axis=0))
        return np.stack(found).reshape(*domain_tokens.shape, num_layers, num_dies)

    def _experts_s(self, tokens: Floats, kind: int) -> tuple[Floats, Floats]:
        """Of the slowest die, and the imbalance: [n] each, means over layers of a kind."""
        if self.loads is None:
            work = op.expert_work(self._model, self._experts, tokens)
            return self._kernels.experts_s(work, self._dtype), np.ones(len(tokens))
        loads = LayerLoads.joined([self.loads(n, self._hit_tokens) for n in tokens.tolist()])
        rows = np.array([slowest_experts_s(self._kernels, self._site, loads), loads.imbalance])
        of_points = rows.reshape(len(rows), len(tokens), -1)
        kinds = by_kind(of_points, self.loads.num_layers, self._layout.mtp_layers)
        slowest, imbalance = kinds[kind]
        return slowest, imbalance

    def sending_s(self, domain_tokens: Floats | Ints) -> Floats:
        """Of `a2e`, the first stage, which keeps attention dies busy; same shape as the tokens."""
        shape = self._shape(np.maximum(domain_tokens, 1.0), np.ones(1), to_experts=True)
        return sending_s(self._constants, shape)

    def hop(self, tokens: Floats, imbalance: Floats, *, to_experts: bool) -> ExchangeTime:
        """A2E or E2A of one layer for tokens [n] of one micro-batch of one domain."""
        shape = self._shape(tokens, imbalance, to_experts=to_experts)
        return trampoline_s(self._fabric, self._constants, shape, to_experts=to_experts)

    def _shape(self, tokens: Floats, imbalance: Floats, *, to_experts: bool) -> SplitShape:
        layout, model = self._layout, self._model
        dies = layout.dies // layout.domains
        message_bytes = (
            dispatch_message_bytes(model, layout) if to_experts else combine_message_bytes(model)
        )
        return SplitShape(
            tokens=tokens / dies,
            num_attention_dies=dies,
            num_expert_dies=layout.expert_dies,
            hidden_size=model.hidden_size,
            top_k=op.experts_per_token(model, layout),
            message_bytes=message_bytes,
            is_quantised=to_experts and op.input_bytes(self._dtype) == 1.0,
            imbalance=imbalance,
        )


def expert_layout(layout: Layout) -> Layout:
    """The expert dies by themselves: a rank each."""
    dies = layout.expert_dies
    return replace(layout, dies=dies, dp=dies, tp=1, ep=dies, expert_dies=0, domains=1)


class SplitStepPricer:
    """Prices the steps of attention dies in domains and the expert dies that serve them.

    Every step is priced by itself: which stage binds may change with the context.
    """

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        layout: Layout,
        semantics: Semantics | str | None = None,
        loads: LoadModel | None = None,
    ) -> None:
        chosen = semantics_of(semantics, hardware.family)
        costs = PartCosts(model, hardware, layout, chosen)
        self._micro = MicroBatches(costs, layout.dp, layout.micro_batches)
        self._side = ExpertSide(model, hardware, layout, loads)
        self._expert_side = BlockTable(self._side.fill)
        self._mtp_side = BlockTable(self._side.fill_mtp)
        self._head = Table(costs.head)
        self._domains, self._count = layout.domains, layout.micro_batches
        self._dies_per_rank = layout.dies // layout.dp
        self._num_layers, self._dense_layers = costs.num_layers, model.num_dense_layers
        self._mtp = costs.mtp
        self._launches = PromptLaunches(model, layout, chosen)  # as on dies that have the experts
        self.mtp_share = costs.mtp / costs.num_layers  # of attention

    def renew(self, loads: LoadModel) -> None:
        """From now on experts have these loads."""
        self._side.renew(loads)
        self._expert_side = BlockTable(self._side.fill)
        self._mtp_side = BlockTable(self._side.fill_mtp)

    def price(self, batch: Batch) -> StepPrices:
        """The next step; one with prompts takes at least its launches."""
        prices = self._price(batch)
        if not batch.prefill_tokens.any():
            return prices
        return prices.launched(self._count * self._launches.seconds(batch))

    def _price(self, batch: Batch) -> StepPrices:
        costs = self._micro.price(batch)
        tokens = self._tokens(costs)
        loads, sending_s = self._side.loads, self._side.sending_s(tokens)
        find = self._drawn if loads is not None and loads.is_drawn else self._alike
        attention_s = self._attention_s(costs)
        domain_s, last = find(attention_s, sending_s, tokens)
        layers_s = float(domain_s.max())
        head_s = self._head.seconds(costs.rows)
        sent_s = sending_s.sum(axis=1) * (self._num_layers - self._dense_layers)  # [domains]
        own_s = costs.parts_s.copy()
        own_s[A2E] += sent_s.mean()
        mean_s = float(own_s.sum()) + costs.attention_s
        slowest_s = float((attention_s.sum(axis=(1, 2)) + sent_s).max())
        shown = exposed(last, layers_s - mean_s, slowest_s - mean_s)
        rank_sent_s = np.repeat(sent_s, costs.tokens.shape[1] // self._domains)
        return StepPrices(
            base_s=layers_s + head_s,
            slope_s=0.0,
            fixed_s=own_s + self._head.parts[costs.rows] + shown,
            attention_s=costs.attention_s,
            attention_slope_s=0.0,
            mtp_share=self.mtp_share,
            rank_busy_s=costs.busy_s + rank_sent_s,
            room_tokens=0,
        )

    def halves(self, batch: Batch) -> SplitTimes:
        """What both halves do in the layers of a step, one by one."""
        costs = self._micro.price(batch)
        return split_times(self._every_layer(costs))

    def layer_times(self, batch: Batch) -> LayerTimes:
        """Of a step's sparse layers."""
        costs = self._micro.price(batch)
        stages = self._every_layer(costs)
        rank_s = costs.sparse_s.reshape(self._count, self._domains, -1).swapaxes(0, 1)
        die_s = self._side.die_experts_s(self._tokens(costs), self._num_layers - self._dense_layers)
        return of_halves(stages, split_times(stages), rank_s, die_s, self._dies_per_rank)

    def _every_layer(self, costs: RankCosts) -> SplitStages:
        """Stages of each layer with the loads that it has itself, means over their draws."""
        tokens = self._tokens(costs)
        sparse = self._side.by_layer(tokens, self._num_layers - self._dense_layers, self._mtp)
        return self._with_dense(self._attention_s(costs), self._side.sending_s(tokens), sparse)

    def _tokens(self, costs: RankCosts) -> Ints:
        """[domains, micro_batches]"""
        return np.asarray(costs.tokens.reshape(self._count, self._domains, -1).sum(axis=2).T)

    def _attention_s(self, costs: RankCosts) -> Floats:
        """[domains, micro_batches, layers]: of the slowest die of each domain."""
        by_layer_s = np.stack([costs.dense_s, costs.sparse_s])
        counts = [self._dense_layers, self._num_layers - self._dense_layers]
        of_dies = by_layer_s.reshape(*by_layer_s.shape[:2], self._domains, -1)
        return np.repeat(of_dies.max(axis=3).T, counts, axis=2)

    def _alike(self, attention_s: Floats, sending_s: Floats, tokens: Ints) -> tuple[Floats, Floats]:
        """Layers alike but for those of MTP: seconds [domains], and stages of one of the others."""
        own, layers = self._expert_side.many(tokens), self._num_layers - self._mtp
        served, dense = own[:, :, np.newaxis], self._dense_layers
        stages = self._stages(attention_s[..., :layers], sending_s, served, dense)
        after = None
        if self._mtp:
            mtp = self._mtp_side.many(tokens)[:, :, np.newaxis]
            after = self._stages(attention_s[..., layers:], sending_s, mtp)
        return alike_domain_s(stages, after), self._received(own, sending_s)[-1, -1]

    def _drawn(self, attention_s: Floats, sending_s: Floats, tokens: Ints) -> tuple[Floats, Floats]:
        """The same with loads drawn; dense layers have the mean, which nobody asks about."""
        sparse = self._side.drawn(tokens)
        stages = self._with_dense(attention_s, sending_s, sparse)
        last = self._received(sparse[..., -1, :], sending_s)[-1, -1]
        return split_times(stages).domain_s, last

    def _with_dense(self, attention_s: Floats, sending_s: Floats, sparse: Floats) -> SplitStages:
        """Of all layers; sparse [domains, micro_batches, sparse layers, NUM_PARTS]."""
        mean = np.repeat(sparse.mean(axis=2, keepdims=True), self._dense_layers, axis=2)
        served = np.concatenate([mean, sparse], axis=2)
        return self._stages(attention_s, sending_s, served, self._dense_layers)

    def _stages(
        self, attention_s: Floats, sending_s: Floats, served: Floats, dense_layers: int = 0
    ) -> SplitStages:
        """Of the layers of `attention_s`; served [domains, micro_batches, 1 or all, NUM_PARTS]."""
        received = self._received(served, sending_s[..., np.newaxis])
        return SplitStages(
            attention_s=attention_s,
            sending_s=sending_s[..., np.newaxis],
            a2e_s=received[..., A2E],
            experts_s=received[..., EXPERTS],
            e2a_s=received[..., E2A],
            num_domains=self._domains,
            micro_batches=self._count,
            num_layers=attention_s.shape[-1],
            dense_layers=dense_layers,
        )

    def _received(self, served: Floats, sending_s: Floats) -> Floats:
        """The same but for the first stage of A2E, which attention dies do."""
        found = served.copy()
        found[..., A2E] -= sending_s
        return found
