"""Measured tables of routed experts: `moe` of AIConfigurator."""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simpod.cost.kernels.expert_load import ExpertLoads, summarised
from simpod.cost.kernels.grouped_gemm import (
    FORMATS,
    Amount,
    GroupedGemmShape,
    TilePolicy,
    grouped_gemm_s,
)
from simpod.cost.kernels.grouped_of_dense import grouped_of_dense
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.spec import DieSpec, HardwareProfile
from simpod.units import US
from simpod.validate.fit import fit
from simpod.validate.tables.gemm import VLLM
from simpod.validate.tables.group import Group
from simpod.validate.tables.moe_routing import Layout, Router, table_loads

Floats = NDArray[np.float64]

OPERATOR = "grouped_gemm"

DTYPES = {"bfloat16": "bf16", "float16": "bf16", "int4_wo": "int4", "int8_wo": "int8"}
"""Names of the tables that differ from ours."""

POLICIES: dict[str, TilePolicy] = {
    "triton": "fixed",
    "generated": "mean",
    "deepgemm": "warp_group",
}
"""Of libraries that don't choose the fastest of all tiles; see `tile_choices`."""

ONE_KERNEL = ("deepgemm",)
"""Libraries whose kernel for one product is that for groups, too; see `grouped_of_dense`."""

FAR_LIBRARIES = ("triton", "marlin")
"""Libraries whose kernels are so far from a die's best that they decide the rates themselves."""

FAR_FACTOR = 1.65
"""Of rows that a second fit leaves out, over or under the first fit's price."""

START = GroupedGemmConstants(
    compute_frac=0.7,
    half_tokens=60.0,
    fill_s=2e-6,
    wave_frac=0.5,
    hbm_frac=0.85,
    l2_frac=0.2,
    overlap_exponent=2.0,
    launch_s=25e-6,
    slot_s=2e-8,
    routing_bytes_per_pair=500.0,
    traffic_scale=1.5,
    reread_frac=0.05,
)


def library_of(source: str) -> str:
    """Kernels with one behaviour: cutlass, nongated, deepgemm, triton, marlin, generated, cann.

    nongated: CUTLASS experts without a gate (relu^2), whose activation is a kernel of its own.
    generated: TensorRT-LLM's generated kernels on Blackwell, Triton's routed matmul on Hopper; both
    take the tile from the mean load.
    """
    if "ascend" in source:
        return "cann"
    if "nongated" in source:
        return "nongated"
    if "min_latency" in source or "flashinfer_trtllm" in source or "flashinfer_mxfp4" in source:
        return "generated"
    for library in ("deepgemm", "marlin", "triton"):
        if library in source:
            return library
    if source == "moe_torch_flow":
        return "generated"
    return "triton" if source.startswith("vllm") else "cutlass"


def router_of(source: str) -> Router:
    """How the table's collector filled the die; see `moe_routing`."""
    if "min_latency" in source:
        return "limited"
    is_local = source.startswith("sglang") and library_of(source) in ("triton", "marlin")
    return "local" if is_local else "all"


def dtype_of(name: str) -> str:
    """Our name of a table's number format; the nearest one if it is unknown."""
    name = DTYPES.get(name, name)
    if name in FORMATS:
        return name
    if name.startswith("w4a"):
        return "w4a16_mxfp4" if name.startswith("w4a16") else "w4a8_mxfp4_mxfp8"
    return next((known for known in ("fp8", "int8", "int4") if known in name), "bf16")


def fallbacks(variant: str) -> tuple[str, ...]:
    """Variants whose constants stand in for `variant`, the closest first.

    The same format in another library, then formats by width of what is multiplied, CUTLASS first;
    a device without any of these has bf16/cutlass or bf16/triton.
    """
    dtype, library = variant.split("/")
    libraries = dict.fromkeys((library, "cutlass", "generated", "deepgemm", "triton", "marlin"))
    wider = {
        "nvfp4": ("w4a8_mxfp4_mxfp8", "fp8"),
        "w4a8_mxfp4_mxfp8": ("nvfp4", "fp8"),
        "fp8": ("fp8_block", "int8"),
        "fp8_block": ("fp8", "int8"),
        "int8": ("fp8", "fp8_block"),
    }
    dtypes = dict.fromkeys((dtype, *wider.get(dtype, ()), "bf16"))
    return tuple(f"{each}/{kernel}" for each in dtypes for kernel in libraries)


def from_dense(
    hardware: HardwareProfile, variant: str, other: GroupedGemmConstants
) -> GroupedGemmConstants | None:
    """`other` with the products of a library whose dense ones were timed, alone or inside vLLM.

    None: its kernels for groups are others, or nobody timed its dense ones on this family of dies;
    that of another family is another kernel.
    """
    dtype, library = variant.split("/")
    if library not in ONE_KERNEL:
        return None
    fits = hardware.kernels.gemm
    names = (f"{dtype}/{library}", f"{dtype}/{VLLM}_{library}")
    dense = next((fits[name] for name in names if name in fits), None)
    if dense is None or dense.family != hardware.family:
        return None
    return grouped_of_dense(hardware.die, dense.constants, other, dtype)


def start_of(variant: str) -> GroupedGemmConstants:
    """Where a fit starts: a library that takes its tile from the load runs one a core and time."""
    return replace(START, wave_frac=0.99) if policy_of(variant) in ("mean", "fixed") else START


def is_far(variant: str) -> bool:
    """Its library is one of FAR_LIBRARIES."""
    return variant.split("/")[1] in FAR_LIBRARIES


def policy_of(variant: str) -> TilePolicy:
    """How the variant's library chooses tiles."""
    return POLICIES.get(variant.split("/")[1], "tuned")


def price(
    die: DieSpec, variant: str, constants: GroupedGemmConstants, shape: GroupedGemmShape
) -> Floats:
    """Seconds [n] of the rows of a group as they were measured: repeated, caches warm."""
    return grouped_gemm_s(
        die, constants, shape, dtype=variant.split("/", maxsplit=1)[0], policy=policy_of(variant)
    )


def rows_of(shape: GroupedGemmShape, rows: NDArray[np.int64]) -> GroupedGemmShape:
    """Some rows of a shape whose fields are [n] or scalars."""

    def chosen(value: Amount) -> Amount:
        return value[rows] if isinstance(value, np.ndarray) else value

    return GroupedGemmShape(
        loads=ExpertLoads(tokens=shape.loads.tokens[rows], experts=shape.loads.experts[rows]),
        num_tokens=chosen(shape.num_tokens),
        topk=chosen(shape.topk),
        num_slots=chosen(shape.num_slots),
        hidden_size=chosen(shape.hidden_size),
        inter_size=chosen(shape.inter_size),
        num_up_matrices=chosen(shape.num_up_matrices),
    )


def calibrated(
    die: DieSpec, group: Group[GroupedGemmShape], start: GroupedGemmConstants | None = None
) -> GroupedGemmConstants:
    """Constants fitted to a group, twice: the second time without the rows that are far off.

    Far: a factor above FAR_FACTOR. In the tables of CUTLASS kernels one collector run in seven (all
    token counts of one layout) takes up to five times the others' time at the same shapes, down to
    the smallest: the untuned kernel. No shape tells them apart, so the fit leaves them out and the
    errors that are reported do not.
    """
    shape, measured_s = group.shape, group.measured_s
    first = start or start_of(group.variant)
    rough = fit(lambda c: price(die, group.variant, c, shape), measured_s, first)
    off = np.abs(np.log(price(die, group.variant, rough, shape) / measured_s))
    near = np.flatnonzero(off < np.log(FAR_FACTOR))
    part = rows_of(shape, near)
    return fit(lambda c: price(die, group.variant, c, part), measured_s[near], rough)


def alpha_of(distribution: str) -> float | None:
    """Exponent of `power_law_<alpha>`; None for anything else, which counts as balanced."""
    prefix = "power_law_"
    return float(distribution.removeprefix(prefix)) if distribution.startswith(prefix) else None


def loads_of_rows(frame: pd.DataFrame) -> tuple[ExpertLoads, Floats]:
    """Loads [n, levels] of rank 0 and the tokens [n] that it sees, row by row."""
    keys = ["num_experts", "topk", "moe_ep_size", "distribution", "router"]
    parts: list[tuple[NDArray[np.int64], ExpertLoads]] = []
    seen = np.zeros(len(frame))
    index = frame.groupby(keys, sort=False).ngroup().to_numpy()
    for group in range(int(index.max()) + 1):
        rows = np.flatnonzero(index == group)
        first = frame.iloc[int(rows[0])]
        counts, at = np.unique(frame["num_tokens"].to_numpy()[rows], return_inverse=True)
        loads, tokens = table_loads(
            counts,
            Layout(
                num_experts=int(first["num_experts"]),
                topk=int(first["topk"]),
                ep_size=int(first["moe_ep_size"]),
                alpha=alpha_of(str(first["distribution"])),
                router=first["router"],
            ),
        )
        summary = summarised(loads)
        seen[rows] = tokens[at]
        parts.append((rows, ExpertLoads(tokens=summary.tokens[at], experts=summary.experts[at])))
    levels = max(part.tokens.shape[1] for _, part in parts)
    tokens, slots = np.zeros((len(frame), levels)), np.zeros((len(frame), levels))
    for rows, part in parts:
        tokens[rows, : part.tokens.shape[1]] = part.tokens
        slots[rows, : part.tokens.shape[1]] = part.experts
    return ExpertLoads(tokens=tokens, experts=slots), seen


def read_grouped_gemm(frame: pd.DataFrame) -> list[Group[GroupedGemmShape]]:
    """Rows of a `moe` table by format and library; no row is dropped."""
    named = frame.assign(
        router=frame["kernel_source"].map(router_of),
        variant=frame["moe_dtype"].map(dtype_of) + "/" + frame["kernel_source"].map(library_of),
    )
    groups = []
    for variant, rows in named.groupby("variant"):
        loads, tokens = loads_of_rows(rows)
        experts = rows["num_experts"].to_numpy(np.float64)
        shape = GroupedGemmShape(
            loads=loads,
            num_tokens=tokens,
            topk=rows["topk"].to_numpy(np.float64),
            num_slots=experts / rows["moe_ep_size"].to_numpy(np.float64),
            hidden_size=rows["hidden_size"].to_numpy(np.float64),
            inter_size=(rows["inter_size"] / rows["moe_tp_size"]).to_numpy(np.float64),
            num_up_matrices=1.0 if str(variant).endswith("/nongated") else 2.0,
        )
        measured = rows["latency_us"].to_numpy(np.float64) * US
        groups.append(
            Group(operator=OPERATOR, variant=str(variant), shape=shape, measured_s=measured)
        )
    return groups
