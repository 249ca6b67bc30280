"""Counts that change one at a time and are read all at once.

Adding to an element of a memoryview costs half of adding to one of a NumPy array, and NumPy can
read the same memory as an array.
"""

import numpy as np
from numpy.typing import NDArray


def integer_counters(size: int) -> "memoryview[int]":
    """Return `size` zeros."""
    return memoryview(bytearray(8 * size)).cast("q")


def float_counters(size: int) -> "memoryview[float]":
    """Return `size` zeros."""
    return memoryview(bytearray(8 * size)).cast("d")


def integer_array(counts: "memoryview[int]") -> NDArray[np.int64]:
    """The same memory as an array."""
    return np.asarray(counts)


def float_array(counts: "memoryview[float]") -> NDArray[np.float64]:
    """The same memory as an array."""
    return np.asarray(counts)
