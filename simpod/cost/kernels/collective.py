"""Collectives among the dies of one node or one scale-up domain, by library and protocol.

Sizes are those of nccl-tests: the whole message, of which each die owns 1 / num_dies (the output
of an all-gather, the input of a reduce-scatter, what a die sends to all in an all-to-all).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simpod.hardware.kernels.collective import CollectiveConstants, CustomAllReduceConstants

Floats = NDArray[np.float64]
Operation = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]

PASSES = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0}
"""How often (n - 1) / n of the message cross each link: an all-reduce scatters and gathers."""

CUSTOM_LIMIT_BYTES = 8 * 2**20
"""Largest message of the direct-load all-reduce: its shared buffer (vLLM and SGLang default)."""

ONE_SHOT_LIMIT_BYTES = 2 * 2**20
"""One-shot below this over num_dies (512 KiB on 4, 256 KiB on 8, as the kernel chooses)."""

NVLS_MIN_DIES = 8
"""NCCL lets the switch reduce (NVLS) on a full node of 8; on 4 it was measured to use rings."""

FLOOR_S = 1e-12
"""Keeps powers of durations finite when nothing is to be moved."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CollectiveShape:
    """Collectives of one operation: bytes of the whole message and dies that take part."""

    size_bytes: Floats
    num_dies: Floats


def p_sum(first: ArrayLike, second: ArrayLike, exponent: float) -> Floats:
    """(a^p + b^p)^(1/p): the sum for p = 1, towards the maximum for larger p."""
    a = np.maximum(np.asarray(first, dtype=np.float64), FLOOR_S)
    b = np.maximum(np.asarray(second, dtype=np.float64), FLOOR_S)
    high, low = np.maximum(a, b), np.minimum(a, b)
    return np.asarray(high * (1.0 + (low / high) ** exponent) ** (1.0 / exponent))


def crossing_bytes(
    operation: Operation, size_bytes: ArrayLike, num_dies: ArrayLike, own_frac: float = 0.0
) -> Floats:
    """What crosses a die's link, [(n - 1) + own] / n of each pass; own: the local copy's cost."""
    n = np.asarray(num_dies, dtype=np.float64)
    size = np.asarray(size_bytes, dtype=np.float64)
    return np.asarray(PASSES[operation] * size * (n - 1.0 + own_frac) / n)


def nvls_s(
    bytes_per_s: float, nvls_frac: float, ring_s: Floats, fixed_s: Floats, size: CollectiveShape
) -> Floats:
    """The ring's time, or that of reduction in the switch if it is shorter and available.

    Each die sends its message once and receives the sum once, in both directions at a time.
    """
    if nvls_frac == 0.0:
        return ring_s
    switched_s = fixed_s + size.size_bytes / (nvls_frac * bytes_per_s)
    able = np.asarray(size.num_dies) >= NVLS_MIN_DIES
    return np.where(able, np.minimum(ring_s, switched_s), ring_s)


def ring_s(
    bytes_per_s: float,
    constants: CollectiveConstants,
    operation: Operation,
    shape: CollectiveShape,
) -> Floats:
    """Ring or all-pairs collective: the best protocol below the switch, the large one above.

    small  = (launch + hop (n - 1)) + crossing / (small_frac B)
    middle = p-sum(scale (launch + hop (n - 1)), crossing / (middle_frac B))
    large  = launch + p-sum(large_hop (n - 1), crossing with own part / (large_frac B))

    NCCL chooses by its own estimates, which set in for large messages earlier than is best: hence
    a switch by size, (n / 2)^power switch_bytes, and steps in the measured times.
    """
    c, n = constants, np.asarray(shape.num_dies, dtype=np.float64)
    latency_s = c.launch_s + c.hop_s * (n - 1.0)
    bare = crossing_bytes(operation, shape.size_bytes, n)
    small_s = latency_s + bare / (c.small_frac * bytes_per_s)
    middle_s = p_sum(
        c.middle_scale * latency_s, bare / (c.middle_frac * bytes_per_s), c.overlap_exponent
    )
    whole = crossing_bytes(operation, shape.size_bytes, n, c.own_frac)
    hops_s = c.large_hop_s * (n - 1.0)
    large_s = c.launch_s + p_sum(hops_s, whole / (c.large_frac * bytes_per_s), c.overlap_exponent)
    large_s = nvls_s(bytes_per_s, c.nvls_frac, large_s, c.launch_s + hops_s, shape)
    is_large = shape.size_bytes >= c.switch_bytes * (n / 2.0) ** c.switch_power
    return np.where(is_large, large_s, np.minimum(small_s, middle_s))


def custom_all_reduce_s(
    bytes_per_s: float, constants: CustomAllReduceConstants, shape: CollectiveShape, *, graph: bool
) -> Floats:
    """All-reduce by loads from peers: one-shot, two-shot, and a ring above the buffer's size.

    one-shot = launch + (n - 1) size / (one_shot_frac B), small sizes, always on 2
    two-shot = launch + p-sum(two_shot log2(n), 2 (n - 1) / n size / (two_shot_frac B))
    ring     = launch + ring_hop (n - 1) + crossing with own part / (ring_frac B)

    Outside a graph the message is first copied to the shared buffer, by a launch of its own, and a
    call takes no less than the host needs for both.
    """
    c, n = constants, np.asarray(shape.num_dies, dtype=np.float64)
    size = np.asarray(shape.size_bytes, dtype=np.float64)
    one_s = c.launch_s + (n - 1.0) * size / (c.one_shot_frac * bytes_per_s)
    bare = crossing_bytes("all_reduce", size, n)
    two_s = c.launch_s + p_sum(
        c.two_shot_s * np.log2(n), bare / (c.two_shot_frac * bytes_per_s), c.overlap_exponent
    )
    hops_s = c.ring_hop_s * (n - 1.0)
    whole = crossing_bytes("all_reduce", size, n, c.own_frac)
    ring = c.launch_s + hops_s + whole / (c.ring_frac * bytes_per_s)
    ring = nvls_s(bytes_per_s, c.nvls_frac, ring, c.launch_s + hops_s, shape)
    one_shot = (n <= 2.0) | (size < ONE_SHOT_LIMIT_BYTES / n)
    direct_s = np.where(one_shot, one_s, two_s)
    device_s = np.where(size > CUSTOM_LIMIT_BYTES, ring, direct_s)
    if graph:
        return device_s
    copy_s = c.copy_launch_s + size / (c.copy_frac * bytes_per_s)
    return np.maximum(device_s + copy_s, c.host_s)


def collective_s(
    bytes_per_s: float,
    constants: CollectiveConstants | CustomAllReduceConstants,
    shape: CollectiveShape,
    operation: Operation = "all_reduce",
    *,
    graph: bool = True,
) -> Floats:
    """Seconds of collectives over links of `bytes_per_s` (unidirectional, a die); 0 for one die."""
    if isinstance(constants, CustomAllReduceConstants):
        priced = custom_all_reduce_s(bytes_per_s, constants, shape, graph=graph)
    else:
        priced = ring_s(bytes_per_s, constants, operation, shape)
    return np.where(np.asarray(shape.num_dies) > 1, priced, 0.0)
