"""DeepGEMM's grouped products: InferSim's benchmark, and constants from its dense products."""

from dataclasses import replace
from math import log2
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kernel_examples import REAL_GEMM, fit_of
from measured_tables import SHARED, table

from simpod.config import load_hardware
from simpod.cost.kernels.gemm import overlapped_s
from simpod.cost.kernels.grouped_of_dense import grouped_of_dense
from simpod.hardware.kernels.fits import KernelFits
from simpod.hardware.kernels.gemm import GemmConstants
from simpod.hardware.spec import DieSpec
from simpod.validate.calibrate import rows as rows_of_group
from simpod.validate.kernels import find_tables, transferred
from simpod.validate.tables.grouped_gemm import START, from_dense, read_grouped_gemm
from simpod.validate.tables.grouped_products import (
    LEVELS,
    drawn_loads,
    price,
    read_contiguous,
    read_masked,
)
from simpod.validate.tables.kinds import KINDS

DIE: DieSpec = load_hardware("h100").die
PEAK_FLOPS_PER_S = 1979e12
AREA = 7168 * 2048
VARIANT = "fp8_block/deepgemm"


def benchmark(groups: int, tokens: int, drawn: tuple[float, float] | None = None) -> pd.DataFrame:
    """A row; `drawn`: tokens of all groups in the gate-up and in the down product."""
    row: dict[str, Any] = {
        "num_local_experts": [groups],
        "tokens_per_expert": [tokens],
        "topk": [8],
        "hidden_size": [7168],
        "intermediate_size": [2048],
        "up_proj_us": [325.0],
        "down_proj_us": [176.0],
    }
    if drawn is not None:
        for name, us, area, rows in (
            ("up_mfu", 325.0, 2 * AREA, drawn[0]),
            ("down_mfu", 176.0, AREA, drawn[1]),
        ):
            row[name] = [2.0 * rows * area / (us * 1e-6 * PEAK_FLOPS_PER_S)]
    return pd.DataFrame(row)


# --- the benchmark --------------------------------------------------------------------------------


def test_groups_are_drawn_around_what_the_kernel_is_told() -> None:
    loads = drawn_loads(np.array([1.0, 64.0, 100.0]), np.array([256.0, 32.0, 1.0]))
    assert loads.hit[0] == pytest.approx(128.0)  # int(u) is 0 for half of them
    assert loads.tiles(64.0)[1] == pytest.approx(48.0)  # half of them have more than 64
    assert loads.experts.sum(-1) == pytest.approx([256.0, 32.0, 1.0])
    assert loads.tokens[2][loads.experts[2] > 0.0] == pytest.approx([100.0])


def test_tokens_drawn_are_read_from_the_mfu() -> None:
    """Two rows of one group: the peak is what makes them 100 tokens on average."""
    frame = pd.concat([benchmark(1, 100, (80.0, 90.0)), benchmark(1, 100, (120.0, 110.0))])
    (group,) = read_masked(frame)
    assert group.shape.up.loads.pairs == pytest.approx([80.0, 120.0])
    assert group.shape.down.loads.pairs == pytest.approx([90.0, 110.0])
    assert group.measured_s == pytest.approx([501e-6, 501e-6])


def test_without_an_mfu_it_is_the_draw_on_average() -> None:
    (group,) = read_masked(benchmark(32, 8))
    tokens = np.floor(8.0 * (0.7 + 0.6 * (np.arange(LEVELS) + 0.5) / LEVELS))
    assert group.shape.up.loads.pairs == pytest.approx([32.0 * tokens.mean()])
    assert group.shape.down.loads.pairs == group.shape.up.loads.pairs


def test_groups_of_prompts_are_padded() -> None:
    (group,) = read_contiguous(benchmark(64, 100))
    loads = group.shape.up.loads
    assert set(np.unique(loads.tokens)) == {128.0}
    (group,) = read_contiguous(benchmark(64, 128))
    assert set(np.unique(group.shape.up.loads.tokens)) == {128.0, 256.0}


def test_dies_that_share_an_expert_and_rows_without_tokens() -> None:
    frame = pd.concat([benchmark(32, 8).assign(tp_size=2), benchmark(256, 0).assign(tp_size=1)])
    (group,) = read_masked(frame)
    assert group.shape.up.inter_size == pytest.approx([1024.0])
    assert len(group.measured_s) == 1


def test_products_are_priced_each_with_its_own_tokens() -> None:
    """Times of memory alone: the weights of groups that are hit, and rows in and out."""
    frame = pd.concat([benchmark(1, 100, (80.0, 90.0)), benchmark(1, 100, (120.0, 110.0))])
    (group,) = read_masked(frame)
    streaming = replace(START, hbm_frac=1.0, fill_s=0.0, overlap_exponent=8.0, compute_frac=1.0)
    slow = replace(DIE, hbm_bytes_per_s=DIE.hbm_bytes_per_s / 100.0)
    found = price(slow, VARIANT, replace(streaming, reread_frac=0.0), group.shape)
    bytes_moved = 3 * AREA + 80.0 * (7168 + 2 * 4096) + 90.0 * (2048 + 2 * 7168)
    assert found[0] == pytest.approx(bytes_moved / slow.hbm_bytes_per_s, rel=1e-3)


# --- constants from dense products ----------------------------------------------------------------


@pytest.mark.parametrize("exposed_frac", [0.0, 1e-17])
def test_what_dense_products_say_of_grouped_ones(exposed_frac: float) -> None:
    """A core that multiplies at 80 % of its peak and waits for nothing else."""
    ideal = replace(REAL_GEMM, compute_frac=0.8, load_bytes_per_flop=0.3, exposed_frac=exposed_frac)
    found = grouped_of_dense(DIE, ideal, START, "fp8_block")
    assert found.compute_frac == pytest.approx(0.8)
    assert found.half_tokens == pytest.approx(0.0)
    assert found.overlap_exponent == 8.0
    assert (found.hbm_frac, found.wave_frac) == (ideal.hbm_frac, ideal.wave_frac)
    around = ("launch_s", "slot_s", "routing_bytes_per_pair", "traffic_scale", "l2_frac")
    assert all(getattr(found, name) == getattr(START, name) for name in around)


def test_loads_that_bind_make_small_tiles_dear() -> None:
    """Operands of 64 x 128 are three quarters of those of 128 x 128."""
    bound = replace(REAL_GEMM, compute_frac=1.0, load_bytes_per_flop=0.001, exposed_frac=0.0)
    found = grouped_of_dense(DIE, bound, START, "fp8_block")
    assert (64.0 + found.half_tokens) / (128.0 + found.half_tokens) == pytest.approx(0.75)
    core_bytes_per_s = 989e12 / 132 * 0.001
    element_s = 256.0 / core_bytes_per_s
    assert found.compute_frac == pytest.approx(2 * 128 * 128 / (1979e12 / 132 * element_s))
    assert found.fill_s == pytest.approx(128 * 128 * 2.0 * 3.5 / core_bytes_per_s)


@pytest.mark.parametrize("exposed_frac", [0.1, 0.5, 1.0])
def test_equal_phases_overlap_alike_in_both_models(exposed_frac: float) -> None:
    found = grouped_of_dense(DIE, replace(REAL_GEMM, exposed_frac=exposed_frac), START, "fp8_block")
    both = float(overlapped_s(1.0, 1.0, exposed_frac))
    assert 1.0 / found.overlap_exponent == pytest.approx(log2(both))


def test_only_deepgemms_kernels_of_the_same_family_tell() -> None:
    h100 = load_hardware("h100")
    found = from_dense(h100, VARIANT, START)
    assert found is not None
    assert found.hbm_frac == h100.kernels.gemm["fp8_block/vllm_deepgemm"].constants.hbm_frac
    assert from_dense(h100, "fp8_block/cutlass", START) is None
    assert from_dense(replace(h100, family="blackwell"), VARIANT, START) is None
    bare = replace(h100, kernels=KernelFits())
    assert from_dense(bare, VARIANT, START) is None
    own = replace(bare, family="test", kernels=KernelFits(gemm={VARIANT: _family(REAL_GEMM)}))
    assert from_dense(own, VARIANT, START) == grouped_of_dense(
        h100.die, REAL_GEMM, START, "fp8_block"
    )


def _family(constants: GemmConstants) -> Any:
    return replace(fit_of(constants), family="test")


def test_an_unfitted_hopper_has_its_familys_products_and_the_measured_rest() -> None:
    h200, b200 = load_hardware("h200"), load_hardware("b200")
    found = KINDS["moe"].constants_for(h200, VARIANT, (b200.kernels,))
    measured = b200.kernels.grouped_gemm[VARIANT].constants
    dense = h200.kernels.gemm["fp8_block/vllm_deepgemm"].constants
    assert (found.launch_s, found.traffic_scale) == (measured.launch_s, measured.traffic_scale)
    assert (found.hbm_frac, found.wave_frac) == (dense.hbm_frac, dense.wave_frac)


@pytest.mark.parametrize(("phase", "median_frac"), [("decode", 0.10), ("prefill", 0.05)])
def test_experts_of_an_h800_from_the_h100s_dense_products(phase: str, median_frac: float) -> None:
    table(f"measured/kernels_h800/grouped_gemm/{phase}/h800/data.csv")
    (found,) = (
        each
        for each in find_tables(SHARED / "measured" / "kernels_h800")
        if each.kind == f"grouped_gemm/{phase}"
    )
    report = transferred(KINDS[found.kind], found, load_hardware("h100"))
    for group in report.groups():
        assert group.errors is not None
        assert group.errors.median_abs_error_frac < median_frac


# --- rows of a group ------------------------------------------------------------------------------


def test_part_of_a_group_keeps_the_loads_of_its_rows() -> None:
    frame = pd.DataFrame(
        {
            "moe_dtype": "bfloat16",
            "kernel_source": "moe_torch_flow",
            "num_tokens": [8, 64, 512],
            "hidden_size": 2048,
            "inter_size": 1024,
            "topk": 2,
            "num_experts": 8,
            "moe_tp_size": 1,
            "moe_ep_size": 1,
            "distribution": "balanced",
            "latency_us": [30.0, 40.0, 50.0],
        }
    )
    (group,) = read_grouped_gemm(frame)
    part = rows_of_group(group, np.array([True, False, True]))
    assert part.shape.loads.pairs == pytest.approx([16.0, 1024.0])
    assert part.shape.num_tokens == pytest.approx([8.0, 512.0])
