"""A collective's time in the parts of an exchange."""

import numpy as np

from simpod.cost.exchange.breakdown import ExchangeTime
from simpod.cost.kernels.collective import (
    CollectiveShape,
    Operation,
    collective_s,
    crossing_bytes,
)
from simpod.hardware.kernels.collective import CollectiveConstants, CustomAllReduceConstants


def collective_time(
    bytes_per_s: float,
    constants: CollectiveConstants | CustomAllReduceConstants,
    operation: Operation,
    shape: CollectiveShape,
    *,
    graph: bool = True,
) -> ExchangeTime:
    """start_up: what an empty message takes; bytes: those that cross a link, at its full rate.

    message: what the protocol takes beyond both (flags beside data, hops, a share of the link). If
    the switch reduces, fewer bytes cross than are counted here: then bytes is all of the rest.
    """

    def seconds(of: CollectiveShape) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return collective_s(bytes_per_s, constants, of, operation, graph=graph)

    total_s = seconds(shape)
    empty = CollectiveShape(size_bytes=0.0 * shape.size_bytes, num_dies=shape.num_dies)
    start_s = np.minimum(seconds(empty), total_s)
    crossing_s = crossing_bytes(operation, shape.size_bytes, shape.num_dies) / bytes_per_s
    moving_s = np.minimum(crossing_s, total_s - start_s)
    return ExchangeTime(
        start_up_s=start_s, message_s=total_s - start_s - moving_s, bytes_s=moving_s
    )
