"""Dispatch and combine of a layer, as a function of the tokens of one die.

Where the profile has constants of exchange kernels, they price it: on Ascend XCCL's pull or the
fused push, as the engine's semantics say; on NVIDIA the faster of DeepEP's low-latency and normal
kernels, or the kernels of an NVLink domain that holds all dies. Elsewhere a latency and the bytes
over the slowest link (`collectives`).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from simpod.cost.collectives import (
    combine_message_bytes,
    dispatch_message_bytes,
    expert_exchange,
    group_plane,
)
from simpod.cost.exchange.breakdown import ExchangeTime
from simpod.cost.exchange.crossing import crossing_bytes
from simpod.cost.exchange.deepep import NormalShape
from simpod.cost.exchange.price import Constants, price
from simpod.cost.exchange.requests import DOMAIN_KERNELS, NORMAL_SMS
from simpod.cost.exchange.shapes import ExchangeShape, Fabric, Operation
from simpod.cost.layout import Layout
from simpod.cost.operators import (
    copies_sent,
    expert_slots,
    experts_per_token,
    input_bytes,
    part_dtype,
)
from simpod.cost.work import Floats
from simpod.hardware.kernels.exchange import NormalConstants, PullConstants, PushConstants
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

KERNELS = (
    ("xccl_pull", "fused_push"),
    ("NVLinkTwoSided",),
    ("deepep_low_latency",),
    ("deepep_normal",),
)
"""Kernels by preference within a group; groups compete by price."""

FUSED_TOKENS = 1024.0
"""Tokens of a die above which fused kernels give way to the bulk ones of their group: their static
buffers, ranks x tokens x copies x message, take gigabytes there (CloudMatrix-Infer 4.2.1)."""


BULK_KERNEL = "xccl_pull"
"""Reads in bulk; prompts' tokens are moved so, whatever kernel decoding has."""


class ExpertExchange:
    """Prices the exchanges of one lock-step group; a rank of `tp` dies spreads its tokens."""

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        layout: Layout,
        preferred: str = KERNELS[0][0],
        *,
        is_bulk: bool = False,
    ) -> None:
        """preferred: kernel that goes before the others of its group.

        is_bulk: reads by copy engines, after messages were cast by a kernel of its own, at the
        measured rate that `fused_push` has too (DynamicQuant, 0.08 us for 7,168 values); the
        pull's own is one of many constants that were searched on A2E and E2A of 96 tokens.
        """
        self._model, self._hardware, self._layout = model, hardware, layout
        self._preferred = preferred
        self._is_bulk = is_bulk
        self._bulk = (
            ExpertExchange(model, hardware, layout, BULK_KERNEL, is_bulk=True)
            if preferred == "fused_push" and BULK_KERNEL in hardware.kernels.exchange
            else None
        )
        self._fabric = Fabric.of(hardware)
        dtype = part_dtype(model, "experts", layout.weight_dtype)
        self._is_quantised = input_bytes(dtype) == 1.0
        self._message_bytes = {
            "dispatch": dispatch_message_bytes(model, layout),
            "combine": combine_message_bytes(model),
        }
        self._laws = {
            "dispatch": self._constants("dispatch"),
            "combine": self._constants("combine"),
        }

    def seconds(self, operation: Operation, tokens: Floats, imbalance: ArrayLike = 1.0) -> Floats:
        """Moving the tokens of one die [n]; `imbalance` [n]: of the busiest experts' die.

        With an imbalance of 1 (messages of a die over the mean) there is no waiting in it.
        """
        if not self._laws[operation]:
            size = self._message_bytes[operation]
            plain = expert_exchange(self._hardware, self._model, self._layout, size)
            return plain.fixed_s + plain.s_per_token * tokens * self._of_messages(imbalance)
        priced = self.breakdowns(operation, tokens, imbalance)
        seconds = np.asarray(np.minimum.reduce([time.total_s for time in priced]))
        if self._bulk is None:
            return seconds
        bulk_s = self._bulk.seconds(operation, tokens, imbalance)
        return np.where(np.asarray(tokens) > FUSED_TOKENS, bulk_s, seconds)

    def breakdowns(
        self, operation: Operation, tokens: Floats, imbalance: ArrayLike = 1.0
    ) -> list[ExchangeTime]:
        """The same part by part, of each kernel that competes; none without constants."""
        shape = self._shape(operation, tokens, imbalance)
        laws = self._laws[operation]
        return [self._price(kernel, operation, law, shape) for kernel, law in laws.items()]

    def moves(self, operation: Operation, tokens: Floats, plane: str) -> Floats:
        """[n, 3]: bytes of a mean die that cross `plane`, seconds of moving, seconds in all.

        Of the kernel that is chosen for `tokens` [n] of one die; a die gets as much as it sends.
        """
        if not self._laws[operation]:
            return self._plain_moves(operation, tokens, plane)
        shape = self._shape(operation, tokens, 1.0)
        names, times = list(self._laws[operation]), self.breakdowns(operation, tokens)
        crossing = [crossing_bytes(self._fabric, name, shape).get(plane, 0.0) for name in names]
        bytes_s = [time.bytes_s for time in times]
        columns = [
            np.stack([np.broadcast_to(np.asarray(each, np.float64), tokens.shape) for each in row])
            for row in (crossing, bytes_s, [time.total_s for time in times])
        ]
        chosen = columns[2].argmin(axis=0)
        found = np.stack([column[chosen, np.arange(len(tokens))] for column in columns], axis=1)
        if self._bulk is None:
            return found
        is_bulk = (tokens > FUSED_TOKENS)[:, np.newaxis]
        return np.where(is_bulk, self._bulk.moves(operation, tokens, plane), found)

    def _plain_moves(self, operation: Operation, tokens: Floats, plane: str) -> Floats:
        """The same of `collectives.expert_exchange`."""
        hardware, layout, size = self._hardware, self._layout, self._message_bytes[operation]
        plain = expert_exchange(hardware, self._model, layout, size)
        sent = np.asarray(self._shape(operation, tokens, 1.0).copies) * size / layout.dies
        beyond = layout.dies - (1 if plane == "scale_up" else hardware.dies_per_node)
        if plane == "scale_up" and group_plane(hardware, layout.dies).name != plane:
            beyond = hardware.dies_per_node - 1
        moving_s = plain.s_per_token * tokens
        return np.stack([sent * max(0, beyond), moving_s, plain.fixed_s + moving_s], axis=1)

    def _constants(self, operation: Operation) -> dict[str, Constants]:
        found: dict[str, Constants] = {}
        fits = self._hardware.kernels.exchange
        for group in KERNELS:
            for kernel in sorted(group, key=lambda name: name != self._preferred):
                names = [name for name in fits if name.startswith(kernel)]
                names = [n for n in names if n == kernel or f"/{operation}/" in n]
                if kernel in DOMAIN_KERNELS and self._layout.dies > self._fabric.up_dies:
                    continue
                if names:
                    found[kernel] = self._cast_apart(fits[names[0]].constants)
                    break
        return found

    def _cast_apart(self, constants: Constants) -> Constants:
        """In bulk: the same with the rate of a casting kernel, where the profile has one."""
        push = self._hardware.kernels.exchange.get("fused_push")
        casts = push.constants if push is not None else None
        if not self._is_bulk or not isinstance(casts, PushConstants):
            return constants
        if not isinstance(constants, PullConstants):
            return constants
        return replace(constants, quantise_bytes_per_s=casts.quantise_bytes_per_s)

    def _shape(self, operation: Operation, tokens: Floats, imbalance: ArrayLike) -> ExchangeShape:
        model, layout = self._model, self._layout
        top_k = copies_sent(model, layout)
        return ExchangeShape(
            tokens=tokens,
            num_ranks=layout.dies,
            hidden_size=model.hidden_size,
            top_k=min(top_k, layout.ep) * layout.moe_tp,
            num_experts=layout.ep * expert_slots(model, layout),
            message_bytes=self._message_bytes[operation],
            is_quantised=self._is_quantised and operation == "dispatch",
            imbalance=self._of_messages(imbalance),
        )

    def _of_messages(self, imbalance: ArrayLike) -> Floats:
        """From loads to messages: without copies that are at home, the rest is the more uneven."""
        sent = copies_sent(self._model, self._layout)
        at_home = experts_per_token(self._model, self._layout) - sent
        loads = np.asarray(imbalance, dtype=np.float64)
        return loads if not at_home else (loads * (sent + at_home) - at_home) / sent

    def _price(
        self, kernel: str, operation: Operation, law: Constants, shape: ExchangeShape
    ) -> ExchangeTime:
        asked: ExchangeShape | NormalShape = shape
        if isinstance(law, NormalConstants):
            asked = NormalShape(exchange=shape, num_sms=float(NORMAL_SMS))
        extra = ExchangeTime(start_up_s=self._hardware.calibration.exchange_extra_s)
        return price(self._fabric, f"{kernel}/{operation}", "", law, asked) + extra
