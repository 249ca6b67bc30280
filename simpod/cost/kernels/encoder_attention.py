"""Seconds of bidirectional attention (vision and audio encoders): no mask, no cache."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from simpod.cost.kernels.flash import (
    HeadDims,
    TileLoad,
    element_bytes,
    key_s,
    multiply_dtype,
    tile_rows,
    waves_s,
    whole_tiles,
)
from simpod.cost.work import Floats
from simpod.hardware.kernels.encoder_attention import EncoderAttentionConstants
from simpod.hardware.spec import DieSpec

ALIGNED_DIM: Final = 64.0
"""Head dimensions in multiples of this need no padding of rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderAttentionShape:
    """Counts, [n] or scalars that broadcast; means may be fractional."""

    num_seqs: Floats
    query_tokens: Floats
    """Of one sequence; as many keys."""
    num_heads: Floats
    head_dim: Floats


def encoder_attention_s(
    die: DieSpec,
    constants: EncoderAttentionConstants,
    shape: EncoderAttentionShape,
    dtype: str = "bf16",
) -> Floats:
    """Seconds, [n]: launch + hypot(tiles, bytes).

    tiles: sequences x heads x query tiles are equal work units, each of unit_s and all keys; they
    run in waves over the cores (`flash.waves_s`). bytes: queries, keys, values and outputs, once.
    """
    math = multiply_dtype(die, dtype, dtype)
    dims = HeadDims(key=shape.head_dim, value=shape.head_dim)
    rows = tile_rows(constants.query_tile_tokens, shape.head_dim)
    keys = whole_tiles(shape.query_tokens)
    tiles = np.ceil(shape.query_tokens / rows)
    load = TileLoad(
        units=shape.num_seqs * shape.num_heads * tiles, mean_keys=keys, longest_keys=keys
    )
    aligned = shape.head_dim % ALIGNED_DIM == 0
    scale = np.where(aligned, 1.0, constants.unaligned_scale)
    one_key_s = key_s(die, rows, dims, (constants.matmul_frac, constants.softmax_flops), math)
    busy_s = waves_s(die.num_cores, load, constants.unit_s * scale, one_key_s, constants.wave_frac)
    numbers = shape.num_seqs * shape.query_tokens * shape.num_heads * 4.0 * shape.head_dim
    memory_s = numbers * element_bytes(math) / (die.hbm_bytes_per_s * constants.hbm_frac)
    return constants.launch_s * scale + np.hypot(busy_s, memory_s)
