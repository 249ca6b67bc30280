"""Kernel constants for the tests: free of everything but peaks, and rounded real ones.

`FREE`: no launch, no fixed part of anything, whole peaks, overlaps as complete as the class allows
(GEMM, experts: the maximum; decode attention: the 12th root of a sum of 12th powers), caches of no
use. What is left can be worked out by hand. `REAL`: about what an H100 or an Ascend 910C achieves.
"""

from typing import Any

from simpod.hardware.kernels.collective import CollectiveConstants, CustomAllReduceConstants
from simpod.hardware.kernels.decode_attention import DecodeAttentionConstants
from simpod.hardware.kernels.decode_mla import DecodeMlaConstants
from simpod.hardware.kernels.fits import Fit, KernelFits
from simpod.hardware.kernels.gemm import GemmConstants
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.kernels.prefill_attention import PrefillAttentionConstants
from simpod.hardware.kernels.prefill_mla import PrefillMlaConstants

NO_LIMIT = 1e30
"""A rate that binds nothing."""


def fit_of(constants: Any, **changes: Any) -> Fit[Any]:
    given = {"device": "test", "family": "test", "source": "made up", "rows": 0}
    return Fit(**(given | changes), constants=constants)


FREE_GEMM = GemmConstants(
    launch_s=0.0,
    host_s=0.0,
    compute_frac=1.0,
    load_bytes_per_flop=NO_LIMIT,
    depth_s_per_element=0.0,
    wave_frac=0.0,
    split_s=1.0,  # never divided
    hbm_frac=1.0,
    resident_frac=0.0,
    exposed_frac=0.0,
    quantise_bytes_per_element=0.0,
    quantise_s_per_row=0.0,
)
FREE_GROUPED_GEMM = GroupedGemmConstants(
    compute_frac=1.0,
    half_tokens=0.0,
    fill_s=0.0,
    wave_frac=0.0,
    hbm_frac=1.0,
    l2_frac=0.01,
    overlap_exponent=8.0,
    launch_s=0.0,
    slot_s=0.0,
    routing_bytes_per_pair=0.0,
    traffic_scale=0.0,
    reread_frac=0.0,
)
FREE_PREFILL = PrefillAttentionConstants(
    launch_s=0.0,
    unit_s=0.0,
    token_s=0.0,
    matmul_frac=1.0,
    softmax_flops=0.0,
    hbm_frac=1.0,
    query_pass_scale=0.0,
    untuned_scale=1.0,
    outside_frac=0.0,
    edge_tokens=0.0,
    query_tile_tokens=128.0,
    head_packing_frac=0.0,
)
FREE_DECODE = DecodeAttentionConstants(
    launch_s=0.0,
    extra_kernel_s=0.0,
    split_s=0.0,
    seq_s=0.0,
    unit_s=0.0,
    unit_head_s=0.0,
    mask_flops=0.0,
    core_bytes_per_s=NO_LIMIT,
    wide_head_exponent=0.0,
    hbm_frac=1.0,
    l2_bandwidth_scale=1.0,
    overlap_exponent=12.0,
)
FREE_PREFILL_MLA = PrefillMlaConstants(
    launch_s=0.0,
    block_s=0.0,
    compute_frac=1.0,
    uncrowded_gain_frac=0.0,
    small_tile_frac=1.0,
    hbm_frac=1.0,
    head_passes=0.0,
    latent_passes=0.0,
    combine_s=0.0,
    min_split_tokens=1e7,
    tile_rows=128.0,
)
FREE_DECODE_MLA = DecodeMlaConstants(
    launch_s=0.0,
    block_s=0.0,
    compute_frac=1.0,
    uncrowded_gain_frac=0.0,
    hbm_frac=1.0,
    l2_bandwidth_scale=1.0,
    combine_s=0.0,
    combine_per_split_s=0.0,
    min_split_tokens=1e7,
    spread_block_tokens=1e7,
    tile_rows=128.0,
    small_tile_rows=128.0,
    cast_passes=0.0,
)
FREE = KernelFits(
    gemm={dtype: fit_of(FREE_GEMM) for dtype in ("bf16", "fp8", "int8")},
    grouped_gemm={
        variant: fit_of(FREE_GROUPED_GEMM)
        for variant in ("bf16/cutlass", "fp8_block/deepgemm", "int8/cann")
    },
    prefill_attention={"bf16": fit_of(FREE_PREFILL)},
    decode_attention={f"bf16/{library}": fit_of(FREE_DECODE) for library in ("fa3", "trtllm")},
    prefill_mla={"bf16": fit_of(FREE_PREFILL_MLA)},
    decode_mla={"bf16": fit_of(FREE_DECODE_MLA)},
)

REAL_GEMM = GemmConstants(
    launch_s=2.5e-6,
    host_s=2e-6,
    compute_frac=0.9,
    load_bytes_per_flop=0.02,
    depth_s_per_element=1.5e-9,
    wave_frac=0.3,
    split_s=3e-6,
    hbm_frac=0.85,
    resident_frac=0.3,
    exposed_frac=0.17,
    quantise_bytes_per_element=0.0,
    quantise_s_per_row=0.0,
)
REAL_FP8_GEMM = GemmConstants(
    launch_s=5e-6,
    host_s=2e-6,
    compute_frac=0.8,
    load_bytes_per_flop=0.02,
    depth_s_per_element=7e-10,
    wave_frac=0.6,
    split_s=5e-5,
    hbm_frac=0.83,
    resident_frac=0.5,
    exposed_frac=0.2,
    quantise_bytes_per_element=7.0,
    quantise_s_per_row=8e-7,
)
REAL_GROUPED_GEMM = GroupedGemmConstants(
    compute_frac=0.88,
    half_tokens=16.0,
    fill_s=1.5e-6,
    wave_frac=0.8,
    hbm_frac=0.85,
    l2_frac=0.2,
    overlap_exponent=2.0,
    launch_s=2e-5,
    slot_s=1e-8,
    routing_bytes_per_pair=100.0,
    traffic_scale=1.5,
    reread_frac=0.05,
)
REAL_PREFILL = PrefillAttentionConstants(
    launch_s=1e-5,
    unit_s=2e-6,
    token_s=1e-9,
    matmul_frac=0.8,
    softmax_flops=13.0,
    hbm_frac=0.9,
    query_pass_scale=1.0,
    untuned_scale=1.3,
    outside_frac=0.0,
    edge_tokens=100.0,
    query_tile_tokens=128.0,
    head_packing_frac=0.0,
)
REAL_DECODE = DecodeAttentionConstants(
    launch_s=8e-6,
    extra_kernel_s=1.6e-6,
    split_s=6e-8,
    seq_s=2e-8,
    unit_s=1.4e-6,
    unit_head_s=9e-7,
    mask_flops=47.0,
    core_bytes_per_s=67e9,
    wide_head_exponent=0.5,
    hbm_frac=0.9,
    l2_bandwidth_scale=3.0,
    overlap_exponent=2.0,
)
REAL_PREFILL_MLA = PrefillMlaConstants(
    launch_s=1e-5,
    block_s=1e-6,
    compute_frac=0.65,
    uncrowded_gain_frac=0.1,
    small_tile_frac=0.75,
    hbm_frac=0.8,
    head_passes=0.0,
    latent_passes=2.5,
    combine_s=0.0,
    min_split_tokens=1e7,
    tile_rows=128.0,
)
REAL_DECODE_MLA = DecodeMlaConstants(
    launch_s=9e-6,
    block_s=4e-6,
    compute_frac=0.65,
    uncrowded_gain_frac=0.5,
    hbm_frac=0.9,
    l2_bandwidth_scale=2.0,
    combine_s=5e-6,
    combine_per_split_s=3e-8,
    min_split_tokens=114.0,
    spread_block_tokens=1e7,
    tile_rows=64.0,
    small_tile_rows=64.0,
    cast_passes=0.0,
)
REAL_NCCL = CollectiveConstants(
    launch_s=5e-6,
    hop_s=1.5e-6,
    small_frac=0.06,
    middle_scale=1.1,
    middle_frac=0.42,
    switch_bytes=1.2e6,
    switch_power=1.0,
    large_hop_s=8e-6,
    large_frac=0.88,
    own_frac=0.4,
    overlap_exponent=1.0,
    nvls_frac=0.57,
)
REAL_CUSTOM = CustomAllReduceConstants(
    launch_s=4.6e-6,
    one_shot_frac=0.6,
    two_shot_s=3.4e-6,
    two_shot_frac=0.57,
    ring_hop_s=8e-6,
    ring_frac=0.85,
    own_frac=0.3,
    copy_launch_s=6e-6,
    copy_frac=3.7,
    host_s=2e-5,
    overlap_exponent=2.5,
    nvls_frac=0.57,
)
REAL = KernelFits(
    gemm={
        "bf16": fit_of(REAL_GEMM),
        "fp8": fit_of(REAL_FP8_GEMM),
        "int8": fit_of(REAL_GEMM),
    },
    grouped_gemm={
        variant: fit_of(REAL_GROUPED_GEMM)
        for variant in ("bf16/cutlass", "fp8_block/deepgemm", "int8/cann")
    },
    prefill_attention={"bf16": fit_of(REAL_PREFILL)},
    decode_attention={f"bf16/{library}": fit_of(REAL_DECODE) for library in ("fa3", "trtllm")},
    prefill_mla={"bf16": fit_of(REAL_PREFILL_MLA)},
    decode_mla={"bf16": fit_of(REAL_DECODE_MLA)},
    collective={
        "nccl/all_reduce/bf16": fit_of(REAL_NCCL),
        "custom_graph/all_reduce": fit_of(REAL_CUSTOM),
    },
)
