"""How much work an operator is, before anyone says how long that takes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Amount = float | Floats
"""A count, or an array of counts: operators take both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A matrix product of [tokens, k] by [k, n] on one die."""

    tokens: Amount
    n: int
    k: int
    dtype: str
    """How the matrix is held; see `units.PRODUCT_DTYPE` for how it is multiplied."""
    is_per_head: bool = False
    """Many small matrices side by side, whose large result the kernel after it finds in the last
    cache."""
    is_joined: bool = False
    """Runs in the kernel of the product before it: no launch of its own."""

    @property
    def flops(self) -> Amount:
        """Operations."""
        return self.tokens * (2.0 * self.n * self.k)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Element-wise work of one operator on one die: norms, rotary embedding, softmax, copies."""

    flops: Amount
    hbm_bytes: Amount
    kernels: int = 1
    is_rotation: bool = False
    """Rotary embedding."""
    is_copy: bool = False
    """Copies, scales or adds what the kernel before left in the last cache: hbm_bytes are what it
    writes."""


Work = Product | Pass
