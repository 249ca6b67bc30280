"""A2E and E2A: attention dies and expert dies of different number (xDeepServe 3.3).

Bytes go by DMA engines, whose descriptors and metadata a few vector cores post (NPU-Direct URMA).
Those cores are the bottleneck: each die tells every die of the other side what it has for it, and
posts one read from each die that has something for it.

Trampoline: as many expert dies as attention dies exchange with them; each passes on what is for the
expert dies behind it. A die then posts one field to each of A trampolines and to the few dies
behind it, instead of to all E expert dies. The two hops are pipelined by chunk, so the bytes of the
busier hop bind.
"""

from dataclasses import dataclass, replace
from math import ceil, sqrt

import numpy as np
from numpy.typing import ArrayLike

from simpod.cost.exchange.breakdown import ExchangeTime, Floats
from simpod.cost.exchange.shapes import Fabric
from simpod.hardware.kernels.exchange import PullConstants


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitShape:
    """One micro-batch between the attention dies of one domain and all expert dies."""

    tokens: ArrayLike
    """Of one attention die."""
    num_attention_dies: int
    num_expert_dies: int
    hidden_size: int
    top_k: int
    message_bytes: float
    """One token to one expert, with scales and padding."""
    is_quantised: bool = False
    imbalance: ArrayLike = 1.0
    """Messages of the busiest expert die over the mean."""

    @property
    def copies_per_attention_die(self) -> Floats:
        """Messages that one attention die sends (A2E) or gets back (E2A)."""
        return np.asarray(self.tokens, dtype=np.float64) * self.top_k

    def copies_per_expert_dies(self, count: int) -> Floats:
        """The same, of the busiest `count` expert dies that get theirs through one of them.

        Loads of dies are independent: the fullest sum of n exceeds the mean by 1 / sqrt(n) of what
        the fullest die does.
        """
        dies = count * self.num_attention_dies / self.num_expert_dies
        fullest = 1.0 + (np.asarray(self.imbalance) - 1.0) / sqrt(count)
        return self.copies_per_attention_die * (dies * fullest)


def casting_s(constants: PullConstants, shape: SplitShape) -> Floats:
    """Quantising on the attention die, vector cores free for it: bytes go by DMA."""
    raw = np.asarray(shape.tokens, dtype=np.float64) * 2.0 * shape.hidden_size
    spent_s = constants.quantise_start_s + raw / constants.quantise_bytes_per_s
    return np.asarray(spent_s if shape.is_quantised else 0.0 * spent_s)


def sending_s(constants: PullConstants, shape: SplitShape) -> Floats:
    """Of A2E, what keeps the vector cores of the attention dies busy: its first stage.

    Quantise, then write a field to each trampoline (to each expert die, if there are no more of
    those); the copy engines start while the cores go on, and the rest is read by the expert dies.
    xDeepServe (7.1) counts the first stage to the 0.7 ms that an attention die spends on a layer.
    """
    targets = min(shape.num_attention_dies, shape.num_expert_dies)
    posting_s = np.asarray(hop_s(constants, targets, 0).metadata_s)
    return np.asarray(casting_s(constants, shape) + posting_s)


def hop_s(constants: PullConstants, targets: int, sources: int) -> ExchangeTime:
    """One hop but for its bytes: fields for `targets` dies, polls and reads from `sources` dies."""
    c = constants
    return ExchangeTime(
        start_up_s=c.dma_start_s,
        metadata_s=targets * c.field_s / c.dma_cores,
        message_s=sources * c.dma_post_s / c.dma_cores,
        polling_s=c.field_s + sources * c.poll_s / c.dma_cores,
    )


def naive_s(
    fabric: Fabric, constants: PullConstants, shape: SplitShape, *, to_experts: bool
) -> ExchangeTime:
    """One hop, every die to every die of the other side: fields grow with the larger side."""
    targets, sources = shape.num_expert_dies, shape.num_attention_dies
    if not to_experts:
        targets, sources = sources, targets
    busiest = np.maximum(shape.copies_per_attention_die, shape.copies_per_expert_dies(1))
    rate = constants.read_frac * fabric.up_bytes_per_s
    return replace(
        hop_s(constants, targets, sources),
        quantise_s=casting_s(constants, shape) if to_experts else 0.0,
        bytes_s=busiest * shape.message_bytes / rate,
    )


def trampoline_s(
    fabric: Fabric, constants: PullConstants, shape: SplitShape, *, to_experts: bool
) -> ExchangeTime:
    """Two hops: attention <-> trampolines, trampolines <-> the expert dies behind them.

    A trampoline carries what is for itself and for the ceil(E / A) - 1 dies behind it; the busier
    of that and an attention die's own messages binds. Without more expert than attention dies
    there is nothing behind a trampoline and one hop is left.
    """
    behind = ceil(shape.num_expert_dies / shape.num_attention_dies) - 1
    if behind == 0:
        return naive_s(fabric, constants, shape, to_experts=to_experts)
    across = shape.num_attention_dies
    hops = hop_s(constants, across, across) + hop_s(constants, behind, behind)
    carried = shape.copies_per_expert_dies(1 + behind)
    busiest = np.maximum(shape.copies_per_attention_die, carried)
    rate = constants.read_frac * fabric.up_bytes_per_s
    return replace(
        hops,
        quantise_s=casting_s(constants, shape) if to_experts else 0.0,
        bytes_s=busiest * shape.message_bytes / rate,
    )
