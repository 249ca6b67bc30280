"""Constants of the dense matrix product."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from simpod.fields import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmConstants:
    """What a die achieves in C[m, n] = A[m, k] B[k, n] with one family of kernels."""

    __pydantic_config__: ClassVar[Any] = STRICT
    LIBRARY: ClassVar[frozenset[str]] = frozenset(
        {
            "launch_s",
            "host_s",
            "wave_frac",
            "split_s",
            "exposed_frac",
            "quantise_bytes_per_element",
            "quantise_s_per_row",
        }
    )
    """Of the library, whatever the die; the others are the die's: see `transfer`."""

    launch_s: Annotated[float, Ge(2e-7), Le(8e-6)]
    """From the start of the first kernel to its first load, and from the last store to the end;
    with a kernel that quantises before it. More than a few of these are the host's time."""
    host_s: Annotated[float, Ge(0.0), Le(5e-4)]
    """Host time of one call, which hides behind the kernels of a longer call; 0 in a graph."""
    compute_frac: Annotated[float, Ge(0.2), Le(1.0)]
    """Of the peak of the data type, in the inner loop of a core whose operands are there."""
    load_bytes_per_flop: Annotated[float, Ge(1e-3), Le(0.3)]
    """Rate at which a core takes operands from L2, over its bf16 peak: small tiles need more."""
    depth_s_per_element: Annotated[float, Ge(3e-11), Le(3e-8)]
    """Shortest time of one element of k in a tile's inner loop: latency, however small the tile."""
    wave_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """Share of the idle cores of a last wave that stay idle: 1 = whole waves, 0 = no quantisation
    (persistent kernels, two tiles a core)."""
    split_s: Annotated[float, Ge(1e-7), Le(1e-4)]
    """Fixed part of adding up partial results of a divided k; high: never divided."""
    hbm_frac: Annotated[float, Ge(0.3), Le(1.0)]
    """Of the memory bandwidth, streaming weights."""
    resident_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """Share of L2 in which activations of the kernel before are still found."""
    exposed_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """Of two phases of equal length that overlap, what they take beyond the time of one."""
    quantise_bytes_per_element: Annotated[float, Ge(0.0), Le(100.0)]
    """Memory traffic of quantising one activation, at the die's bandwidth; 16-bit types have none.
    Reading 2 bytes and writing 1 would be 3; more is a pass that falls short of the bandwidth."""
    quantise_s_per_row: Annotated[float, Ge(0.0), Le(1e-4)]
    """Core time of quantising one row beside its bytes: one thread block a row."""
