"""Element-wise passes: the longer of operations and traffic, and their launches."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import IDEAL, NPU_POD, ideal, with_calibration

from simpod.cost.passes import EXPOSED_FRAC, pass_s
from simpod.cost.work import Pass

FREE = ideal(NPU_POD)


def test_infinite_bandwidth_leaves_operations():
    work = Pass(flops=22e9, hbm_bytes=1.0)
    hardware = ideal(NPU_POD, hbm_bytes_per_s=1e30)
    assert pass_s(hardware, work) == pytest.approx(1e-3)


def test_infinite_vector_units_leave_traffic():
    work = Pass(flops=1.0, hbm_bytes=1.6e9)
    hardware = ideal(NPU_POD, vector_flops_per_s=1e30)
    assert pass_s(hardware, work) == pytest.approx(1e-3)


def test_shares_divide():
    work = Pass(flops=0.0, hbm_bytes=1.6e9)
    slow = with_calibration(FREE, hbm_frac=0.5)
    assert pass_s(slow, work) == pytest.approx(2 * pass_s(FREE, work))
    work = Pass(flops=22e9, hbm_bytes=0.0)
    slow = with_calibration(FREE, vector_frac=0.25)
    assert pass_s(slow, work) == pytest.approx(4 * pass_s(FREE, work))


def test_phases_of_equal_length_do_not_overlap_entirely():
    work = Pass(flops=22e9, hbm_bytes=1.6e9)
    assert pass_s(FREE, work) == pytest.approx(1e-3 * (1 + EXPOSED_FRAC))


def test_launches_are_added_as_far_as_a_graph_leaves_them():
    hardware = replace(FREE, calibration=replace(IDEAL, kernel_overhead_s=1e-3))
    idle = Pass(flops=0.0, hbm_bytes=0.0, kernels=3)
    assert pass_s(hardware, idle) == pytest.approx(3e-3)
    assert pass_s(hardware, idle, launch_frac=0.5) == pytest.approx(1.5e-3)


def test_arrays_have_the_same_bits_as_single_counts():
    tokens = np.arange(1.0, 100.0)
    many = pass_s(NPU_POD, Pass(flops=tokens * 3e9, hbm_bytes=tokens * 1e8))
    one = [pass_s(NPU_POD, Pass(flops=t * 3e9, hbm_bytes=t * 1e8)) for t in tokens.tolist()]
    assert np.asarray(many).tolist() == [float(x) for x in one]
