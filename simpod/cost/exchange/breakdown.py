"""Where the time of one exchange goes."""

from dataclasses import dataclass, fields
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExchangeTime:
    """Parts that follow one another: what overlaps is counted once, where it is exposed."""

    start_up_s: ArrayLike = 0.0
    """Launch, barrier of cores."""
    quantise_s: ArrayLike = 0.0
    """Casting activations to 8 bits."""
    metadata_s: ArrayLike = 0.0
    """Writing counts, offsets and flags."""
    message_s: ArrayLike = 0.0
    """Handling of messages beyond what hides behind their bytes."""
    bytes_s: ArrayLike = 0.0
    """Bytes over the slowest link."""
    polling_s: ArrayLike = 0.0
    """Looking for flags that have arrived, or for acknowledgements."""
    local_s: ArrayLike = 0.0
    """Copies and sums in the die's own memory."""

    def __add__(self, other: "ExchangeTime") -> "ExchangeTime":
        """One exchange after another, part by part."""
        return ExchangeTime(
            **{
                f.name: add(*(np.asarray(getattr(x, f.name)) for x in (self, other)))
                for f in fields(self)
            }
        )

    @property
    def total_s(self) -> Floats:
        """Sum of the parts."""
        parts = (np.asarray(getattr(self, f.name), dtype=np.float64) for f in fields(self))
        return np.asarray(reduce(add, parts))
