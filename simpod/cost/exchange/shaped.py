"""Shapes, bytes and pinned memory of an exchange in scalars."""

import numpy as np

from simpod.cost.exchange.buffers import (
    PinnedBuffers,
    low_latency_buffers,
    pull_buffers,
    push_buffers,
    ring_buffers,
    split_buffers,
)
from simpod.cost.exchange.deepep import NormalShape
from simpod.cost.exchange.price import BulkShape, Constants, SendShape, Shape
from simpod.cost.exchange.requests import (
    ASCEND_KERNELS,
    DTYPES,
    NORMAL_SMS,
    SPLIT_KERNELS,
    TRANSFERS,
    Request,
)
from simpod.cost.exchange.shapes import (
    QUANTISED,
    ExchangeShape,
    ascend_message_bytes,
    distinct,
    nvidia_message_bytes,
)
from simpod.cost.exchange.trampoline import SplitShape
from simpod.hardware.kernels.exchange import PointToPointConstants


def message_bytes(request: Request, dtype: str) -> float:
    """One token to one expert in `dtype`, with scales and padding; 0 for a transfer."""
    if request.operation in TRANSFERS or dtype == "none":
        return 0.0
    if request.kernel in (*ASCEND_KERNELS, *SPLIT_KERNELS):
        return ascend_message_bytes(request.hidden_size, dtype)
    return float(nvidia_message_bytes(request.hidden_size, dtype))


def shape_of(request: Request) -> Shape:
    """What the kernel's law takes."""
    r = request
    if r.operation == "p2p_send":
        return SendShape(size_bytes=r.size_bytes, num_cores=r.num_cores)
    if r.operation in TRANSFERS:
        return BulkShape(size_bytes=r.size_bytes, is_inter_node=r.is_inter_node)
    if r.kernel in SPLIT_KERNELS:
        return split_shape(r)
    exchange = ExchangeShape(
        tokens=float(r.tokens),
        num_ranks=float(r.num_ranks),
        hidden_size=float(r.hidden_size),
        top_k=float(r.top_k),
        num_experts=float(r.experts),
        message_bytes=message_bytes(r, r.sent_as),
        is_quantised=r.sent_as in QUANTISED,
    )
    if r.kernel == "deepep_normal":
        return NormalShape(exchange=exchange, num_sms=float(r.num_cores or NORMAL_SMS))
    return exchange


def split_shape(request: Request) -> SplitShape:
    """One micro-batch of an A2E or E2A."""
    return SplitShape(
        tokens=float(request.tokens),
        num_attention_dies=request.num_attention_dies,
        num_expert_dies=request.num_ranks,
        hidden_size=request.hidden_size,
        top_k=request.top_k,
        message_bytes=message_bytes(request, request.sent_as),
        is_quantised=request.sent_as in QUANTISED,
    )


def payload_bytes(request: Request, dies_per_node: int) -> float:
    """What bandwidths are published over: all messages of a rank, those to itself included.

    DeepEP's normal kernels count a token once a rank inside a node, once a node between nodes.
    """
    r = request
    if r.operation in TRANSFERS:
        return r.size_bytes
    copies = float(r.top_k)
    if r.kernel == "deepep_normal":
        places = max(1.0, r.num_ranks / dies_per_node)
        places = places if places > 1.0 else float(r.num_ranks)
        copies = float(distinct(places, r.experts, r.top_k))
    return r.tokens * copies * message_bytes(r, r.sent_as)


def buffers_of(request: Request, constants: Constants) -> PinnedBuffers | None:
    """What the kernel pins on one die for batches of this size; None if its source doesn't say."""
    r = request
    if isinstance(constants, PointToPointConstants):
        return ring_buffers(r.num_cores, constants.slot_bytes)
    out, back = (message_bytes(r, dtype) for dtype in DTYPES.get(r.kernel, ("bf16", "bf16")))
    if r.kernel == "fused_push":
        on_one_die = min(r.top_k, max(1, -(-r.experts // r.num_ranks)))
        return push_buffers(r.num_ranks, r.tokens, on_one_die, out, back)
    if r.kernel == "xccl_pull":
        return pull_buffers(r.num_ranks, r.tokens, r.top_k, out, back)
    if r.kernel == "deepep_low_latency":
        return low_latency_buffers(r.experts, r.tokens, out, back)
    if r.kernel in SPLIT_KERNELS:
        shape = split_shape(r)
        behind = -(-r.num_ranks // r.num_attention_dies)
        carried = behind if r.kernel == "trampoline" else 1
        attention, expert = (
            float(np.max(copies))
            for copies in (shape.copies_per_attention_die, shape.copies_per_expert_dies(carried))
        )
        dies = r.num_ranks + r.num_attention_dies * r.num_domains
        return split_buffers(dies, attention, expert * r.num_domains, out, back)
    return None
