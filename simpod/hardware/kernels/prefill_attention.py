"""Constants of causal prefill attention: FlashAttention tiles on the cores of one die."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from simpod.fields import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillAttentionConstants:
    """One library's kernel for one data type; times without a rate are of one core."""

    __pydantic_config__: ClassVar[Any] = STRICT
    LIBRARY: ClassVar[frozenset[str]] = frozenset(
        {
            "launch_s",
            "token_s",
            "query_pass_scale",
            "untuned_scale",
            "outside_frac",
            "edge_tokens",
            "query_tile_tokens",
            "head_packing_frac",
        }
    )
    """Of the library, whatever the die; the others are the die's: see `transfer`."""

    launch_s: Annotated[float, Ge(1e-7), Le(1e-4)]
    """Launches of the kernel and of what prepares its inputs; the shortest time there is."""
    unit_s: Annotated[float, Ge(1e-8), Le(1e-4)]
    """A core's time for one work unit (a query tile of a head) besides its keys: start, load of
    the queries, end. A core may run several units at once: then the time divided by their number.
    """
    token_s: Annotated[float, Ge(1e-10), Le(2e-6)]
    """A core's time for one new token whatever its heads: its cache slot is looked up, its row
    converted and scattered."""
    matmul_frac: Annotated[float, Ge(0.005), Le(1.0)]
    """Of the peak, the two matrix products of a full tile, without the softmax between them."""
    softmax_flops: Annotated[float, Ge(0.1), Le(1000.0)]
    """Softmax of one (query, key) pair in operations of the vector units, as far as the matrix
    products don't hide it. The exponential alone costs about 16: special function units are that
    much slower than multiply-add units on Hopper and Blackwell."""
    hbm_frac: Annotated[float, Ge(0.1), Le(1.0)]
    """Of memory bandwidth, for queries, keys, values and outputs."""
    query_pass_scale: Annotated[float, Ge(0.0), Le(4.0)]
    """Times that the queries (and the room of the outputs) pass through memory before the kernel:
    rotary embedding, bias or conversion in a kernel of their own; 0: not at all."""
    untuned_scale: Annotated[float, Ge(1.0), Le(3.0)]
    """launch_s and unit_s of head dimensions other than 128, which libraries tune first."""
    outside_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """Of the time of a key tile, what one outside the window costs: 0: skipped; 1: computed and
    masked."""
    edge_tokens: Annotated[float, Ge(0.0), Le(2048.0)]
    """Keys' worth of time that a work unit loses when a window cuts its keys off: masks on both
    sides, larger key tiles."""
    query_tile_tokens: Annotated[float, Ge(64.0), Le(256.0)]
    """Rows of a query tile, taken as the next multiple of 64; at most 128 where a head has more
    than 128 dimensions (registers or tensor memory hold no more)."""
    head_packing_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """From 0.5 on: all query heads of a KV head share a tile's rows; below: a tile has one head."""
