"""Collectives: limits by hand, choices of protocol, and the reader of measured tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from simpod.cost.kernels.collective import (
    CUSTOM_LIMIT_BYTES,
    CollectiveShape,
    Operation,
    collective_s,
    crossing_bytes,
    p_sum,
)
from simpod.hardware.kernels.collective import CollectiveConstants, CustomAllReduceConstants
from simpod.validate.fit import bounds_of, errors
from simpod.validate.tables.collective import (
    fallbacks,
    fit_collective,
    price,
    read_collective,
    start_of,
    variant_of,
)
from simpod.validate.tables.group import Group
from tests.measured_tables import table

LINK = 400e9  # bytes/s

RING = CollectiveConstants(
    launch_s=5e-6,
    hop_s=1e-6,
    small_frac=0.01,
    middle_scale=1.5,
    middle_frac=0.4,
    switch_bytes=2e6,
    switch_power=1.0,
    large_hop_s=8e-6,
    large_frac=0.8,
    own_frac=0.5,
    overlap_exponent=2.0,
    nvls_frac=0.0,
)

CUSTOM = CustomAllReduceConstants(
    launch_s=5e-6,
    one_shot_frac=0.6,
    two_shot_s=4e-6,
    two_shot_frac=0.5,
    ring_hop_s=8e-6,
    ring_frac=0.8,
    own_frac=0.25,
    copy_launch_s=6e-6,
    copy_frac=4.0,
    host_s=20e-6,
    overlap_exponent=2.0,
    nvls_frac=0.0,
)

OPERATIONS: tuple[Operation, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


def shape(size_bytes: float, num_dies: float = 8.0) -> CollectiveShape:
    return CollectiveShape(size_bytes=np.array([size_bytes]), num_dies=np.array([num_dies]))


def test_p_sum_is_a_sum_or_nearly_a_maximum() -> None:
    assert p_sum(3.0, 4.0, 1.0) == pytest.approx(7.0)
    assert p_sum(3.0, 4.0, 2.0) == pytest.approx(5.0)
    assert p_sum(1.0, 4.0, 6.0) == pytest.approx(4.0, rel=1e-3)
    assert p_sum(0.0, 4.0, 2.0) == pytest.approx(4.0)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_all_reduce_crosses_twice(operation: Operation) -> None:
    passes = 2 if operation == "all_reduce" else 1
    assert crossing_bytes(operation, 800.0, 8) == pytest.approx(passes * 700.0)
    assert crossing_bytes(operation, 800.0, 8, own_frac=1.0) == pytest.approx(passes * 800.0)


def test_tiny_messages_cost_launch_and_hops() -> None:
    assert collective_s(LINK, RING, shape(1.0)) == pytest.approx(5e-6 + 7e-6, rel=1e-3)


def test_huge_messages_reach_their_share_of_the_link() -> None:
    size = 1e12
    expected = 2 * size * 7.5 / 8 / (0.8 * LINK)
    assert collective_s(LINK, RING, shape(size)) == pytest.approx(expected, rel=1e-4)


def test_the_large_protocol_starts_at_its_switch() -> None:
    switch = 2e6 * 4  # (8 / 2)^1
    below, above = (collective_s(LINK, RING, shape(size)) for size in (switch * 0.999, switch))
    middle_s = float(p_sum(18e-6, 2 * switch * 0.999 * 7 / 8 / (0.4 * LINK), 2.0))
    assert below == pytest.approx(middle_s)
    assert above == pytest.approx(5e-6 + p_sum(56e-6, 2 * switch * 7.5 / 8 / (0.8 * LINK), 2.0))


def test_one_die_has_nothing_to_do() -> None:
    for constants in (RING, CUSTOM):
        assert collective_s(LINK, constants, shape(1e6, 1.0)) == 0.0


def test_the_switch_reduces_only_on_a_full_node() -> None:
    fast = replace(RING, nvls_frac=0.9, large_frac=0.3)
    plain = replace(fast, nvls_frac=0.0)
    big8, big4 = shape(1e9), shape(1e9, 4.0)
    assert collective_s(LINK, fast, big8) == pytest.approx(5e-6 + 56e-6 + 1e9 / (0.9 * LINK))
    assert collective_s(LINK, fast, big8) < collective_s(LINK, plain, big8)
    assert collective_s(LINK, fast, big4) == collective_s(LINK, plain, big4)


def test_custom_kernel_goes_from_one_shot_to_two_shot_to_ring() -> None:
    small, middle = 100e3, 4e6
    assert collective_s(LINK, CUSTOM, shape(small)) == pytest.approx(
        5e-6 + 7 * small / (0.6 * LINK)
    )
    two = 5e-6 + p_sum(12e-6, 2 * middle * 7 / 8 / (0.5 * LINK), 2.0)
    assert collective_s(LINK, CUSTOM, shape(middle)) == pytest.approx(two)
    assert collective_s(LINK, CUSTOM, shape(middle, 2.0)) == pytest.approx(
        5e-6 + middle / (0.6 * LINK)
    )
    big = CUSTOM_LIMIT_BYTES * 2.0
    ring = 5e-6 + 56e-6 + 2 * big * 7.25 / 8 / (0.8 * LINK)
    assert collective_s(LINK, CUSTOM, shape(big)) == pytest.approx(ring)


def test_without_a_graph_the_host_and_the_copy_show() -> None:
    assert collective_s(LINK, CUSTOM, shape(1e3), graph=False) == pytest.approx(20e-6)
    big = shape(1e9)
    extra = collective_s(LINK, CUSTOM, big, graph=False) - collective_s(LINK, CUSTOM, big)
    assert extra == pytest.approx(6e-6 + 1e9 / (4.0 * LINK))


@pytest.mark.parametrize("constants", [RING, CUSTOM])
def test_time_is_finite_positive_and_grows_with_dies(
    constants: CollectiveConstants | CustomAllReduceConstants,
) -> None:
    sizes = np.logspace(0, 11, 200)
    dies = np.array([[2.0], [4.0], [8.0], [16.0], [64.0]])
    seconds = collective_s(LINK, constants, CollectiveShape(size_bytes=sizes, num_dies=dies))
    assert seconds.shape == (5, 200)
    assert np.isfinite(seconds).all()
    assert (seconds > 0).all()
    assert (np.diff(seconds[:, :40], axis=0) >= 0).all()


def test_more_bandwidth_is_never_slower() -> None:
    sizes = CollectiveShape(size_bytes=np.logspace(2, 10, 50), num_dies=np.array(8.0))
    for constants in (RING, CUSTOM):
        slow, fast = (collective_s(rate, constants, sizes) for rate in (LINK, 2 * LINK))
        assert (fast <= slow).all()


def test_starts_lie_within_bounds() -> None:
    for variant in ("nccl/all_gather", "custom_graph/all_reduce"):
        start = start_of(variant)
        for name, (low, high) in bounds_of(type(start)).items():
            assert low <= getattr(start, name) <= high, name


def test_every_variant_falls_back_to_one_that_exists() -> None:
    assert variant_of("NCCL", "reduce_scatter", "int8") == "nccl/reduce_scatter/int8"
    assert variant_of("SGLang_CustomAllReduce_eager", "all_reduce", "bf16") == (
        "custom_eager/all_reduce"
    )
    for variant in ("nccl/all_reduce/fp4", "other/all_to_all", "custom_eager/all_reduce"):
        assert fallbacks(variant)[0] == variant
        assert fallbacks(variant)[-1] == "nccl/all_gather"


def test_fit_finds_the_constants_of_made_up_rows() -> None:
    sizes = np.tile(np.logspace(3, 9, 25), 3)
    dies = np.repeat([2.0, 4.0, 8.0], 25)
    made = CollectiveShape(size_bytes=sizes, num_dies=dies)
    variant = "nccl/all_gather"
    rows = Group(
        operator="collective",
        variant=variant,
        shape=made,
        measured_s=price(LINK, variant, RING, made),
    )
    found = fit_collective(LINK, [rows], has_nvls=False)
    left = errors(price(LINK, variant, found, made), rows.measured_s)
    assert left.median_abs_error_frac < 0.02


def test_reader_keeps_every_row() -> None:
    for name in ("nccl", "allreduce"):
        frame = pd.read_parquet(table(f"kernels/h100_sxm.{name}.parquet"))
        groups = read_collective(frame)
        assert sum(len(group.measured_s) for group in groups) == len(frame)
        total_s = sum(group.measured_s.sum() for group in groups)
        assert total_s == pytest.approx(frame["latency_us"].sum() * 1e-6)
        assert all((group.shape.size_bytes >= 256).all() for group in groups)
