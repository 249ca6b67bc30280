"""Dispatch and combine by remote writes: CloudMatrix-Infer's fused operators (4.2.1).

A rank's vector cores take its messages in turn; each message waits for its write, so a core moves
one message at a time and the messages take the longer of

    messages: copies x (exposed time of one message, by distance) / cores
    bytes:    copies that leave the NPU x message / (write_frac x scale-up bandwidth)

Messages between the two dies of an NPU don't cross the scale-up plane, which is why 8 ranks (2 of 8
messages stay) are faster than 128 (2 of 128). Flags are an expert's, so their number does not grow
with the ranks. Where scale_up ends at the node, messages for other nodes cross scale_out meanwhile,
each with that plane's latency.
"""

import numpy as np

from simpod.cost.exchange.breakdown import ExchangeTime, Floats
from simpod.cost.exchange.shapes import ExchangeShape, Fabric, share_beyond
from simpod.hardware.kernels.exchange import PushConstants

IN_AND_OUT = 2.0  # a copy reads and writes


def messages_s(
    fabric: Fabric, constants: PushConstants, shape: ExchangeShape, sent: Floats
) -> Floats:
    """Time that `sent` messages take one core after another, all cores in parallel."""
    over_plane = share_beyond(shape.num_ranks, fabric.dies_per_npu)
    over_nodes = share_beyond(shape.num_ranks, fabric.dies_per_node)
    beyond = share_beyond(shape.num_ranks, fabric.up_dies)
    one_s = (
        constants.message_local_s * (1.0 - over_plane)
        + constants.message_s * over_plane
        + constants.message_inter_node_s * (over_nodes - beyond)
        + fabric.beyond_s * beyond
    )
    return np.asarray(one_s * np.maximum(sent / constants.num_cores, 1.0))


def bytes_s(fabric: Fabric, constants: PushConstants, shape: ExchangeShape) -> Floats:
    """Bytes into the busiest die (or out of it) over the slower of the planes that they cross."""
    message_bytes = np.asarray(shape.message_bytes)
    beyond = share_beyond(shape.num_ranks, fabric.up_dies)
    crossing = shape.busiest * (share_beyond(shape.num_ranks, fabric.dies_per_npu) - beyond)
    up_s = crossing * message_bytes / (constants.write_frac * fabric.up_bytes_per_s)
    out_s = shape.busiest * beyond * message_bytes / fabric.beyond_bytes_per_s
    return np.asarray(np.maximum(up_s, out_s))


def push_s(
    fabric: Fabric, constants: PushConstants, shape: ExchangeShape, *, is_dispatch: bool
) -> ExchangeTime:
    """Dispatch: quantise, write, flags of all experts, put in order. Combine: write back, sum.

    A combine's flags ride with its messages. Both end with one pass over what has arrived: the
    dispatch copies it together, the combine reads it for the weighted sum and writes the tokens.
    """
    moving_s = bytes_s(fabric, constants, shape)
    sent = shape.copies if is_dispatch else shape.busiest
    exposed_s = np.maximum(messages_s(fabric, constants, shape, sent) - moving_s, 0.0)
    arrived = (shape.busiest if is_dispatch else shape.copies) * np.asarray(shape.message_bytes)
    local = arrived * IN_AND_OUT
    if not is_dispatch:
        local = arrived + np.asarray(shape.tokens) * np.asarray(shape.message_bytes)
    flags_s = np.asarray(shape.num_experts) * constants.flag_s / constants.num_cores
    casting_s = 0.0
    if shape.is_quantised:
        raw = np.asarray(shape.tokens) * 2.0 * np.asarray(shape.hidden_size)
        casting_s = raw / constants.quantise_bytes_per_s
    return ExchangeTime(
        start_up_s=constants.start_up_s
        + fabric.beyond_s * share_beyond(shape.num_ranks, fabric.up_dies),
        quantise_s=casting_s,
        metadata_s=flags_s if is_dispatch else 0.0,
        message_s=exposed_s,
        bytes_s=moving_s,
        polling_s=flags_s if is_dispatch else 0.0,
        local_s=local / (constants.hbm_frac * fabric.hbm_bytes_per_s),
    )
