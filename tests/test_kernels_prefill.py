"""Prefill and encoder attention: limits by hand, directions, broadcasting, and real tables."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simpod.config.references import load_hardware
from simpod.cost.kernels.encoder_attention import EncoderAttentionShape, encoder_attention_s
from simpod.cost.kernels.flash import TileLoad, scheduled_s, waves_s
from simpod.cost.kernels.prefill_attention import (
    PrefillAttentionShape,
    kernel_bytes,
    prefill_attention_s,
    tile_load,
    visited_keys,
)
from simpod.hardware.kernels.prefill_attention import PrefillAttentionConstants
from simpod.validate.fit import Floats, bounds_of, errors
from simpod.validate.tables import encoder_attention as encoder
from simpod.validate.tables import prefill_attention as prefill
from simpod.validate.tables.group import Group
from simpod.validate.tables.starts import fit_free, held_names

KERNELS = (
    Path(os.environ.get("SIMPOD_SHARED", Path(__file__).parents[1].parent / "shared")) / "kernels"
)
H100 = load_hardware("h100").die
A100 = load_hardware("a100").die
START = prefill.START


def shape(**changes: object) -> PrefillAttentionShape:
    values: dict[str, object] = {
        "num_seqs": 1.0,
        "query_tokens": 4096.0,
        "resident_tokens": 0.0,
        "num_heads": 32.0,
        "num_kv_heads": 8.0,
        "head_dim": 128.0,
        "value_dim": 128.0,
        "window_tokens": 0.0,
    }
    values |= changes
    return PrefillAttentionShape(**{k: np.asarray(v, dtype=np.float64) for k, v in values.items()})


def seconds(**changes: object) -> Floats:
    return prefill_attention_s(H100, START, shape(**changes))


def encoder_seconds(**changes: object) -> Floats:
    values: dict[str, object] = {
        "num_seqs": 1.0,
        "query_tokens": 1024.0,
        "num_heads": 16.0,
        "head_dim": 64.0,
    }
    values |= changes
    arrays = {k: np.asarray(v, dtype=np.float64) for k, v in values.items()}
    return encoder_attention_s(H100, encoder.START, EncoderAttentionShape(**arrays))


def test_long_prompts_cost_their_pairs() -> None:
    tokens = 2.0**17
    pairs = 32 * tokens * (tokens + 1) / 2
    product_s = pairs * 4 * 128 / (H100.peak_flops_per_s["bf16"] * START.matmul_frac)
    softmax_s = pairs * START.softmax_flops / H100.vector_flops_per_s
    assert seconds(query_tokens=tokens) == pytest.approx(product_s + softmax_s, rel=0.02)


def test_one_token_costs_the_launch_and_one_unit() -> None:
    found = seconds(query_tokens=1.0, num_heads=1.0, num_kv_heads=1.0)
    assert START.launch_s + START.unit_s < found < START.launch_s + 2 * START.unit_s


def test_free_tiles_leave_bytes() -> None:
    free = dataclasses.replace(
        START, launch_s=1e-7, unit_s=1e-8, token_s=1e-10, matmul_frac=1.0, softmax_flops=0.1
    )
    die = dataclasses.replace(H100, peak_flops_per_s={"bf16": 1e20}, vector_flops_per_s=1e20)
    found = prefill_attention_s(die, free, shape(num_seqs=256.0, query_tokens=128.0))
    tokens = 256 * 128
    append = 8 * 256 * (2 + 2)
    rewrite = free.query_pass_scale * 32 * 256 * 2
    kernel = 32 * 256 * 2 + 8 * 256 * 2
    expected = tokens * (append + rewrite + kernel) / (H100.hbm_bytes_per_s * free.hbm_frac)
    assert found == pytest.approx(expected, rel=0.02)


def test_kernel_reads_only_what_windows_reach() -> None:
    args = {"resident_tokens": 1000.0, "query_tokens": 100.0, "num_heads": 1.0}
    args |= {"num_kv_heads": 1.0, "head_dim": 1.0, "value_dim": 1.0}
    assert kernel_bytes(shape(**args), 2.0, 1.0) == 2 * (100 * 2 + 1100)
    assert kernel_bytes(shape(**args, window_tokens=50.0), 2.0, 1.0) == 2 * (100 * 2 + 150)


@pytest.mark.parametrize(
    ("tiles", "before", "most"), [(4, 0, 512), (4, 300, 10_000), (5, 100, 400), (3, 900, 500)]
)
def test_visited_keys_are_a_sum(tiles: int, before: int, most: int) -> None:
    expected = sum(min(before + (i + 1) * 128, most) for i in range(tiles))
    parts = [np.asarray(float(x)) for x in (tiles, 128, before, most)]
    assert visited_keys(*parts) == expected


def test_tiles_of_a_chunk() -> None:
    """256 new tokens after 1024: two tiles, of 1152 and 1280 keys, for each of 32 heads."""
    load, is_cut = tile_load(
        shape(query_tokens=256.0, resident_tokens=1024.0), np.asarray(128.0), 1.0, 0.0
    )
    found = [float(part) for part in (load.units, load.mean_keys, load.longest_keys)]
    assert found == [64, 1216, 1280]
    assert not is_cut


def test_packed_heads_share_tiles() -> None:
    """One token: 4 query heads of a KV head in one tile instead of four."""
    alone, _ = tile_load(shape(query_tokens=1.0), np.asarray(128.0), 1.0, 0.0)
    packed, _ = tile_load(shape(query_tokens=1.0), np.asarray(128.0), 4.0, 0.0)
    assert [float(alone.units), float(packed.units)] == [32, 8]


def test_windows_skip_tiles_or_mask_them() -> None:
    args = {"query_tokens": 8192.0, "num_heads": 64.0}
    full, cut = seconds(**args), seconds(**args, window_tokens=128.0)
    masking = dataclasses.replace(START, outside_frac=1.0, edge_tokens=0.0)
    masked = prefill_attention_s(H100, masking, shape(**args, window_tokens=128.0))
    assert cut < full / 5
    assert masked == pytest.approx(full, rel=0.01)
    assert seconds(**args, window_tokens=8192.0) == full


def test_chunks_cost_little_more_than_the_prompt() -> None:
    start = np.arange(0.0, 32768.0, 2048.0)
    chunks = seconds(query_tokens=2048.0, resident_tokens=start)
    assert np.all(np.diff(chunks) > 0)
    whole = float(seconds(query_tokens=32768.0))
    assert whole < chunks.sum() < 1.3 * whole


def test_schedules_by_hand() -> None:
    """4 cores, units of 1 s: 2 take 1 s, 4 take 1 s, 6 take 1.5 s and a third of the last."""
    units, none = np.array([2.0, 4.0, 6.0]), np.zeros(3)
    load = TileLoad(units=units, mean_keys=none, longest_keys=none)
    one = np.ones(3)
    assert scheduled_s(4, load, one, one) == pytest.approx([1.0, 1.0, 1.5 + 1 / 3])
    assert waves_s(4, load, one, one, 1.0) == pytest.approx([1.0, 1.0, 2.0])
    assert waves_s(4, load, one, one, 0.0) == pytest.approx([1.0, 1.0, 1.5])


@pytest.mark.parametrize(
    "name", ["num_seqs", "query_tokens", "resident_tokens", "num_heads", "head_dim"]
)
def test_more_is_never_faster(name: str) -> None:
    values = {"head_dim": np.array([64.0, 128.0, 192.0, 256.0])}.get(name, 2.0 ** np.arange(3, 16))
    found = seconds(**{name: values})
    if name == "head_dim":  # 128 is the tuned one
        found = prefill_attention_s(
            H100, dataclasses.replace(START, untuned_scale=1.0), shape(head_dim=values)
        )
    assert np.all(np.diff(found) >= 0)


def test_fp8_cache_multiplies_in_fp8_where_there_are_units() -> None:
    long = shape(query_tokens=65536.0)
    for die, faster in ((H100, True), (A100, False)):
        plain = prefill_attention_s(die, START, long)
        quantised = prefill_attention_s(die, START, long, "bf16", "fp8")
        assert (quantised < 0.9 * plain) == faster


def test_any_count_has_a_time() -> None:
    tokens = np.concatenate([np.arange(1.0, 65537.0), np.linspace(0.3, 200.0, 999)])
    for window, resident in ((0.0, 0.0), (128.0, 0.0), (1024.0, 5e4), (0.0, 1e6)):
        for packing in (0.0, 1.0):
            constants = dataclasses.replace(START, head_packing_frac=packing, outside_frac=0.5)
            args = shape(
                query_tokens=tokens,
                window_tokens=window,
                resident_tokens=resident,
                num_heads=96.0,
                num_kv_heads=1.0,
            )
            found = prefill_attention_s(H100, constants, args)
            assert np.all(np.isfinite(found) & (found >= START.launch_s))
    found = encoder_seconds(query_tokens=tokens)
    assert np.all(np.isfinite(found) & (found >= encoder.START.launch_s))


def test_scalars_and_arrays_broadcast() -> None:
    tokens, seqs = np.array([1.0, 100.5, 4096.0]), np.array([[1.0], [2.5]])
    both = seconds(query_tokens=tokens, num_seqs=seqs)
    assert both.shape == (2, 3)
    assert both[1, 2] == seconds(query_tokens=4096.0, num_seqs=2.5)


def test_encoder_limits() -> None:
    tokens = 2.0**17
    start = encoder.START
    pairs = 16 * tokens**2
    product_s = pairs * 4 * 64 / (H100.peak_flops_per_s["bf16"] * start.matmul_frac)
    softmax_s = pairs * start.softmax_flops / H100.vector_flops_per_s
    assert encoder_seconds(query_tokens=tokens) == pytest.approx(product_s + softmax_s, rel=0.02)
    one = encoder_seconds(query_tokens=1.0, num_heads=1.0)
    assert start.launch_s + start.unit_s < one < start.launch_s + 2 * start.unit_s
    assert np.all(np.diff(encoder_seconds(query_tokens=2.0 ** np.arange(16))) >= 0)
    assert np.all(np.diff(encoder_seconds(num_seqs=np.arange(1.0, 300.0))) >= 0)


def test_unaligned_heads_cost_padding() -> None:
    aligned, odd = encoder_seconds(head_dim=64.0), encoder_seconds(head_dim=72.0)
    assert odd > 1.05 * aligned


ENDS = ("", "/fused", "/trtllm")


def test_variants_and_their_fallbacks() -> None:
    assert prefill.variant_of("torch_flow", "bfloat16", "fp8") == "bf16_kv_fp8/fused"
    assert prefill.variant_of("trtllm_mha", "fp8", "fp8") == "fp8/trtllm"
    assert prefill.variant_of("flash_attention", "bfloat16", "fp8") == "bf16_kv_fp8"
    assert prefill.variant_of("triton", "fp8", "fp8") == "fp8/triton"
    assert prefill.variant_of("new", "float16", "auto") == "bf16"
    assert prefill.fallbacks("fp8/triton")[:3] == ("bf16_kv_fp8/triton", "bf16/triton", "fp8")
    best = [f"{name}{end}" for name in ("bf16_kv_fp8", "fp8", "bf16") for end in ENDS]
    assert prefill.fallbacks("bf16_kv_fp8") == tuple(best[1:])  # all but itself
    for variant in ("bf16/triton", "fp8/triton", "fp8/fused", "bf16_kv_fp8"):
        assert {"bf16", "bf16/fused", "bf16/trtllm"} <= set(prefill.fallbacks(variant))
    assert prefill.is_far("bf16/triton")
    assert not prefill.is_far("bf16/trtllm")
    assert encoder.fallbacks(encoder.variant_of("fp8_e4m3")) == ("bf16",)


def test_starts_lie_within_bounds() -> None:
    for start in (*prefill.starts("bf16"), *prefill.starts("bf16/triton"), *encoder.starts("fp8")):
        for name, (low, high) in bounds_of(type(start)).items():
            assert low <= getattr(start, name) <= high


def table(**changes: object) -> pd.DataFrame:
    columns: dict[str, object] = {
        "kernel_source": "some",
        "batch_size": [1, 1],
        "isl": [8192, 8192],
        "num_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "window_size": [0, 128],
        "attn_dtype": "bfloat16",
        "kv_cache_dtype": "bfloat16",
        "step": 0,
        "latency_us": [2000.0, 100.0],
    }
    return pd.DataFrame(columns | changes)


def test_a_window_of_zero_may_mean_the_query_alone() -> None:
    honest = prefill.read_prefill_attention(table())[0]
    assert honest.shape.window_tokens.tolist() == [0, 128]
    strange = prefill.read_prefill_attention(table(latency_us=[80.0, 100.0]))[0]
    assert strange.shape.window_tokens.tolist() == [1, 128]
    plain = prefill.read_prefill_attention(table().drop(columns="window_size"))[0]
    assert plain.shape.window_tokens.tolist() == [0, 0]


def test_a_fit_recovers_constants_and_holds_the_rest() -> None:
    truth = dataclasses.replace(START, launch_s=5e-6, matmul_frac=0.6, unit_s=4e-6)
    rng = np.random.default_rng(3)
    args = shape(
        num_seqs=2.0 ** rng.integers(0, 8, 200),
        query_tokens=2.0 ** rng.integers(0, 14, 200),
        num_heads=8.0 * rng.integers(1, 9, 200),
    )

    def price_s(constants: PrefillAttentionConstants) -> Floats:
        return prefill_attention_s(H100, constants, args)

    held = {"untuned_scale", "outside_frac", "edge_tokens"}
    assert held_names(price_s, START) == held | {"query_tile_tokens", "head_packing_frac"}
    found = fit_free(price_s, price_s(truth), START)
    assert errors(price_s(found), price_s(truth)).p90_abs_error_frac < 0.01
    assert found.untuned_scale == START.untuned_scale


def load(device: str, suffix: str) -> pd.DataFrame:
    path = KERNELS / f"{device}_sxm.{suffix}.parquet"
    if not path.is_file():
        pytest.skip(f"needs {path}: set SIMPOD_SHARED")
    return pd.read_parquet(path)


def fitted_errors(group: Group[PrefillAttentionShape], device: str) -> float:
    rows = np.random.default_rng(0).permutation(len(group.measured_s))[:600]
    names = [field.name for field in dataclasses.fields(group.shape)]
    args = {name: getattr(group.shape, name)[rows] for name in names}
    die = load_hardware(device).die
    part = dataclasses.replace(
        group, shape=PrefillAttentionShape(**args), measured_s=group.measured_s[rows]
    )
    start = dataclasses.replace(START, head_packing_frac=1.0)
    found = fit_free(
        lambda constants: prefill.price(die, part.variant, constants, part.shape),
        part.measured_s,
        start,
    )
    simulated_s = prefill.price(die, group.variant, found, group.shape)
    return errors(simulated_s, group.measured_s).median_abs_error_frac


def test_a_fit_on_a_few_real_rows_prices_the_others() -> None:
    (group,) = prefill.read_prefill_attention(load("a100", "context_attention"))
    assert group.variant == "bf16"
    assert fitted_errors(group, "a100") < 0.06


def test_every_row_of_real_tables_is_in_a_group() -> None:
    frame = load("b200", "context_attention")
    groups = prefill.read_prefill_attention(frame)
    assert sum(len(group.measured_s) for group in groups) == len(frame)
    names = ["bf16", "bf16_kv_fp8", "fp8"]
    expected = sorted(f"{name}/{library}" for name in names for library in ("triton", "trtllm"))
    assert [group.variant for group in groups] == expected
    windows = np.concatenate([group.shape.window_tokens for group in groups])
    assert (windows == 1).sum() == (frame["window_size"] == 0).sum()  # that table's zeros
    frame = load("h100", "encoder_attention")
    assert [len(group.measured_s) for group in encoder.read_encoder_attention(frame)] == [4951]
