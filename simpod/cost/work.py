"""How much work an operator is, before anyone says how long that takes."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Amount = float | Floats
"""A count, or an array of counts: operators take both."""

Unit = Literal["matmul", "grouped_matmul", "prefill_attention", "decode_attention", "vector"]
"""What runs the operator; each has its own calibrated share of a peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Work of one operator on one die.

    row_flops is what one more row in each of its matrix products would add; the price of small
    batches is a number of such rows (see `Roofline`), so that no rows at all need no division.
    """

    unit: Unit
    flops: Amount
    hbm_bytes: Amount
    row_flops: Amount = 0.0
    dtype: str = "bf16"  # of the products
    kernels: int = 1


def total_flops(works: tuple[Work, ...]) -> Amount:
    """Sum of the operators' operation counts."""
    return sum((work.flops for work in works), start=0.0)


def total_bytes(works: tuple[Work, ...]) -> Amount:
    """Sum of the operators' HBM traffic."""
    return sum((work.hbm_bytes for work in works), start=0.0)
