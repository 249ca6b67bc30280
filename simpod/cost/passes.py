"""Seconds of element-wise passes: the longer of operations and memory traffic, and launches."""

from simpod.cost.kernels.gemm import overlapped_s
from simpod.cost.work import Amount, Pass
from simpod.hardware.spec import HardwareProfile

EXPOSED_FRAC = 0.17
"""As in a product of matrices on the h100 (`GemmConstants.exposed_frac`)."""


def pass_s(hardware: HardwareProfile, work: Pass, launch_frac: float = 1.0) -> Amount:
    """kernels * (overhead + gap) + overlapped(flops / vector rate, bytes / bandwidth)."""
    die, cal = hardware.die, hardware.calibration
    compute_s = work.flops / (die.vector_flops_per_s * cal.vector_frac)
    memory_s = work.hbm_bytes / (die.hbm_bytes_per_s * cal.hbm_frac)
    busy_s = overlapped_s(compute_s, memory_s + 1e-30, EXPOSED_FRAC)
    return busy_s + work.kernels * launch_frac * (cal.kernel_overhead_s + cal.kernel_gap_s)
