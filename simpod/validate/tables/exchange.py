"""Measured expert exchange and point-to-point transfer: DeepEP, NVL72 all-to-all, CloudMatrix384.

An operator is `system/kernel/operation`, a variant a data type or a plane. Constants belong to an
operator and variant; those of Ascend kernels to the kernel, whatever the operation.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simpod.cost.exchange.deepep import NormalShape
from simpod.cost.exchange.price import BulkShape, Shape
from simpod.cost.exchange.requests import NOMINAL_EXPERTS, SPLIT_ATTENTION_DIES
from simpod.cost.exchange.shapes import (
    QUANTISED,
    ExchangeShape,
    ascend_message_bytes,
    nvidia_message_bytes,
)
from simpod.cost.exchange.trampoline import SplitShape
from simpod.units import GB, MS, US
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


def measured_s(rows: pd.DataFrame) -> Floats:
    """Seconds, from either metric of `collectives.csv`."""
    value = column(rows, "measured")
    size = column(rows, "message_bytes")
    is_latency = (rows["metric"] == "latency_us").to_numpy()
    return np.where(is_latency, value * US, size / (value * GB))


def bulk_shape(rows: pd.DataFrame) -> BulkShape:
    """Blocks of the HIXL rows."""
    return BulkShape(
        size_bytes=column(rows, "message_bytes"), is_inter_node=column(rows, "nodes") > 1
    )


def exchange_shape(rows: pd.DataFrame, dtype: str, *, is_ascend: bool) -> ExchangeShape:
    """Dispatch and combine rows, all of one hidden size (messages are padded on Ascend)."""
    hidden = column(rows, "hidden")
    sizes = nvidia_message_bytes(hidden, dtype)
    if is_ascend:
        sizes = np.array([ascend_message_bytes(int(size), dtype) for size in hidden])
    return ExchangeShape(
        tokens=column(rows, "tokens_per_rank"),
        num_ranks=column(rows, "ep"),
        hidden_size=hidden,
        top_k=column(rows, "topk"),
        num_experts=np.maximum(column(rows, "ep"), NOMINAL_EXPERTS),
        message_bytes=sizes,
        is_quantised=dtype in QUANTISED,
    )


def split_shape(rows: pd.DataFrame, dtype: str) -> SplitShape:
    """A2E and E2A rows of one deployment."""
    first = rows.iloc[0]
    return SplitShape(
        tokens=column(rows, "tokens_per_rank"),
        num_attention_dies=SPLIT_ATTENTION_DIES,
        num_expert_dies=int(first["ep"]),
        hidden_size=int(first["hidden"]),
        top_k=int(first["topk"]),
        message_bytes=ascend_message_bytes(int(first["hidden"]), dtype),
        is_quantised=dtype in QUANTISED,
    )


def read_published(frame: pd.DataFrame) -> list[ExchangeGroup]:
    """`collectives.csv`: one group a system, kernel, operation and plane."""
    groups: list[ExchangeGroup] = []
    keys = ["system", "kernel", "operation", "plane"]
    for (system, kernel, operation, plane), rows in frame.groupby(keys, sort=True):
        outbound = operation in ("dispatch", "a2e")
        dtype = str(rows["dispatch_dtype" if outbound else "combine_dtype"].iloc[0])
        shape: Shape
        if str(operation).startswith("p2p"):
            shape, variant = bulk_shape(rows), str(plane)
        elif kernel == "trampoline":
            shape, variant = split_shape(rows, dtype), dtype
        else:
            is_ascend = system == "cloudmatrix384"
            shape, variant = exchange_shape(rows, dtype, is_ascend=is_ascend), dtype
        groups.append(
            Group(
                operator=f"{system}/{kernel}/{operation}",
                variant=variant,
                shape=shape,
                measured_s=measured_s(rows),
            )
        )
    return groups
