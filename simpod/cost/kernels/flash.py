"""What FlashAttention kernels share: tiles of queries and keys, and how cores work them off.

Source: Dao 2023 (FlashAttention-2: a work unit is a query tile of one head, it loops over key
tiles), Shah et al. 2024 (FlashAttention-3: the softmax between the products is the other limit).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from simpod.cost.work import Floats
from simpod.hardware.spec import DieSpec
from simpod.units import BYTES_PER_ELEMENT

KEY_TILE_TOKENS: Final = 64.0
"""Keys are visited in tiles of at least this many."""

DIM_STEP: Final = 32.0
"""Kernels are built for head dimensions in multiples of this: 72 costs as much as 96."""

LARGE_HEAD_DIM: Final = 128.0
LARGE_HEAD_TILE_TOKENS: Final = 128.0
"""More dimensions than LARGE_HEAD_DIM leave room for this many rows of a query tile."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadDims:
    """Dimensions of a head, [n] or scalar: of queries and keys, and of values."""

    key: Floats
    value: Floats

    @property
    def total(self) -> Floats:
        """Numbers that one token of one head has in K and V (or in Q and the output)."""
        return self.key + self.value

    @property
    def padded(self) -> Floats:
        """The same as the matrix units see it."""
        return DIM_STEP * (np.ceil(self.key / DIM_STEP) + np.ceil(self.value / DIM_STEP))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TileLoad:
    """Work units and the keys they visit, [n].

    units: over all sequences and heads; mean_keys, longest_keys: of a unit.
    """

    units: Floats
    mean_keys: Floats
    longest_keys: Floats


def multiply_dtype(die: DieSpec, dtype: str, kv_dtype: str) -> str:
    """What the products run in: fp8 as soon as queries or cache are fp8, else bf16.

    Kernels over an fp8 cache are taken to convert the queries, not the cache: on Hopper,
    TensorRT-LLM with bf16 queries over an fp8 cache measures 1.2 to 1.5 times the rates of a bf16
    cache. Blackwell tables show no such gain; the fitted shares of the peak absorb that. A die
    without fp8 units computes in bf16.
    """
    return "fp8" if "fp8" in (dtype, kv_dtype) and "fp8" in die.peak_flops_per_s else "bf16"


def element_bytes(dtype: str) -> float:
    """Bytes of one number; an unknown type counts as bf16."""
    return BYTES_PER_ELEMENT.get(dtype, BYTES_PER_ELEMENT["bf16"])


def tile_rows(query_tile_tokens: float, key_dim: Floats) -> Floats:
    """Rows of a query tile, [n]: a multiple of 64, fewer where heads are large."""
    rows = KEY_TILE_TOKENS * round(query_tile_tokens / KEY_TILE_TOKENS)
    return np.where(key_dim > LARGE_HEAD_DIM, min(rows, LARGE_HEAD_TILE_TOKENS), rows)


def whole_tiles(tokens: Floats) -> Floats:
    """Tokens rounded up to whole key tiles."""
    return KEY_TILE_TOKENS * np.ceil(tokens / KEY_TILE_TOKENS)


def key_s(die: DieSpec, rows: Floats, dims: HeadDims, fracs: Sequence[float], dtype: str) -> Floats:
    """A core's seconds for one key against a query tile of `rows` [n]: products, then softmax.

    fracs: (share of the peak, vector operations of one pair's softmax). Products are 2 operations
    for each number of the key and of the value.
    """
    matmul_frac, softmax_flops = fracs
    product_s = 2.0 * dims.padded / (die.peak_flops_per_s[dtype] * matmul_frac)
    softmax_s = softmax_flops / die.softmax_flops_per_s
    return rows * (product_s + softmax_s) * die.num_cores


def scheduled_s(cores: int, load: TileLoad, unit_s: Floats, one_key_s: Floats) -> Floats:
    """Seconds until uneven units are done: list scheduling, bounded after Graham (1969).

    All cores share the work, and the last unit ends late by a part of itself; with fewer units than
    cores, the longest unit is all there is to wait for.
    """
    mean_s = unit_s + load.mean_keys * one_key_s
    longest_s = unit_s + load.longest_keys * one_key_s
    waves = np.maximum(load.units / cores, 1e-9)
    late_frac = np.maximum(1.0 - 1.0 / waves, 0.0)
    return np.maximum(longest_s, waves * mean_s + late_frac * longest_s)


def waves_s(
    cores: int, load: TileLoad, unit_s: Floats, one_key_s: Floats, wave_frac: float
) -> Floats:
    """Seconds until even units are done, in waves over the cores.

    wave_frac: of the idle part of the last wave, what is lost.
    """
    each_s = unit_s + load.mean_keys * one_key_s
    waves = load.units / cores
    idle = np.ceil(waves) - waves
    return each_s * np.maximum(waves + wave_frac * idle, 1.0)
