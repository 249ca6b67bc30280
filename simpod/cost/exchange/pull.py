"""Dispatch and combine by remote reads: XCCL (xDeepServe 3.2).

Phase 1: quantise, lay the messages out in the rank's own managed area by destination, write one
metadata field into every rank, poll until every rank's field has arrived. Phase 2: read from peers,
store in the application area. Phase 1 costs cores x ranks and no bytes on the links; small batches
see little else.
"""

import numpy as np

from simpod.cost.exchange.breakdown import ExchangeTime, Floats
from simpod.cost.exchange.shapes import ExchangeShape, Fabric, share_beyond
from simpod.hardware.kernels.exchange import PullConstants


def quantise_s(constants: PullConstants, shape: ExchangeShape) -> Floats:
    """Fill of the pipeline, then 16-bit activations at the cores' rate; 0 if not quantised."""
    raw = np.asarray(shape.tokens) * 2.0 * np.asarray(shape.hidden_size, dtype=np.float64)
    casting_s = constants.quantise_start_s + raw / constants.quantise_bytes_per_s
    return np.asarray(casting_s if shape.is_quantised else 0.0 * casting_s)


def pull_s(fabric: Fabric, constants: PullConstants, shape: ExchangeShape) -> ExchangeTime:
    """One dispatch (quantised) or combine (not), the same steps.

    metadata = ranks x field / cores, polling = latency of the last field + ranks x poll / cores;
    bytes = copies that leave the NPU x message / (read_frac x scale-up bandwidth), or the latency
    of the reads if that is longer; local = one pass over the messages in phase 1 (they are written
    to where the last level cache still holds them; the stores of phase 2 overlap with the reads).
    Where scale_up ends at the node, the copies for other nodes cross scale_out meanwhile, and their
    fields and reads take its latency.
    """
    c = constants
    ranks = np.asarray(shape.num_ranks, dtype=np.float64)
    size_bytes = shape.busiest * np.asarray(shape.message_bytes, dtype=np.float64)
    beyond = share_beyond(ranks, fabric.up_dies)
    crossing = size_bytes * (share_beyond(ranks, fabric.dies_per_npu) - beyond)
    up_s = crossing / (c.read_frac * fabric.up_bytes_per_s)
    moving_s = np.maximum(up_s, size_bytes * beyond / fabric.beyond_bytes_per_s)
    later_s = fabric.beyond_s * beyond
    reads_s = np.maximum(shape.busiest / c.num_cores, 1.0) * (c.message_s + later_s)
    return ExchangeTime(
        start_up_s=c.start_up_s,
        quantise_s=quantise_s(c, shape),
        metadata_s=np.maximum(ranks / c.num_cores, 1.0) * (c.field_s + later_s),
        message_s=np.maximum(reads_s - moving_s, 0.0),
        bytes_s=moving_s,
        polling_s=c.field_s + later_s + ranks * c.poll_s / c.num_cores,
        local_s=size_bytes / (c.hbm_frac * fabric.hbm_bytes_per_s),
    )
