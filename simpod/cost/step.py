"""The price of a step of one lock-step group, with its breakdown.

A step is: every rank's layers up to dispatch, the wait for the slowest rank, dispatch, experts,
combine, then head, sampling and the host gap. The sparse layers of a model are alike, so the rank
that is slowest in one is slowest in all, and the sum over layers of the maximum over ranks is the
maximum of the sums. The few dense layers that come first are in the same sum: exact if the same
rank is the slowest in them, else short by less than the difference of their feed-forwards.
Ranks that have no experts to share do not meet inside a layer; the step lasts as long as that of
the slowest rank, and the wait for it is booked under `dispatch_wait` all the same.
"""

from dataclasses import dataclass

import numpy as np

from simpod.cost.layout import Layout
from simpod.cost.parts import ATTENTION, COMBINE_WAIT, DISPATCH_WAIT, MTP, PartCosts, Table
from simpod.cost.work import Floats, Ints
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

MAX_GROUP_TABLE_TOKENS = 2**18  # steps of more tokens are long and rare: priced one by one


@dataclass(slots=True, eq=False)
class Batch:
    """What the ranks of a group hold in one step; every array is [num_ranks], updated in place."""

    decode_seqs: Ints
    context_tokens: Ints  # resident tokens of the decoding sequences, before this step
    prefill_tokens: Ints  # prompt tokens computed in this step
    prefill_pairs: (
        Floats  # query-key pairs of these chunks: sum of chunk * (resident + (chunk + 1) / 2)
    )
    prefill_context: Ints  # tokens whose KV these chunks read: sum of resident + chunk
    num_chunks: Ints


@dataclass(slots=True, eq=False)
class StepPrices:
    """Prices of `k` successive steps of one composition.

    duration_s [k]; fixed_s [NUM_PARTS] is the same in each step; attention over the cache takes
    attention_s (mean over ranks) in the first step and attention_growth_s more per token of growth.
    """

    duration_s: Floats
    fixed_s: Floats
    attention_s: float
    attention_growth_s: float
    growth: Ints
    mtp_share: float  # of attention
    rank_busy_s: Floats | None  # [num_ranks] until dispatch, first step, all layers; None: one rank

    def parts(self, num_steps: int) -> Floats:
        """Seconds of each of STEP_PARTS, summed over the first `num_steps`; means over ranks."""
        parts = self.fixed_s * num_steps
        attention_s = self.attention_s * num_steps
        if num_steps > 1:
            attention_s += self.attention_growth_s * self.growth[:num_steps].sum()
        drafts_s = attention_s * self.mtp_share
        parts[ATTENTION] += attention_s - drafts_s
        parts[MTP] += drafts_s
        if self.rank_busy_s is not None:
            wait_s = self.duration_s[:num_steps].sum() - parts.sum()
            parts[DISPATCH_WAIT] += max(0.0, wait_s)
        return parts

    @property
    def rank_wait_s(self) -> Floats:
        """[num_ranks]: wait of each rank for the slowest, first step, all layers."""
        if self.rank_busy_s is None:
            return np.zeros(1)
        slowest_s: float = self.rank_busy_s.max()
        return slowest_s - self.rank_busy_s


@dataclass(frozen=True, slots=True, eq=False)
class _Meeting:
    """A step without attention over the cache."""

    base_s: Floats  # [num_ranks] until dispatch
    rest_s: float  # from dispatch on
    parts_s: Floats  # [NUM_PARTS] means over ranks


def _largest(counts: Ints) -> int:
    """Faster than `max` on a few hundred ranks."""
    return counts.item(counts.argmax())


class StepPricer:
    """Prices the steps of one group.

    What depends on token counts alone is looked up; attention over the cache is linear in resident
    tokens. The per-step path uses + - * sqrt and max only, so the steps of a run have the same bits
    as the same steps priced one at a time.
    """

    def __init__(self, model: ModelSpec, hardware: HardwareProfile, layout: Layout) -> None:
        self.num_ranks = layout.dp
        costs = PartCosts(model, hardware, layout)
        self._costs = costs
        self._dies, self._tp = layout.dies, layout.tp
        self._tokens_per_decode = layout.tokens_per_decode
        self._layers = costs.num_layers
        self._mtp_share = costs.mtp / costs.num_layers
        self._s_per_kv = costs.num_layers * costs.attention_s_per_kv_token()
        per_query_s = costs.num_layers * costs.attention_s_per_query()
        self._s_per_seq = self._tokens_per_decode * (per_query_s + self._s_per_kv)
        self._rank = Table(costs.tokens)
        self._decode_rank = Table(self._decode_parts)
        self._group = Table(costs.experts)
        self._head = Table(costs.head)
        self._dispatch_s_per_excess_token = costs.num_moe_layers * costs.dispatch.s_per_token
        self._combine_s_per_excess_token = costs.num_moe_layers * costs.combine.s_per_token
        self._mean = np.full(layout.dp, 1.0 / layout.dp)
        self._ones = np.ones(layout.dp, dtype=np.int64)
        self._single = Table(lambda tokens: costs.tokens(tokens) + costs.experts(tokens))

    def price(self, batch: Batch, growth: Ints) -> StepPrices:
        """Price len(growth) steps in which nothing joins or leaves.

        growth [k]: resident tokens that each decoding sequence has gained before the step;
        growth[0] is 0. Prompt chunks are only allowed with k = 1.
        """
        if self.num_ranks == 1:
            return self._price_single(batch, growth)
        return self._price_group(batch, growth)

    def _decode_parts(self, seqs: Floats) -> Floats:
        parts = self._costs.tokens(seqs * self._tokens_per_decode)
        self._add_attention(parts, seqs * self._s_per_seq)
        return parts

    def _add_attention(self, parts: Floats, seconds: Floats | float) -> None:
        parts[..., ATTENTION] += seconds * (1.0 - self._mtp_share)
        parts[..., MTP] += seconds * self._mtp_share

    def _price_single(self, batch: Batch, growth: Ints) -> StepPrices:
        """One rank: scalars, so that a run of steps is two array operations."""
        seqs, context = batch.decode_seqs.item(), batch.context_tokens.item()
        prompt = batch.prefill_tokens.item()
        rows = seqs * self._tokens_per_decode
        tokens = rows + prompt
        chunk_s = seqs * self._s_per_seq
        if prompt:
            rows += batch.num_chunks.item()
            chunk_s += self._layers * float(
                self._costs.prefill_attention_s(
                    batch.prefill_pairs.item(), batch.prefill_context.item(), prompt
                )
            )
        fixed_s = self._single.seconds(tokens) + self._head.seconds(rows) + chunk_s
        if len(growth) == 1:
            duration_s = np.array([fixed_s + self._s_per_kv * context])
        else:
            duration_s = growth * seqs
            duration_s = (duration_s + context) * self._s_per_kv
            duration_s += fixed_s
        parts = self._single.parts[tokens] + self._head.parts[rows]
        return StepPrices(
            duration_s=duration_s,
            fixed_s=parts,
            attention_s=chunk_s + self._s_per_kv * context,
            attention_growth_s=self._s_per_kv * seqs,
            growth=growth,
            mtp_share=self._mtp_share,
            rank_busy_s=None,
        )

    def _price_group(self, batch: Batch, growth: Ints) -> StepPrices:
        """Many ranks: the slowest sets the pace up to dispatch."""
        if np.count_nonzero(batch.prefill_tokens):
            return self._meet(batch, growth, self._mixed_meeting(batch))
        seqs, per_seq = batch.decode_seqs, self._tokens_per_decode
        base_s, mean_parts = self._decode_rank.means(seqs, self._mean)
        fullest = per_seq * _largest(seqs)
        group_tokens = per_seq * seqs.dot(self._ones).item()
        rest_s, parts = self._after_meeting(group_tokens, fullest, fullest)
        parts += mean_parts
        return self._meet(batch, growth, _Meeting(base_s, rest_s, parts))

    def _mixed_meeting(self, batch: Batch) -> _Meeting:
        """Some ranks have prompt chunks."""
        decodes = batch.decode_seqs * self._tokens_per_decode
        tokens = decodes + batch.prefill_tokens
        base_s, mean_parts = self._rank.means(tokens, self._mean)
        chunks_s = self._costs.prefill_attention_s(
            batch.prefill_pairs,
            batch.prefill_context.astype(np.float64),
            batch.prefill_tokens.astype(np.float64),
        )
        attention_s = self._layers * chunks_s + batch.decode_seqs * self._s_per_seq
        base_s += attention_s
        self._add_attention(mean_parts, float(np.mean(attention_s)))
        rows = _largest(decodes + batch.num_chunks)
        group_tokens = tokens.dot(self._ones).item()
        rest_s, parts = self._after_meeting(group_tokens, _largest(tokens), rows)
        parts += mean_parts
        return _Meeting(base_s, rest_s, parts)

    def _meet(self, batch: Batch, growth: Ints, meeting: _Meeting) -> StepPrices:
        """Add attention over the cache, and let the slowest rank decide."""
        seqs = batch.decode_seqs.astype(np.float64)
        context = batch.context_tokens.astype(np.float64)
        busy_s = context * self._s_per_kv
        busy_s += meeting.base_s
        if len(growth) == 1:
            duration_s = np.array([busy_s.item(busy_s.argmax()) + meeting.rest_s])
        else:
            steps_s = np.multiply.outer(growth.astype(np.float64), seqs)
            steps_s += context
            steps_s *= self._s_per_kv
            steps_s += meeting.base_s
            duration_s = steps_s.max(axis=1)
            duration_s += meeting.rest_s
        return StepPrices(
            duration_s=duration_s,
            fixed_s=meeting.parts_s,
            attention_s=self._s_per_kv * self._mean.dot(context).item(),
            attention_growth_s=self._s_per_kv * self._mean.dot(seqs).item(),
            growth=growth,
            mtp_share=self._mtp_share,
            rank_busy_s=busy_s,
        )

    def _after_meeting(self, group_tokens: int, fullest: int, rows: int) -> tuple[float, Floats]:
        """Exchange, experts, head and gap: seconds and parts; the fullest die is waited for."""
        if group_tokens < MAX_GROUP_TABLE_TOKENS:
            group_s = self._group.seconds(group_tokens)
            parts = self._group.parts[group_tokens]
        else:
            parts = self._costs.experts(np.array([float(group_tokens)]))[0]
            group_s = float(parts.sum())
        excess_tokens = max(0.0, fullest / self._tp - group_tokens / self._dies)
        combine_wait_s = excess_tokens * self._combine_s_per_excess_token
        dispatch_wait_s = excess_tokens * self._dispatch_s_per_excess_token
        head_s = self._head.seconds(rows)
        parts = parts + self._head.parts[rows]
        parts[COMBINE_WAIT] = combine_wait_s
        return group_s + head_s + dispatch_wait_s + combine_wait_s, parts
