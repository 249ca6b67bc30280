"""Dense matrix products: limits by hand, monotony, broadcasting, and the measured tables."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simpod.config.references import load_hardware
from simpod.cost.kernels.gemm import FORMATS, GemmShape, called_s, gemm_s, overlapped_s
from simpod.hardware.kernels.gemm import GemmConstants
from simpod.units import US
from simpod.validate.fit import bounds_of, errors, fit
from simpod.validate.tables.gemm import START, fallbacks, price, read_gemm, start_of, variant_of

SHARED = Path(
    os.environ.get("SIMPOD_SHARED", Path(__file__).resolve().parent.parent.parent / "shared")
)
DIE = load_hardware("h100").die
QUANTISED = start_of("fp8")


def shape(m: object, n: object, k: object) -> GemmShape:
    return GemmShape(m=np.asarray(m, float), n=np.asarray(n, float), k=np.asarray(k, float))


def seconds(m: object, n: object, k: object, c: GemmConstants = START, dtype: str = "bf16"):
    return gemm_s(DIE, c, shape(m, n, k), dtype)


def test_overlap_is_between_the_longer_and_the_sum() -> None:
    assert overlapped_s(3.0, 1.0, 0.0) == 3.0
    assert overlapped_s(1.0, 1.0, 1.0) == 2.0
    assert overlapped_s(2.0, 4.0, 0.5) == 4.0 + 0.5 * 2.0 * 0.5


def test_large_products_reach_their_share_of_the_peak() -> None:
    c = replace(START, exposed_frac=0.0, load_bytes_per_flop=0.3)
    flops = 2.0 * 32768 * 16384 * 16384
    by_hand = flops / (989e12 * c.compute_frac)
    assert seconds(32768, 16384, 16384, c) == pytest.approx(by_hand, rel=0.02)


def test_few_rows_stream_the_weights() -> None:
    c = replace(START, exposed_frac=0.0, depth_s_per_element=3e-11)
    by_hand = 65536 * 16384 * 2 / (3.35e12 * c.hbm_frac)
    assert seconds(1, 65536, 16384, c) == pytest.approx(by_hand, rel=0.02)
    assert seconds(1, 65536, 16384, c, "fp8") == pytest.approx(by_hand / 2, rel=0.02)
    assert seconds(1, 65536, 16384, c, "int4_wo") == pytest.approx(by_hand * 0.258, rel=0.02)


def test_a_tiny_product_is_a_launch() -> None:
    assert seconds(1, 32, 32) == pytest.approx(START.launch_s, rel=0.1)


def test_one_tile_waits_for_its_depth() -> None:
    never = replace(START, split_s=1e-4, exposed_frac=0.0)
    longer = seconds(16, 64, 4096, never) - seconds(16, 64, 2048, never)
    assert longer == pytest.approx(2048 * START.depth_s_per_element, rel=0.01)


def test_a_long_depth_is_divided_over_idle_cores() -> None:
    never = replace(START, split_s=1e-4)
    assert seconds(16, 128, 16384) < 0.5 * seconds(16, 128, 16384, never)


def test_last_wave() -> None:
    """132 tiles of 128 x 256 and one more: a second wave, if waves are whole."""
    c = replace(
        START, wave_frac=1.0, split_s=1e-4, exposed_frac=0.0, load_bytes_per_flop=0.0012,
        hbm_frac=1.0, launch_s=2e-7,
    )  # fmt: skip
    one, two = seconds(128, [132 * 256, 133 * 256], 8192, c)
    assert two == pytest.approx(2 * one, rel=0.02)
    blunt = replace(c, wave_frac=0.0)
    assert seconds(128, 133 * 256, 8192, blunt) == pytest.approx(one * 133 / 132, rel=0.02)


def test_activations_come_from_the_cache_unless_cold() -> None:
    tall = shape(4096, 64, 4096)
    warm = gemm_s(DIE, START, tall)
    cold = gemm_s(DIE, START, tall, is_cold=True)
    assert warm < cold
    assert cold == gemm_s(DIE, replace(START, resident_frac=0.0), tall)
    flat = shape(8, 8192, 8192)
    assert gemm_s(DIE, START, flat) == pytest.approx(
        gemm_s(DIE, START, flat, is_cold=True), rel=0.01
    )


def test_results_that_are_kept_stay_in_the_cache_as_far_as_they_fit() -> None:
    small, large = shape(64, 65_536, 64), shape(65_536, 65_536, 64)
    written = [
        gemm_s(DIE, START, some) - gemm_s(DIE, START, replace(some, is_result_kept=True))
        for some in (small, large)
    ]
    bytes_per_s = DIE.hbm_bytes_per_s * START.hbm_frac
    assert 0.5 * 2 * 64 * 65_536 / bytes_per_s < written[0] < 2 * 64 * 65_536 / bytes_per_s
    assert 0.0 < written[1] < 0.01 * gemm_s(DIE, START, large)


def test_quantising_costs_a_pass_over_the_activations() -> None:
    some = shape(4096, 4096, 4096)
    pass_s = gemm_s(DIE, QUANTISED, some, "fp8") - gemm_s(
        DIE, QUANTISED, some, "fp8", is_quantised=True
    )
    c = QUANTISED
    by_hand = 4096 * (
        4096 * c.quantise_bytes_per_element / DIE.hbm_bytes_per_s + c.quantise_s_per_row / 132
    )
    assert pass_s == pytest.approx(by_hand)
    assert gemm_s(DIE, c, some) == gemm_s(DIE, c, some, is_quantised=True)


def test_the_host_hides_behind_long_calls() -> None:
    slow = replace(START, host_s=60 * US)
    assert called_s(seconds(1, 64, 64), slow) == pytest.approx(60 * US, rel=0.01)
    long = seconds(8192, 8192, 8192)
    assert called_s(long, slow) == pytest.approx(long, rel=0.01)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("device", ["h100", "a100", "b200", "cloudmatrix384"])
def test_more_work_is_not_faster(device: str, dtype: str) -> None:
    """A library's choice may be a little better at the next size: 3 % are allowed."""
    die, c = load_hardware(device).die, start_of(dtype)
    m = np.unique(np.geomspace(1, 1e6, 400).round())
    for n, k in [(4096, 4096), (128, 16384), (7168, 256)]:
        times = gemm_s(die, c, shape(m, n, k), dtype)
        assert np.isfinite(times).all()
        assert (times > 0).all()
        assert (times > 0.97 * np.maximum.accumulate(times)).all()
        assert (gemm_s(die, c, shape(m, 2 * n, k), dtype) > 0.97 * times).all()
        assert (gemm_s(die, c, shape(m, n, 2 * k), dtype) > 0.97 * times).all()


@pytest.mark.parametrize("better", ["hbm_frac", "compute_frac", "load_bytes_per_flop"])
def test_a_better_die_is_not_slower(better: str) -> None:
    more = replace(START, **{better: 1.2 * getattr(START, better)})
    some = shape(*np.random.default_rng(0).integers(1, 8192, (3, 500)))
    assert (gemm_s(DIE, more, some) <= gemm_s(DIE, START, some)).all()


def test_arrays_broadcast_and_large_ones_are_cut_into_blocks() -> None:
    m = np.arange(1.0, 6001.0)
    many = seconds(m, 1024, 512)
    assert many.shape == (6000,)
    assert many[[0, 4500, 5999]].tolist() == [float(seconds(x, 1024, 512)) for x in (1, 4501, 6000)]
    table = seconds(m[:100, None], [256, 512, 1024], 512)
    assert table.shape == (100, 3)
    assert (table[:, 2] == many[:100]).all()


def test_a_die_without_units_runs_in_bf16() -> None:
    a100 = load_hardware("a100").die
    large = shape(16384, 16384, 16384)
    fp8 = gemm_s(a100, START, large, "fp8")
    assert fp8 == pytest.approx(gemm_s(a100, START, large), rel=0.2)
    assert gemm_s(a100, START, large, "int8") < 0.7 * fp8


def test_variants() -> None:
    assert variant_of("bfloat16", "torch.nn.functional.linear") == "bf16"
    assert variant_of("fp8_block", "deepgemm") == "fp8_block/deepgemm"
    assert variant_of("fp8_block", "DeepGemmFp8BlockScaledMMKernel") == "fp8_block/vllm_deepgemm"
    assert variant_of("fp8", "CutlassFP8ScaledMMLinearKernel") == "fp8/vllm"
    assert variant_of("fp8", "torch_flow") == "fp8"
    assert variant_of("fp8_block", "kernel") == "fp8_block/kernel"
    assert variant_of("fp8_block", "unheard of") == "fp8_block/deepgemm"
    assert variant_of("fp8_new", "x") == "fp8"
    assert variant_of("int3_wo", "x") == "bf16"
    assert variant_of("int4_wo", "x") == "int4_wo"


def test_vllm_falls_back_to_the_same_library_outside_of_it() -> None:
    assert fallbacks("fp8_block/vllm_cutlass")[1] == "fp8_block/cutlass"
    assert fallbacks("fp8_block/cutlass")[1] == "fp8_block/vllm_cutlass"
    assert fallbacks("fp8")[:2] == ("fp8", "fp8/vllm")
    assert fallbacks("fp8/vllm")[:2] == ("fp8/vllm", "fp8")


VARIANTS = [*FORMATS, "fp8/vllm", "fp8_block/cutlass", "fp8_block/vllm_cutlass", "fp8_block/kernel"]


@pytest.mark.parametrize("dtype", VARIANTS)
def test_every_variant_can_be_priced_and_falls_back_to_bf16(dtype: str) -> None:
    order = fallbacks(dtype)
    assert order[0] == dtype
    assert order[-1] == "bf16"
    assert len(set(order)) == len(order)
    assert (price(DIE, dtype, start_of(dtype), shape([1, 4096], 4096, 4096)) > 0).all()


def test_starts_are_within_bounds() -> None:
    for variant in VARIANTS:
        start = start_of(variant)
        for name, (low, high) in bounds_of(GemmConstants).items():
            assert low <= getattr(start, name) <= high


def test_a_fit_finds_constants_again() -> None:
    truth = replace(START, hbm_frac=0.7, compute_frac=0.6, launch_s=5e-6, split_s=4e-6)
    rng = np.random.default_rng(0)
    some = shape(*(2.0 ** rng.integers(low, 14, 200) for low in (0, 6, 6)))
    measured_s = gemm_s(DIE, truth, some)
    found = fit(lambda c: gemm_s(DIE, c, some), measured_s, START)
    assert errors(gemm_s(DIE, found, some), measured_s).p90_abs_error_frac < 0.02


def test_rows_without_a_time_are_dropped() -> None:
    frame = pd.DataFrame({"m": [1, 2], "n": [3, 3], "k": [4, 4], "latency_us": [5.0, 0.0]})
    (group,) = read_gemm(frame)
    assert group.variant == "fp8_block/kernel"
    assert group.measured_s.tolist() == [5.0 * US]


@pytest.mark.parametrize("device", ["h100_sxm", "a100_sxm", "b200_sxm"])
def test_measured_table(device: str) -> None:
    """Every row is in one group; the starting point alone is within a factor."""
    path = SHARED / "kernels" / f"{device}.gemm.parquet"
    if not path.is_file():
        pytest.skip(f"no measured table at {path}: set SIMPOD_SHARED to the folder of kernels/")
    frame = pd.read_parquet(path)
    groups = read_gemm(frame)
    assert sum(len(group.measured_s) for group in groups) == len(frame)
    assert len({group.variant for group in groups}) == len(groups)
    bf16 = next(group for group in groups if group.variant == "bf16")
    die = load_hardware(device.partition("_")[0]).die
    assert (
        errors(price(die, "bf16", START, bf16.shape), bf16.measured_s).median_abs_error_frac < 0.4
    )
