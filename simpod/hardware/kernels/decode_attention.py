"""Constants of the decode attention kernel on one device, for one cache type and library."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from simpod.fields import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeAttentionConstants:
    """What a library's kernel achieves; see `simpod.cost.kernels.decode_attention`."""

    __pydantic_config__: ClassVar[Any] = STRICT
    LIBRARY: ClassVar[frozenset[str]] = frozenset(
        {
            "launch_s",
            "extra_kernel_s",
            "split_s",
            "seq_s",
            "unit_s",
            "unit_head_s",
            "mask_flops",
            "core_bytes_per_s",
            "wide_head_exponent",
            "overlap_exponent",
        }
    )
    """Of the library, whatever the die; the others are the die's: see `transfer`."""

    launch_s: Annotated[float, Ge(1e-6), Le(5e-5)]
    """Launch, planning and exit: what the smallest call takes, apart from one wave."""
    extra_kernel_s: Annotated[float, Ge(1e-8), Le(2e-5)]
    """Each further kernel: the merge of splits, copies that regroup query heads."""
    split_s: Annotated[float, Ge(1e-9), Le(2e-6)]
    """Merging the partial result of one more split: they are read one after the other."""
    seq_s: Annotated[float, Ge(1e-11), Le(2e-7)]
    """Planning one more sequence: lengths, page tables and tile order."""
    unit_s: Annotated[float, Ge(1e-8), Le(2e-5)]
    """Prologue and epilogue of one work unit, whatever its head_dim."""
    unit_head_s: Annotated[float, Ge(1e-9), Le(2e-5)]
    """The part of it that grows with head_dim (loading Q, storing O), at 128 elements."""
    mask_flops: Annotated[float, Ge(0), Le(300)]
    """Vector operations a score of the block at a window's far edge, which must be masked."""
    core_bytes_per_s: Annotated[float, Ge(5e9), Le(5e11)]
    """What one core alone pulls: its bytes in flight over the latency of memory."""
    wide_head_exponent: Annotated[float, Ge(0), Le(2)]
    """Beyond 128 elements a core pulls (128 / head_dim)^this: fewer stages fit its memory."""
    hbm_frac: Annotated[float, Ge(0.4), Le(0.95)]
    """Of the HBM bandwidth, all cores together."""
    l2_bandwidth_scale: Annotated[float, Ge(1), Le(6)]
    """Bandwidth of the L2 cache relative to that of the HBM."""
    overlap_exponent: Annotated[float, Ge(1), Le(12)]
    """Of the smooth maximum over cores, memory and tensor cores: 1 adds them, 12 overlaps all."""
