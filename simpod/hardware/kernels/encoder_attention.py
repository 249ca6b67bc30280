"""Constants of bidirectional attention: FlashAttention tiles on the cores of one die."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from simpod.fields import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderAttentionConstants:
    """One library's kernel for one data type; times without a rate are of one core."""

    __pydantic_config__: ClassVar[Any] = STRICT
    LIBRARY: ClassVar[frozenset[str]] = frozenset(
        {
            "launch_s",
            "unit_s",
            "wave_frac",
            "unaligned_scale",
            "query_tile_tokens",
        }
    )
    """Of the library, whatever the die; the others are the die's: see `transfer`."""

    launch_s: Annotated[float, Ge(1e-7), Le(1e-4)]
    """Launch of the kernel; the shortest time there is."""
    unit_s: Annotated[float, Ge(1e-8), Le(1e-4)]
    """A core's time for one work unit (a query tile of a head) besides its keys: start, load of
    the queries, end. A core may run several units at once: then the time divided by their number.
    """
    matmul_frac: Annotated[float, Ge(0.005), Le(1.0)]
    """Of the peak, the two matrix products of a full tile, without the softmax between them."""
    softmax_flops: Annotated[float, Ge(0.1), Le(1000.0)]
    """Softmax of one (query, key) pair in operations of the vector units, as far as the matrix
    products don't hide it."""
    hbm_frac: Annotated[float, Ge(0.1), Le(1.0)]
    """Of memory bandwidth, for queries, keys, values and outputs."""
    wave_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """Of the idle part of the last wave, what is lost: 1: all cores wait for it; 0: units are so
    many a core that their ends even out."""
    unaligned_scale: Annotated[float, Ge(1.0), Le(4.0)]
    """launch_s and unit_s of head dimensions that are no multiple of 64."""
    query_tile_tokens: Annotated[float, Ge(64.0), Le(256.0)]
    """Rows of a query tile, taken as the next multiple of 64; at most 128 where a head has more
    than 128 dimensions."""
