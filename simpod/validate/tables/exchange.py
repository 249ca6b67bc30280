"""Measured expert exchange: tables of DeepEP, and of all-to-all within an NVLink domain.

An operator is `system/kernel/operation`, a variant a data type. Constants belong to both.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simpod.cost.exchange.deepep import NormalShape
from simpod.cost.exchange.price import Shape
from simpod.cost.exchange.shapes import (
    QUANTISED,
    ExchangeShape,
    nvidia_message_bytes,
)
from simpod.units import MS, US
from simpod.validate.tables.group import Group

Floats = NDArray[np.float64]
GPUS_PER_NODE = 8

DOMAIN_DTYPES = {"bfloat16": "bf16", "fp8": "fp8", "nvfp4": "fp4"}

ExchangeGroup = Group[Shape]


def column(frame: pd.DataFrame, name: str) -> Floats:
    """A numeric column as floats [n]."""
    return frame[name].to_numpy(dtype=np.float64)


def deepep_shape(frame: pd.DataFrame, dtype: str) -> ExchangeShape:
    """Shapes of either DeepEP table: `num_token` tokens a rank, nodes of 8 GPUs."""
    return ExchangeShape(
        tokens=column(frame, "num_token"),
        num_ranks=column(frame, "node_num") * GPUS_PER_NODE,
        hidden_size=column(frame, "hidden_size"),
        top_k=column(frame, "num_topk"),
        num_experts=column(frame, "num_experts"),
        message_bytes=nvidia_message_bytes(column(frame, "hidden_size"), dtype),
        is_quantised=dtype in QUANTISED,
    )


def read_low_latency(frame: pd.DataFrame, system: str) -> list[ExchangeGroup]:
    """`deepep_low_latency` and `deepep_ll_*`: fp8 out, bf16 back."""
    return [
        Group(
            operator=f"{system}/deepep_low_latency/{operation}",
            variant=dtype,
            shape=deepep_shape(frame, dtype),
            measured_s=column(frame, f"{operation}_avg_t_us") * US,
        )
        for operation, dtype in (("dispatch", "fp8"), ("combine", "bf16"))
    ]


def read_normal(frame: pd.DataFrame, system: str) -> list[ExchangeGroup]:
    """`deepep_normal*`: notify and transmit kernels together, by multiprocessors used."""
    return [
        Group(
            operator=f"{system}/deepep_normal/{operation}",
            variant=dtype,
            shape=NormalShape(
                exchange=deepep_shape(frame, dtype), num_sms=column(frame, f"{operation}_sms")
            ),
            measured_s=US
            * (column(frame, f"{operation}_transmit_us") + column(frame, f"{operation}_notify_us")),
        )
        for operation, dtype in (("dispatch", "fp8"), ("combine", "bf16"))
    ]


def domain_dtype(operation: str, dtype: str) -> str:
    """Type of the messages: a combine returns bf16 (fp8 in low precision), whatever came in.

    `prepare` moves indices alone, so that its type is that of nothing: none.
    """
    if operation == "prepare":
        return "none"
    if operation == "combine_low_precision":
        return "fp8"
    return "bf16" if operation == "combine" else dtype


def read_domain(frame: pd.DataFrame, system: str) -> list[ExchangeGroup]:
    """`alltoall_*`: one group an operation, kernel source and message type.

    `latency` is in milliseconds; converted tables have `latency_us`.
    """
    groups: list[ExchangeGroup] = []
    named = frame.assign(
        message=[
            domain_dtype(op.removeprefix("alltoall_"), DOMAIN_DTYPES.get(dtype, dtype))
            for op, dtype in zip(frame["op_name"], frame["moe_dtype"], strict=True)
        ]
    )
    keys = ["kernel_source", "op_name", "message"]
    for (source, op, message), rows in named.groupby(keys, sort=True):
        hidden = column(rows, "hidden_size")
        size = nvidia_message_bytes(hidden, str(message)) if message != "none" else 0.0 * hidden
        shape = ExchangeShape(
            tokens=column(rows, "num_tokens"),
            num_ranks=column(rows, "moe_ep_size"),
            hidden_size=hidden,
            top_k=column(rows, "topk"),
            num_experts=column(rows, "num_experts"),
            message_bytes=size,
        )
        operation = str(op).removeprefix("alltoall_")
        groups.append(
            Group(
                operator=f"{system}/{source}/{operation}",
                variant=str(message),
                shape=shape,
                measured_s=(
                    column(rows, "latency_us") * US
                    if "latency_us" in rows
                    else column(rows, "latency") * MS
                ),
            )
        )
    return groups
