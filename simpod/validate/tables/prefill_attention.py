"""Measured prefill attention: tables `context_attention`, and fits of its constants.

A variant is the data type (`bf16`, `bf16_kv_fp8`: bf16 queries over an fp8 cache, `fp8`), with the
library: FlashAttention has none, `bf16/triton`, `bf16/trtllm` are TensorRT-LLM's generated kernels
alone, `bf16/fused` is its whole operator, with the kernels that rotate and copy its inputs.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simpod.cost.kernels.prefill_attention import PrefillAttentionShape, prefill_attention_s
from simpod.hardware.kernels.prefill_attention import PrefillAttentionConstants
from simpod.hardware.spec import DieSpec
from simpod.units import US
from simpod.validate.tables.group import Group
from simpod.validate.tables.starts import best_fit

Floats = NDArray[np.float64]

FAR_LIBRARIES = ("triton",)
"""Kernel libraries that are far from the device's best; all others count as its best."""

SOURCES = {"triton": "triton", "trtllm": "trtllm", "torch_flow": "fused", "default": "fused"}
"""Part of `kernel_source` -> library; FlashAttention if there is none."""

BEST_LIBRARIES = ("", "/fused", "/trtllm")
"""Ends of variants whose kernels are the best that there are on their devices."""

DTYPES = {
    "bf16": ("bf16", "bf16"),
    "bf16_kv_fp8": ("bf16", "fp8"),
    "fp8": ("fp8", "fp8"),
}
"""Variant without library -> data types of queries and cache."""

NEAREST = {
    "bf16": ("bf16", "bf16_kv_fp8", "fp8"),
    "bf16_kv_fp8": ("bf16_kv_fp8", "fp8", "bf16"),
    "fp8": ("fp8", "bf16_kv_fp8", "bf16"),
}
"""Data types by how near their kernels are: both with an fp8 cache multiply in fp8."""

START = PrefillAttentionConstants(
    launch_s=10e-6,
    unit_s=2e-6,
    token_s=1e-8,
    matmul_frac=0.7,
    softmax_flops=10.0,
    hbm_frac=0.8,
    query_pass_scale=0.5,
    untuned_scale=1.1,
    outside_frac=0.0,
    edge_tokens=16.0,
    query_tile_tokens=128.0,
    head_packing_frac=0.0,
)

START_FAR = replace(START, matmul_frac=0.05, softmax_flops=30.0, outside_frac=0.5)

QUERY_TILES = (64.0, 128.0, 256.0)
HEAD_PACKINGS = (0.0, 1.0)

IMPOSSIBLE = 2.0
"""Full attention that is this much faster than windowed attention was not full."""


def variant_of(source: str, dtype: str, kv_dtype: str) -> str:
    """Names of the tables -> variant; types that are unknown count as bf16."""
    over_fp8 = "bf16_kv_fp8" if "fp8" in kv_dtype else "bf16"
    name = "fp8" if "fp8" in dtype else over_fp8
    library = next((known for part, known in SOURCES.items() if part in source.lower()), "")
    return f"{name}/{library}" if library else name


def is_far(variant: str) -> bool:
    """Its library is one of FAR_LIBRARIES."""
    return variant.partition("/")[2] in FAR_LIBRARIES


def fallbacks(variant: str) -> tuple[str, ...]:
    """Variants whose constants may stand in, nearest first; a device that was fitted has one.

    Other data types of a far library, then the same and other types of the best ones.
    """
    name, _, library = variant.partition("/")
    same_library = [f"{other}/{library}" for other in NEAREST[name]] if is_far(variant) else []
    dtypes = NEAREST[name][: NEAREST[name].index("bf16") + 1]
    best = [f"{other}{end}" for other in dtypes for end in BEST_LIBRARIES]
    return tuple(entry for entry in (*same_library, *best) if entry != variant)


def start_of(variant: str) -> PrefillAttentionConstants:
    """Where a fit starts."""
    return START_FAR if is_far(variant) else START


def starts(variant: str) -> list[PrefillAttentionConstants]:
    """Tile and packing are steps: they are scanned, the rest is searched downhill."""
    first = start_of(variant)
    return [
        replace(first, query_tile_tokens=tile, head_packing_frac=packing)
        for tile, packing in product(QUERY_TILES, HEAD_PACKINGS)
    ]


def price(
    die: DieSpec,
    variant: str,
    constants: PrefillAttentionConstants,
    shape: PrefillAttentionShape,
) -> Floats:
    """Seconds of a variant's rows."""
    dtype, kv_dtype = DTYPES[variant.partition("/")[0]]
    return prefill_attention_s(die, constants, shape, dtype, kv_dtype)


def fit_prefill_attention(
    die: DieSpec, group: Group[PrefillAttentionShape]
) -> PrefillAttentionConstants:
    """The constants that come closest over all starts."""

    def price_s(constants: PrefillAttentionConstants) -> Floats:
        return price(die, group.variant, constants, group.shape)

    return best_fit(price_s, group.measured_s, starts(group.variant))[0]


def read_prefill_attention(frame: pd.DataFrame) -> list[Group[PrefillAttentionShape]]:
    """Groups of a `context_attention` table, every row in one of them; `step` is resident."""
    sources = frame["kernel_source"].astype(str)
    variants = np.array(
        [
            variant_of(*row)
            for row in zip(
                sources,
                frame["attn_dtype"].astype(str),
                frame["kv_cache_dtype"].astype(str),
                strict=True,
            )
        ]
    )
    windows = np.zeros(len(frame))
    for source in sources.unique():
        rows = (sources == source).to_numpy()
        windows[rows] = window_tokens(frame[rows])
    return [
        Group(
            operator="prefill_attention",
            variant=str(variant),
            shape=_shape(frame[variants == variant], windows[variants == variant]),
            measured_s=column(frame[variants == variant], "latency_us") * US,
        )
        for variant in np.unique(variants)
    ]


def column(frame: pd.DataFrame, name: str) -> Floats:
    """A column's numbers [n], 0 where the table lacks it."""
    if name not in frame:
        return np.zeros(len(frame))
    return frame[name].to_numpy(dtype=np.float64)


def _shape(frame: pd.DataFrame, windows: Floats) -> PrefillAttentionShape:
    heads = column(frame, "num_heads")
    kv_heads = column(frame, "num_key_value_heads")
    return PrefillAttentionShape(
        num_seqs=column(frame, "batch_size"),
        query_tokens=column(frame, "isl"),
        resident_tokens=column(frame, "step"),
        num_heads=heads,
        num_kv_heads=np.where(kv_heads > 0, kv_heads, heads),
        head_dim=column(frame, "head_dim"),
        value_dim=column(frame, "head_dim"),
        window_tokens=windows,
    )


def window_tokens(frame: pd.DataFrame) -> Floats:
    """Windows [n] of one library's rows: 0, no window, becomes 1 where that cannot be true.

    Some tables hand window_size 0 to a kernel that takes it for a window that ends at the query
    itself: read as full attention, such rows exceed any peak. The rule needs no data sheet: the
    fastest row without a window does over IMPOSSIBLE times the operations a second of the fastest
    row with one.
    """
    windows = column(frame, "window_size")
    tokens = column(frame, "isl")
    context = column(frame, "step") + tokens
    reach = np.where(windows > 0, np.minimum(windows, context), context)
    pairs = tokens * reach - np.where(reach == context, tokens * (tokens - 1) / 2, 0.0)
    flops = column(frame, "batch_size") * column(frame, "num_heads") * pairs
    rate = flops * column(frame, "head_dim") / column(frame, "latency_us")
    full = windows == 0
    if not full.any() or full.all() or rate[full].max() <= IMPOSSIBLE * rate[~full].max():
        return windows
    return np.where(full, 1.0, windows)
