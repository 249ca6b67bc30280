"""Constants of absorbed MLA decode attention."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from simpod.fields import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeMlaConstants:
    """What one attention kernel over the latent cache achieves; see `cost.kernels.decode_mla`."""

    __pydantic_config__: ClassVar[Any] = STRICT
    LIBRARY: ClassVar[frozenset[str]] = frozenset(
        {
            "launch_s",
            "block_s",
            "combine_s",
            "combine_per_split_s",
            "min_split_tokens",
            "spread_block_tokens",
            "tile_rows",
            "small_tile_rows",
            "most_small_tiles",
            "cast_passes",
        }
    )
    """Of the library, whatever the die; the others are the die's: see `transfer`."""

    launch_s: Annotated[float, Ge(1e-6), Le(6e-5)]
    """Start and end of the kernel, and whatever small kernels always run with it."""
    block_s: Annotated[float, Ge(1e-7), Le(4e-5)]
    """Fixed part of one tile on a core: loading its queries, first latency, writing its output."""
    compute_frac: Annotated[float, Ge(0.05), Le(2.0)]
    """Of the bf16 peak, all cores busy; above 1 only where products are 8-bit."""
    uncrowded_gain_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """How much faster a core is while at most half of the cores are busy (shared L2, clock)."""
    hbm_frac: Annotated[float, Ge(0.3), Le(1.0)]
    """Of memory bandwidth, long caches."""
    l2_bandwidth_scale: Annotated[float, Ge(1.0), Le(8.0)]
    """Bandwidth of a cache that lies in L2, as a multiple of the achieved memory bandwidth."""
    combine_s: Annotated[float, Ge(0.0), Le(4e-5)]
    """Fixed part of merging the splits of a sequence."""
    combine_per_split_s: Annotated[float, Ge(0.0), Le(1e-6)]
    """Added for each split of a sequence."""
    min_split_tokens: Annotated[float, Ge(16.0), Le(1e7)]
    """Cached tokens a split has at least; the upper bound says that the kernel never splits."""
    spread_block_tokens: Annotated[float, Ge(64.0), Le(1e7)]
    """Keys of the blocks of which every core gets as many as any other: tiles are cut wherever a
    core's share ends, and merged by the same launch. The upper bound says that tiles stay whole and
    run in waves. Not fitted."""
    tile_rows: Annotated[float, Ge(8.0), Le(256.0)]
    """Query rows of a tile. Not fitted: a property of the kernel."""
    small_tile_rows: Annotated[float, Ge(8.0), Le(256.0)]
    """The same for sequences with fewer rows than `tile_rows`. Not fitted."""
    most_small_tiles: Annotated[float, Ge(1.0), Le(32.0)] = 32.0
    """Small tiles of a sequence; more rows are padded to a tile of `tile_rows`. Not fitted."""
    cast_passes: Annotated[float, Ge(0.0), Le(20.0)]
    """Bytes that converting the cache to bf16 moves first, in sizes of the bf16 cache."""
