"""DeepEP on NVIDIA GPUs: low-latency and normal kernels, within a node and between nodes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from simpod.cost.exchange.breakdown import ExchangeTime, Floats
from simpod.cost.exchange.shapes import ExchangeShape, Fabric, distinct, share_beyond
from simpod.cost.kernels.collective import p_sum
from simpod.hardware.kernels.exchange import LowLatencyConstants, NormalConstants

WIDE_NODES = 4
"""Nodes up to which a normal kernel's channels keep the network adapter busy."""


def low_latency_sms(num_experts: ArrayLike, num_sms: int) -> Floats:
    """Multiprocessors that the kernel starts: one a group of ceil(experts / SMs) experts.

    With few experts it runs on few multiprocessors, and their issuing of tokens binds.
    """
    experts = np.asarray(num_experts, dtype=np.float64)
    return np.asarray(np.ceil(experts / np.ceil(experts / num_sms)))


def low_latency_s(
    fabric: Fabric, constants: LowLatencyConstants, shape: ExchangeShape
) -> ExchangeTime:
    """start-up + flags of all experts + network latency + p-sum(issuing, bytes).

    A token is sent to each of its experts, without merging those of one rank; messages within the
    node go over NVLink, the others over the network adapter, at the same time.
    """
    c = constants
    ranks = np.asarray(shape.num_ranks, dtype=np.float64)
    beyond = share_beyond(ranks, fabric.dies_per_node)
    sent = shape.busiest * np.asarray(shape.message_bytes, dtype=np.float64)
    up_s = sent * (share_beyond(ranks, 1) - beyond) / (c.up_frac * fabric.up_bytes_per_s)
    out_s = sent * beyond / (c.out_frac * fabric.out_bytes_per_s)
    moving_s = np.maximum(up_s, out_s)
    sms = low_latency_sms(shape.num_experts, fabric.num_cores)
    issue_s = np.maximum(np.asarray(shape.tokens) / sms, 1.0) * c.token_s
    return ExchangeTime(
        start_up_s=c.start_up_s + c.network_s * beyond,
        metadata_s=np.asarray(shape.num_experts) * c.flag_s,
        message_s=p_sum(issue_s, moving_s, c.overlap_exponent) - moving_s,
        bytes_s=moving_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormalShape:
    """A normal dispatch or combine on `num_sms` multiprocessors."""

    exchange: ExchangeShape
    num_sms: ArrayLike


def normal_s(fabric: Fabric, constants: NormalConstants, shape: NormalShape) -> ExchangeTime:
    """start-up + notify + p-sum(multiprocessors, links).

    A token crosses once to each rank that holds one of its experts; between nodes once to each such
    node (over the adapter), where it is passed on over NVLink. metadata_s is the notify kernel,
    the rest the transmit kernel.
    """
    c, e = constants, shape.exchange
    ranks = np.asarray(e.num_ranks, dtype=np.float64)
    nodes = np.maximum(ranks / fabric.dies_per_node, 1.0)
    to_ranks = distinct(ranks, e.num_experts, e.top_k)
    to_nodes = np.where(nodes > 1.0, distinct(nodes, e.num_experts, e.top_k), 0.0)
    per_copy = e.busiest / np.asarray(e.top_k) * np.asarray(e.message_bytes)
    up = per_copy * to_ranks * share_beyond(np.minimum(ranks, fabric.dies_per_node), 1)
    out = per_copy * to_nodes * share_beyond(nodes, 1)
    out_rate = c.out_frac * np.where(nodes > WIDE_NODES, c.wide_frac, 1.0) * fabric.out_bytes_per_s
    moving_s = np.maximum(up / (c.up_frac * fabric.up_bytes_per_s), out / out_rate)
    handled = per_copy * (to_ranks + c.network_copy_scale * to_nodes)
    sms_s = (np.asarray(e.tokens) * c.token_s + handled / c.sm_bytes_per_s) / shape.num_sms
    between = nodes > 1.0
    return ExchangeTime(
        start_up_s=c.start_up_s
        + c.hidden_s * np.asarray(e.hidden_size)
        + c.network_s * np.log2(nodes),
        metadata_s=np.where(between, c.notify_s + c.notify_node_s * nodes, 0.0),
        message_s=p_sum(sms_s, moving_s, c.overlap_exponent) - moving_s,
        bytes_s=moving_s,
    )
