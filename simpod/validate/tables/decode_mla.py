"""Measured tables of MLA decode attention.

AIConfigurator's `generation_mla`: attention alone (no projections, no absorbed products), absorbed,
one new token a sequence, launched repeatedly over the same cache. Found in the data:

* `flash_attention` (SGLang on Hopper) takes 5 to 6 times as long with an fp8 cache as with bf16:
  the whole cache is converted to bf16 first. Variant `fp8/cast`.
* TensorRT-LLM 1.0 on Ampere (`default`) does not split a sequence over cores, computes at 0.4 of
  the peak and takes equally long with both caches.
* `trtllm_mla` (Blackwell) multiplies an fp8 cache in fp8: 1.6 times the bf16 rate at 128 heads.
  Its times below 30 us come in steps of 2 us, the resolution of the clock.

* CANN on the 910B takes as long for 16 heads as for 64: 85 to 90 % of the time for 128.

InferSim's `mla/decode`: FlashMLA on H800 by cache length, 128 heads.
"""

from dataclasses import replace

import pandas as pd

from simpod.cost.kernels.decode_mla import DecodeMlaShape, decode_mla_s
from simpod.hardware.kernels.decode_mla import DecodeMlaConstants
from simpod.hardware.spec import DieSpec
from simpod.units import US
from simpod.validate.fit import Floats
from simpod.validate.tables.group import Group
from simpod.validate.tables.mla_rows import (
    FLASH_ATTENTION,
    best_fit,
    cache_dtype,
    column,
    heads_in_name,
)

OPERATOR = "decode_mla"

START = DecodeMlaConstants(
    launch_s=8e-6,
    block_s=4e-6,
    compute_frac=0.6,
    uncrowded_gain_frac=0.3,
    hbm_frac=0.85,
    l2_bandwidth_scale=2.5,
    combine_s=3e-6,
    combine_per_split_s=5e-8,
    min_split_tokens=256.0,
    spread_block_tokens=1e7,
    tile_rows=64.0,
    small_tile_rows=64.0,
    cast_passes=0.0,
)


def read_decode_mla(frame: pd.DataFrame) -> list[Group[DecodeMlaShape]]:
    """Rows of `*.generation_mla`, by variant; none are dropped."""
    dtype = cache_dtype(frame)
    is_cast = (dtype == "fp8") & (frame["kernel_source"] == FLASH_ATTENTION)
    variants = dtype.where(~is_cast, "fp8/cast")
    return [
        Group(
            operator=OPERATOR,
            variant=str(variant),
            shape=DecodeMlaShape(
                num_seqs=column(rows, "batch_size"),
                context_tokens=column(rows, "isl") + column(rows, "step"),
                num_heads=column(rows, "num_heads"),
            ),
            measured_s=column(rows, "latency_us") * US,
        )
        for variant, rows in frame.groupby(variants)
    ]


def read_decode_mla_by_length(frame: pd.DataFrame) -> list[Group[DecodeMlaShape]]:
    """Rows of InferSim's `mla/decode`; the name of a row's file begins with its number of heads."""
    shape = DecodeMlaShape(
        num_seqs=column(frame, "batch_size"),
        context_tokens=column(frame, "kv_len"),
        num_heads=heads_in_name(frame),
    )
    measured_s = column(frame, "latency_us") * US
    return [Group(operator=OPERATOR, variant="bf16", shape=shape, measured_s=measured_s)]


def fallbacks(variant: str) -> tuple[str, ...]:
    """Variants whose constants serve, nearest first; a device that has any has bf16."""
    order = {"fp8/cast": ("fp8/cast", "bf16"), "fp8": ("fp8", "bf16")}
    return order.get(variant, ("bf16",))


def starts(variant: str) -> tuple[DecodeMlaConstants, ...]:
    """Kernel structures to try: one that never splits, FlashAttention's, trtllm-gen's."""
    base = replace(START, cast_passes=5.0) if variant.endswith("/cast") else START
    unsplit = replace(
        base, min_split_tokens=1e7, combine_s=0.0, combine_per_split_s=0.0, compute_frac=0.3
    )
    return unsplit, base, replace(base, small_tile_rows=16.0, compute_frac=0.9)


def price(
    die: DieSpec, variant: str, constants: DecodeMlaConstants, shape: DecodeMlaShape
) -> Floats:
    """Seconds [n] of a variant's shapes as measured: repeated calls, warm L2."""
    return decode_mla_s(die, constants, shape, kv_dtype=variant.partition("/")[0])


def calibrate(
    die: DieSpec, variant: str, shape: DecodeMlaShape, measured_s: Floats
) -> DecodeMlaConstants:
    """Constants of one device and variant from measured rows [n]."""
    return best_fit(lambda c: price(die, variant, c, shape), measured_s, starts(variant))
