"""Tokens of data-parallel ranks gathered on all dies, and sums of experts scattered back.

What an engine does that sends nothing to chosen dies: before the experts an all-gather of all
tokens of the group, after them a reduce-scatter of what each die's experts gave. The busiest die
and the fullest rank cost no more than the mean: all bytes pass every link.
"""

import numpy as np
from numpy.typing import ArrayLike

from simpod.cost.collectives import plane_link
from simpod.cost.exchange.shapes import Operation
from simpod.cost.expert_exchange import ExpertExchange
from simpod.cost.kernels.collective import Operation as Collective
from simpod.cost.kernels.pricer import KernelPricer
from simpod.cost.layout import Layout
from simpod.cost.operators import BF16_BYTES, experts_per_token, part_dtype
from simpod.cost.semantics import Semantics
from simpod.cost.work import Floats
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

FP4_BYTES = 0.5 + 1.0 / 16.0
"""Of an element, with its share of a scale of 16 elements."""
CHOICE_BYTES = 8.0
"""Of one expert of one token: its index and its weight."""


def gathers_tokens(
    model: ModelSpec, hardware: HardwareProfile, layout: Layout, kernels: KernelPricer
) -> bool:
    """Whether dies are no more than a token's experts, in a node whose collectives were measured.

    Source: TensorRT-LLM, fused_moe_cutlass.py (`select_alltoall_method_type`:
    `moe_ep_size <= top_k`).
    """
    if model.moe is None or layout.expert_dies or layout.dies > hardware.dies_per_node:
        return False
    is_measured = kernels.has_collective("all_gather") and kernels.has_collective("reduce_scatter")
    return is_measured and layout.ep <= experts_per_token(model, layout)


def exchange_of(
    model: ModelSpec, hardware: HardwareProfile, layout: Layout, semantics: Semantics
) -> "AnyExchange":
    """What the dies of a group that meet in sparse layers do there."""
    kernels = KernelPricer(hardware, semantics.launch_frac)
    if semantics.gathers_few and gathers_tokens(model, hardware, layout, kernels):
        return GatherExchange(model, hardware, layout, kernels)
    return ExpertExchange(model, hardware, layout, semantics.exchange)


class GatherExchange:
    """Prices what `ExpertExchange` would send to experts' dies."""

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        layout: Layout,
        kernels: KernelPricer,
    ) -> None:
        """NVFP4 tokens are gathered as they are computed on, all others in bf16."""
        width = (
            FP4_BYTES if part_dtype(model, "experts", layout.weight_dtype) == "fp4" else BF16_BYTES
        )
        choices = CHOICE_BYTES * experts_per_token(model, layout)
        self._kernels, self._dies = kernels, layout.dies
        self._link = plane_link(hardware, hardware.planes["scale_up"], layout.dies)
        self._bytes = {
            "dispatch": model.hidden_size * width + choices,
            "combine": float(model.hidden_size * BF16_BYTES),
        }

    def seconds(self, operation: Operation, tokens: Floats, imbalance: ArrayLike = 1.0) -> Floats:
        """All tokens of the group, of which one die has `tokens` [n] on average."""
        size_bytes = self._dies * np.asarray(tokens) * self._bytes[operation]
        name: Collective = "all_gather" if operation == "dispatch" else "reduce_scatter"
        seconds = self._kernels.collective_s(name, size_bytes, self._dies)
        return np.broadcast_to(seconds, np.broadcast_shapes(seconds.shape, np.shape(imbalance)))

    def moves(self, operation: Operation, tokens: Floats, plane: str) -> Floats:
        """[n, 3]: bytes of a die that cross `plane`, seconds of moving, seconds in all."""
        total_s = self.seconds(operation, tokens)
        crossing = (self._dies - 1) * np.asarray(tokens) * self._bytes[operation]
        crossing = crossing * (plane == "scale_up")
        moving_s = np.minimum(total_s, crossing / self._link.bytes_per_s)
        return np.stack([crossing, moving_s, total_s], axis=1)


AnyExchange = ExpertExchange | GatherExchange
