"""Seconds from work: an extended roofline of one die."""

from math import sqrt
from typing import cast

import numpy as np

from simpod.cost.work import Amount, Work
from simpod.hardware.spec import HardwareProfile
from simpod.units import PRODUCT_DTYPE


def smooth_max(first: Amount, second: Amount) -> Amount:
    """(a^4 + b^4)^(1/4): near the knee compute and memory traffic overlap only in part.

    Multiplications and square roots only: correctly rounded, so the same bits alone or in arrays.
    """
    a = first * first
    b = second * second
    total = a * a + b * b
    return sqrt(sqrt(total)) if isinstance(total, float) else cast(Amount, np.sqrt(np.sqrt(total)))


class Roofline:
    """Prices `Work` with a die's peaks and calibration.

    compute_s = flops / (peak * frac) with the efficiency of small batches, rows / (rows + half);
    memory_s = hbm_bytes / (bandwidth * frac); seconds = smooth maximum + kernels * overhead.
    """

    def __init__(self, hardware: HardwareProfile) -> None:
        die, cal = hardware.die, hardware.calibration
        self._peaks = dict(die.peak_flops_per_s)
        self._compute_frac = {
            "matmul": cal.matmul_compute_frac,
            "grouped_matmul": cal.grouped_matmul_compute_frac,
            "prefill_attention": cal.prefill_attention_compute_frac,
            "decode_attention": cal.decode_attention_compute_frac,
        }
        self._vector_flops_per_s = die.vector_flops_per_s * cal.vector_frac
        self._weight_bytes_per_s = die.hbm_bytes_per_s * cal.hbm_frac
        self._kv_bytes_per_s = die.hbm_bytes_per_s * cal.attention_hbm_frac
        self._half_tokens = cal.matmul_half_tokens
        self._kernel_overhead_s = cal.kernel_overhead_s

    def flops_per_s(self, work: Work) -> float:
        """Rate for large shapes; a data type that the die lacks runs in bf16."""
        if work.unit == "vector":
            return self._vector_flops_per_s
        peak = self._peaks.get(PRODUCT_DTYPE.get(work.dtype, work.dtype), self._peaks["bf16"])
        return peak * self._compute_frac[work.unit]

    def compute_s(self, work: Work) -> Amount:
        """Time of the operations alone."""
        return (work.flops + work.row_flops * self._half_tokens) / self.flops_per_s(work)

    def memory_s(self, work: Work) -> Amount:
        """Time of the HBM traffic alone."""
        is_attention = work.unit in ("prefill_attention", "decode_attention")
        return work.hbm_bytes / (self._kv_bytes_per_s if is_attention else self._weight_bytes_per_s)

    def overhead_s(self, work: Work) -> float:
        """Launches, which overlap with nothing."""
        return work.kernels * self._kernel_overhead_s

    def busy_s(self, work: Work) -> Amount:
        """Smooth maximum of compute and memory time, without launches."""
        return smooth_max(self.compute_s(work), self.memory_s(work))

    def seconds(self, *works: Work) -> Amount:
        """Time of operators that run one after another."""
        total: Amount = 0.0
        for work in works:
            total = total + self.busy_s(work) + self.overhead_s(work)
        return total
