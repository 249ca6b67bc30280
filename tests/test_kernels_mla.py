"""MLA attention kernels: limits by hand, monotonicity, tables."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simpod.config.references import load_hardware
from simpod.cost.kernels.decode_mla import DecodeMlaShape, decode_mla_s
from simpod.cost.kernels.mla import MlaDims, waves_time
from simpod.cost.kernels.prefill_mla import PrefillMlaShape, prefill_mla_s
from simpod.validate.fit import bounds_of, errors, fit
from simpod.validate.tables import decode_mla, prefill_mla
from simpod.validate.tables.mla_rows import best_fit

SHARED = Path(os.environ.get("SIMPOD_SHARED", Path(__file__).resolve().parents[2] / "shared"))
H100 = load_hardware("h100").die
CM384 = load_hardware("cloudmatrix384").die

DECODE = replace(decode_mla.START, uncrowded_gain_frac=0.0)
PREFILL = replace(prefill_mla.START, uncrowded_gain_frac=0.0, head_passes=0.0, latent_passes=0.0)

CANN = load_hardware("cloudmatrix384").kernels.decode_mla
"""One Ascend 910C die; `test_cann_reaches_its_published_figures` says what they stand for."""


def decode_s(num_seqs, context, heads, constants=DECODE, die=H100, **more):
    shape = DecodeMlaShape(
        num_seqs=num_seqs,
        context_tokens=context,
        num_heads=heads,
        query_tokens=more.pop("query_tokens", 1.0),
    )
    return decode_mla_s(die, constants, shape, **more)


def prefill_s(num_seqs, tokens, heads, resident=0.0, constants=PREFILL, **more):
    shape = PrefillMlaShape(
        num_seqs=num_seqs, query_tokens=tokens, num_heads=heads, resident_tokens=resident
    )
    return prefill_mla_s(H100, constants, shape, **more)


def test_long_decode_of_few_heads_is_bound_by_memory() -> None:
    """1,056 sequences fill 8 waves; 131,072 latents of 576 bf16 numbers each."""
    seqs, context = 1056, 131_072
    cache_s = seqs * context * 576 * 2 / (DECODE.hbm_frac * 3.35e12)
    fast = replace(DECODE, compute_frac=2.0)
    assert decode_s(seqs, context, 16, fast) == pytest.approx(cache_s, rel=0.03)
    assert decode_s(seqs, context, 16, fast) > cache_s
    half = decode_s(seqs, context, 16, replace(fast, small_tile_rows=16.0), kv_dtype="fp8")
    assert half == pytest.approx(cache_s / 2, rel=0.03)


def test_long_decode_of_many_queries_is_bound_by_compute() -> None:
    seqs, context, queries = 132, 65_536, 4
    flops = 2 * (576 + 512) * 128 * queries * seqs * context
    got = decode_s(seqs, context, 128, query_tokens=queries)
    assert got == pytest.approx(flops / (DECODE.compute_frac * 989e12), rel=0.03)


def test_tiny_decode_is_a_launch_and_a_block() -> None:
    key_s = 64 * 2 * (576 + 512) * 132 / (DECODE.compute_frac * 989e12)
    by_hand = DECODE.launch_s + DECODE.block_s + 64 * key_s
    assert decode_s(1, 1, 1) == pytest.approx(by_hand, rel=1e-3)


def test_one_long_sequence_is_split_over_all_cores() -> None:
    """Two tiles of 64 heads in 66 splits; each merges fp32 partial outputs that lie in L2."""
    context = 1_056_000
    flops = 2 * (576 + 512) * 128 * context
    compute_s = DECODE.block_s + flops / (DECODE.compute_frac * 989e12)
    memory_s = context * 576 * 2 / (DECODE.hbm_frac * 3.35e12)
    partial_s = 66 * 128 * 512 * 4 * 2 / (DECODE.hbm_frac * 3.35e12 * DECODE.l2_bandwidth_scale)
    merge_s = DECODE.combine_s * 65 / 66 + DECODE.combine_per_split_s * 65 + partial_s
    body_s = (compute_s**3 + memory_s**3) ** (1 / 3)
    by_hand = DECODE.launch_s + body_s + merge_s
    assert decode_s(1, context, 128) == pytest.approx(by_hand, rel=1e-3)


def test_a_kernel_that_never_splits_takes_as_long_for_one_sequence_as_for_a_wave() -> None:
    unsplit = replace(DECODE, min_split_tokens=1e7, uncrowded_gain_frac=0.5)
    die = replace(H100, hbm_bytes_per_s=1e15)
    one, half, full, over = (decode_s(n, 65_536, 64, unsplit, die) for n in (1, 66, 132, 133))
    assert half == pytest.approx(one, rel=0.01)
    assert full == pytest.approx(1.5 * one, rel=0.01)
    assert over == pytest.approx(2.5 * one, rel=0.01)


SPREAD = replace(DECODE, min_split_tokens=1e7, spread_block_tokens=512.0, combine_s=0.0)
"""Even shares of blocks; on `SIXTEEN` only compute takes time, and partial outputs next to none."""
SIXTEEN = replace(H100, num_cores=16, hbm_bytes_per_s=1e21)


def even_s(num_seqs, context, constants=SPREAD):
    no_fixed = replace(constants, block_s=0.0, combine_per_split_s=0.0)
    return decode_s(num_seqs, context, 64, no_fixed, SIXTEEN) - constants.launch_s


def test_blocks_of_keys_are_spread_evenly() -> None:
    """24 equal tiles on 16 cores cost 1.5 tiles; of one block each, or whole, two."""
    tile_s = even_s(16, 8192)
    assert even_s(1, 8192) == pytest.approx(tile_s / 16, rel=1e-6)
    assert even_s(24, 8192) == pytest.approx(1.5 * tile_s, rel=1e-6)
    assert even_s(24, 512) == pytest.approx(2 * tile_s / 16, rel=1e-6)
    assert even_s(24, 576) == pytest.approx(tile_s * 1088 / 8192, rel=1e-6)  # 512 + 64, and 512
    whole = replace(SPREAD, spread_block_tokens=1e7)
    assert even_s(24, 8192, whole) == pytest.approx(2 * tile_s, rel=1e-6)


def test_only_cut_tiles_are_merged() -> None:
    """Shares of 24 blocks end in the middle of a tile of 16 every other time: 8 cuts, 24 tiles."""
    merging = replace(SPREAD, combine_s=3e-6)
    added = [even_s(seqs, 8192, merging) - even_s(seqs, 8192) for seqs in (16, 24, 32)]
    assert added == pytest.approx([0.0, 3e-6 * (1.0 - 24 / 32), 0.0], abs=1e-12)


def test_even_shares_grow() -> None:
    context = np.arange(1.0, 9000.0, 7.0)
    for seqs in (0.5, 1.0, 7.3, 24.0, 100.0):
        assert (np.diff(even_s(seqs, context)) >= -1e-15).all()
    assert (np.diff(even_s(np.arange(1.0, 100.0), 5000.0)) >= -1e-15).all()


def test_a_cache_in_l2_is_faster_unless_cold() -> None:
    small, large = (8, 1024, 16), (128, 65_536, 16)
    assert decode_s(*small) < decode_s(*small, is_cold=True)
    assert decode_s(*large) == pytest.approx(decode_s(*large, is_cold=True), rel=1e-3)


def test_conversion_of_an_fp8_cache_is_added() -> None:
    cast = replace(DECODE, cast_passes=5.0)
    added = decode_s(64, 8192, 16, cast, kv_dtype="fp8") - decode_s(64, 8192, 16, kv_dtype="fp8")
    assert added == pytest.approx(5 * 64 * 8192 * 576 * 2 / (0.85 * 3.35e12), rel=1e-6)


def test_half_as_wide_latents_take_half_as_long() -> None:
    half = MlaDims(kv_lora_rank=256, qk_rope_head_dim=32)
    wide, narrow = decode_s(132, 131_072, 64), decode_s(132, 131_072, 64, dims=half)
    assert narrow == pytest.approx(wide / 2, rel=0.01)


def test_waves() -> None:
    got = waves_time(
        np.array([0.1, 0.5, 1.0, 1.5, 2.75]), np.array([0.1, 0.5, 0.0, 0.5, 0.75]), 1.0
    )
    assert got.tolist() == [0.5, 0.5, 1.0, 1.5, 3.0]


def test_long_prompts_reach_the_share_of_the_peak() -> None:
    tokens = 65_536
    flops = 128 * tokens * tokens / 2 * 2 * (192 + 128)
    assert prefill_s(1, tokens, 128) == pytest.approx(flops / (0.6 * 989e12), rel=0.02)
    absorbed = prefill_s(1, tokens, 128, is_absorbed=True)
    assert absorbed == pytest.approx(flops * (576 + 512) / (192 + 128) / (0.6 * 989e12), rel=0.02)


def test_one_token_prompt_is_a_launch_and_a_block() -> None:
    key_s = 64 * 2 * 320 * 132 / (0.6 * 0.7 * 989e12)
    blocks = 2**0.25 if PREFILL.block_s > 128 * key_s else 1.0
    got = float(prefill_s(1, 1, 1))
    low, high = PREFILL.launch_s + PREFILL.block_s, blocks * PREFILL.block_s + 2 * 128 * key_s
    assert low < got < PREFILL.launch_s + high


def test_chunks_cost_what_the_whole_prompt_does() -> None:
    whole = prefill_s(1, 32_768, 128)
    chunks = sum(prefill_s(1, 4096, 128, 4096.0 * i) - PREFILL.launch_s for i in range(8))
    assert chunks == pytest.approx(whole, rel=0.04)


def test_copying_kernels_are_added() -> None:
    copying = replace(PREFILL, head_passes=2.0, latent_passes=3.0)
    added = prefill_s(4, 100, 16, 50.0, copying) - prefill_s(4, 100, 16, 50.0)
    copied_bytes = 400 * 16 * 320 * 2 * 2.0 + 600 * 576 * 2 * 3.0
    assert added == pytest.approx(copied_bytes / 3.35e12, rel=1e-6)


@pytest.mark.parametrize("is_absorbed", [False, True])
def test_prefill_is_finite_and_grows(is_absorbed: bool) -> None:
    tokens = np.unique(np.round(np.geomspace(1, 65_536, 400)))
    for heads in (1, 16, 128):
        got = prefill_s(1.5, tokens, heads, 100.0, is_absorbed=is_absorbed)
        assert np.isfinite(got).all()
        assert (got > PREFILL.launch_s).all()
        assert (got[1:] >= 0.93 * got[:-1]).all()  # keys of a single tile come in whole blocks
    more_heads = prefill_s(1, 777, np.arange(1, 129), is_absorbed=is_absorbed)
    assert (more_heads[1:] >= 0.99 * more_heads[:-1]).all()
    more_resident = prefill_s(2, 300, 16, np.arange(0, 30_000, 100), is_absorbed=is_absorbed)
    assert (np.diff(more_resident) >= -1e-12).all()


def test_decode_is_finite_and_grows() -> None:
    context = np.unique(np.round(np.geomspace(1, 1e6, 500)))
    for seqs in (0.5, 1.0, 7.3, 64.0, 500.0):
        got = decode_s(seqs, context, 16)
        assert np.isfinite(got).all()
        assert (got > DECODE.launch_s).all()
        assert (np.diff(got) >= -1e-12).all()
    by_seqs = decode_s(np.arange(1, 2000), 4096, 128)
    assert (by_seqs[1:] >= 0.95 * by_seqs[:-1]).all()  # merging ends where splitting does
    assert (np.diff(decode_s(8, 4096, np.arange(1, 129))) >= -1e-12).all()
    assert (np.diff(decode_s(8, 4096, 128, query_tokens=np.arange(1, 6))) > 0).all()


def test_more_bandwidth_or_compute_never_slows() -> None:
    wide = replace(H100, hbm_bytes_per_s=2 * H100.hbm_bytes_per_s)
    fast = replace(H100, peak_flops_per_s={"bf16": 2 * H100.peak_flops_per_s["bf16"]})
    shape = DecodeMlaShape(
        num_seqs=np.array([1, 8, 64, 512.0])[:, None],
        context_tokens=np.array([1, 500, 8192.0]),
        num_heads=128,
    )
    base = decode_mla_s(H100, DECODE, shape)
    assert base.shape == (4, 3)
    assert (decode_mla_s(wide, DECODE, shape) <= base).all()
    assert (decode_mla_s(fast, DECODE, shape) <= base).all()


def test_arrays_and_scalars_agree() -> None:
    seqs, tokens = np.array([1.0, 2.5, 40.0]), np.array([3.0, 900.5, 128.0])
    arrays = prefill_s(seqs, tokens, 16, 64.0)
    singly = [float(prefill_s(n, t, 16, 64.0)) for n, t in zip(seqs, tokens, strict=True)]
    assert arrays.tolist() == pytest.approx(singly)
    assert decode_s(seqs, tokens, 16).tolist() == pytest.approx(
        [float(decode_s(n, t, 16)) for n, t in zip(seqs, tokens, strict=True)]
    )


def cann_s(num_seqs, context, heads, queries=1.0, kv_dtype="bf16"):
    constants = CANN[kv_dtype].constants
    more = {"query_tokens": queries, "is_cold": True, "kv_dtype": kv_dtype}
    return float(decode_s(num_seqs, context, heads, constants, CM384, **more))


def test_cann_reaches_its_published_figures() -> None:
    """CloudMatrix-Infer tables 8 and 9, a report of 59.8 us; CANN: above 70 % with a draft."""
    seqs, context = 96, 8192
    flops = 2 * (576 + 512) * 128 * seqs * context
    counted = CM384.peak_flops_per_s["int8"] / 2  # what the paper's shares are of
    assert flops / cann_s(seqs, context, 128) / counted == pytest.approx(0.654, rel=0.005)
    two = 2 * flops / cann_s(seqs, context, 128, 2.0)
    assert two > 0.70 * counted
    assert two < 307e12  # AMLA on half of an NPU
    cache_bytes = seqs * context * 576 * 2
    assert cache_bytes / cann_s(seqs, context, 16) == pytest.approx(1.346e12, rel=0.005)
    assert cann_s(5, 4500, 16) == pytest.approx(59.8e-6, rel=0.005)


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_fewer_heads_never_take_longer_on_an_ascend_die(dtype: str) -> None:
    """32 and 64 heads as long as 128, within what a 910B measures: 0.87 and 0.89 (256 of 16K)."""
    took_s = decode_s(256, 16_384, np.arange(1, 129), CANN[dtype].constants, CM384, kv_dtype=dtype)
    assert (np.diff(took_s) >= 0.0).all()
    assert took_s[[31, 63]] == pytest.approx(0.88 * took_s[127], rel=0.15)


def test_an_int8_cache_has_a_rotated_key_of_16_bits() -> None:
    """512 bytes and 2 x 64, of 2 x 576: few heads take as long as reading that."""
    whole_s, narrow_s = (
        cann_s(960, 65_536, 1, kv_dtype=dtype) - CANN[dtype].constants.launch_s
        for dtype in ("bf16", "int8")
    )
    assert narrow_s / whole_s == pytest.approx(640 / 1152, rel=0.04)


def test_an_int8_cache_takes_what_xdeepserve_measures() -> None:
    """Figure 20: 21.8 % of 90.2 ms over 62 layers, 60 sequences a die at about 3K, one draft."""
    measured_s = 0.218 * 90.2e-3 / 62
    assert cann_s(60, 3072, 128, 2.0, "int8") == pytest.approx(measured_s, rel=0.01)
    assert cann_s(60, 3072, 128, 2.0) > 1.2 * measured_s


def frame(**columns):
    table = pd.DataFrame({"latency_us": [10.0, 20.0, 30.0], "num_heads": [16, 16, 128], **columns})
    return table.assign(batch_size=[1, 2, 4])


def test_readers_name_variants() -> None:
    table = frame(
        kernel_source=["flash_attention", "flash_attention", "default"],
        kv_cache_dtype=["bfloat16", "fp8", "fp8"],
        isl=[1, 1, 1],
        step=[3, 7, 15],
    )
    groups = {group.variant: group for group in decode_mla.read_decode_mla(table)}
    assert sorted(groups) == ["bf16", "fp8", "fp8/cast"]
    assert np.asarray(groups["fp8"].shape.context_tokens).tolist() == [16.0]
    assert groups["fp8/cast"].measured_s.tolist() == pytest.approx([20e-6])
    prompts = {group.variant for group in prefill_mla.read_prefill_mla(table)}
    assert prompts == {"bf16/absorbed", "fp8/absorbed", "fp8"}


def test_prompts_by_scope_fall_back_on_the_attention_alone_first() -> None:
    table = frame(
        kernel_source=["trtllm_mla", "trtllm_mla", "trtllm_mla"],
        kv_cache_dtype=["bfloat16", "fp8", "fp8"],
        isl=[1, 1, 1],
        step=[0, 0, 0],
    )
    prompts = [group.variant for group in prefill_mla.read_prefill_mla(table)]
    assert prompts == ["bf16/trtllm_mla", "fp8/trtllm_mla"]
    assert prefill_mla.fallbacks("fp8/trtllm_mla")[:4] == (
        *("fp8/trtllm_mla", "bf16/trtllm_mla"),
        *("fp8", "bf16"),
    )
    assert prefill_mla.fallbacks("bf16")[0] == "bf16"


@pytest.mark.parametrize("table", [decode_mla, prefill_mla])
def test_every_variant_ends_in_one_that_exists(table) -> None:
    for variant in ("bf16", "fp8", "fp8/cast", "bf16/absorbed", "int3/unknown"):
        assert "bf16" in table.fallbacks(variant)
        low_high = bounds_of(type(table.START))
        for start in table.starts(variant):
            assert all(a <= getattr(start, name) <= b for name, (a, b) in low_high.items())


def test_fit_finds_constants_and_keeps_structure() -> None:
    rng = np.random.default_rng(0)
    shape = DecodeMlaShape(
        num_seqs=2.0 ** rng.integers(0, 10, 300),
        context_tokens=2.0 ** rng.integers(0, 16, 300),
        num_heads=2.0 ** rng.integers(0, 8, 300),
    )
    true = replace(decode_mla.START, launch_s=5e-6, compute_frac=0.5, small_tile_rows=16.0)
    measured_s = decode_mla.price(H100, "bf16", true, shape)
    found = decode_mla.calibrate(H100, "bf16", shape, measured_s)
    assert found.small_tile_rows == 16.0
    assert found.cast_passes == 0.0
    assert found.launch_s == pytest.approx(5e-6, rel=0.05)
    assert found.compute_frac == pytest.approx(0.5, rel=0.05)


def test_an_earlier_start_is_kept_unless_a_later_one_gains() -> None:
    measured_s = np.full(5, 2e-6)
    first, second = PREFILL, replace(PREFILL, tile_rows=256.0)
    found = best_fit(lambda c: np.full(5, c.launch_s), measured_s, (first, second))
    assert found.tile_rows == 128.0
    assert fit(lambda c: np.full(5, c.launch_s), measured_s, first).launch_s == pytest.approx(2e-6)


@pytest.mark.parametrize(
    ("name", "read", "start"),
    [
        ("h100_sxm.generation_mla", decode_mla.read_decode_mla, decode_mla),
        ("b200_sxm.context_mla", prefill_mla.read_prefill_mla, prefill_mla),
    ],
)
def test_measured_tables(name, read, start) -> None:
    path = SHARED / "kernels" / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"needs {path}: set SIMPOD_SHARED")
    table = pd.read_parquet(path)
    groups = read(table)
    assert sum(len(group.measured_s) for group in groups) == len(table)
    total_s = sum(float(group.measured_s.sum()) for group in groups)
    assert total_s == pytest.approx(table["latency_us"].sum() * 1e-6)
    for group in groups:
        constants = start.starts(group.variant)[-1]
        got = start.price(H100, group.variant, constants, group.shape)
        assert errors(got, group.measured_s).median_abs_error_frac < 1.0


def test_measured_h800() -> None:
    folder = SHARED / "measured" / "kernels_h800" / "mla"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}: set SIMPOD_SHARED")
    name = "128-512-64"
    decode = pd.read_csv(folder / "decode" / "h800" / f"{name}.csv").assign(name=name)
    (group,) = decode_mla.read_decode_mla_by_length(decode)
    shape = group.shape
    pairs = np.asarray(shape.num_seqs) * np.asarray(shape.context_tokens) * 128
    flops_per_s = pairs * 2 * (576 + 512) / group.measured_s
    assert flops_per_s / 989e12 == pytest.approx(decode["mfu"].to_numpy(), rel=0.1)
    name = "128-128-64"
    prefill = pd.read_csv(folder / "prefill" / "h800" / f"{name}.csv").assign(name=name)
    (group,) = prefill_mla.read_prefill_mla_by_length(prefill)
    assert len(group.measured_s) == len(prefill)
