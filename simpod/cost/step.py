"""The price of a step of one lock-step group, with its breakdown.

A step is: every rank's layers up to dispatch, the wait for the slowest rank, dispatch, experts,
combine, then head, sampling and the host gap. The sparse layers of a model are alike, so the rank
that is slowest in one is slowest in all, and the sum over layers of the maximum over ranks is the
maximum of the sums. The few dense layers that come first are in the same sum: exact if the same
rank is the slowest in them, else short by less than the difference of their feed-forwards. Where
kernels vary from call to call, another rank may be the last in each layer (`stragglers`). Ranks
that have no experts to share do not meet inside a layer; the step lasts as long as that of the
slowest rank, and the wait for it is booked under `dispatch_wait` all the same.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from simpod.cost.block_table import BlockTable
from simpod.cost.die_waits import Meetings
from simpod.cost.expert_imbalance import LoadModel
from simpod.cost.launches import PromptLaunches
from simpod.cost.layout import Layout
from simpod.cost.parts import PartCosts
from simpod.cost.semantics import Semantics, semantics_of
from simpod.cost.step_parts import ATTENTION, COMBINE, COMBINE_WAIT, DISPATCH, HOST_GAP, MTP
from simpod.cost.step_prices import Batch, StepPrices, least
from simpod.cost.stragglers import Arrivals, SlowestRanks
from simpod.cost.table import ContextTable, PromptTable, Table
from simpod.cost.work import Floats, Ints
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

MAX_COMPOSITIONS = 4096  # of one rank's steps, kept because most of them come again
MAX_GROUP_TABLE_TOKENS = 2**18  # steps of more tokens are long and rare: priced one by one


class _Meeting(NamedTuple):
    """A step without attention over the cache."""

    base_s: Floats | float  # [num_ranks] until dispatch, or the same for all
    rest_s: float  # from dispatch on
    parts_s: Floats  # [NUM_PARTS] means over ranks


def _largest(counts: Ints) -> int:
    """Faster than `max` on a few hundred ranks."""
    return counts.item(counts.argmax())


def _launched(meeting: _Meeting, busy_s: float, least_s: float) -> _Meeting:
    """The same, if hosts take `least_s` to launch it; the slowest rank is busy for `busy_s`.

    Attention over the cache comes on top. A log of two ranks of vLLM tells: mean TTFT is off by
    0.4 %, and by 8 % if attention ran beside the launches, as it does on a rank of its own.
    """
    waits_s = least_s - busy_s - meeting.rest_s
    if waits_s <= 0.0:
        return meeting
    parts_s = meeting.parts_s.copy()
    parts_s[HOST_GAP] += waits_s
    return _Meeting(meeting.base_s, meeting.rest_s + waits_s, parts_s)


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
        launches = PromptLaunches(model, layout, chosen)
        self._eager_s, self._pieces_s = launches.eager_s, launches.pieces_s
        graphs = chosen.graphs.of_rank(layout.max_num_seqs)
        self._padded = graphs.padded_tokens(layout.tokens_per_decode)
        self._masks_dummies = graphs.masks_dummies
        self._max_graph_tokens = len(self._padded) - 1 if self._padded else 0
        self._pieces = chosen.graphs.prompts.padded
        self._rank = Table(costs.tokens)
        self._spread_frac = hardware.calibration.decode_kernel_spread_frac if costs.meets else 0.0
        self._ranks = SlowestRanks(layout.dp, self._spread_frac)
        self._draws_loads = costs.draws_loads
        self._group_table_tokens = 0 if self._draws_loads else MAX_GROUP_TABLE_TOKENS
        self._head = Table(costs.head)
        self._meets = costs.waits_for_fullest
        self._exchange = Table(costs.exchanges)
        self._moe_passes = costs.num_moe_layers / max(1, model.num_moe_layers)  # with MTP layers
        self._mean = np.full(layout.dp, 1.0 / layout.dp)
        self._ones = np.ones(layout.dp, dtype=np.int64)
        self._renew()

    def renew(self, loads: LoadModel) -> None:
        """From now on experts have these loads."""
        self._costs.renew(loads)
        self._renew()

    def _renew(self) -> None:
        """Price what depends on the loads of experts anew."""
        costs = self._costs
        self._group = BlockTable(costs.experts)
        self._varying = BlockTable(costs.varying_experts) if self._spread_frac else self._group
        self._single_parts, self._after_meeting = self._draw_single, self._exchange_and_rest
        if not self._draws_loads:
            self._single_parts = lru_cache(MAX_COMPOSITIONS)(self._add_head)
            self._after_meeting = lru_cache(MAX_COMPOSITIONS)(self._exchange_and_rest)

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
        run = sent = tokens
        if prompt:
            rows += batch.num_chunks.item()
            attention_s += self._prompt_s(prompt, batch.prefill_pairs.item() / prompt)
            run, least_s = self._as_pieces(tokens + prompt)
            sent = run
        elif self._padded is not None:
            run, least_s = self._as_graph(tokens)
            sent = tokens if self._masks_dummies else run
        fixed_s, parts = self._single_parts(run, sent, rows)
        prices = StepPrices(
            fixed_s + attention_s,
            slope_s,
            parts,
            attention_s,
            slope_s,
            self.mtp_share,
            None,
            0 if self._draws_loads else room,
        )
        return prices.launched(least_s) if least_s else prices

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

    def _add_head(self, run: int, sent: int, rows: int) -> tuple[float, Floats]:
        """Seconds and parts of one rank's step without its reads of KV.

        run: tokens of its own products and passes; sent: of its experts; rows: that are sampled.
        """
        experts_s, experts = self._group.one(sent)
        seconds = self._rank.seconds(run) + experts_s + self._head.seconds(rows)
        return seconds, self._rank.parts[run] + experts + self._head.parts[rows]

    def _draw_single(self, run: int, sent: int, rows: int) -> tuple[float, Floats]:
        """The same with loads drawn for this step."""
        self._rank.grow(run)
        self._head.grow(rows)
        experts = self._costs.experts(np.array([float(sent)]))[0]
        parts = self._rank.parts[run] + experts + self._head.parts[rows]
        return float(parts.sum()), parts

    def _price_group(self, batch: Batch) -> StepPrices:
        """Many ranks: the slowest sets the pace up to dispatch."""
        if _largest(batch.prefill_tokens):
            return self._meet(batch, self._mixed_meeting(batch))
        tokens = batch.decode_seqs * self._tokens_per_decode
        if self._padded is not None:
            return self._meet(batch, self._graph_meeting(tokens))
        base_s, mean_parts = self._rank.means(tokens, self._mean)
        group_tokens, fullest = self._as_run(tokens)
        rest_s, parts = self._after_meeting(group_tokens, fullest, fullest, varies=True)
        return self._meet(batch, _Meeting(base_s, rest_s, parts + mean_parts))

    def _graph_meeting(self, tokens: Ints) -> _Meeting:
        """All ranks run the graph of the fullest one; `tokens` [num_ranks]."""
        fullest = _largest(tokens)
        padded, least_s = self._as_graph(fullest)
        group_tokens, sent = self._as_run(tokens)
        base_s = self._rank.seconds(padded)
        rest_s, parts = self._after_meeting(group_tokens, sent, fullest, varies=True)
        parts = parts + self._rank.parts[padded]
        return _launched(_Meeting(base_s, rest_s, parts), base_s, least_s)

    def _mixed_meeting(self, batch: Batch) -> _Meeting:
        """Some ranks have prompt chunks."""
        decodes = batch.decode_seqs * self._tokens_per_decode
        tokens = decodes + batch.prefill_tokens
        base_s, mean_parts = self._rank.means(tokens, self._mean)
        prompt = batch.prefill_tokens
        keys = batch.prefill_pairs / np.maximum(prompt, 1)
        chunks_s = self._prompts.many(prompt.astype(np.float64), keys)
        base_s += chunks_s
        self._add_attention(mean_parts, np.add.reduce(chunks_s) / self.num_ranks)
        rows = _largest(decodes + batch.num_chunks)
        group_tokens = tokens.dot(self._ones).item()
        fullest = _largest(tokens)
        rest_s, parts = self._after_meeting(group_tokens, fullest, rows)
        meeting = _Meeting(base_s, rest_s, parts + mean_parts)
        return _launched(meeting, base_s.item(base_s.argmax()), self._as_pieces(fullest)[1])

    def _meet(self, batch: Batch, meeting: _Meeting) -> StepPrices:
        """Add attention over the cache, and let the slowest rank decide."""
        attention_s, slope_s, room = self._over_cache(batch)
        busy_s = attention_s + meeting.base_s
        arrivals = Arrivals(self._ranks, busy_s, attention_s, slope_s)
        last_s, last_slope_s = arrivals.last()
        return StepPrices(
            base_s=last_s + meeting.rest_s,
            slope_s=last_slope_s,
            fixed_s=meeting.parts_s,
            attention_s=self._mean.dot(attention_s).item(),
            attention_slope_s=self._mean.dot(slope_s).item(),
            mtp_share=self.mtp_share,
            rank_busy_s=busy_s,
            room_tokens=self._room(room),
            arrivals=arrivals,
        )

    def _over_cache(self, batch: Batch) -> tuple[Floats, Floats, Floats]:
        """[num_ranks] of attention over the cache: see `ContextTable.many`."""
        context = batch.decode_seqs * batch.gained_tokens
        context += batch.context_tokens
        return self._attention.many(batch.decode_seqs, context)

    def meetings(self, batch: Batch) -> Meetings | None:
        """What dies bring to the sparse layers of one step; with prompts experts do not vary.

        None where dies send nothing to each other, or gather all tokens.
        """
        if not self._meets:
            return None
        costs, varies = self._costs, not _largest(batch.prefill_tokens)
        tokens = batch.decode_seqs * self._tokens_per_decode + batch.prefill_tokens
        group_tokens, fullest = int(tokens.sum()), _largest(tokens)
        if varies:
            group_tokens, fullest = self._as_run(tokens)
        sent = costs.experts(np.array([float(group_tokens)]))[0]
        dispatch_s, combine_s = self._exchange_waits_s(fullest, sent)
        busy_s = self._price_group(batch).rank_busy_s
        return Meetings(
            rank_busy_s=np.asarray(busy_s) / costs.num_layers,
            rank_spread_s=self._spread_frac * self._over_cache(batch)[0] / costs.num_layers,
            dies=costs.die_times(float(group_tokens)),
            experts_spread_frac=self._spread_frac if costs.has_loads and varies else 0.0,
            fullest_dispatch_s=dispatch_s / costs.num_moe_layers,
            fullest_combine_s=combine_s / costs.num_moe_layers,
            launch_skew_s=costs.launch_skew_s,
        )

    def _as_run(self, tokens: Ints) -> tuple[int, int]:
        """Tokens that the group and its fullest rank send, of `tokens` [num_ranks] of decodes.

        With graphs all ranks run that of the fullest one, its dummies included unless masked.
        """
        fullest = _largest(tokens)
        if self._padded is None or self._masks_dummies:
            return tokens.dot(self._ones).item(), fullest
        padded, _ = self._as_graph(fullest)
        return padded * self.num_ranks, padded

    def _room(self, room: Floats) -> int:
        """Tokens up to which the law of a step holds for others; none if loads are drawn."""
        if self._draws_loads:
            return 0
        return int(min(least(room), 2.0**62))

    def _exchange_and_rest(
        self, group_tokens: int, fullest: int, rows: int, *, varies: bool = False
    ) -> tuple[float, Floats]:
        """Exchange, experts, head and gap: seconds and parts; the slowest die is waited for.

        varies: kernels take unlike times from die to die, as those of decodes do.
        """
        table = self._varying if varies else self._group
        if group_tokens < self._group_table_tokens:
            group_s, parts = table.one(group_tokens)
        else:
            parts = table.fill(np.array([float(group_tokens)]))[0]
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
