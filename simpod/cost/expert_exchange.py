"""Dispatch and combine of a layer, as a function of the tokens of one die.

Where the profile has constants of exchange kernels, they price it: on Ascend XCCL's pull, else the
fused push; on NVIDIA the faster of DeepEP's low-latency and normal kernels, or the kernels of an
NVLink domain. Elsewhere a latency and the bytes over the slowest link (`collectives`).
"""

import numpy as np

from simpod.cost.collectives import (
    combine_message_bytes,
    dispatch_message_bytes,
    expert_exchange,
)
from simpod.cost.exchange.breakdown import ExchangeTime
from simpod.cost.exchange.deepep import NormalShape
from simpod.cost.exchange.price import Constants, price
from simpod.cost.exchange.requests import NORMAL_SMS
from simpod.cost.exchange.shapes import ExchangeShape, Fabric, Operation
from simpod.cost.layout import Layout
from simpod.cost.operators import expert_slots, input_bytes, part_dtype
from simpod.cost.work import Floats
from simpod.hardware.kernels.exchange import NormalConstants
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

KERNELS = (
    ("xccl_pull", "fused_push"),
    ("NVLinkTwoSided",),
    ("deepep_low_latency",),
    ("deepep_normal",),
)
"""Kernels by preference within a group; groups compete by price."""


class ExpertExchange:
    """Prices the exchanges of one lock-step group; a rank of `tp` dies spreads its tokens."""

    def __init__(self, model: ModelSpec, hardware: HardwareProfile, layout: Layout) -> None:
        self._model, self._hardware, self._layout = model, hardware, layout
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

    def seconds(self, operation: Operation, tokens: Floats) -> Floats:
        """Moving the tokens of one die [n], routing even; no waiting."""
        laws = self._laws[operation]
        if not laws:
            size = self._message_bytes[operation]
            plain = expert_exchange(self._hardware, self._model, self._layout, size)
            return plain.fixed_s + plain.s_per_token * tokens
        priced = [self._price(kernel, operation, law, tokens) for kernel, law in laws.items()]
        return np.asarray(np.minimum.reduce([time.total_s for time in priced]))

    def _constants(self, operation: Operation) -> dict[str, Constants]:
        found: dict[str, Constants] = {}
        fits = self._hardware.kernels.exchange
        for group in KERNELS:
            for kernel in group:
                names = [name for name in fits if name.startswith(kernel)]
                names = [n for n in names if n == kernel or f"/{operation}/" in n]
                if names:
                    found[kernel] = fits[names[0]].constants
                    break
        return found

    def _price(
        self, kernel: str, operation: Operation, law: Constants, tokens: Floats
    ) -> ExchangeTime:
        model, layout = self._model, self._layout
        top_k = model.moe.experts_per_token if model.moe else 1
        shape = ExchangeShape(
            tokens=tokens,
            num_ranks=layout.dies,
            hidden_size=model.hidden_size,
            top_k=min(top_k, layout.ep) * layout.moe_tp,
            num_experts=layout.ep * expert_slots(model, layout),
            message_bytes=self._message_bytes[operation],
            is_quantised=self._is_quantised and operation == "dispatch",
        )
        if isinstance(law, NormalConstants):
            normal = NormalShape(exchange=shape, num_sms=float(NORMAL_SMS))
            return price(self._fabric, f"{kernel}/{operation}", "", law, normal)
        return price(self._fabric, f"{kernel}/{operation}", "", law, shape)
