"""What the dies of one rank say to each other in a layer: all-reduces, or latents and heads.

Tensor parallel: every die has all tokens of the rank, and sums of hidden states are all-reduced.
Staged (`Layout.is_staged`): every die has its own tokens; latents are gathered before attention,
and its output goes from heads back to tokens after it. Measured collectives price what a profile
has inside a node; a latency and the bytes over the slowest link all else.
"""

from collections.abc import Callable
from dataclasses import dataclass

from simpod.cost import operators as op
from simpod.cost.collectives import all_gather_s, all_reduce_s, all_to_all_s, meets_in_layers
from simpod.cost.kernels.collective import Operation
from simpod.cost.kernels.pricer import KernelPricer
from simpod.cost.layout import Layout
from simpod.cost.work import Amount
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

LAWS: dict[Operation, Callable[[HardwareProfile, Amount, int], Amount]] = {
    "all_reduce": all_reduce_s,
    "all_gather": all_gather_s,
    "all_to_all": all_to_all_s,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCollectives:
    """Seconds of one layer over the dies of a rank; 0 where it has one."""

    model: ModelSpec
    hardware: HardwareProfile
    layout: Layout
    kernels: KernelPricer

    def all_reduces_s(self, tokens: Amount) -> tuple[Amount, Amount]:
        """Of a dense and of a sparse layer.

        After attention and after the feed-forward. Where ranks meet, a rank scatters its tokens
        over its dies before dispatch and gathers them after combine: together one all-reduce.
        One rank alone whose experts lie on all its dies reduces their results like a feed-forward.
        Staged: none, since tokens stay apart.
        """
        if self.layout.is_staged:
            return 0.0 * tokens, 0.0 * tokens
        once = self._seconds("all_reduce", tokens * (self.model.hidden_size * op.BF16_BYTES))
        return 2.0 * once, (1.0 if meets_in_layers(self.model, self.layout) else 2.0) * once

    def latent_gather_s(self, tokens: Amount) -> Amount:
        """Staged: all latents of a rank's `tokens` to each of its dies."""
        if not self.layout.is_staged:
            return 0.0
        return self._seconds("all_gather", op.latent_gather_bytes(self.model, tokens))

    def head_exchange_s(self, tokens: Amount) -> Amount:
        """Staged: attention's output for `tokens`, from the dies of heads to those of tokens."""
        if not self.layout.is_staged:
            return 0.0
        return self._seconds("all_to_all", op.head_exchange_bytes(self.model, self.layout, tokens))

    def head_gathers_s(self, rows: Amount) -> Amount:
        """Logits of the rows that sample; staged, before that their hidden states."""
        logits_bytes = rows * (self.model.vocab_size * op.BF16_BYTES)
        seconds = all_gather_s(self.hardware, logits_bytes, self.layout.tp)
        if self.layout.is_staged:
            hidden_bytes = rows * (self.model.hidden_size * op.BF16_BYTES)
            seconds = seconds + all_gather_s(self.hardware, hidden_bytes, self.layout.tp)
        return seconds

    def _seconds(self, operation: Operation, size_bytes: Amount) -> Amount:
        tp = self.layout.tp
        inside = 1 < tp <= self.hardware.dies_per_node
        if inside and self.kernels.has_collective(operation):
            return self.kernels.collective_s(operation, size_bytes, tp)
        return LAWS[operation](self.hardware, size_bytes, tp)
