"""Routed experts: loads by hand, limits of the price, and the measured tables."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpod.config.references import load_hardware
from simpod.cost.kernels.expert_load import (
    ExpertLoads,
    hottest_loads,
    loads_of,
    summarised,
    uniform_loads,
)
from simpod.cost.kernels.grouped_gemm import (
    FORMATS,
    GroupedGemmShape,
    around_s,
    grouped_gemm_s,
    peak_flops_per_s,
    products_s,
    tile_choices,
)
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.spec import DieSpec
from simpod.validate.tables.grouped_gemm import (
    START,
    calibrated,
    fallbacks,
    price,
    read_grouped_gemm,
    start_of,
)
from simpod.validate.tables.moe_routing import balanced_choices, limited

SHARED = Path(os.environ.get("SIMPOD_SHARED", Path(__file__).parents[2] / "shared"))

IDEAL = GroupedGemmConstants(
    compute_frac=1.0,
    half_tokens=0.0,
    fill_s=0.0,
    wave_frac=0.0,
    hbm_frac=1.0,
    l2_frac=0.01,
    overlap_exponent=8.0,
    launch_s=1e-6,
    slot_s=0.0,
    routing_bytes_per_pair=0.0,
    traffic_scale=0.0,
    reread_frac=0.0,
)


@pytest.fixture(scope="module")
def h100() -> DieSpec:
    return load_hardware("h100").die


def even_loads(pairs: object, slots: int) -> ExpertLoads:
    """`pairs` [...] spread evenly over the experts of a die."""
    total = np.asarray(pairs, dtype=np.float64)
    return ExpertLoads(
        tokens=(total / slots)[..., None], experts=np.full((*total.shape, 1), float(slots))
    )


def even_shape(tokens: object, slots: int = 8, **changes: object) -> GroupedGemmShape:
    """Mixtral's experts on one die, all equally loaded."""
    n = np.asarray(tokens, dtype=np.float64)
    fields: dict[str, object] = {
        "loads": even_loads(n * 2, slots),
        "num_tokens": n,
        "topk": 2.0,
        "num_slots": float(slots),
        "hidden_size": 4096.0,
        "inter_size": 14336.0,
    }
    return GroupedGemmShape(**(fields | changes))  # type: ignore[arg-type]


# loads


def test_tiles_pairs_and_hits_of_a_load_vector() -> None:
    loads = loads_of([[0.0, 1.0, 16.0, 17.0]])
    assert loads.pairs.tolist() == [34.0]
    assert loads.hit.tolist() == [3.0]
    assert loads.tiles(16).tolist() == [1 + 1 + 2]


def test_imbalance_scales_the_loads() -> None:
    loads = even_loads([64.0, 128.0], 8).scaled([1.0, 1.5])
    assert loads.pairs.tolist() == [64.0, 192.0]
    assert loads.hit.tolist() == [8.0, 8.0]


@given(
    tokens=st.integers(1, 65_536),
    experts=st.sampled_from([8, 64, 256, 384]),
    topk=st.integers(1, 8),
    share=st.sampled_from([1, 2, 8]),
)
def test_uniform_loads_keep_pairs_and_hits(
    tokens: int, experts: int, topk: int, share: int
) -> None:
    slots = experts // share
    loads = uniform_loads(tokens, experts, topk, slots)
    assert loads.pairs == pytest.approx(tokens * topk / share)
    assert loads.hit == pytest.approx(slots * (1 - (1 - topk / experts) ** tokens))
    assert loads.tokens.min() >= 1.0 - 1e-9


def test_uniform_loads_against_a_simulation() -> None:
    rng = np.random.default_rng(3)
    drawn = np.array(
        [rng.permuted(np.arange(64)[None].repeat(96, 0), axis=1)[:, :4] for _ in range(50)]
    )
    counts = np.array([np.bincount(each.ravel(), minlength=64) for each in drawn])
    exact = loads_of(counts.astype(np.float64))
    model = uniform_loads(96, 64, 4, 64)
    assert model.hit == pytest.approx(exact.hit.mean(), rel=0.02)
    for tile in (4, 8, 16):
        assert model.tiles(tile) == pytest.approx(exact.tiles(tile).mean(), rel=0.08)


@pytest.mark.parametrize("ep_size", [1, 4, 64])
def test_power_law_keeps_the_pairs_of_the_group(ep_size: int) -> None:
    tokens = np.array([1, 64, 4096])
    loads = summarised(hottest_loads(tokens, num_experts=64, topk=4, ep_size=ep_size, alpha=1.2))
    mean = tokens * 4 / ep_size
    assert (loads.pairs >= mean * (1 - 1e-6)).all()
    assert (loads.tokens <= tokens[:, None] * (1 + 1e-9)).all()  # a token takes an expert once
    if ep_size == 1:
        assert loads.pairs == pytest.approx(mean, rel=1e-4)


def test_power_law_is_repeatable_and_hotter_on_fewer_experts() -> None:
    def imbalance(ep_size: int) -> float:
        loads = hottest_loads([4096], num_experts=128, topk=8, ep_size=ep_size, alpha=1.01)
        return float(summarised(loads).pairs[0] / (4096 * 8 / ep_size))

    values = [imbalance(ep) for ep in (1, 2, 8, 32, 128)]
    assert values == sorted(values)
    assert values == [imbalance(ep) for ep in (1, 2, 8, 32, 128)]
    assert 1.0 < values[1] < 1.6
    assert values[-1] > 4.0


def test_few_pairs_go_to_one_rank_each() -> None:
    """Two tokens of four experts on 64 ranks: eight ranks hold a pair, the hottest perhaps two."""
    loads = hottest_loads([2], num_experts=64, topk=4, ep_size=64, alpha=1.01)
    assert loads.max() <= 2.0
    assert loads.min() >= 1.0 - 1e-3


def test_stride_and_group_limit_by_hand() -> None:
    choices = balanced_choices(2, 16, 2)  # stride 8, two tokens spread over it
    assert choices.tolist() == [[0, 8], [4, 12]]
    four = balanced_choices(1, 64, 8)  # one expert in each of 8 groups of 8
    assert four.tolist() == [[0, 8, 16, 24, 32, 40, 48, 56]]
    assert limited(four, 64).tolist() == [[0, 8, 16, 24, 1, 2, 3, 4]]


# price


def test_large_shape_runs_at_the_peak(h100: DieSpec) -> None:
    shape = even_shape([65_536.0 * 4])
    flops = 2 * shape.loads.pairs * 3 * 4096 * 14336
    seconds = grouped_gemm_s(h100, IDEAL, shape)
    assert seconds == pytest.approx(flops / h100.peak_flops_per_s["bf16"], rel=0.01)


def test_few_tokens_stream_the_weights(h100: DieSpec) -> None:
    seconds = grouped_gemm_s(h100, IDEAL, even_shape([8.0]), is_cold=True)
    weights_bytes = 8 * 3 * 4096 * 14336 * 2
    assert seconds == pytest.approx(weights_bytes / h100.hbm_bytes_per_s, rel=0.01)


def test_only_experts_that_are_hit_are_read(h100: DieSpec) -> None:
    one = replace(even_shape([1.0]), loads=loads_of([[2.0, 0, 0, 0, 0, 0, 0, 0]]))
    two = replace(even_shape([1.0]), loads=loads_of([[1.0, 1.0, 0, 0, 0, 0, 0, 0]]))
    once, twice = (grouped_gemm_s(h100, IDEAL, s, is_cold=True) - 1e-6 for s in (one, two))
    assert twice == pytest.approx(2 * once, rel=1e-3)


def test_tiny_layer_is_its_launches(h100: DieSpec) -> None:
    tiny = even_shape([1.0], slots=2, hidden_size=64.0, inter_size=16.0)
    assert grouped_gemm_s(h100, START, tiny) == pytest.approx(START.launch_s, rel=0.2)


def test_repeated_small_layer_is_found_in_the_cache(h100: DieSpec) -> None:
    def gain(shape: GroupedGemmShape) -> float:
        warm, cold = (sum(products_s(h100, START, shape, is_cold=c)) for c in (False, True))
        return float(cold[0] / warm[0])

    assert gain(even_shape([4.0], hidden_size=1024.0, inter_size=256.0)) > 1.05
    assert gain(even_shape([4.0])) == pytest.approx(1.0, abs=1e-3)


def test_the_fill_of_a_tile_is_a_time_whatever_the_rate_of_the_cores(h100: DieSpec) -> None:
    """Large prompts, bound by compute: every tile of 128 x 128 takes fill_s longer on its core."""
    shape = even_shape(16_384.0)
    peaks = {name: 2.0 * peak for name, peak in h100.peak_flops_per_s.items()}
    faster = replace(h100, peak_flops_per_s=peaks)
    for die in (h100, faster):
        bare, filled = (
            sum(products_s(die, replace(IDEAL, fill_s=fill_s), shape)) for fill_s in (0.0, 2e-6)
        )
        rows = 16_384 * 2 / 128
        tiles = rows * (2 * 14_336 + 4096) / 128
        assert filled - bare == pytest.approx(tiles / die.num_cores * 2e-6, rel=1e-2)


def test_hot_expert_costs_more_tiles_but_no_more_weights(h100: DieSpec) -> None:
    even = replace(even_shape([64.0]), loads=loads_of([[16.0] * 8]))
    hot = replace(even_shape([64.0]), loads=loads_of([[121.0] + [1.0] * 7]))
    assert hot.loads.pairs == even.loads.pairs
    slower = sum(products_s(h100, START, hot)) / sum(products_s(h100, START, even))
    assert 1.0 <= slower < 2.0


@pytest.mark.parametrize("policy", ["tuned", "warp_group", "mean", "fixed"])
@pytest.mark.parametrize("dtype", sorted(FORMATS))
def test_every_format_and_policy_is_finite_and_grows(
    h100: DieSpec, dtype: str, policy: str
) -> None:
    tokens = 2.0 ** np.arange(17)
    shape = even_shape(tokens, loads=uniform_loads(tokens, 64, 2, 8), num_slots=8.0)
    seconds = grouped_gemm_s(h100, START, shape, dtype=dtype, policy=policy)  # type: ignore[arg-type]
    assert np.isfinite(seconds).all()
    assert (seconds > START.launch_s).all()
    assert (seconds[1:] > seconds[:-1] * (1.0 if policy == "tuned" else 0.8)).all()


def test_more_of_anything_is_not_faster(h100: DieSpec) -> None:
    base = even_shape([256.0])
    seconds = grouped_gemm_s(h100, START, base)
    for change in ({"hidden_size": 8192.0}, {"inter_size": 28672.0}, {"num_slots": 16.0}):
        assert grouped_gemm_s(h100, START, replace(base, **change)) >= seconds  # type: ignore[arg-type]
    faster = replace(h100, hbm_bytes_per_s=2 * h100.hbm_bytes_per_s)
    assert grouped_gemm_s(faster, START, base) < seconds
    assert around_s(h100, START, base, "bf16") < seconds


def test_arranged_rows_are_neither_sorted_nor_permuted(h100: DieSpec) -> None:
    """Two of four kernels are left, and the activation."""
    shape = even_shape(4096.0)
    arranged = replace(shape, is_arranged=True)
    pairs, inter = float(shape.loads.pairs.item()), float(np.asarray(shape.inter_size))
    activation_bytes = START.traffic_scale * pairs * inter * (2.0 * 2.0 + 2.0)
    fixed_s = START.launch_s / 2 + float(np.asarray(shape.num_slots)) * START.slot_s
    expected_s = fixed_s + activation_bytes / h100.hbm_bytes_per_s
    assert float(around_s(h100, START, arranged, "bf16")) == pytest.approx(expected_s)
    assert around_s(h100, START, arranged, "bf16") < around_s(h100, START, shape, "bf16")


def test_tile_policies_by_hand() -> None:
    shape = even_shape([4.0, 1024.0])
    used = {
        tile: where.tolist() for tile, where in tile_choices(shape, "mean") if where is not None
    }
    assert used[(8, 128)] == [1.0, 0.0]  # one pair an expert
    assert used[(256, 128)] == [0.0, 1.0]  # 256
    fixed = [(tile, where) for tile, where in tile_choices(shape, "fixed") if where is not None]
    assert [(tile, where.tolist()) for tile, where in fixed] == [
        ((16, 32), [1.0, 0.0]),
        ((64, 64), [0.0, 1.0]),
    ]


def test_scalars_broadcast_and_missing_units_fall_back(h100: DieSpec) -> None:
    many = grouped_gemm_s(h100, START, even_shape([8.0, 64.0, 512.0]))
    alone = [float(grouped_gemm_s(h100, START, even_shape([n]))[0]) for n in (8.0, 64.0, 512.0)]
    assert many.tolist() == alone
    assert peak_flops_per_s(h100, "nvfp4") == h100.peak_flops_per_s["fp8"]
    assert peak_flops_per_s(load_hardware("a100").die, "fp8") == 312e12


# measured tables


def rows(**columns: object) -> pd.DataFrame:
    base: dict[str, object] = {
        "kernel_source": "moe_torch_flow_cutlass",
        "moe_dtype": "bfloat16",
        "num_tokens": [1, 64, 1024],
        "hidden_size": 4096,
        "inter_size": 1536,
        "topk": 8,
        "num_experts": 128,
        "moe_tp_size": 2,
        "moe_ep_size": 4,
        "distribution": "balanced",
        "latency_us": [30.0, 100.0, 150.0],
    }
    return pd.DataFrame(base | columns)


def test_reader_of_balanced_rows() -> None:
    (group,) = read_grouped_gemm(rows())
    assert group.variant == "bf16/cutlass"
    assert group.measured_s == pytest.approx([30e-6, 100e-6, 150e-6])
    assert group.shape.loads.pairs == pytest.approx([2.0, 128.0, 2048.0])  # a quarter, exactly
    assert np.asarray(group.shape.inter_size).tolist() == [768.0] * 3
    assert np.asarray(group.shape.num_slots).tolist() == [32.0] * 3


def test_reader_counts_redirected_pairs_of_sglang() -> None:
    (group,) = read_grouped_gemm(rows(kernel_source="sglang_fused_moe_triton"))
    assert group.variant == "bf16/triton"
    seen = np.asarray(group.shape.num_tokens)
    assert seen.tolist() == [1.0, 64.0, 1024.0]  # each token has 2 of its 8 experts here
    assert group.shape.loads.pairs == pytest.approx(seen * 8)


@pytest.mark.parametrize(
    ("source", "dtype", "variant"),
    [
        ("moe_torch_flow_min_latency", "nvfp4", "nvfp4/generated"),
        ("moe_torch_flow_nongated", "fp8", "fp8/nongated"),
        ("deepgemm", "fp8_block", "fp8_block/deepgemm"),
        ("sglang_marlin_moe", "int4_wo", "int4/marlin"),
        ("something_new", "w4afp8", "w4a8_mxfp4_mxfp8/cutlass"),
        ("vllm_fused", "float16", "bf16/triton"),
    ],
)
def test_names_of_the_tables(source: str, dtype: str, variant: str, h100: DieSpec) -> None:
    for distribution in ("balanced", "power_law_1.01", "uniform"):
        frame = rows(kernel_source=source, moe_dtype=dtype, distribution=distribution)
        (group,) = read_grouped_gemm(frame)
        assert group.variant == variant
        assert np.isfinite(price(h100, variant, start_of(variant), group.shape)).all()
    assert fallbacks(variant)[0] == variant
    assert {"bf16/cutlass", "bf16/triton"} <= set(fallbacks(variant))


def test_fit_recovers_prices_in_spite_of_a_bad_run(h100: DieSpec) -> None:
    frame = pd.concat([rows(num_tokens=[2**i, 3 * 2**i, 5 * 2**i]) for i in range(10)])
    (group,) = read_grouped_gemm(frame)
    true = replace(START, launch_s=40e-6)
    true_s = price(h100, group.variant, true, group.shape)
    measured_s = np.where(np.arange(len(true_s)) % 10 == 0, 4.0 * true_s, true_s)
    found = calibrated(h100, replace(group, measured_s=measured_s))
    assert price(h100, group.variant, found, group.shape) == pytest.approx(true_s, rel=0.05)


@pytest.mark.parametrize("device", ["h100", "a100", "b200"])
def test_measured_table_is_read_whole(device: str) -> None:
    path = SHARED / "kernels" / f"{device}_sxm.moe.parquet"
    if not path.is_file():
        pytest.skip(f"needs {path}: set SIMPOD_SHARED")
    frame = pd.read_parquet(path)
    sample = frame.sample(1500, random_state=1)
    groups = read_grouped_gemm(sample)
    assert sum(len(group.measured_s) for group in groups) == len(sample)
    total_s = sum(group.measured_s.sum() for group in groups)
    assert total_s == pytest.approx(sample["latency_us"].sum() * 1e-6)
    die = load_hardware(device).die
    for group in groups:
        pairs = group.shape.loads.pairs
        assert (pairs <= np.asarray(group.shape.num_tokens) * group.shape.topk * (1 + 1e-4)).all()
        ratio = price(die, group.variant, start_of(group.variant), group.shape) / group.measured_s
        assert 0.4 < np.median(ratio) < 2.5
