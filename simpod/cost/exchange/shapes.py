"""What is exchanged, and over what: counts of messages and shares of them by distance."""

from dataclasses import dataclass
from math import ceil
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simpod.hardware.spec import HardwareProfile
from simpod.units import BYTES_PER_ELEMENT

Floats = NDArray[np.float64]
Operation = Literal["dispatch", "combine"]

QUANTISED = ("int8", "fp8", "fp4")
"""Data types that activations are cast to before they are sent."""

ASCEND_ALIGN_BYTES = 512  # CloudMatrix-Infer 4.2.1: 7,168 int8 and a 4-byte scale fill 7.5 KB


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """What joins the dies of an exchange; bandwidths unidirectional, of one die.

    Beyond the dies that scale_up joins, messages of Ascend's kernels go over scale_out: at the rate
    that it achieves, and each later by the difference of the planes' latencies.
    """

    up_bytes_per_s: float
    out_bytes_per_s: float
    hbm_bytes_per_s: float
    num_cores: int
    dies_per_npu: int
    dies_per_node: int
    up_dies: int  # neighbours that scale_up joins: those of the node, or all
    beyond_bytes_per_s: float  # scale_out, as achieved
    beyond_s: float  # what a small message takes longer there

    @classmethod
    def of(cls, hardware: HardwareProfile) -> Self:
        """The planes of a profile; without scale_out all dies are taken to be on scale_up."""
        up = hardware.planes["scale_up"]
        out = hardware.planes.get("scale_out", up)
        ends_at_node = up.scope == "node" and out is not up
        return cls(
            up_bytes_per_s=up.bytes_per_s,
            out_bytes_per_s=out.bytes_per_s,
            hbm_bytes_per_s=hardware.die.hbm_bytes_per_s,
            num_cores=hardware.die.num_cores,
            dies_per_npu=hardware.dies_per_npu,
            dies_per_node=hardware.dies_per_node,
            up_dies=hardware.dies_per_node if ends_at_node else hardware.num_dies,
            beyond_bytes_per_s=out.bytes_per_s
            * hardware.calibration.network_frac.get(out.name, 1.0),
            beyond_s=max(0.0, out.inter_node_latency_s - up.intra_node_latency_s),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExchangeShape:
    """One dispatch or combine; arrays broadcast. Experts are drawn evenly but for `imbalance`."""

    tokens: ArrayLike
    """Of one rank."""
    num_ranks: ArrayLike
    """Expert-parallel degree."""
    hidden_size: ArrayLike
    top_k: ArrayLike
    num_experts: ArrayLike
    """Logical experts (with redundant copies), over all ranks."""
    message_bytes: ArrayLike
    """One token to one expert, with scales and padding."""
    is_quantised: bool = False
    """Is the message cast to 8 bits or fewer on the way out?"""
    imbalance: ArrayLike = 1.0
    """Messages of the busiest rank's experts over the mean: its link binds, in and out alike."""

    @property
    def copies(self) -> Floats:
        """Messages of one rank: a token goes to each of its experts."""
        return np.asarray(self.tokens, dtype=np.float64) * np.asarray(self.top_k, dtype=np.float64)

    @property
    def busiest(self) -> Floats:
        """Messages to (or back from) the experts of the busiest rank."""
        return self.copies * np.asarray(self.imbalance, dtype=np.float64)


def ascend_message_bytes(hidden_size: int, dtype: str) -> float:
    """One token with its fp32 scale, padded to 512 bytes when quantised; plain otherwise."""
    size = hidden_size * BYTES_PER_ELEMENT[dtype]
    if dtype not in QUANTISED:
        return size
    return float(ceil((size + 4) / ASCEND_ALIGN_BYTES) * ASCEND_ALIGN_BYTES)


def nvidia_message_bytes(hidden_size: ArrayLike, dtype: ArrayLike) -> Floats:
    """One token with its scales: fp8 a fp32 scale to 128 values, fp4 an fp8 scale to 16."""
    hidden = np.asarray(hidden_size, dtype=np.float64)
    name = np.asarray(dtype)
    element_bytes = np.where(name == "fp8", 1.0 + 4.0 / 128.0, 2.0)
    return np.asarray(hidden * np.where(name == "fp4", 0.5 + 1.0 / 16.0, element_bytes))


def share_beyond(num_ranks: ArrayLike, group: int) -> Floats:
    """Of messages to evenly drawn ranks, those that leave a group of `group` neighbouring ranks."""
    return np.asarray(1.0 - np.minimum(1.0, group / np.asarray(num_ranks, dtype=np.float64)))


def distinct(places: ArrayLike, experts: ArrayLike, top_k: ArrayLike) -> Floats:
    """Mean number of `places` that hold at least one of a token's `top_k` experts.

    places (1 - prod over i < k of (experts - experts / places - i) / (experts - i)): drawn without
    replacement; the fraction of an expert that a place may hold is kept.
    """
    count, total, k = (np.asarray(x, dtype=np.float64) for x in (places, experts, top_k))
    elsewhere = total - total / count
    draws = np.arange(int(np.max(k, initial=1)))
    shape = (..., *([None] * np.broadcast(count, total, k).ndim))
    drawn = draws[shape]
    factor = np.clip((elsewhere - drawn) / np.maximum(total - drawn, 1.0), 0.0, 1.0)
    missed = np.prod(np.where(drawn < k, factor, 1.0), axis=0)
    return np.asarray(count * (1.0 - missed))
