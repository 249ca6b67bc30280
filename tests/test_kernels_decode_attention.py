"""Decode attention: split rules by hand, limits, directions, and the reader of its tables."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simpod.config.references import load_hardware
from simpod.cost.kernels.decode_attention import (
    COMPUTE_FRAC,
    DecodeAttentionShape,
    decode_attention_s,
    decode_plan,
)
from simpod.cost.kernels.decode_split import (
    LIBRARIES,
    LIBRARY_OF_FAMILY,
    Cut,
    num_splits,
    tile_of,
)
from simpod.validate.kernels import find_tables
from simpod.validate.tables.decode_attention import (
    START,
    fallbacks,
    fit_decode_attention,
    price,
    read_decode_attention,
    start_of,
    variant_of,
)
from simpod.validate.tables.kinds import KINDS

SHARED = Path(os.environ.get("SIMPOD_SHARED", Path(__file__).parents[2] / "shared"))
DIE = load_hardware("h100").die
FLOATS = np.float64


def shape(**counts: object) -> DecodeAttentionShape:
    whole = {
        "seqs": 32,
        "context_tokens": 4096,
        "query_heads": 32,
        "kv_heads": 8,
        "head_dim": 128,
        "window_tokens": 0,
        "query_tokens": 1,
    }
    return DecodeAttentionShape(
        **{name: np.asarray(value, dtype=FLOATS) for name, value in {**whole, **counts}.items()}
    )


def seconds(library: str = "fa3", *, kv_dtype: str = "bf16", cold: bool = True, **counts: object):
    return decode_attention_s(
        DIE, START, shape(**counts), library=library, kv_dtype=kv_dtype, is_cold=cold
    )


def splits(library: str, num_cores: int, **counts: float) -> float:
    whole = {"seqs": 1, "units": 1, "seq_units": 1, "blocks": 64, "group": 4}
    values = {**whole, "context_blocks": counts.get("blocks", 64), **counts}
    cut = Cut(**{name: np.asarray(value, dtype=FLOATS) for name, value in values.items()})
    return float(num_splits(LIBRARIES[library], num_cores, cut))


@pytest.mark.parametrize(
    ("library", "counts", "expected"),
    [
        ("fa2", {"units": 48, "seqs": 48, "blocks": 64}, 4),  # 192 of 216 slots: 89 %
        ("fa2", {"units": 173, "seqs": 173}, 1),  # 80 % of the slots are busy
        ("fa2", {"units": 150, "seqs": 150}, 4),  # 600 of 648: the first wave that fills
        ("fa2", {"units": 8, "group": 1}, 1),  # no packed heads, no split kernel
        ("fa3", {"blocks": 4}, 1),
        ("fa3", {"units": 8, "seq_units": 8, "blocks": 64}, 11),  # ceil(1.1 * 512 / 108) = 6 each
        ("fa3", {"blocks": 1024}, 32),  # vLLM's bound
        ("fa3", {"seqs": 993, "units": 993}, 1),
        ("trtllm", {"units": 10, "seqs": 10}, 10),
        ("trtllm", {"units": 1, "blocks": 5}, 2),  # two blocks each at least
        ("trtllm", {"units": 200, "seqs": 200}, 1),
        ("fa4", {"seqs": 512, "units": 512, "blocks": 1}, 32),
        ("fa4", {"seqs": 513, "units": 513}, 1),
        ("triton", {"units": 128, "seqs": 128}, 16),
        ("triton", {"units": 129, "seqs": 129}, 1),
    ],
)
def test_splits_by_hand(library: str, counts: dict[str, float], expected: int) -> None:
    assert splits(library, 108, **counts) == expected


def test_splits_stay_within_blocks_and_bound() -> None:
    rng = np.random.default_rng(0)
    units = rng.integers(1, 2000, 4000).astype(FLOATS)
    blocks = rng.integers(1, 2000, 4000).astype(FLOATS)
    cut = Cut(
        seqs=units,
        units=units,
        seq_units=np.ones(4000),
        blocks=blocks,
        context_blocks=blocks,
        group=np.full(4000, 4.0),
    )
    for library in LIBRARIES.values():
        found = num_splits(library, 132, cut)
        assert np.all(found >= 1)
        assert np.all(found <= library.max_splits)
        if library.rule != "fixed":
            assert np.all(found <= blocks)


def test_tiles_follow_head_dim_and_rows() -> None:
    dims = np.array([64.0, 80.0, 128.0, 512.0])
    rows, tokens = tile_of(LIBRARIES["fa3"], "bf16", dims, np.ones(4))
    assert rows.tolist() == [192, 192, 64, 128]
    assert tokens.tolist() == [160, 128, 128, 64]
    rows, _ = tile_of(LIBRARIES["trtllm"], "fp8", np.asarray(128.0), np.array([1.0, 16, 17, 65]))
    assert rows.tolist() == [16, 16, 64, 64]


def test_waves_count_parts_over_cores() -> None:
    plan = decode_plan(DIE, LIBRARIES["fa3"], shape(seqs=[16, 17, 34]), "bf16")
    assert plan.splits.tolist() == [1, 1, 1]
    assert plan.waves.tolist() == [1, 2, 3]  # 128, 136 and 272 units over 132 cores
    plan = decode_plan(DIE, LIBRARIES["fa3"], shape(seqs=4), "bf16")
    assert (plan.splits, plan.blocks, plan.waves) == (4, 8, 1)  # ceil(1.1 * 32 * 32 / 132) = 9


def test_window_limits_tokens_and_masks_its_edge() -> None:
    long = shape(window_tokens=128, context_tokens=[128, 129, 100_000], query_tokens=1)
    plan = decode_plan(DIE, LIBRARIES["fa3"], long, "bf16")
    assert plan.resident_tokens.tolist() == [128, 128, 128]
    assert plan.is_cut.tolist() == [False, True, True]
    assert plan.blocks.tolist() == [1, 2, 2]
    inside, cut, far = seconds(window_tokens=128, context_tokens=[128, 129, 100_000])
    assert inside < cut == far < seconds(context_tokens=100_000)


def test_tiny_call_is_launch_and_one_unit() -> None:
    found = seconds(seqs=1, context_tokens=1, query_heads=1, kv_heads=1)
    unit = START.unit_s + START.unit_head_s
    block = 2 * 128 * 128 * 2 / START.core_bytes_per_s
    assert found == pytest.approx(START.launch_s + START.seq_s + unit + block, rel=1e-3)


def test_huge_call_is_memory_bound() -> None:
    fast = replace(START, core_bytes_per_s=5e11, overlap_exponent=12.0, unit_s=1e-8)
    many = shape(seqs=64, context_tokens=1_000_000)
    found = decode_attention_s(DIE, fast, many, library="fa3", is_cold=True)
    kv_bytes = 2 * 2 * 64 * 8 * 1_000_000 * 128
    assert found == pytest.approx(kv_bytes / (fast.hbm_frac * DIE.hbm_bytes_per_s), rel=0.01)


def test_many_query_rows_are_compute_bound() -> None:
    fast = replace(START, core_bytes_per_s=5e11, overlap_exponent=12.0, unit_s=1e-8)
    many = shape(seqs=64, context_tokens=100_000, query_heads=128, kv_heads=1, query_tokens=8)
    found = decode_attention_s(DIE, fast, many, library="fa3", is_cold=True)
    flops = 4 * 64 * 1024 * 100_000 * 128
    compute_s = flops / (COMPUTE_FRAC * DIE.peak_flops_per_s["bf16"])
    assert found == pytest.approx(compute_s, rel=0.05)


def test_one_core_cannot_pull_all() -> None:
    """FlashAttention-2 leaves a lone head on one core: its bandwidth, not the die's."""
    found = seconds("fa2", seqs=1, query_heads=1, kv_heads=1, context_tokens=1_000_000)
    assert found == pytest.approx(2 * 2 * 1_000_000 * 128 / START.core_bytes_per_s, rel=0.02)


def test_cold_cache_comes_from_memory() -> None:
    small, large = {"seqs": 16, "context_tokens": 1024}, {"seqs": 64, "context_tokens": 65536}
    assert seconds("trtllm", cold=False, **small) < seconds("trtllm", **small)
    assert seconds("trtllm", cold=False, **large) == pytest.approx(
        seconds("trtllm", **large), rel=1e-3
    )


def test_regrouping_costs_two_kernels_and_copies() -> None:
    """Several KV heads of several sequences, one query token: packed by copying."""
    together = seconds("fa2", seqs=2, kv_heads=4, context_tokens=64)
    apart = seconds("fa2", seqs=8, kv_heads=1, query_heads=8, context_tokens=64)
    assert together - apart == pytest.approx(2 * START.extra_kernel_s, rel=0.1)


def test_fp8_cache_is_half_of_the_bytes() -> None:
    ratio = seconds("trtllm", seqs=256) / seconds("trtllm", seqs=256, kv_dtype="fp8")
    assert 1.8 < ratio < 2.0


def test_searching_library_pays_per_sequence_in_every_wave() -> None:
    one, more = replace(START, seq_s=1e-11), replace(START, seq_s=1e-8)
    many = shape(seqs=2048, context_tokens=1, kv_heads=1, query_heads=4, head_dim=512)
    found = [decode_attention_s(DIE, each, many, library="fa4") for each in (one, more)]
    assert float(found[1] - found[0]) == pytest.approx(16 * 2048 * 1e-8, rel=0.05)  # 16 waves


@pytest.mark.parametrize("library", sorted(LIBRARIES))
@pytest.mark.parametrize("hardware", ["h100", "b200", "a100", "cloudmatrix384"])
def test_sane_over_a_wide_range(library: str, hardware: str) -> None:
    die = load_hardware(hardware).die
    counts = 2.0 ** np.arange(17)
    wide = shape(
        seqs=counts[:, None, None],
        context_tokens=counts[None, :, None],
        head_dim=np.array([64, 80, 128, 256, 512])[None, None, :],
    )
    for kv_dtype in ("bf16", "fp8", "int8"):
        found = decode_attention_s(die, START, wide, library=library, kv_dtype=kv_dtype)
        assert found.shape == (17, 17, 5)
        assert np.all(np.isfinite(found))
        assert np.all(found > START.launch_s)
        assert np.all(found[:, 1:] > 0.75 * found[:, :-1])  # a first split may gain
        assert np.all(found[-1, 1:] >= found[-1, :-1])
        if LIBRARIES[library].rule != "fixed":  # those stop splitting from some size on
            assert np.all(found[1:] > 0.85 * found[:-1])  # no merge any more


def test_faster_memory_and_more_constants_point_the_right_way() -> None:
    base = seconds("trtllm")
    fast = replace(DIE, hbm_bytes_per_s=2 * DIE.hbm_bytes_per_s)
    assert decode_attention_s(fast, START, shape(), library="trtllm", is_cold=True) < base
    for name in ("launch_s", "seq_s", "unit_s", "unit_head_s"):
        slower = replace(START, **{name: 1.5 * getattr(START, name)})
        assert decode_attention_s(DIE, slower, shape(), library="trtllm", is_cold=True) > base


def test_scalars_and_arrays_agree() -> None:
    lengths = np.array([100.0, 5000.0, 70_000.0])
    together = seconds(context_tokens=lengths)
    assert together.tolist() == pytest.approx([float(seconds(context_tokens=n)) for n in lengths])


def test_variants_and_fallbacks() -> None:
    assert variant_of("vllm_flash_attn_fa3", "bfloat16") == "bf16/fa3"
    assert variant_of("vllm_flash_attn", "float16") == "bf16/fa2"
    assert variant_of("vllm_flashinfer_trtllmdecode", "fp8_e4m3") == "fp8/trtllm"
    assert variant_of("vllm_triton_attn", "fp8") == "fp8/triton"
    assert variant_of("something new", "bfloat16") == "bf16/trtllm"
    assert fallbacks("fp8/fa3")[:3] == ("bf16/fa3", "fp8/fa4", "bf16/fa4")
    everything = {f"{kv}/{name}" for kv in ("bf16", "fp8") for name in LIBRARIES}
    for variant in everything:
        assert {variant, *fallbacks(variant)} == everything
        assert len(fallbacks(variant)) == len(everything) - 1
    assert set(LIBRARY_OF_FAMILY.values()) <= set(LIBRARIES)


def frame(rows: int = 120) -> pd.DataFrame:
    """A made-up table, priced by known constants."""
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "kernel_source": "vllm_flash_attn_fa3",
            "kv_cache_dtype": np.where(np.arange(rows) % 2, "bfloat16", "fp8"),
            "batch_size": 2 ** rng.integers(0, 10, rows),
            "isl": 1,
            "step": 2 ** rng.integers(0, 16, rows) - 1,
            "num_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "latency_us": 1.0,
        }
    )


def test_reader_keeps_every_row() -> None:
    groups = read_decode_attention(frame())
    assert [group.variant for group in groups] == ["bf16/fa3", "fp8/fa3"]
    assert [len(group.measured_s) for group in groups] == [60, 60]
    assert groups[0].measured_s[0] == pytest.approx(1e-6)
    assert set(np.log2(groups[0].shape.context_tokens)) <= set(range(16))
    assert not groups[0].shape.window_tokens.any()


def test_fit_finds_known_constants_and_leaves_idle_ones() -> None:
    group = read_decode_attention(frame(400))[0]
    start = start_of(group.variant)
    true = replace(start, launch_s=6e-6, hbm_frac=0.8, unit_s=2e-6)
    known = replace(group, measured_s=price(DIE, group.variant, true, group.shape))
    found = fit_decode_attention(DIE, known)
    assert found.launch_s == pytest.approx(6e-6, rel=0.02)
    assert found.hbm_frac == pytest.approx(0.8, rel=0.02)
    assert found.mask_flops == start.mask_flops  # no row has a window


def test_benchmark_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mha" / "decode" / "h800"
    folder.mkdir(parents=True)
    text = "dtype,kv_dtype,batch_size,kv_len,latency_us,mfu\nbf16,bf16,16,4096,58.1,0.02\n"
    (folder / "32-4-128.csv").write_text(text)
    (table,) = find_tables(tmp_path)
    assert (table.device, table.kind) == ("h800", "mha/decode")
    (group,) = KINDS[table.kind].read(table.read())
    assert group.variant == "bf16/fa3"
    assert (group.shape.query_heads, group.shape.kv_heads) == (32, 4)
    assert group.shape.context_tokens == 4096


@pytest.mark.parametrize("device", ["h100", "a100", "b200"])
def test_real_table(device: str) -> None:
    path = SHARED / "kernels" / f"{device}_sxm.generation_attention.parquet"
    if not path.is_file():
        pytest.skip(f"needs {path}: set SIMPOD_SHARED")
    table = pd.read_parquet(path)
    groups = read_decode_attention(table)
    assert sum(len(group.measured_s) for group in groups) == len(table)
    total_us = sum(group.measured_s.sum() for group in groups) * 1e6
    assert total_us == pytest.approx(table["latency_us"].sum())
