"""What each part of a step costs one die, as a function of token counts.

The layers of a model are alike, so a part is its operators' seconds times the number of layers. An
MTP draft is one more pass of a whole layer over the same tokens ("two tokens per request through
every operator", CloudMatrix-Infer 4.2.4), and all of its work is booked under `mtp`.
"""

from collections.abc import Callable

import numpy as np

from simpod.cost import operators as op
from simpod.cost.collectives import meets_in_layers
from simpod.cost.expert_imbalance import DieTimes, LoadModel
from simpod.cost.gather_exchange import GatherExchange, exchange_of
from simpod.cost.kernels.pricer import AttentionSite, KernelPricer
from simpod.cost.layer_passes import expert_sum, layer_passes, prompt_copies
from simpod.cost.layout import Layout
from simpod.cost.passes import pass_s, passes_s
from simpod.cost.rank_collectives import RankCollectives
from simpod.cost.semantics import Semantics
from simpod.cost.step_parts import COMBINE, DISPATCH, EXPERTS, by_part
from simpod.cost.stragglers import VaryingDies, group_sizes
from simpod.cost.table import NUM_PARTS
from simpod.cost.uneven import UnevenExperts
from simpod.cost.work import Amount, Floats, Product, Work
from simpod.errors import InvariantError
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec


class PartCosts:
    """Prices the parts of one step of one die with arrays of token counts."""

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        layout: Layout,
        semantics: Semantics,
        loads: LoadModel | None = None,
        *,
        is_gate_apart: bool = False,
    ) -> None:
        """is_gate_apart: `tokens` ends before the gate, which `gate` prices."""
        self.semantics = semantics
        self.model, self.hardware, self.layout = model, hardware, layout
        self._is_gate_apart = is_gate_apart
        self._has_prolog = semantics.fuses_prolog and op.has_prolog(model, layout)
        self.meets = meets_in_layers(model, layout)
        self.kernels = KernelPricer(
            hardware,
            semantics.launch_frac,
            is_arranged=semantics.arranges_rows and (self.meets or layout.expert_dies > 0),
        )
        self._of_rank = RankCollectives(
            model=model, hardware=hardware, layout=layout, kernels=self.kernels
        )
        self.mtp = layout.mtp_layers
        self.num_layers = model.num_layers + self.mtp
        self.window = model.attention.window_tokens or 0
        self._full_layers = model.num_full_layers + self.mtp
        self.num_moe_layers = model.num_moe_layers + (self.mtp if model.moe else 0)
        self._exchange = exchange_of(model, hardware, layout, semantics) if self.meets else None
        self._uneven: UnevenExperts | None = None
        if loads is not None:
            self.renew(loads)

    @property
    def waits_for_fullest(self) -> bool:
        """Dispatch and combine of the rank with most tokens take longest."""
        return self.meets and not isinstance(self._exchange, GatherExchange)

    @property
    def launch_skew_s(self) -> float:
        """0 where dies do not meet. With experts on dies of their own the gap has it: xDeepServe's
        formula (7.1) allows 2 ms for all that the scheduler takes.
        """
        apart = self.layout.expert_dies > 0
        return self.semantics.launch_skew_s if self.meets and not apart else 0.0

    @property
    def step_gap_s(self) -> float:
        """Between two steps, and before each MTP layer that is launched apart: what k layers need
        beyond one dispatch of a graph, they need k times (CloudMatrix-Infer 4.2.4).
        """
        launches = 1 if self.layout.pipelines_mtp else 1 + self.mtp
        return launches * self.semantics.step_gap_s

    def renew(self, loads: LoadModel) -> None:
        """From now on experts have these loads."""
        self._uneven = UnevenExperts(self.model, self.layout, self.kernels, self._exchange, loads)

    @property
    def has_loads(self) -> bool:
        """Dies have loads of their own; else all experts are alike."""
        return self._uneven is not None

    @property
    def draws_loads(self) -> bool:
        """Each step has its own, drawn: no price of experts is kept for another."""
        return self._uneven is not None and self._uneven.is_drawn

    def decode_attention_s(self, seqs: Floats, context: Floats) -> Floats:
        """All layers' attention of `seqs` sequences that hold `context` tokens each, on average.

        Each brings `tokens_per_decode` new tokens, which are in the cache when attention runs.
        """
        queries = self.layout.tokens_per_decode

        def one(window: int) -> Floats:
            return self.kernels.decode_attention_s(
                self._site(window), seqs, context + queries, queries
            )

        return self._full_layers * one(0) + self._window_layers_s(one)

    def prefill_attention_s(
        self, num_seqs: Floats, query_tokens: Floats, resident_tokens: Floats
    ) -> Floats:
        """All layers' attention of `num_seqs` chunks of `query_tokens` behind `resident_tokens`."""

        is_absorbed = self.semantics.absorbs_prefill

        def one(window: int) -> Floats:
            return self.kernels.prefill_attention_s(
                self._site(window),
                num_seqs,
                query_tokens,
                resident_tokens,
                is_absorbed=is_absorbed,
            )

        if is_absorbed and self.model.attention.kind == "mla":
            return self._full_layers * one(0)
        again = op.resident_projection(self.model, self.layout, num_seqs * resident_tokens)
        again_s = np.where(resident_tokens > 0.0, self._price(again), 0.0)
        attention_s = self._full_layers * (one(0) + again_s) + self._window_layers_s(one)
        if not self.semantics.copies_heads:
            return attention_s
        tokens, context = num_seqs * query_tokens, num_seqs * (query_tokens + resident_tokens)
        copies = prompt_copies(self.model, self.layout, tokens, context)
        return attention_s + self.num_layers * self._price(copies)

    def _site(self, window: int) -> AttentionSite:
        attention, tp = self.model.attention, self.layout.tp
        return AttentionSite(
            spec=attention,
            num_heads=op.heads_per_die(attention, tp),
            num_kv_heads=op.kv_heads_per_die(attention, tp),
            kv_dtype=self.layout.kv_dtype,
            window_tokens=window,
        )

    def _window_layers_s(self, one: Callable[[int], Floats]) -> Amount:
        return self.model.num_window_layers * one(self.window) if self.window else 0.0

    def tokens(self, tokens: Floats) -> Floats:
        """Everything that a rank does before it meets the others, but for its reads of KV.

        A rank without tokens runs one dummy token, as idle ranks of a lock-step group do.
        """
        t = np.maximum(tokens, 1.0)
        model, layers = self.model, self.model.num_layers
        projections_s, passes_s = self._projections_s(t), self._passes_s(t)
        dense_s = self._price(op.dense_ffn(model, self.layout, t))
        sparse_s = np.zeros(len(t)) if self._is_gate_apart else self._gate_s(t)
        dense_reduce_s, sparse_reduce_s = self._of_rank.all_reduces_s(t)
        gather_s, exchange_s = self._of_rank.latent_gather_s(t), self._of_rank.head_exchange_s(t)
        last_s = sparse_s + sparse_reduce_s if model.moe else dense_s + dense_reduce_s
        own = op.own_tokens(self.layout, t)
        look_up = op.embedding(model, own)
        draft_s = projections_s + passes_s + last_s + gather_s + exchange_s
        draft_s = draft_s + self._price((op.mtp_join(model, own), look_up))
        return by_part(
            len(t),
            projections=layers * projections_s,
            ffn=model.num_dense_layers * dense_s + model.num_moe_layers * sparse_s,
            elementwise=layers * passes_s + self._price((look_up,)),
            all_reduce=model.num_dense_layers * dense_reduce_s
            + model.num_moe_layers * sparse_reduce_s,
            latent_gather=layers * gather_s,
            head_exchange=layers * exchange_s,
            mtp=self.mtp * draft_s,
        )

    def _projections_s(self, tokens: Floats) -> Amount:
        """Of one layer."""

        def one(is_fused: bool) -> Amount:
            return self._price(
                op.attention_projections(self.model, self.layout, tokens, is_fused=is_fused)
            )

        return self._fused_if_few(one, tokens)

    def _passes_s(self, tokens: Floats) -> Amount:
        """Of one layer, but for the gate and the experts."""

        def one(is_fused: bool) -> Amount:
            passes = layer_passes(
                self.model, self.layout, tokens, self.semantics, is_fused=is_fused
            )
            return passes_s(self.hardware, passes, self.semantics.launch_frac)

        return self._fused_if_few(one, tokens)

    def _fused_if_few(self, one: Callable[[bool], Amount], tokens: Floats) -> Amount:
        """Seconds with what comes before attention in one kernel, as far as that takes tokens."""
        if not self._has_prolog:
            return one(False)
        return np.where(tokens <= op.PROLOG_TOKENS, one(True), one(False))

    def dense_more(self, tokens: Floats) -> Floats:
        """What a dense layer takes longer than `tokens` takes for a sparse one."""
        t = np.maximum(tokens, 1.0)
        gate_s = 0.0 if self._is_gate_apart else self._gate_s(t)
        dense_reduce_s, sparse_reduce_s = self._of_rank.all_reduces_s(t)
        return by_part(
            len(t),
            ffn=self._price(op.dense_ffn(self.model, self.layout, t)) - gate_s,
            all_reduce=dense_reduce_s - sparse_reduce_s,
        )

    def operators_s(self, tokens: int) -> dict[str, float]:
        """Seconds of one sparse (or dense) layer's operators before dispatch, but for attention
        over the cache, of a rank with `tokens`; in the order in which `tokens` has their sums.
        """
        t = np.array([max(float(tokens), 1.0)])
        is_fused = self._has_prolog and tokens <= op.PROLOG_TOKENS
        products = op.attention_projections(self.model, self.layout, t, is_fused=is_fused)
        names = op.projection_names(self.model.attention)
        found = {name: self._price((work,)) for name, work in zip(names, products, strict=True)}
        found["element-wise passes"] = self._passes_s(t)
        if self.model.moe:
            own = op.own_tokens(self.layout, t)
            found["gate"] = self._price(op.router(self.model, own))
            found["shared experts"] = self._price(op.shared_experts(self.model, self.layout, t))
        else:
            found["feed-forward"] = self._price(op.dense_ffn(self.model, self.layout, t))
        return {name: float(np.sum(seconds)) for name, seconds in found.items() if np.any(seconds)}

    def _gate_s(self, tokens: Floats) -> Amount:
        """Of one sparse layer: a rank's gate, and its shared experts where it has them itself."""
        shared = op.shared_experts(self.model, self.layout, tokens)
        own = op.own_tokens(self.layout, tokens)
        gate_s = self._price(shared) + self._price(op.router(self.model, own))
        if not self.semantics.copies_heads:
            return gate_s
        return gate_s + self._price(expert_sum(self.model, self.layout, own))

    def gate(self, tokens: Floats) -> Floats:
        """What `tokens` leaves out when the gate is apart."""
        seconds = self._gate_s(np.maximum(tokens, 1.0))
        layers = self.model.num_moe_layers
        return by_part(len(tokens), ffn=layers * seconds, mtp=self.mtp * seconds)

    def varying_experts(self, group_tokens: Floats) -> Floats:
        """The same as `experts`, with the wait for dies whose kernels come out long."""
        if self._uneven is None:
            return self.experts(group_tokens)
        layout = self.layout
        spread_frac = self.hardware.calibration.decode_kernel_spread_frac
        varying = VaryingDies(spread_frac=spread_frac, sizes=group_sizes(layout.ep, layout.dp))
        return self._sparse_parts(*self._uneven.layer_s(group_tokens, varying))

    def experts(self, group_tokens: Floats) -> Floats:
        """Routed experts, dispatch and combine of the mean die, for all tokens of the group.

        Under a model of loads also the wait for the fullest die.
        """
        if self.model.moe is None:
            return np.zeros((len(group_tokens), NUM_PARTS))
        layers = self.model.num_moe_layers
        if self._uneven is not None:
            return self._sparse_parts(*self._uneven.layer_s(group_tokens))
        mean_tokens = group_tokens / self.layout.dies
        dtype = op.part_dtype(self.model, "experts", self.layout.weight_dtype)
        work = op.expert_work(self.model, self.layout, np.maximum(group_tokens, 1.0))
        experts_s = self.kernels.experts_s(work, dtype)
        dispatch_s, combine_s = self._exchanges_s(mean_tokens)
        return by_part(
            len(group_tokens),
            experts=layers * experts_s,
            dispatch=layers * dispatch_s,
            combine=layers * combine_s,
            mtp=self.mtp * (experts_s + dispatch_s + combine_s),
        )

    def drawn_experts(self, group_tokens: int) -> tuple[Floats, Floats]:
        """One step of loads that are drawn: [sparse layers, MTP ones last], [NUM_PARTS]."""
        if self._uneven is None:
            raise InvariantError("no loads to draw from")
        times = self._uneven.rows(group_tokens)
        own, mtp = self._uneven.means(times)
        return times.total_s, self._sparse_parts(own[:, np.newaxis], mtp[:, np.newaxis])[0]

    def die_times(self, group_tokens: float) -> DieTimes:
        """Each die's work in each sparse layer of one step, MTP ones last.

        Without a model of loads all dies are alike. Raises InvariantError where nothing is sent.
        """
        layers, own = self.num_moe_layers, self.model.num_moe_layers
        if self._uneven is None:
            parts = self.experts(np.array([group_tokens]))[0] / max(own, 1)
            shape = (layers, self.layout.dies)
            dispatch_s, experts_s, combine_s = (
                np.full(shape, parts[part]) for part in (DISPATCH, EXPERTS, COMBINE)
            )
            return DieTimes(dispatch_s=dispatch_s, experts_s=experts_s, combine_s=combine_s)
        return self._uneven.dies(group_tokens)

    def _sparse_parts(self, own_s: Floats, mtp_s: Floats) -> Floats:
        """[n, NUM_PARTS] of all sparse layers; dispatch, experts, combine, wait [4, n] of one, and
        of one of MTP.
        """
        layers = self.model.num_moe_layers
        dispatch_s, experts_s, combine_s, wait_s = own_s
        return by_part(
            len(experts_s),
            experts=layers * experts_s,
            dispatch=layers * dispatch_s,
            combine=layers * combine_s,
            combine_wait=layers * wait_s,
            mtp=self.mtp * mtp_s.sum(axis=0),
        )

    def exchanges(self, rank_tokens: Floats) -> Floats:
        """Dispatch and combine of a die whose rank has `rank_tokens` [n]; without MTP layers."""
        layers = self.model.num_moe_layers
        dispatch_s, combine_s = self._exchanges_s(rank_tokens / self.layout.tp)
        return by_part(len(rank_tokens), dispatch=layers * dispatch_s, combine=layers * combine_s)

    def _exchanges_s(self, tokens: Floats) -> tuple[Amount, Amount]:
        """One layer's dispatch and combine of `tokens` [n] of one die."""
        if self._exchange is None:
            return 0.0, 0.0
        seconds = self._exchange.seconds
        return seconds("dispatch", tokens), seconds("combine", tokens)

    def head(self, rows: Floats) -> Floats:
        """Head, sampling, the gap between steps and the skew of their launches; a draft samples one
        row in 1 + mtp_layers.
        """
        drafted = rows / self.layout.tokens_per_decode
        return by_part(
            len(rows),
            head=self._head_s(rows),
            sampling=self._sampling_s(rows),
            mtp=self.mtp * (self._head_s(drafted) + self._sampling_s(drafted)),
            host_gap=self.step_gap_s,
            dispatch_wait=self.launch_skew_s,
        )

    def _price(self, works: tuple[Work, ...]) -> Amount:
        """Seconds of operators that run one after another."""
        total: Amount = 0.0
        for work in works:
            if isinstance(work, Product):
                total = total + self.kernels.product_s(work)
            else:
                total = total + pass_s(self.hardware, work, self.semantics.launch_frac)
        return total

    def _sampling_s(self, rows: Floats) -> Amount:
        return self._price((op.sampling(self.model, rows),))

    def _head_s(self, rows: Floats) -> Amount:
        product_s = self._price((op.lm_head(self.model, self.layout, rows),))
        return product_s + self._of_rank.head_gathers_s(rows)
