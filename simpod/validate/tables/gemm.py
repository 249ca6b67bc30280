"""Measured dense matrix products: `m`, `n`, `k`, `latency_us`, data type, library.

A variant is the data type as `simpod.cost.kernels.gemm.FORMATS` calls it; block-scaled fp8 runs in
libraries so different that the library follows: `fp8_block/x`. Layers of vLLM (`fp8/vllm`,
`fp8_block/vllm_x`) are timed with its dispatcher, whose host time is 60 to 180 us a call.
"""

from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from simpod.cost.kernels.gemm import FORMATS, Floats, GemmShape, called_s, gemm_s
from simpod.hardware.kernels.gemm import GemmConstants
from simpod.hardware.spec import DieSpec
from simpod.units import US
from simpod.validate.tables.group import Group

OPERATOR: Final = "gemm"
LIBRARIES: Final = ("deepgemm", "flashinfer", "cutlass", "triton")
"""Words in `kernel_source` that tell block-scaled kernels apart."""
VLLM: Final = "vllm"
VLLM_SUFFIXES: Final = ("mmkernel", "mmlinearkernel")
"""Ends of the names of vLLM's layers in `kernel_source`: CutlassFP8ScaledMMLinearKernel."""
KERNEL: Final = "kernel"
"""Library of a kernel that was timed alone: activations quantised before, no host time."""
SAME_AS: Final = {
    "bfloat16": "bf16",
    "float16": "bf16",
    "fp8_ootb": "fp8",
    "sq": "int8",
    "mxfp4": "nvfp4",
    "fp4": "nvfp4",
}
"""Other names of formats."""

START: Final = GemmConstants(
    launch_s=3e-6,
    host_s=0.0,
    compute_frac=0.85,
    load_bytes_per_flop=0.02,
    depth_s_per_element=4e-9,
    wave_frac=0.5,
    split_s=2.5e-6,
    hbm_frac=0.8,
    resident_frac=0.3,
    exposed_frac=0.15,
    quantise_bytes_per_element=0.0,
    quantise_s_per_row=0.0,
)
"""Near what bf16 kernels of three generations of GPUs have."""


def start_of(variant: str) -> GemmConstants:
    """Where a fit starts: quantising types have longer calls and a pass over activations.

    Block-scaled kernels that were timed alone do not divide k.
    """
    dtype, _, library = variant.partition("/")
    if library == KERNEL:
        return replace(START, split_s=5e-5)
    if not FORMATS[dtype].quantises:
        return START
    return replace(
        START,
        launch_s=6e-6,
        host_s=8e-5 if dtype == "fp8_block" else 1.2e-5,
        quantise_bytes_per_element=8.0,
        quantise_s_per_row=3e-7,
    )


def fallbacks(variant: str) -> tuple[str, ...]:
    """Variants whose constants to take, best first: itself, its type, fp8, bf16.

    Block-scaled fp8 takes the same library's outside or inside of vLLM, then another library's
    (DeepGEMM's first), a kernel alone that of per-row fp8; weight-only types are bf16 kernels.
    """
    dtype, _, library = variant.partition("/")
    order = [variant]
    if dtype == "fp8_block" and library != KERNEL:
        plain = library.removeprefix(f"{VLLM}_")
        names = (plain, *LIBRARIES)
        order += [f"fp8_block/{prefix}{name}" for name in names for prefix in ("", f"{VLLM}_")]
    order.append(dtype)
    if FORMATS[dtype].quantises:
        order += ["fp8", f"fp8/{VLLM}"]
    return tuple(dict.fromkeys([*order, "bf16"]))


def variant_of(gemm_dtype: str, kernel_source: str) -> str:
    """The variant of a row; a type that is not known is a bf16 kernel."""
    dtype = SAME_AS.get(gemm_dtype, gemm_dtype)
    if dtype not in FORMATS:
        dtype = "fp8" if dtype.startswith("fp8") else "bf16"
    source = kernel_source.lower()
    is_vllm = source.endswith(VLLM_SUFFIXES) and FORMATS[dtype].quantises
    if dtype != "fp8_block":
        return f"{dtype}/{VLLM}" if is_vllm else dtype
    known = (word for word in (*LIBRARIES, KERNEL) if word in source)
    library = next(known, LIBRARIES[0])
    return f"{dtype}/{VLLM}_{library}" if is_vllm else f"{dtype}/{library}"


def read_gemm(frame: pd.DataFrame) -> list[Group[GemmShape]]:
    """Groups by variant, in order of their names; rows without a positive latency are dropped.

    A table that does not say its data type (InferSim's of the H800) is of block-scaled fp8 kernels
    alone: its MFU is of the fp8 peak, and short calls are faster than any that quantise.
    """
    rows = frame[frame["latency_us"] > 0.0]
    if "gemm_dtype" not in rows:
        rows = rows.assign(gemm_dtype="fp8_block", kernel_source=KERNEL)
    pairs = zip(rows["gemm_dtype"].astype(str), rows["kernel_source"].astype(str), strict=True)
    variants = np.array([variant_of(dtype, source) for dtype, source in pairs])
    return [_group(str(name), rows[variants == name]) for name in np.unique(variants)]


ABSORBED: Final = {"mla_gen_pre": (512.0, 128.0), "mla_gen_post": (128.0, 512.0)}
"""`op_name` -> columns and rows of a head's matrix: DeepSeek-V3's, as tables of MLA have them."""


def read_absorbed(frame: pd.DataFrame) -> list[Group[GemmShape]]:
    """Rows of `mla_bmm`, the batched products around absorbed MLA, as simpod prices them: the
    heads' matrices side by side in one product, whose results stay in L2."""
    cols, depths = (frame["op_name"].map(lambda op, i=i: ABSORBED[op][i]) for i in (0, 1))
    rows = frame.assign(
        gemm_dtype=frame["bmm_dtype"],
        kernel_source="",
        m=frame["num_tokens"],
        n=frame["num_heads"] * cols,
        k=depths,
    )
    return [
        replace(group, shape=replace(group.shape, is_result_kept=True)) for group in read_gemm(rows)
    ]


def price(die: DieSpec, variant: str, constants: GemmConstants, shape: GemmShape) -> Floats:
    """Seconds of a table's rows: calls outside a graph, some without the quantising pass."""
    dtype, _, library = variant.partition("/")
    die_s = gemm_s(die, constants, shape, dtype, is_quantised=library == KERNEL)
    return called_s(die_s, constants)


def _group(variant: str, rows: pd.DataFrame) -> Group[GemmShape]:
    m, n, k, latency_us = (
        rows[name].to_numpy(dtype=np.float64) for name in ("m", "n", "k", "latency_us")
    )
    return Group(
        operator=OPERATOR,
        variant=variant,
        shape=GemmShape(m=m, n=n, k=k),
        measured_s=latency_us * US,
    )
