"""Constants of the routed experts of one layer: two grouped GEMMs and what goes around them."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from simpod.fields import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedGemmConstants:
    """One kernel library and one number format on one device."""

    __pydantic_config__: ClassVar[Any] = STRICT
    LIBRARY: ClassVar[frozenset[str]] = frozenset(
        {
            "half_tokens",
            "fill_s",
            "wave_frac",
            "overlap_exponent",
            "launch_s",
            "slot_s",
            "routing_bytes_per_pair",
            "traffic_scale",
            "reread_frac",
        }
    )
    """Of the library, whatever the die; the others are the die's: see `transfer`."""

    compute_frac: Annotated[float, Ge(0.05), Le(1.0)]
    """Of the peak, tiles of 128 tokens and an endless inner dimension."""
    half_tokens: Annotated[float, Ge(0.0), Le(512.0)]
    """Small tiles: one of t tokens takes the time of t + this, as each loads its weights anew."""
    fill_s: Annotated[float, Ge(0.0), Le(5e-5)]
    """Prologue and epilogue of a tile of 128 x 128 on its core: a time, however fast it multiplies
    (bf16, CUTLASS: 2.0 us on an H100, 2.2 us on a B200 with twice the rate)."""
    wave_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """Of the idle cores in the last wave: 1 one tile a core and time; 0 persistent, all share."""
    hbm_frac: Annotated[float, Ge(0.1), Le(1.0)]
    """Of memory bandwidth, streaming weights."""
    l2_frac: Annotated[float, Ge(0.01), Le(2.0)]
    """Of the last cache: the working set of which half is found there when a step is repeated."""
    overlap_exponent: Annotated[float, Ge(1.0), Le(8.0)]
    """Of the smooth maximum of compute and memory time: 1 their sum, 8 nearly their maximum."""
    launch_s: Annotated[float, Ge(1e-6), Le(2e-4)]
    """All kernels of the layer when they have nothing to do: sort, permute, GEMMs, finalise."""
    slot_s: Annotated[float, Ge(0.0), Le(1e-6)]
    """Preparation of one expert's group: offsets, descriptors, padding."""
    routing_bytes_per_pair: Annotated[float, Ge(0.0), Le(2e5)]
    """Sorting of one (token, expert) pair, also of pairs for other dies, as HBM traffic."""
    traffic_scale: Annotated[float, Ge(0.0), Le(16.0)]
    """Permutation, activation, quantisation and finalisation over what they must move at least."""
    reread_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """Of the activations that tiles of other columns read again, once they outgrow the cache."""
