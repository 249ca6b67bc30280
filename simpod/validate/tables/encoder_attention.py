"""Measured bidirectional attention: tables `encoder_attention`, and fits of its constants.

A variant is the data type that the products run in: `bf16` or `fp8`.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simpod.cost.kernels.encoder_attention import EncoderAttentionShape, encoder_attention_s
from simpod.hardware.kernels.encoder_attention import EncoderAttentionConstants
from simpod.hardware.spec import DieSpec
from simpod.units import US
from simpod.validate.tables.group import Group
from simpod.validate.tables.starts import best_fit

Floats = NDArray[np.float64]

START = EncoderAttentionConstants(
    launch_s=6e-6,
    unit_s=2e-6,
    matmul_frac=0.6,
    softmax_flops=4.0,
    hbm_frac=0.7,
    wave_frac=0.9,
    unaligned_scale=1.2,
    query_tile_tokens=128.0,
)

QUERY_TILES = (64.0, 128.0, 192.0, 256.0)


def variant_of(dtype: str) -> str:
    """Types that are unknown count as bf16."""
    return "fp8" if "fp8" in dtype else "bf16"


def fallbacks(variant: str) -> tuple[str, ...]:
    """Variants whose constants may stand in, nearest first; the last one always exists."""
    return ("bf16",) if variant == "fp8" else ()


def start_of(variant: str) -> EncoderAttentionConstants:
    """Where a fit starts: the same for all variants, whose peaks differ."""
    del variant
    return START


def starts(variant: str) -> list[EncoderAttentionConstants]:
    """The tile is a step: it is scanned, the rest is searched downhill."""
    return [replace(start_of(variant), query_tile_tokens=tile) for tile in QUERY_TILES]


def price(
    die: DieSpec,
    variant: str,
    constants: EncoderAttentionConstants,
    shape: EncoderAttentionShape,
) -> Floats:
    """Seconds of a variant's rows."""
    return encoder_attention_s(die, constants, shape, variant)


def fit_encoder_attention(
    die: DieSpec, group: Group[EncoderAttentionShape]
) -> EncoderAttentionConstants:
    """The constants that come closest over all starts."""

    def price_s(constants: EncoderAttentionConstants) -> Floats:
        return price(die, group.variant, constants, group.shape)

    return best_fit(price_s, group.measured_s, starts(group.variant))[0]


def read_encoder_attention(frame: pd.DataFrame) -> list[Group[EncoderAttentionShape]]:
    """Groups of an `encoder_attention` table, every row in one of them."""
    variants = np.array([variant_of(str(name)) for name in frame["attn_dtype"]])
    return [_group(frame[variants == variant], str(variant)) for variant in np.unique(variants)]


def _group(frame: pd.DataFrame, variant: str) -> Group[EncoderAttentionShape]:
    def column(name: str) -> Floats:
        return frame[name].to_numpy(dtype=np.float64)

    shape = EncoderAttentionShape(
        num_seqs=column("batch_size"),
        query_tokens=column("isl"),
        num_heads=column("num_heads"),
        head_dim=column("head_dim"),
    )
    return Group(
        operator="encoder_attention",
        variant=variant,
        shape=shape,
        measured_s=column("latency_us") * US,
    )
