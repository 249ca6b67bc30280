"""Expert all-to-all over one NVLink domain (GB200 NVL72), TensorRT-LLM's kernels."""

import numpy as np

from simpod.cost.exchange.breakdown import ExchangeTime
from simpod.cost.exchange.shapes import ExchangeShape, Fabric
from simpod.cost.kernels.collective import p_sum
from simpod.hardware.kernels.exchange import DomainConstants


def domain_s(fabric: Fabric, constants: DomainConstants, shape: ExchangeShape) -> ExchangeTime:
    """p-sum(start-up, p-sum(local work, bytes)), start-up growing by doublings of the ranks.

    Balanced routing gives a token's experts to min(k, EP) different ranks, 1 / EP of which are its
    own. A kernel that moves no activations (prepare) has messages of 0 bytes. The breakdown counts
    bytes first, then local work beyond them, then start-up beyond both.
    """
    c = constants
    ranks = np.asarray(shape.num_ranks, dtype=np.float64)
    tokens = np.asarray(shape.tokens, dtype=np.float64)
    places = np.minimum(np.asarray(shape.top_k, dtype=np.float64), ranks)
    remote = tokens * np.asarray(shape.imbalance) * places * (ranks - 1.0) / ranks
    moving_s = remote * np.asarray(shape.message_bytes) / (c.up_frac * fabric.up_bytes_per_s)
    local_s = tokens * c.token_s
    work_s = p_sum(local_s, moving_s, c.overlap_exponent)
    latency_s = c.start_up_s + c.round_s * np.log2(ranks)
    return ExchangeTime(
        start_up_s=p_sum(latency_s, work_s, c.latency_exponent) - work_s,
        local_s=work_s - moving_s,
        bytes_s=moving_s,
    )
