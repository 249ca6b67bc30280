"""The price of a step of one lock-step group, with its breakdown.

A step is: every rank's layers up to dispatch, the wait for the slowest rank, dispatch, experts,
combine, then head, sampling and the host gap. The sparse layers of a model are alike, so the rank
that is slowest in one is slowest in all, and the sum over layers of the maximum over ranks is the
maximum of the sums. The few dense layers that come first are in the same sum: exact if the same
rank is the slowest in them, else short by less than the difference of their feed-forwards. Ranks
that have no experts to share do not meet inside a layer; the step lasts as long as that of the
slowest rank, and the wait for it is booked under `dispatch_wait` all the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from simpod.cost.expert_imbalance import LoadModel
from simpod.cost.layout import Layout
from simpod.cost.parts import (
    ATTENTION,
    COMBINE,
    COMBINE_WAIT,
    DISPATCH,
    DISPATCH_WAIT,
    HOST_GAP,
    MTP,
    PartCosts,
)
from simpod.cost.semantics import Semantics, semantics_of
from simpod.cost.step_traffic import StepTraffic
from simpod.cost.stragglers import slowest_of, wait_for_slow_experts
from simpod.cost.table import ContextTable, PromptTable, Table
from simpod.cost.work import Floats, Ints
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

MAX_COMPOSITIONS = 4096  # of one rank's steps, kept because most of them come again
MAX_GROUP_TABLE_TOKENS = 2**18  # steps of more tokens are long and rare: priced one by one


NO_WAIT = np.zeros(1)
"""Of the one rank of a group."""
NO_WAIT.flags.writeable = False


@dataclass(slots=True, eq=False)
class Batch:
    """What the ranks of a group hold in one step; every array is [num_ranks], updated in place.

    context_tokens: resident tokens of the decoding sequences before the step, as if each had
    `gained_tokens` fewer than it has: what they all gain in a step is then one number.
    prefill_pairs: query-key pairs of the chunks, sum of chunk * (resident + (chunk + 1) / 2).
    prefill_context: tokens whose KV the chunks read, sum of resident + chunk.
    """

    decode_seqs: Ints
    context_tokens: Ints
    prefill_tokens: Ints
    prefill_pairs: Floats
    prefill_context: Ints
    num_chunks: Ints
    gained_tokens: int = 0

    @staticmethod
    def of(decode_seqs: Ints, context_tokens: Ints) -> "Batch":
        """A batch without prompts."""
        size = len(decode_seqs)
        prompts, context, chunks = (np.zeros(size, dtype=np.int64) for _ in range(3))
        return Batch(decode_seqs, context_tokens, prompts, np.zeros(size), context, chunks)

    def without_decodes(self) -> "Batch":
        """The same step while decodes pause."""
        nothing = np.zeros_like(self.decode_seqs)
        return replace(self, decode_seqs=nothing, context_tokens=nothing)


@dataclass(slots=True, eq=False)
class StepPrices:
    """The law of successive steps of one composition: a step lasts base_s + slope_s * g.

    g: resident tokens that each decoding sequence has gained since the first of them. `fixed_s`
    [NUM_PARTS] is the same in each step; attention over the cache takes attention_s +
    attention_slope_s * g (mean over ranks).
    """

    base_s: float
    slope_s: float
    fixed_s: Floats
    attention_s: float
    attention_slope_s: float
    mtp_share: float  # of attention
    rank_busy_s: Floats | None  # [num_ranks] until dispatch, first step, all layers; None: one rank
    rank_slope_s: Floats | None  # [num_ranks] growth of rank_busy_s per token of g
    room_tokens: int  # largest g before a rank's attention follows another line
    traffic: StepTraffic | None = None  # where exchanges share links: on those of the dies

    def parts(self, num_steps: int = 1, gained: int = 0) -> Floats:
        """[NUM_PARTS] seconds summed over `num_steps` steps, whose g add up to `gained`."""
        total = breakdown(
            fixed_s=self.fixed_s[np.newaxis],
            attention_s=np.array([self.attention_s * num_steps + self.attention_slope_s * gained]),
            total_s=np.array([self.base_s * num_steps + self.slope_s * gained]),
            num_steps=np.array([num_steps]),
            mtp_share=self.mtp_share,
        )
        return total.reshape(-1)

    def linear_tokens(self) -> int:
        """Largest g up to which the law holds: beyond it another rank is the slowest, say."""
        if self.rank_busy_s is None or self.rank_slope_s is None:
            return self.room_tokens
        slowest = self.rank_busy_s.argmax()
        steeper = self.rank_slope_s - self.rank_slope_s[slowest]
        catching = steeper > 0
        if not catching.any():
            return self.room_tokens
        lead_s = self.rank_busy_s[slowest] - self.rank_busy_s[catching]
        return min(self.room_tokens, int((lead_s / steeper[catching]).min()))

    @property
    def rank_wait_s(self) -> Floats:
        """[num_ranks]: wait of each rank for the slowest, first step, all layers."""
        if self.rank_busy_s is None:
            return NO_WAIT
        slowest_s: float = self.rank_busy_s.max()
        return slowest_s - self.rank_busy_s


def breakdown(
    *, fixed_s: Floats, attention_s: Floats, total_s: Floats, num_steps: Ints, mtp_share: float
) -> Floats:
    """[m, NUM_PARTS] of m runs: what a run takes beyond its parts is wait for slower ranks.

    fixed_s [m, NUM_PARTS] of one step; attention_s, total_s [m] of the whole run.
    """
    parts = fixed_s * num_steps[:, np.newaxis]
    parts[:, ATTENTION] += attention_s * (1.0 - mtp_share)
    parts[:, MTP] += attention_s * mtp_share
    parts[:, DISPATCH_WAIT] += np.maximum(0.0, total_s - parts.sum(axis=1))
    return parts


class _Meeting(NamedTuple):
    """A step without attention over the cache."""

    base_s: Floats | float  # [num_ranks] until dispatch, or the same for all
    rest_s: float  # from dispatch on
    parts_s: Floats  # [NUM_PARTS] means over ranks
    least_s: float = 0.0  # what the host takes to launch the step


def _largest(counts: Ints) -> int:
    """Faster than `max` on a few hundred ranks."""
    return counts.item(counts.argmax())


def _host_bound(parts: Floats, host_s: float) -> Floats:
    """The parts of a step in which the die waits `host_s` longer for its next launches."""
    parts = parts.copy()
    parts[HOST_GAP] += host_s
    return parts


class StepPricer:
    """Prices the steps of one group.

    Everything is looked up; attention over the cache is piecewise linear in resident tokens, so a
    run of like steps has a closed form.

    price(batch): the next step, and those after it while nothing joins, leaves or sends a prompt.
    """

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        layout: Layout,
        semantics: Semantics | str | None = None,
        loads: LoadModel | None = None,
    ) -> None:
        self.num_ranks = layout.dp
        self.price: Callable[[Batch], StepPrices] = (
            self._price_single if not layout.has_tokens_apart else self._price_group
        )
        chosen = semantics_of(semantics, hardware.family)
        costs = PartCosts(model, hardware, layout, chosen, loads)
        self._costs = costs
        self._tokens_per_decode = layout.tokens_per_decode
        self.mtp_share = costs.mtp / costs.num_layers  # of attention
        self._attention = ContextTable(costs.decode_attention_s)
        self._prompts = PromptTable(costs.prefill_attention_s)
        self._prompt_s = lru_cache(MAX_COMPOSITIONS)(self._prompts.one)
        self._eager_s, self._pieces_s = costs.eager_s, costs.pieces_s
        graphs = chosen.graphs
        self._padded = graphs.padded_tokens(layout.tokens_per_decode) if graphs else None
        self._max_graph_tokens = len(self._padded) - 1 if self._padded else 0
        self._pieces = graphs.prompts.padded if graphs else [0]
        self._rank = Table(costs.tokens)
        late_frac = hardware.calibration.decode_kernel_spread_frac * slowest_of(layout.dp)
        self._late_frac = late_frac if costs.meets else 0.0
        self._group = Table(costs.experts)
        self._draws_loads = costs.draws_loads
        self._group_table_tokens = 0 if self._draws_loads else MAX_GROUP_TABLE_TOKENS
        self._head = Table(costs.head)
        self._meets = costs.waits_for_fullest
        self._exchange = Table(costs.exchanges)
        self._moe_passes = costs.num_moe_layers / max(1, model.num_moe_layers)  # with MTP layers
        self._mean = np.full(layout.dp, 1.0 / layout.dp)
        self._ones = np.ones(layout.dp, dtype=np.int64)
        self._renew_single()

    def renew(self, loads: LoadModel) -> None:
        """From now on experts have these loads."""
        self._costs.renew(loads)
        self._group = Table(self._costs.experts)
        self._renew_single()

    def _renew_single(self) -> None:
        costs = self._costs
        self._single = Table(lambda tokens: costs.tokens(tokens) + costs.experts(tokens))
        kept = lru_cache(MAX_COMPOSITIONS)(self._add_head)
        self._single_parts = self._draw_single if self._draws_loads else kept

    def _add_attention(self, parts: Floats, seconds: Floats | float) -> None:
        parts[..., ATTENTION] += seconds * (1.0 - self.mtp_share)
        parts[..., MTP] += seconds * self.mtp_share

    def _price_single(self, batch: Batch) -> StepPrices:
        """One rank: scalars only."""
        seqs = batch.decode_seqs.item()
        prompt = batch.prefill_tokens.item()
        tokens = rows = seqs * self._tokens_per_decode
        least_s = 0.0
        attention_s, slope_s, room = 0.0, 0.0, 0
        if seqs:
            context = batch.context_tokens.item() + seqs * batch.gained_tokens
            attention_s, slope_s, room = self._attention.one(seqs, context)
        if prompt:
            tokens += prompt
            rows += batch.num_chunks.item()
            attention_s += self._prompt_s(prompt, batch.prefill_pairs.item() / prompt)
            tokens, least_s = self._as_pieces(tokens)
        elif self._padded is not None:
            tokens, least_s = self._as_graph(tokens)
        fixed_s, parts = self._single_parts(tokens, rows)
        if fixed_s + attention_s < least_s:
            parts = _host_bound(parts, least_s - fixed_s - attention_s)
            fixed_s = least_s - attention_s
        return StepPrices(
            fixed_s + attention_s,
            slope_s,
            parts,
            attention_s,
            slope_s,
            self.mtp_share,
            None,
            None,
            0 if self._draws_loads else room,
        )

    def _as_pieces(self, tokens: int) -> tuple[int, float]:
        """Tokens that a step with prompts runs as, and the least time that its launches take."""
        if tokens >= len(self._pieces):
            return tokens, self._eager_s
        return self._pieces[tokens], self._pieces_s

    def _as_graph(self, tokens: int) -> tuple[int, float]:
        """Tokens that a batch of decodes runs as, and the least time that its launches take."""
        if self._padded is None:
            return tokens, 0.0
        if tokens > self._max_graph_tokens:
            return tokens, self._eager_s
        return self._padded[tokens], 0.0

    def _add_head(self, tokens: int, rows: int) -> tuple[float, Floats]:
        """Seconds and parts of one rank's step without its reads of KV."""
        seconds = self._single.seconds(tokens) + self._head.seconds(rows)
        return seconds, self._single.parts[tokens] + self._head.parts[rows]

    def _draw_single(self, tokens: int, rows: int) -> tuple[float, Floats]:
        """The same with loads drawn for this step."""
        self._rank.grow(tokens)
        self._head.grow(rows)
        experts = self._costs.experts(np.array([float(tokens)]))[0]
        parts = self._rank.parts[tokens] + experts + self._head.parts[rows]
        return float(parts.sum()), parts

    def _price_group(self, batch: Batch) -> StepPrices:
        """Many ranks: the slowest sets the pace up to dispatch."""
        if np.count_nonzero(batch.prefill_tokens):
            return self._meet(batch, self._mixed_meeting(batch))
        tokens = batch.decode_seqs * self._tokens_per_decode
        fullest = _largest(tokens)
        if self._padded is not None:
            return self._meet(batch, self._graph_meeting(fullest))
        base_s, mean_parts = self._rank.means(tokens, self._mean)
        group_tokens = tokens.dot(self._ones).item()
        rest_s, parts = self._after_meeting(group_tokens, fullest, fullest)
        if self._costs.has_loads:
            rest_s += wait_for_slow_experts(parts, self._late_frac)
        parts += mean_parts
        return self._meet(batch, _Meeting(base_s, rest_s, parts))

    def _graph_meeting(self, fullest: int) -> _Meeting:
        """All ranks run the graph of the fullest one, which has `fullest` tokens."""
        padded, least_s = self._as_graph(fullest)
        base_s = self._rank.seconds(padded)
        rest_s, parts = self._after_meeting(padded * self.num_ranks, padded, fullest)
        parts += self._rank.parts[padded]
        return _Meeting(base_s, rest_s, parts, least_s)

    def _mixed_meeting(self, batch: Batch) -> _Meeting:
        """Some ranks have prompt chunks."""
        decodes = batch.decode_seqs * self._tokens_per_decode
        tokens = decodes + batch.prefill_tokens
        base_s, mean_parts = self._rank.means(tokens, self._mean)
        prompt = batch.prefill_tokens
        keys = batch.prefill_pairs / np.maximum(prompt, 1)
        chunks_s = self._prompts.many(prompt.astype(np.float64), keys)
        base_s += chunks_s
        self._add_attention(mean_parts, float(np.mean(chunks_s)))
        rows = _largest(decodes + batch.num_chunks)
        group_tokens = tokens.dot(self._ones).item()
        rest_s, parts = self._after_meeting(group_tokens, _largest(tokens), rows)
        parts += mean_parts
        return _Meeting(base_s, rest_s, parts, self._as_pieces(_largest(tokens))[1])

    def _meet(self, batch: Batch, meeting: _Meeting) -> StepPrices:
        """Add attention over the cache, and let the slowest rank decide."""
        context = batch.decode_seqs * batch.gained_tokens
        context += batch.context_tokens
        attention_s, slope_s, room = self._attention.many(batch.decode_seqs, context)
        busy_s = attention_s + meeting.base_s
        slowest = busy_s.argmax()
        late_s = self._late_frac * attention_s.item(slowest)
        total_s = busy_s.item(slowest) + late_s + meeting.rest_s
        fixed_s = meeting.parts_s
        if total_s < meeting.least_s:
            fixed_s = _host_bound(fixed_s, meeting.least_s - total_s)
            total_s = meeting.least_s
        return StepPrices(
            base_s=total_s,
            slope_s=(1.0 + self._late_frac) * slope_s.item(slowest),
            fixed_s=fixed_s,
            attention_s=self._mean.dot(attention_s).item(),
            attention_slope_s=self._mean.dot(slope_s).item(),
            mtp_share=self.mtp_share,
            rank_busy_s=busy_s,
            rank_slope_s=slope_s,
            room_tokens=self._room(room),
        )

    def _room(self, room: Floats) -> int:
        """Tokens up to which the law of a step holds for others; none if loads are drawn."""
        if self._draws_loads:
            return 0
        return int(min(room.item(room.argmin()), 2.0**62))

    def _after_meeting(self, group_tokens: int, fullest: int, rows: int) -> tuple[float, Floats]:
        """Exchange, experts, head and gap: seconds and parts; the fullest die is waited for."""
        if group_tokens < self._group_table_tokens:
            group_s = self._group.seconds(group_tokens)
            parts = self._group.parts[group_tokens]
        else:
            parts = self._costs.experts(np.array([float(group_tokens)]))[0]
            group_s = float(parts.sum())
        dispatch_wait_s, combine_wait_s = self._exchange_waits_s(fullest, parts)
        head_s = self._head.seconds(rows)
        parts = parts + self._head.parts[rows]
        parts[COMBINE_WAIT] += combine_wait_s
        return group_s + head_s + dispatch_wait_s + combine_wait_s, parts

    def _exchange_waits_s(self, fullest: int, parts: Floats) -> tuple[float, float]:
        """What dispatch and combine of the fullest rank take longer than those of the mean die."""
        if not self._meets:
            return 0.0, 0.0
        self._exchange.grow(fullest)
        longest = self._exchange.parts[fullest]
        dispatch_s = longest.item(DISPATCH) - parts.item(DISPATCH)
        combine_s = longest.item(COMBINE) - parts.item(COMBINE)
        return (
            max(0.0, dispatch_s) * self._moe_passes,
            max(0.0, combine_s) * self._moe_passes,
        )
