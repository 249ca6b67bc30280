"""Fits of exchange constants: where they start, which are free, what stands in for a missing one.

Tables of thousands of rows determine all constants of a kernel. A handful of published points does
not: there most constants are read from elsewhere (latencies and rates of the plane, times of single
operators; tables named below are CloudMatrix-Infer's) and only the `FREE` ones are searched.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simpod.cost.exchange.price import Constants, price
from simpod.cost.exchange.shapes import Fabric
from simpod.hardware.kernels.exchange import (
    BulkConstants,
    DomainConstants,
    LowLatencyConstants,
    NormalConstants,
    PullConstants,
    PushConstants,
)
from simpod.validate.fit import fit
from simpod.validate.tables.exchange import ExchangeGroup

Floats = NDArray[np.float64]

START_LOW_LATENCY = LowLatencyConstants(
    start_up_s=10e-6,
    flag_s=1.5e-8,
    network_s=16e-6,
    token_s=2.4e-6,
    up_frac=0.6,
    out_frac=0.95,
    overlap_exponent=1.5,
)
START_NORMAL = NormalConstants(
    start_up_s=25e-6,
    hidden_s=1e-9,
    network_s=6e-6,
    notify_s=14e-6,
    notify_node_s=8e-6,
    token_s=0.4e-6,
    sm_bytes_per_s=25e9,
    network_copy_scale=2.0,
    up_frac=0.68,
    out_frac=0.93,
    wide_frac=0.5,
    overlap_exponent=3.0,
)
START_DOMAIN = DomainConstants(
    start_up_s=11e-6,
    round_s=1e-6,
    token_s=4e-8,
    up_frac=0.75,
    overlap_exponent=2.0,
    latency_exponent=1.5,
)
START_PUSH = PushConstants(
    num_cores=20,  # not printed: of 48 AIV cores so many that message_s comes to about 1.7 us
    start_up_s=5.4e-6,  # smallest collective on the same dies
    flag_s=0.125e-6,
    message_local_s=1.5e-6,
    message_s=1.7e-6,  # table 1: 512-byte write within a node, 1.3 us, and two copies of 7.5 KB
    message_inter_node_s=0.8e-6,  # table 1: 512-byte write, 2.1 us between nodes, 1.3 within
    quantise_bytes_per_s=179e9,  # DynamicQuant: 0.08 us for 7,168 values
    write_frac=0.55,
    hbm_frac=0.84,  # table 9
)
START_PULL = PullConstants(
    num_cores=48,  # AIV cores of a die
    start_up_s=5.4e-6,
    field_s=2.1e-6,  # table 1: 512-byte write between nodes
    poll_s=0.1e-6,
    message_s=1.9e-6,  # table 1: 512-byte read between nodes
    quantise_start_s=4e-6,  # smallest DynamicQuant: 3.7 us
    quantise_bytes_per_s=90e9,
    read_frac=0.774,  # HIXL, 8 MB
    hbm_frac=0.84,
    dma_start_s=12e-6,
    dma_post_s=0.7e-6,
    dma_cores=5,
)
START_BULK_UP = BulkConstants(start_up_s=1.5e-6, inter_node_s=1.5e-6, link_frac=0.7)
START_BULK_OUT = BulkConstants(start_up_s=0.5e-6, inter_node_s=10e-6, link_frac=0.92)

FREE: dict[str, tuple[str, ...]] = {
    "fused_push": ("message_s", "message_local_s", "write_frac"),
    "trampoline": ("dma_start_s",),
    "hixl": ("start_up_s", "inter_node_s", "link_frac"),
}
"""Constants that published points determine, by kernel; the others stay as they start."""


def start_of(operator: str, variant: str) -> Constants:
    """Where a fit of `system/kernel/operation` starts."""
    kernel = operator.split("/")[1]
    if kernel == "hixl":
        return START_BULK_UP if variant == "ub" else START_BULK_OUT
    known: dict[str, Constants] = {
        "deepep_low_latency": START_LOW_LATENCY,
        "deepep_normal": START_NORMAL,
        "fused_push": START_PUSH,
        "trampoline": START_PULL,
        "xccl_pull": START_PULL,
    }
    return known.get(kernel, START_DOMAIN)


def fallbacks(operator: str, variant: str) -> tuple[str, ...]:
    """Keys `kernel/operation/variant` whose constants may stand in, nearest first.

    Other data types of the same kernel's operation (link shares and latencies change little), then
    the two-sided kernel of an NVLink domain; the last one exists wherever a domain was measured.
    """
    _, kernel, operation = operator.split("/")
    dtypes = (variant, "fp8", "bf16", "fp4", "none")
    names = [f"{kernel}/{operation}/{dtype}" for dtype in dtypes]
    names += [f"NVLinkTwoSided/{operation}/{dtype}" for dtype in dtypes]
    return tuple(dict.fromkeys([*names, "NVLinkTwoSided/combine/bf16"]))


def fit_some(
    simulated_s: Callable[[Constants], Floats],
    measured_s: Floats,
    start: Constants,
    free: Sequence[str],
) -> Constants:
    """Least squares of log(simulated / measured) over the `free` constants, by factors of them."""
    from scipy.optimize import least_squares

    first = np.array([float(getattr(start, name)) for name in free])

    def constants(log_factors: Floats) -> Constants:
        values = (first * np.exp(log_factors)).tolist()
        return replace(start, **dict(zip(free, values, strict=True)))

    def residuals(log_factors: Floats) -> Floats:
        return np.asarray(np.log(simulated_s(constants(log_factors)) / measured_s))

    found = least_squares(residuals, np.zeros(len(free)), diff_step=1e-3)
    return constants(found.x)


def fit_exchange(fabric: Fabric, groups: Sequence[ExchangeGroup]) -> Constants:
    """Constants of `groups`, which share them: one operation's tables, or one kernel's points."""
    first = groups[0]
    start = start_of(first.operator, first.variant)
    measured_s = np.concatenate([group.measured_s for group in groups])

    def simulated_s(constants: Constants) -> Floats:
        return np.concatenate(
            [
                price(fabric, group.operator, group.variant, constants, group.shape).total_s
                for group in groups
            ]
        )

    free = FREE.get(first.operator.split("/")[1])
    if free is None:
        return fit(simulated_s, measured_s, start)
    return fit_some(simulated_s, measured_s, start, free)
