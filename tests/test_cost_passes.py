"""Element-wise passes: the longer of operations and traffic, and their launches."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import IDEAL, NPU_POD, ideal, with_calibration

from simpod.cost.passes import EXPOSED_FRAC, pass_s
from simpod.cost.work import Pass
from simpod.hardware.spec import PassRates

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


# --- more than one rate ---------------------------------------------------------------------------

RATES = PassRates(fill_bytes=1e6, hbm_frac=0.5, rotation_frac=0.1, copy_overhead_s=1e-6)
TWO_RATES = with_calibration(FREE, hbm_frac=0.25, kernel_overhead_s=8e-6, passes=RATES)


def test_bytes_beyond_what_fills_the_buffers_of_each_kernel_go_faster():
    work = Pass(flops=0.0, hbm_bytes=np.array([1e6, 2e6, 6e6]), kernels=2)
    slow_s, fast_s = 1e6 / 0.4e12, 1e6 / 0.8e12
    by_hand = [slow_s, 2 * slow_s, 2 * slow_s + 4 * fast_s]
    assert pass_s(TWO_RATES, work) - 2 * 8e-6 == pytest.approx(by_hand)
    joined = replace(work, kernels=0)  # in another's launch: one filling
    assert pass_s(TWO_RATES, joined)[2] == pytest.approx(slow_s + 5 * fast_s)


def test_rotations_have_one_rate_and_copies_a_launch_of_their_own():
    rotation = Pass(flops=0.0, hbm_bytes=6e6, is_rotation=True)
    assert pass_s(TWO_RATES, rotation) == pytest.approx(6e6 / 0.16e12 + 8e-6)
    copy = Pass(flops=0.0, hbm_bytes=1e6, is_copy=True)
    assert pass_s(TWO_RATES, copy) == pytest.approx(1e6 / 0.4e12 + 1e-6)


def test_a_die_without_such_rates_has_one_for_all():
    one_rate = with_calibration(TWO_RATES, passes=None)
    kinds = [{}, {"is_rotation": True}, {"is_copy": True}]
    found = [pass_s(one_rate, Pass(flops=0.0, hbm_bytes=6e6, **kind)) for kind in kinds]
    assert found == pytest.approx([6e6 / 0.4e12 + 8e-6] * 3)
