"""Measured tables of MLA prefill attention.

AIConfigurator's `context_mla`: attention of prompts with nothing resident. What one row includes
differs by library, which the data shows:

* `flash_attention` (SGLang on Hopper) runs absorbed: 0.18 of the peak if counted 192 + 128 wide,
  0.62 if counted 576 + 512, and the times of one-token prompts equal those of decode. With an fp8
  cache, it is converted first. Variants `bf16/absorbed`, `fp8/absorbed`. No engine prefills so.
* `trtllm_mla` (Blackwell; variants `bf16/trtllm_mla`, `fp8/trtllm_mla`) is plain. Its times hold 5
  to 6 times the bytes of keys and queries (joining the rotated part, quantisation) and 10 latents a
  token (cache write).
* `default` (TensorRT-LLM on Ampere) is plain and fused; both caches take the same time.

InferSim's `mla/prefill`: FlashAttention-3 on H800, plain, one prompt, 128 heads, attention alone.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from simpod.cost.kernels.prefill_mla import PrefillMlaShape, prefill_mla_s
from simpod.hardware.kernels.prefill_mla import PrefillMlaConstants
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

OPERATOR = "prefill_mla"

SCOPES = {FLASH_ATTENTION: "/absorbed", "trtllm_mla": "/trtllm_mla"}
"""`kernel_source` -> what its rows are beside the attention alone."""

START = PrefillMlaConstants(
    launch_s=1e-5,
    block_s=2e-6,
    compute_frac=0.6,
    uncrowded_gain_frac=0.1,
    small_tile_frac=0.7,
    hbm_frac=0.8,
    head_passes=1.0,
    latent_passes=4.0,
    combine_s=0.0,
    min_split_tokens=1e7,
    tile_rows=128.0,
)


def read_prefill_mla(frame: pd.DataFrame) -> list[Group[PrefillMlaShape]]:
    """Rows of `*.context_mla`, by variant; none are dropped."""
    dtype = cache_dtype(frame)
    suffix = frame["kernel_source"].map(SCOPES).fillna("")
    variants = dtype + suffix
    return [
        Group(
            operator=OPERATOR,
            variant=str(variant),
            shape=PrefillMlaShape(
                num_seqs=column(rows, "batch_size"),
                query_tokens=column(rows, "isl"),
                num_heads=column(rows, "num_heads"),
                resident_tokens=column(rows, "step"),
            ),
            measured_s=column(rows, "latency_us") * US,
        )
        for variant, rows in frame.groupby(variants)
    ]


def read_prefill_mla_by_length(frame: pd.DataFrame) -> list[Group[PrefillMlaShape]]:
    """Rows of InferSim's `mla/prefill`; a row's file name begins with its number of heads."""
    tokens = column(frame, "seq_len")
    shape = PrefillMlaShape(
        num_seqs=np.ones_like(tokens),
        query_tokens=tokens,
        num_heads=heads_in_name(frame),
    )
    measured_s = column(frame, "latency_us") * US
    return [Group(operator=OPERATOR, variant="bf16", shape=shape, measured_s=measured_s)]


def fallbacks(variant: str) -> tuple[str, ...]:
    """Variants whose constants serve, nearest first: this scope, the attention alone, any other."""
    dtype, slash, scope = variant.partition("/")
    dtypes = ("bf16",) if dtype == "bf16" else (dtype, "bf16")
    suffixes = dict.fromkeys((f"{slash}{scope}", "", *SCOPES.values()))
    return tuple(f"{name}{suffix}" for suffix in suffixes for name in dtypes)


def starts(variant: str) -> tuple[PrefillMlaConstants, ...]:
    """Kernel structures to try: FlashAttention's for decode, or tiles of 128 or 256 rows."""
    if variant.endswith("/absorbed"):
        split = replace(START, combine_s=1e-5, min_split_tokens=200.0, tile_rows=64.0)
        return (replace(split, head_passes=0.3),)
    light = replace(START, head_passes=0.1)
    return light, START, replace(START, tile_rows=256.0, head_passes=4.0)


def price(
    die: DieSpec, variant: str, constants: PrefillMlaConstants, shape: PrefillMlaShape
) -> Floats:
    """Seconds [n] of a variant's shapes as measured."""
    return prefill_mla_s(die, constants, shape, is_absorbed=variant.endswith("/absorbed"))


def calibrate(
    die: DieSpec, variant: str, shape: PrefillMlaShape, measured_s: Floats
) -> PrefillMlaConstants:
    """Constants of one device and variant from measured rows [n]."""
    return best_fit(lambda c: price(die, variant, c, shape), measured_s, starts(variant))
