"""Measured collectives: tables `nccl` and `allreduce`, and fits of their constants.

A variant is `library/operation` or `library/operation/dtype` where the reduction's type matters.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simpod.cost.kernels.collective import CollectiveShape, Operation, collective_s
from simpod.hardware.kernels.collective import CollectiveConstants, CustomAllReduceConstants
from simpod.units import BYTES_PER_ELEMENT, US
from simpod.validate.fit import errors, fit
from simpod.validate.tables.group import Group

Floats = NDArray[np.float64]
Constants = CollectiveConstants | CustomAllReduceConstants

DTYPES = {"half": "bf16", "bfloat16": "bf16", "float16": "bf16", "float": "fp32"}
"""Names in the tables -> ours."""

OPERATIONS: dict[str, Operation] = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "all_to_all": "all_to_all",
}

START = CollectiveConstants(
    launch_s=5e-6,
    hop_s=1e-6,
    small_frac=0.02,
    middle_scale=1.25,
    middle_frac=0.35,
    switch_bytes=3e6,
    switch_power=0.5,
    large_hop_s=10e-6,
    large_frac=0.75,
    own_frac=0.4,
    overlap_exponent=2.0,
    nvls_frac=0.0,
)

START_CUSTOM = CustomAllReduceConstants(
    launch_s=4e-6,
    one_shot_frac=0.6,
    two_shot_s=4e-6,
    two_shot_frac=0.6,
    ring_hop_s=10e-6,
    ring_frac=0.75,
    own_frac=0.2,
    copy_launch_s=5e-6,
    copy_frac=3.0,
    host_s=20e-6,
    overlap_exponent=2.0,
    nvls_frac=0.0,
)

SWITCH_BYTES = (3e4, 1.5e6, 3e6, 6e6, 12e6)
SWITCH_POWERS = (0.0, 0.5, 1.0, 1.5)
NVLS_FRACS = (0.0, 0.55)
NVLS_LEAST_FRAC = 0.01  # a fit keeps a little inside its bounds: below this it found none


def library_of(source: str) -> str:
    """`kernel_source` -> the library and how it is launched."""
    name = source.lower()
    if "nccl" in name or "hccl" in name:
        return "hccl" if "hccl" in name else "nccl"
    return "custom_eager" if "eager" in name else "custom_graph"


def variant_of(source: str, operation: Operation, dtype: str) -> str:
    """Only a reduction's arithmetic depends on the data type, beside its bytes."""
    reduces = operation in ("all_reduce", "reduce_scatter")
    library = library_of(source)
    suffix = f"/{dtype}" if reduces and library == "nccl" else ""
    return f"{library}/{operation}{suffix}"


def fallbacks(variant: str) -> tuple[str, ...]:
    """Variants whose constants may stand in, nearest first; the last one always exists.

    Other data types of the same operation, then the other launch of the custom kernel, then NCCL's
    same operation, then NCCL's all-gather (the plainest transport).
    """
    library, operation = variant.split("/")[:2]
    own = f"{library}/{operation}"
    names = [variant, own, f"{own}/bf16", f"{own}/int8"]
    if library.startswith("custom"):
        names += ["custom_graph/all_reduce", "custom_eager/all_reduce"]
    names += [f"nccl/{operation}", f"nccl/{operation}/bf16", "nccl/all_gather"]
    return tuple(dict.fromkeys(names))


def start_of(variant: str) -> Constants:
    """Where a fit starts."""
    return START_CUSTOM if variant.startswith("custom") else START


def read_collective(frame: pd.DataFrame) -> list[Group[CollectiveShape]]:
    """Groups of a `nccl` or `allreduce` table; `message_size` counts elements."""
    column = "nccl_dtype" if "nccl_dtype" in frame else "allreduce_dtype"
    dtypes = [DTYPES.get(str(name), str(name)) for name in frame[column]]
    element_bytes = np.array([BYTES_PER_ELEMENT.get(name, 2.0) for name in dtypes])
    variants = np.array(
        [
            variant_of(str(source), OPERATIONS[str(op)], dtype)
            for source, op, dtype in zip(
                frame["kernel_source"], frame["op_name"], dtypes, strict=True
            )
        ]
    )
    size_bytes = frame["message_size"].to_numpy(dtype=np.float64) * element_bytes
    num_dies = frame["num_gpus"].to_numpy(dtype=np.float64)
    measured_s = frame["latency_us"].to_numpy(dtype=np.float64) * US
    return [
        Group(
            operator="collective",
            variant=str(variant),
            shape=CollectiveShape(size_bytes=size_bytes[rows], num_dies=num_dies[rows]),
            measured_s=measured_s[rows],
        )
        for variant in np.unique(variants)
        for rows in [variants == variant]
    ]


def price(bytes_per_s: float, variant: str, constants: Constants, shape: CollectiveShape) -> Floats:
    """Seconds of a variant's rows over links of `bytes_per_s`."""
    library, operation = variant.split("/")[:2]
    graph = library != "custom_eager"
    return collective_s(bytes_per_s, constants, shape, cast(Operation, operation), graph=graph)


def starts(variant: str, *, has_nvls: bool) -> list[Constants]:
    """The switch between protocols is a step: it is scanned, the rest is searched downhill."""
    nvls = NVLS_FRACS if has_nvls and "all_reduce" in variant else (0.0,)
    first = start_of(variant)
    if isinstance(first, CustomAllReduceConstants):
        return [replace(first, nvls_frac=frac) for frac in nvls]
    grid = product(SWITCH_BYTES, SWITCH_POWERS, nvls)
    return [
        replace(first, switch_bytes=size, switch_power=power, nvls_frac=frac)
        for size, power, frac in grid
    ]


def score(simulated_s: Floats, measured_s: Floats) -> float:
    """Median plus 90th-percentile error: what a choice among fits goes by."""
    left = errors(simulated_s, measured_s)
    return left.median_abs_error_frac + left.p90_abs_error_frac


def fit_collective(
    bytes_per_s: float, groups: Sequence[Group[CollectiveShape]], *, has_nvls: bool
) -> Constants:
    """The best of the fits from all starts; `groups` are launches of one library's operation.

    Custom all-reduce: graph and eager rows together, they are one kernel. has_nvls: the switch can
    reduce (NVSwitch of Hopper and later).
    """
    measured_s = np.concatenate([group.measured_s for group in groups])

    def simulated_s(constants: Constants) -> Floats:
        return np.concatenate(
            [price(bytes_per_s, group.variant, constants, group.shape) for group in groups]
        )

    found = []
    for first in starts(groups[0].variant, has_nvls=has_nvls):
        constants = fit(simulated_s, measured_s, first)
        if constants.nvls_frac < NVLS_LEAST_FRAC or not has_nvls:
            constants = replace(constants, nvls_frac=0.0)
        found.append((score(simulated_s(constants), measured_s), constants))
    return min(found, key=lambda pair: pair[0])[1]
