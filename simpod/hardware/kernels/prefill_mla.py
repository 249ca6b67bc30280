"""Constants of MLA prefill attention."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from simpod.fields import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillMlaConstants:
    """What prompt attention and its copying kernels achieve; see `cost.kernels.prefill_mla`."""

    __pydantic_config__: ClassVar[Any] = STRICT
    LIBRARY: ClassVar[frozenset[str]] = frozenset(
        {
            "launch_s",
            "block_s",
            "small_tile_frac",
            "head_passes",
            "latent_passes",
            "combine_s",
            "min_split_tokens",
            "tile_rows",
        }
    )
    """Of the library, whatever the die; the others are the die's: see `transfer`."""

    launch_s: Annotated[float, Ge(1e-6), Le(6e-5)]
    """Start and end of all kernels of the operator."""
    block_s: Annotated[float, Ge(1e-7), Le(4e-5)]
    """Fixed part of one tile on a core: loading its queries, first latency, writing its output."""
    compute_frac: Annotated[float, Ge(0.05), Le(2.0)]
    """Of the bf16 peak, all cores busy, long prompts; above 1 only where products are 8-bit."""
    uncrowded_gain_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """How much faster a core is while at most half of the cores are busy (shared L2, clock)."""
    small_tile_frac: Annotated[float, Ge(0.1), Le(1.0)]
    """Rate of tiles with half of `tile_rows`, of the rate of full ones."""
    hbm_frac: Annotated[float, Ge(0.2), Le(1.0)]
    """Of memory bandwidth, for what the attention kernel itself reads and writes."""
    head_passes: Annotated[float, Ge(0.0), Le(20.0)]
    """Bytes that copying kernels (join, rotate, quantise) move per token and head, in sizes of one
    bf16 key and value, at peak bandwidth and before the attention kernel."""
    latent_passes: Annotated[float, Ge(0.0), Le(40.0)]
    """The same per token, in sizes of the bf16 latent: cache write, gather, conversion."""
    combine_s: Annotated[float, Ge(0.0), Le(4e-5)]
    """Merging the splits of a sequence, where the kernel splits."""
    min_split_tokens: Annotated[float, Ge(16.0), Le(1e7)]
    """Keys a split has at least; the upper bound says that the kernel never splits."""
    tile_rows: Annotated[float, Ge(8.0), Le(512.0)]
    """Query rows of a full tile. Not fitted: a property of the kernel."""
