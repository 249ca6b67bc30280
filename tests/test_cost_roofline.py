"""Limits of the roofline, and its one rounding rule."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import IDEAL, NPU_POD, with_calibration, with_die
from hypothesis import given
from hypothesis import strategies as st
from simpod.cost.roofline import Roofline, smooth_max

from simpod.cost.operators import Matrix, matmul
from simpod.cost.work import Work

PRODUCT = matmul(100.0, Matrix(4096, 4096))
seconds = st.floats(1e-9, 10.0)


def ideal(**die):
    return Roofline(with_die(replace(NPU_POD, calibration=IDEAL), **die))


def test_infinite_bandwidth_leaves_compute():
    roofline = ideal(hbm_bytes_per_s=1e30)
    assert roofline.seconds(PRODUCT) == pytest.approx(2 * 100 * 4096**2 / 350e12)


def test_infinite_compute_leaves_memory():
    roofline = ideal(peak_flops_per_s={"bf16": 1e30})
    traffic = 2 * (4096**2 + 100 * 4096 * 2)
    assert roofline.seconds(PRODUCT) == pytest.approx(traffic / 1.6e12)


def test_missing_data_type_runs_in_bf16_with_its_own_traffic():
    fp8, bf16 = (matmul(100.0, Matrix(4096, 4096), dtype) for dtype in ("fp8", "bf16"))
    roofline = ideal()
    assert roofline.compute_s(fp8) == roofline.compute_s(bf16)
    assert roofline.memory_s(fp8) < roofline.memory_s(bf16)
    int8 = matmul(100.0, Matrix(4096, 4096), "int8")
    assert roofline.compute_s(int8) == pytest.approx(roofline.compute_s(bf16) * 350 / 750)


def test_half_of_the_efficiency_at_half_tokens():
    slow = Roofline(with_calibration(NPU_POD, matmul_half_tokens=64.0))
    fast = Roofline(with_calibration(NPU_POD, matmul_half_tokens=0.0))
    work = matmul(64.0, Matrix(4096, 4096))
    assert slow.compute_s(work) == pytest.approx(2 * fast.compute_s(work))


def test_launches_are_added():
    roofline = Roofline(with_calibration(NPU_POD, kernel_overhead_s=1e-3))
    idle = Work(unit="vector", flops=0.0, hbm_bytes=0.0, kernels=3)
    assert roofline.seconds(idle, idle) == pytest.approx(6e-3)


@given(seconds, seconds)
def test_smooth_max_lies_between_maximum_and_fourth_root_of_two_times_it(a, b):
    smooth = smooth_max(a, b)
    assert max(a, b) * (1 - 1e-12) <= smooth <= max(a, b) * 2**0.25 * (1 + 1e-12)


@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=40))
def test_smooth_max_has_the_same_bits_in_an_array(pairs):
    a, b = (np.array(column) for column in zip(*pairs, strict=True))
    assert smooth_max(a, b).tolist() == [float(smooth_max(x, y)) for x, y in pairs]
