"""Fits of exchange constants: where they start, and what stands in for a missing one."""

from simpod.cost.exchange.price import Constants
from simpod.hardware.kernels.exchange import (
    DomainConstants,
    LowLatencyConstants,
    NormalConstants,
)

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


def start_of(operator: str) -> Constants:
    """Where a fit of `system/kernel/operation` starts."""
    known: dict[str, Constants] = {
        "deepep_low_latency": START_LOW_LATENCY,
        "deepep_normal": START_NORMAL,
    }
    return known.get(operator.split("/")[1], START_DOMAIN)


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
