"""Measured decode attention: tables `generation_attention`, and fits of its constants.

A variant is the type of the cache with the library: `bf16/fa3`, `fp8/trtllm`. Libraries split the
context by rules of their own, so the library is part of the model, not only of its constants.
"""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simpod.cost.kernels.decode_attention import DecodeAttentionShape, decode_attention_s
from simpod.hardware.kernels.decode_attention import DecodeAttentionConstants
from simpod.hardware.spec import DieSpec
from simpod.units import US
from simpod.validate.fit import fit
from simpod.validate.tables.group import Group

Floats = NDArray[np.float64]

OPERATOR = "decode_attention"

SOURCES = {
    "ascend": "trtllm",
    "triton": "triton",
    "fa4": "fa4",
    "fa3": "fa3",
    "trtllm": "trtllm",
    "xqa": "trtllm",
    "flashinfer": "trtllm",
    "flash_attention": "fa3",
    "flash_attn": "fa2",
    "flash": "fa2",
}
"""Part of `kernel_source` -> library; the first that is found counts, trtllm if there is none.
`flash_attention` is SGLang's FlashAttention-3 backend, `vllm_flash_attn` without a number is 2.
CANN is modelled with the tiles and splits of trtllm."""

KV_DTYPES = ("bf16", "fp8")
"""Of variants; any cache of one byte an element counts as fp8."""

NEAREST = {
    "fa3": ("fa3", "fa4", "trtllm", "fa2", "triton"),
    "fa4": ("fa4", "fa3", "trtllm", "fa2", "triton"),
    "fa2": ("fa2", "trtllm", "fa3", "fa4", "triton"),
    "trtllm": ("trtllm", "fa3", "fa4", "fa2", "triton"),
    "triton": ("triton", "trtllm", "fa3", "fa2", "fa4"),
}
"""Libraries by how near their constants are."""

START = DecodeAttentionConstants(
    launch_s=8e-6,
    extra_kernel_s=1.5e-6,
    split_s=8e-8,
    seq_s=5e-9,
    unit_s=1.2e-6,
    unit_head_s=8e-7,
    mask_flops=30.0,
    core_bytes_per_s=8e10,
    wide_head_exponent=0.3,
    hbm_frac=0.9,
    l2_bandwidth_scale=2.0,
    overlap_exponent=2.0,
)

STARTS = {
    "fa2": replace(START, extra_kernel_s=3e-6, split_s=2e-7, core_bytes_per_s=2.5e10),
    "fa4": replace(START, launch_s=1e-5, unit_s=1e-5, unit_head_s=1e-6),
    "triton": replace(START, core_bytes_per_s=5e10),
}
"""By library; the others start at START."""


def variant_of(source: str, kv_dtype: str) -> str:
    """Names of the tables -> variant."""
    library = next((name for part, name in SOURCES.items() if part in source.lower()), "trtllm")
    is_narrow = any(mark in kv_dtype.lower() for mark in ("8", "fp4"))
    return f"{'fp8' if is_narrow else 'bf16'}/{library}"


def fallbacks(variant: str) -> tuple[str, ...]:
    """Variants whose constants may stand in, nearest first.

    The other cache type of the same library, then both types of the next library, and so on
    through all of them: one of these exists for any device that was fitted at all.
    """
    kv_dtype, _, library = variant.partition("/")
    kv_dtypes = sorted(KV_DTYPES, key=lambda name: name != kv_dtype)
    order = [f"{name}/{near}" for near in NEAREST[library] for name in kv_dtypes]
    return tuple(entry for entry in order if entry != variant)


def start_of(variant: str) -> DecodeAttentionConstants:
    """Where a fit starts."""
    return STARTS.get(variant.partition("/")[2], START)


def price(
    die: DieSpec,
    variant: str,
    constants: DecodeAttentionConstants,
    shape: DecodeAttentionShape,
) -> Floats:
    """Seconds of a variant's rows: warm, as benchmarks repeat one call."""
    kv_dtype, _, library = variant.partition("/")
    return decode_attention_s(die, constants, shape, library=library, kv_dtype=kv_dtype)


def fit_decode_attention(
    die: DieSpec, group: Group[DecodeAttentionShape]
) -> DecodeAttentionConstants:
    """The constants that come closest to a group's rows.

    A constant that no row depends on (masks where no row has a window) keeps its start: a device
    that borrows the constants must not inherit what the search happened to try last.
    """
    start = start_of(group.variant)

    def price_s(constants: DecodeAttentionConstants) -> Floats:
        return price(die, group.variant, constants, group.shape)

    found = fit(price_s, group.measured_s, start)
    best = price_s(found)
    for field in fields(found):
        kept = replace(found, **{field.name: getattr(start, field.name)})
        if np.array_equal(price_s(kept), best):
            found = kept
    return found


def read_decode_attention(frame: pd.DataFrame) -> list[Group[DecodeAttentionShape]]:
    """Groups of a `generation_attention` table, every row in one of them.

    Resident are `step` tokens and the `isl` new ones; a table without `window_size` is of full
    attention.
    """
    named = zip(frame["kernel_source"], frame["kv_cache_dtype"], strict=True)
    variants = np.array([variant_of(str(source), str(kv_dtype)) for source, kv_dtype in named])
    return [_group(frame[variants == name], str(name)) for name in np.unique(variants)]


def _group(rows: pd.DataFrame, variant: str) -> Group[DecodeAttentionShape]:
    def column(name: str) -> Floats:
        return np.asarray(rows[name].to_numpy(), dtype=np.float64)

    zeros = np.zeros(len(rows))
    shape = DecodeAttentionShape(
        seqs=column("batch_size"),
        context_tokens=column("step") + column("isl"),
        query_heads=column("num_heads"),
        kv_heads=column("num_key_value_heads"),
        head_dim=column("head_dim"),
        window_tokens=column("window_size") if "window_size" in rows else zeros,
        query_tokens=zeros + 1.0,
    )
    return Group(
        operator=OPERATOR, variant=variant, shape=shape, measured_s=column("latency_us") * US
    )


def read_decode_by_heads(frame: pd.DataFrame) -> list[Group[DecodeAttentionShape]]:
    """Rows of InferSim's `mha/decode`, taken as fa3.

    Columns: kv_dtype, batch_size, kv_len, latency_us, and name, of the file that a row comes from:
    `<query heads>-<KV heads>-<head_dim>`.
    """
    heads = frame["name"].str.split("-", expand=True).astype(float)
    return read_decode_attention(
        pd.DataFrame(
            {
                "kernel_source": "fa3",
                "kv_cache_dtype": frame["kv_dtype"],
                "batch_size": frame["batch_size"],
                "step": frame["kv_len"],
                "isl": 0,
                "num_heads": heads[0],
                "num_key_value_heads": heads[1],
                "head_dim": heads[2],
                "latency_us": frame["latency_us"],
            }
        )
    )
