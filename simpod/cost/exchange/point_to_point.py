"""One die to another: XCCL send and receive (xDeepServe 3.1), and bulk copies (HIXL)."""

import numpy as np
from numpy.typing import ArrayLike

from simpod.cost.exchange.breakdown import ExchangeTime, Floats
from simpod.hardware.kernels.exchange import BulkConstants, PointToPointConstants


def point_to_point_s(
    up_bytes_per_s: float,
    constants: PointToPointConstants,
    size_bytes: ArrayLike,
    num_cores: ArrayLike,
    *,
    ping_pong: bool = True,
    busy_poll: bool = True,
) -> ExchangeTime:
    """Send and receive by `num_cores` vector cores on either side, in eight steps.

    (1) application area -> unified buffer and (2) unified buffer -> remote managed area overlap
    (ping_pong), else a core's rate is halved; (3) tail pointer and (5) the receiver's poll cost one
    field; (6) the receiver's copy keeps up with the sender; (7) acknowledgement and (4) the
    sender's poll cost another, once at the end and once for each further ring buffer that the
    message fills; (8) launch and return are the start-up.
    """
    c = constants
    size = np.asarray(size_bytes, dtype=np.float64)
    cores = np.asarray(num_cores, dtype=np.float64)
    core_rate = c.core_bytes_per_s * (1.0 if ping_pong else 0.5)
    rate = np.minimum(cores * core_rate, c.link_frac * up_bytes_per_s)
    stalls = np.maximum(np.ceil(size / (cores * c.slot_bytes)) - 1.0, 0.0)
    noticed_s = 0.0 if busy_poll else c.check_interval_s / 2.0
    return ExchangeTime(
        start_up_s=c.start_up_s,
        metadata_s=c.field_s,
        bytes_s=size / rate,
        polling_s=c.field_s + noticed_s + stalls * 2.0 * c.field_s,
    )


def bulk_s(
    plane_bytes_per_s: float,
    constants: BulkConstants,
    size_bytes: ArrayLike,
    is_inter_node: ArrayLike,
) -> ExchangeTime:
    """start-up + bytes / (link_frac x plane): only the start-up differs between nodes."""
    start_s: Floats = np.asarray(
        constants.start_up_s + np.asarray(is_inter_node) * constants.inter_node_s
    )
    moving_s = np.asarray(size_bytes, dtype=np.float64) / (constants.link_frac * plane_bytes_per_s)
    return ExchangeTime(start_up_s=start_s, bytes_s=moving_s)
