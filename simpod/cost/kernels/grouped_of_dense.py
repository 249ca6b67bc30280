"""Constants of grouped products from those of dense ones that the same kernel computes.

DeepGEMM has one kernel for both: persistent blocks take the tiles of one matrix, or of all groups,
from a scheduler that counts them (`sm90_fp8_gemm_1d2d.cuh`, `scheduler.cuh`: the layout is a
template parameter). So what its dense products achieve on a die says what its grouped ones do.
"""

from dataclasses import replace
from math import inf, log, log1p

from simpod.cost.kernels.gemm import FORMATS, OUTPUT_BYTES, STORE_FRAC, overlapped_s
from simpod.cost.kernels.grouped_gemm import FULL_TILE_TOKENS, TILE_COLUMNS, WARP_GROUP_TOKENS
from simpod.hardware.kernels.gemm import GemmConstants
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.spec import DieSpec

MAX_EXPONENT = 8.0
"""Bound of `overlap_exponent`: nearly the maximum."""


def grouped_of_dense(
    die: DieSpec, dense: GemmConstants, other: GroupedGemmConstants, dtype: str
) -> GroupedGemmConstants:
    """`other` with products as `dense` ones of the same kernel on `die`.

    With e(t) the time that a core takes for one element of k in a tile of t x 128 (see
    `gemm._tiles_s`: operands come from L2 while the last are multiplied):

    * compute_frac: 2 128 128 flops in e(128), over a core's peak;
    * half_tokens h: e(64) / e(128) = (64 + h) / (128 + h), DeepGEMM's two tiles;
    * fill_s: storing a tile; the pipeline's latency hides behind the tile before;
    * overlap_exponent p: two equal phases take 2^(1/p) = 1 + exposed_frac of one;
    * wave_frac and hbm_frac as they are; no activation is read again.

    `other` gives the rest: what lies around the products, and how much a cache keeps. The dense
    model's latency of a deep k has no counterpart: products that fill less than a wave (a few
    experts on a die) come out too fast.
    """
    form = FORMATS[dtype]
    bf16 = die.peak_flops_per_s["bf16"]
    core_flops_per_s = die.peak_flops_per_s.get(form.peak, bf16) / die.num_cores
    byte_s = die.num_cores / (bf16 * dense.load_bytes_per_flop)

    def element_s(tokens: float) -> float:
        product_s = 2.0 * tokens * TILE_COLUMNS / (core_flops_per_s * dense.compute_frac)
        load_s = (tokens * form.activation_bytes + TILE_COLUMNS * form.weight_bytes) * byte_s
        return float(overlapped_s(product_s, load_s, dense.exposed_frac))

    small, full = min(WARP_GROUP_TOKENS), FULL_TILE_TOKENS
    ratio = element_s(small) / element_s(full)
    exponent = log(2.0) / log1p(dense.exposed_frac) if dense.exposed_frac > 0.0 else inf
    return replace(
        other,
        compute_frac=2.0 * full * TILE_COLUMNS / (core_flops_per_s * element_s(full)),
        half_tokens=max((ratio * full - small) / (1.0 - ratio), 0.0),
        fill_s=full * TILE_COLUMNS * OUTPUT_BYTES * byte_s / STORE_FRAC,
        wave_frac=dense.wave_frac,
        hbm_frac=dense.hbm_frac,
        overlap_exponent=min(exponent, MAX_EXPONENT),
        reread_frac=0.0,
    )
