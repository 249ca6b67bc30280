"""What the exchanges of a step put on the links of their dies, beside what they cost alone.

Dispatch and combine, A2E and E2A, and what the dies of a rank reduce or gather: bytes that a mean
die sends and gets over one plane in a step, and for how long they are being moved. Dies of a kind
are taken to be alike: `imbalance` of experts is in the price, not here.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from simpod.cost import operators as op
from simpod.cost.collectives import (
    combine_message_bytes,
    dispatch_message_bytes,
    group_plane,
    meets_in_layers,
    plane_link,
)
from simpod.cost.exchange.shapes import Operation
from simpod.cost.gather_exchange import exchange_of
from simpod.cost.layout import Layout
from simpod.cost.pricer import Pricer
from simpod.cost.semantics import Semantics, semantics_of
from simpod.cost.split_step import ExpertSide
from simpod.cost.step import MAX_GROUP_TABLE_TOKENS
from simpod.cost.step_prices import Batch, StepPrices
from simpod.cost.step_traffic import StepTraffic
from simpod.cost.table import Table
from simpod.cost.work import Floats
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec
from simpod.records.columns import STEP_PARTS

INSIDE_PARTS = tuple(map(STEP_PARTS.index, ("all_reduce", "latent_gather", "head_exchange")))
"""Of a step: what the dies of a rank say to each other."""

SENT, GOT, EXPERT_SENT, EXPERT_GOT = range(4)
"""Whose bytes: of a die of a rank, out and in; of a die that only has experts, out and in."""

MOVING, SHOWN_OUT, SHOWN_BACK, INSIDE = range(4, 8)
"""Columns after them: seconds of moving; of the step's parts out and back the share that is moving;
seconds of moving between the dies of a rank."""

COLUMNS = 8

MAX_ROWS = 1 << 15
"""Counts of tokens whose row is remembered as plain numbers."""


class MovingPricer:
    """A pricer that says as well what its steps put on the links of one plane."""

    def __init__(self, pricer: Pricer, traffic: "ExchangeTraffic") -> None:
        self._pricer = pricer
        self._traffic = traffic
        self.mtp_share = pricer.mtp_share
        self.renew = pricer.renew

    def price(self, batch: Batch) -> StepPrices:
        """The next step."""
        prices = self._pricer.price(batch)
        traffic, seqs, prompts = self._traffic, batch.decode_seqs, batch.prefill_tokens
        tokens = sum(seqs.tolist()) * traffic.tokens_per_decode + sum(prompts.tolist())
        prices.traffic = traffic.of(tokens, prices.fixed_s)
        return prices


class ExchangeTraffic:
    """Of the steps of one lock-step group, over one plane, by the tokens of the group."""

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        layout: Layout,
        semantics: Semantics | str | None,
        plane: str,
    ) -> None:
        self._model, self._hardware, self._layout, self._plane = model, hardware, layout, plane
        self.tokens_per_decode = layout.tokens_per_decode
        chosen = semantics_of(semantics, hardware.family)
        self._layers = model.num_moe_layers + (layout.mtp_layers if model.moe else 0)
        self._passes = self._layers / max(1, model.num_moe_layers)
        self._fill: Callable[[Floats], Floats] | None = None
        names = ("dispatch", "combine")
        if layout.expert_dies:
            self._side = ExpertSide(model, hardware, layout)
            self._fill, names = self._split_moves, ("a2e", "e2a")
        elif meets_in_layers(model, layout):
            self._exchange = exchange_of(model, hardware, layout, chosen)
            self._fill = self._meeting_moves
        self._out, self._back = (STEP_PARTS.index(name) for name in names)
        self._table = Table(self._moves, np.empty((0, COLUMNS)))
        self._row = lru_cache(MAX_ROWS)(self._row_at)

    @property
    def is_there(self) -> bool:
        """Some step puts something on the plane."""
        return bool(self._moves(np.array([1024.0 * self._layout.dies]))[:, :MOVING].any())

    def of(self, tokens: int, fixed_s: Floats) -> StepTraffic:
        """Of a step of so many tokens whose parts take `fixed_s` [NUM_PARTS]."""
        row = self._row(tokens)
        out_s = row[SHOWN_OUT] * fixed_s.item(self._out)
        back_s = row[SHOWN_BACK] * fixed_s.item(self._back)
        inside = [fixed_s.item(part) for part in INSIDE_PARTS]
        inside_s = min(row[INSIDE], sum(inside))
        exposed_s = out_s + back_s + inside_s
        shown = [(self._out, out_s), (self._back, back_s)]
        if inside_s > 0.0:
            share = inside_s / sum(inside)
            shown += [
                (part, share * part_s) for part, part_s in zip(INSIDE_PARTS, inside, strict=True)
            ]
        shares = tuple((part, s / exposed_s) for part, s in shown) if exposed_s > 0.0 else ()
        exposed_s = (out_s + back_s) * self._passes + inside_s  # with those of MTP layers
        return StepTraffic((row[0], row[1], row[2], row[3]), row[MOVING], exposed_s, shares)

    def _row_at(self, tokens: int) -> list[float]:
        """[COLUMNS]"""
        if tokens < MAX_GROUP_TABLE_TOKENS:
            self._table.grow(tokens)
            return list(self._table.parts[tokens].tolist())
        return list(self._moves(np.array([float(tokens)]))[0].tolist())

    def _moves(self, group_tokens: Floats) -> Floats:
        """[n, COLUMNS] for tokens [n] of the group."""
        found = np.zeros((len(group_tokens), COLUMNS))
        if self._fill is not None:
            found += self._fill(group_tokens)
        moved, moving_s = self._inside_ranks(group_tokens / self._layout.dp)
        found[:, SENT] += moved
        found[:, GOT] += moved
        found[:, MOVING] += moving_s
        found[:, INSIDE] = moving_s
        return found

    def _meeting_moves(self, group_tokens: Floats) -> Floats:
        """Dispatch and combine: every die sends and gets the same."""
        found = np.zeros((len(group_tokens), COLUMNS))
        own = group_tokens / self._layout.dies
        operations: tuple[tuple[Operation, int], ...] = (
            ("dispatch", SHOWN_OUT),
            ("combine", SHOWN_BACK),
        )
        for name, column in operations:
            crossing, moving_s, total_s = self._exchange.moves(name, own, self._plane).T
            if crossing.any():
                found[:, [SENT, GOT]] += self._layers * crossing[:, np.newaxis]
                found[:, MOVING] += self._layers * moving_s
                found[:, column] = moving_s / total_s
        return found

    def _split_moves(self, group_tokens: Floats) -> Floats:
        """A2E and E2A; a mean expert die, trampolines passing on what is for those behind them."""
        layout, model = self._layout, self._model
        found = np.zeros((len(group_tokens), COLUMNS))
        if self._plane != "scale_up":
            return found
        parts = layout.domains * layout.micro_batches
        across = layout.dies // layout.domains
        dies = layout.expert_dies
        behind = max(0, dies - across) / dies  # of expert dies
        copies = group_tokens * op.experts_per_token(model, layout) * self._layers
        ones = np.ones(len(group_tokens))
        for to_experts, column in ((True, SHOWN_OUT), (False, SHOWN_BACK)):
            size = (
                dispatch_message_bytes(model, layout)
                if to_experts
                else combine_message_bytes(model)
            )
            hop = self._side.hop(np.maximum(group_tokens, 1.0) / parts, ones, to_experts=to_experts)
            first, second = (SENT, EXPERT_GOT) if to_experts else (GOT, EXPERT_SENT)
            passed_on = EXPERT_SENT if to_experts else EXPERT_GOT
            found[:, first] += copies * size / layout.dies
            found[:, second] += copies * size / dies * (1.0 + behind)
            found[:, passed_on] += copies * size / dies * behind
            found[:, MOVING] += self._layers * parts * np.asarray(hop.bytes_s)
            if not to_experts:  # what is shown of A2E is its first stage: posting
                found[:, column] = np.asarray(hop.bytes_s) / hop.total_s
        return found

    def _inside_ranks(self, tokens: Floats) -> tuple[Floats, Floats]:
        """Bytes of a mean die over the plane and seconds of moving, for tokens [n] of a rank.

        Rings: in an all-reduce a die sends 2 (n - 1) / n of the bytes to the next, in a gather half
        of that; neighbours on one NPU have a link of their own.
        """
        layout, model, hardware = self._layout, self._model, self._hardware
        nothing = np.zeros(len(tokens))
        npu = hardware.dies_per_npu
        if layout.tp <= npu or group_plane(hardware, layout.tp).name != self._plane:
            return nothing, nothing
        others = (layout.tp - 1) / layout.tp
        link = plane_link(hardware, hardware.planes[self._plane], layout.tp)
        if layout.is_staged:
            gathered = model.num_layers * others * op.latent_gather_bytes(model, tokens)
            heads = model.num_layers * op.head_exchange_bytes(model, layout, tokens)
            sent = np.asarray(gathered / npu + heads * (layout.tp - npu) / layout.tp)
            return sent, np.asarray(gathered + heads * others) / link.bytes_per_s
        sparse = model.num_moe_layers if self._fill is not None else 2 * model.num_moe_layers
        size = tokens * (model.hidden_size * op.BF16_BYTES) * (2 * model.num_dense_layers + sparse)
        return 2.0 * others * size / npu, 2.0 * others * size / link.bytes_per_s
