"""What the two attention kernels of multi-head latent attention (MLA) share."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simpod.units import BYTES_PER_ELEMENT

Floats = NDArray[np.float64]

OVERLAP_POWER = 3.0
"""Compute c and memory m of one kernel take (c^3 + m^3)^(1/3): 1.26 x each if equal."""

CROWDING_STEEPNESS = 4.0
"""Crowding grows from none at half of the cores busy to all of it at 5/8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MlaDims:
    """Widths of one head; the defaults are DeepSeek-V2's and V3's."""

    kv_lora_rank: int = 512
    qk_rope_head_dim: int = 64
    qk_nope_head_dim: int = 128
    v_head_dim: int = 128

    @property
    def latent(self) -> int:
        """Cached numbers of one token."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    def cached_bytes(self, kv_dtype: str) -> float:
        """Of one token in one layer.

        int8: the rotated key stays in 16 bits (xDeepServe 4.7: the non-RoPE part is INT8). fp8: all
        of it is narrow, as vLLM and TensorRT-LLM store it.
        """
        key_dtype = "bf16" if kv_dtype == "int8" else kv_dtype
        latent_bytes = self.kv_lora_rank * BYTES_PER_ELEMENT[kv_dtype]
        return latent_bytes + self.qk_rope_head_dim * BYTES_PER_ELEMENT[key_dtype]

    @property
    def absorbed(self) -> int:
        """Key and value width with the up-projection absorbed: latent, and its unrotated part."""
        return self.latent + self.kv_lora_rank

    @property
    def plain(self) -> int:
        """Key and value width after the up-projection."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim + self.v_head_dim


DEEPSEEK = MlaDims()


def overlap_s(compute_s: Floats, memory_s: Floats) -> Floats:
    """Time of a kernel that computes and moves bytes at once; see `OVERLAP_POWER`."""
    p = OVERLAP_POWER
    total: Floats = (compute_s**p + memory_s**p) ** (1.0 / p)
    return total


def waves_time(tiles: Floats, busy: Floats, gain: float) -> Floats:
    """Time of `tiles` equal tiles per core, in units of a tile with all cores busy.

    Whole waves take 1. The last one takes 1 / (1 + gain) if it leaves half of the cores idle: two
    neighbouring cores share a path to L2, and the clock is higher.
    tiles: number of tiles over number of cores; busy: share of the cores that the last wave keeps
    busy, where its tiles are split.
    """
    whole = np.floor(tiles)
    crowding = np.clip((2.0 * busy - 1.0) * CROWDING_STEEPNESS, 0.0, 1.0)
    last = (1.0 + gain * crowding) / (1.0 + gain)
    waves: Floats = whole + np.where(tiles > whole, last, 0.0)
    return waves
