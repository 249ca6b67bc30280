"""How the exchange constants of CloudMatrix384 were found: a handful of published points.

They do not determine all constants of a kernel: most are read from elsewhere (latencies and rates
of the plane, times of single operators; tables named below are CloudMatrix-Infer's).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from simpod.cost.exchange.price import BulkShape, Constants, Shape, price
from simpod.cost.exchange.requests import NOMINAL_EXPERTS
from simpod.cost.exchange.shapes import QUANTISED, ExchangeShape, Fabric, ascend_message_bytes
from simpod.hardware.kernels.exchange import BulkConstants, PushConstants
from simpod.units import GB, US
from simpod.validate.fit import fit
from simpod.validate.tables.exchange import ExchangeGroup, column
from simpod.validate.tables.group import Group

START_PUSH = PushConstants(
    num_cores=20,  # not printed: of 48 AIV cores so many that message_s comes to about 1.7 us
    start_up_s=5.4e-6,  # smallest collective on the same dies
    flag_s=0.125e-6,
    message_local_s=1.5e-6,
    message_s=1.7e-6,  # table 1: 512-byte write within a node, 1.3 us, and two copies of 7.5 KB
    message_inter_node_s=0.8e-6,  # table 1: 512-byte write, 2.1 us between nodes, 1.3 within
    quantise_bytes_per_s=179e9,  # DynamicQuant: 0.08 us for 7,168 values
    write_frac=0.55,
    hbm_frac=0.84,  # table 9
)
FREE_PUSH = ("message_s", "message_local_s", "write_frac")
"""What the points determine; the others stay as they start."""
START_UP = BulkConstants(start_up_s=1.5e-6, inter_node_s=1.5e-6, link_frac=0.7)
START_OUT = BulkConstants(start_up_s=0.5e-6, inter_node_s=10e-6, link_frac=0.92)


def measured_s(rows: pd.DataFrame) -> np.ndarray:
    """Seconds, from either metric."""
    value, size = column(rows, "measured"), column(rows, "message_bytes")
    is_latency = (rows["metric"] == "latency_us").to_numpy()
    return np.where(is_latency, value * US, size / (value * GB))


def shape_of(rows: pd.DataFrame, kernel: str, dtype: str) -> Shape:
    """Blocks of the HIXL rows; dispatch and combine rows, all of one hidden size."""
    if kernel == "hixl":
        return BulkShape(
            size_bytes=column(rows, "message_bytes"), is_inter_node=column(rows, "nodes") > 1
        )
    hidden = column(rows, "hidden")
    return ExchangeShape(
        tokens=column(rows, "tokens_per_rank"),
        num_ranks=column(rows, "ep"),
        hidden_size=hidden,
        top_k=column(rows, "topk"),
        num_experts=np.maximum(column(rows, "ep"), NOMINAL_EXPERTS),
        message_bytes=np.array([ascend_message_bytes(int(size), dtype) for size in hidden]),
        is_quantised=dtype in QUANTISED,
    )


def published(frame: pd.DataFrame) -> dict[str, list[ExchangeGroup]]:
    """Groups of `collectives.csv` by the key of their constants in the profile."""
    found: dict[str, list[ExchangeGroup]] = {}
    mine = frame[
        (frame["system"] == "cloudmatrix384") & frame["kernel"].isin(["fused_push", "hixl"])
    ]
    for (kernel, operation, plane), rows in mine.groupby(["kernel", "operation", "plane"]):
        is_bulk = kernel == "hixl"
        dtype = str(rows["dispatch_dtype" if operation == "dispatch" else "combine_dtype"].iloc[0])
        group = Group(
            operator=f"cloudmatrix384/{kernel}/{operation}",
            variant=str(plane) if is_bulk else dtype,
            shape=shape_of(rows, kernel, dtype),
            measured_s=measured_s(rows),
        )
        key = f"hixl/{operation}/{plane}" if is_bulk else str(kernel)
        found.setdefault(key, []).append(group)
    return found


def simulated_s(
    fabric: Fabric, groups: Sequence[ExchangeGroup], constants: Constants
) -> np.ndarray:
    times = [price(fabric, g.operator, g.variant, constants, g.shape).total_s for g in groups]
    return np.concatenate(times)


def fitted(fabric: Fabric, key: str, groups: Sequence[ExchangeGroup]) -> Constants:
    """Least squares of log(simulated / measured), over factors of what is free."""
    want_s = np.concatenate([group.measured_s for group in groups])
    if key != "fused_push":
        start = START_UP if key.endswith("/ub") else START_OUT
        return fit(lambda constants: simulated_s(fabric, groups, constants), want_s, start)
    first = np.array([getattr(START_PUSH, name) for name in FREE_PUSH])

    def constants(log_factors: np.ndarray) -> PushConstants:
        values = (first * np.exp(log_factors)).tolist()
        return replace(START_PUSH, **dict(zip(FREE_PUSH, values, strict=True)))

    def residuals(log_factors: np.ndarray) -> np.ndarray:
        return np.log(simulated_s(fabric, groups, constants(log_factors)) / want_s)

    return constants(least_squares(residuals, np.zeros(len(first)), diff_step=1e-3).x)
