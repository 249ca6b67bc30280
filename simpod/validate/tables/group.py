"""Rows of a measured table that share a model: one operator, one variant."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group(Generic[S]):
    """`shape` and `measured_s` [n] of the rows with one operator and one variant."""

    operator: str
    variant: str
    shape: S
    measured_s: NDArray[np.float64]
