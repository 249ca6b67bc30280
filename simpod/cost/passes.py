"""Seconds of element-wise passes: the longer of operations and memory traffic, and launches."""

from collections.abc import Iterable

import numpy as np

from simpod.cost.kernels.gemm import overlapped_s
from simpod.cost.work import Amount, Pass
from simpod.hardware.spec import HardwareProfile

EXPOSED_FRAC = 0.17
"""As in a product of matrices on the h100 (`GemmConstants.exposed_frac`)."""


def pass_s(hardware: HardwareProfile, work: Pass, launch_frac: float = 1.0) -> Amount:
    """kernels * (overhead + gap) + overlapped(flops / vector rate, memory)."""
    return passes_s(hardware, (work,), launch_frac)


def passes_s(hardware: HardwareProfile, works: Iterable[Pass], launch_frac: float = 1.0) -> Amount:
    """Of kernels one after another, of which operations and traffic overlap as a whole."""
    die, cal = hardware.die, hardware.calibration
    compute_s: Amount = 0.0
    memory_s: Amount = 1e-30
    launches_s = 0.0
    for work in works:
        compute_s = compute_s + work.flops / (die.vector_flops_per_s * cal.vector_frac)
        memory_s = memory_s + _memory_s(hardware, work)
        launches_s += work.kernels * launch_frac * _launch_s(hardware, work)
    return overlapped_s(compute_s, memory_s, EXPOSED_FRAC) + launches_s


def _launch_s(hardware: HardwareProfile, work: Pass) -> float:
    cal = hardware.calibration
    if work.is_copy and cal.passes is not None:
        return cal.passes.copy_overhead_s + cal.kernel_gap_s
    return cal.kernel_overhead_s + cal.kernel_gap_s


def _memory_s(hardware: HardwareProfile, work: Pass) -> Amount:
    """bytes / bandwidth; with `PassRates`: first bytes / hbm_frac + others / passes.hbm_frac, where
    the first are `fill_bytes` of each kernel; rotations have a rate of their own.
    """
    peak, cal = hardware.die.hbm_bytes_per_s, hardware.calibration
    if cal.passes is None:
        return work.hbm_bytes / (peak * cal.hbm_frac)
    if work.is_rotation:
        return work.hbm_bytes / (peak * cal.passes.rotation_frac)
    first = np.minimum(work.hbm_bytes, max(work.kernels, 1) * cal.passes.fill_bytes)
    rest = work.hbm_bytes - first
    return first / (peak * cal.hbm_frac) + rest / (peak * cal.passes.hbm_frac)
