"""Bytes of one dispatch or combine that leave a die over each plane, as its kernel's law counts."""

import numpy as np

from simpod.cost.exchange.breakdown import Floats
from simpod.cost.exchange.shapes import ExchangeShape, Fabric, distinct, share_beyond


def crossing_bytes(fabric: Fabric, kernel: str, shape: ExchangeShape) -> dict[str, Floats]:
    """Of a mean die, by plane; what stays on the NPU, or on the die, crosses none.

    As in `push`, `pull` and `all_to_all`: all copies, over scale_up as far as it goes, beyond it
    over scale_out. DeepEP: low-latency kernels send the copies for other nodes over scale_out,
    normal ones a token once a rank and once a node.
    """
    ranks = np.asarray(shape.num_ranks, dtype=np.float64)
    sent = shape.copies * np.asarray(shape.message_bytes, dtype=np.float64)
    if kernel == "deepep_low_latency":
        out = sent * share_beyond(ranks, fabric.dies_per_node)
        return {"scale_up": sent * share_beyond(ranks, 1) - out, "scale_out": out}
    if kernel == "deepep_normal":
        nodes = np.maximum(ranks / fabric.dies_per_node, 1.0)
        one = sent / np.asarray(shape.top_k)
        to_ranks = one * distinct(ranks, shape.num_experts, shape.top_k)
        to_nodes = one * distinct(nodes, shape.num_experts, shape.top_k)
        in_node = share_beyond(np.minimum(ranks, fabric.dies_per_node), 1)
        return {"scale_up": to_ranks * in_node, "scale_out": to_nodes * share_beyond(nodes, 1)}
    beyond = share_beyond(ranks, fabric.up_dies)
    leaving = share_beyond(ranks, fabric.dies_per_npu)
    return {"scale_up": sent * (leaving - beyond), "scale_out": sent * beyond}
