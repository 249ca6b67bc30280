"""Seconds of causal prefill attention: whole prompts or chunks, grouped heads, windows."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simpod.cost.kernels.flash import (
    KEY_TILE_TOKENS,
    HeadDims,
    TileLoad,
    element_bytes,
    key_s,
    multiply_dtype,
    scheduled_s,
    tile_rows,
    whole_tiles,
)
from simpod.cost.work import Floats
from simpod.hardware.kernels.prefill_attention import PrefillAttentionConstants
from simpod.hardware.spec import DieSpec

TUNED_DIM: Final = 128.0
"""The head dimension of most models, and the one that libraries tune first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefillAttentionShape:
    """Counts, [n] or scalars that broadcast; means may be fractional."""

    num_seqs: Floats
    query_tokens: Floats
    """New tokens of one sequence: its prompt, or a chunk of it."""
    resident_tokens: Floats
    """Tokens of one sequence that are in the cache before; 0: the first chunk."""
    num_heads: Floats
    num_kv_heads: Floats
    head_dim: Floats
    """Of queries and keys."""
    value_dim: Floats
    window_tokens: Floats
    """Keys that a query may see, itself included; 0: all before it."""

    @property
    def dims(self) -> HeadDims:
        """Of one head."""
        return HeadDims(key=self.head_dim, value=self.value_dim)


def prefill_attention_s(
    die: DieSpec,
    constants: PrefillAttentionConstants,
    shape: PrefillAttentionShape,
    dtype: str = "bf16",
    kv_dtype: str = "bf16",
) -> Floats:
    """Seconds, [n]: launch + preparation + hypot(tiles, bytes of the kernel).

    tiles: work units (sequences x heads x query tiles), the later ones with more keys, list
    scheduled over the cores (`flash.scheduled_s`); the kernel's bytes are read while it computes:
    queries, outputs, and each sequence's keys and values once, its heads and tiles share them in
    the L2 cache. Preparation precedes the kernel: see `preparation_s`.

    dtype: of queries and outputs; kv_dtype: of the cache.
    """
    math = multiply_dtype(die, dtype, kv_dtype)
    scale = np.where(shape.head_dim == TUNED_DIM, 1.0, constants.untuned_scale)
    bytes_per_s = die.hbm_bytes_per_s * constants.hbm_frac
    kernel_s = np.hypot(
        tiles_s(die, constants, shape, constants.unit_s * scale, math),
        kernel_bytes(shape, element_bytes(math), element_bytes(kv_dtype)) / bytes_per_s,
    )
    return constants.launch_s * scale + preparation_s(die, constants, shape, kv_dtype) + kernel_s


def preparation_s(
    die: DieSpec, constants: PrefillAttentionConstants, shape: PrefillAttentionShape, kv_dtype: str
) -> Floats:
    """Seconds before the kernel, [n]: keys and values go to the cache, queries may be rewritten.

    Keys and values are read in bf16 and written in kv_dtype; queries and the room of the outputs
    pass query_pass_scale times in bf16; each token costs token_s of a core.
    """
    tokens = shape.num_seqs * shape.query_tokens
    dims, bf16 = shape.dims.total, element_bytes("bf16")
    append_bytes = shape.num_kv_heads * dims * (bf16 + element_bytes(kv_dtype))
    query_bytes = constants.query_pass_scale * shape.num_heads * dims * bf16
    bytes_per_s = die.hbm_bytes_per_s * constants.hbm_frac
    token_s = (append_bytes + query_bytes) / bytes_per_s + constants.token_s / die.num_cores
    return tokens * token_s


def kernel_bytes(shape: PrefillAttentionShape, query_bytes: float, kv_bytes: float) -> Floats:
    """Memory traffic of the kernel, [n]; arguments: bytes of one number."""
    context = shape.resident_tokens + shape.query_tokens
    seen = np.where(
        shape.window_tokens > 0,
        np.minimum(context, shape.query_tokens + shape.window_tokens),
        context,
    )
    queries = shape.query_tokens * shape.num_heads * query_bytes
    return shape.num_seqs * shape.dims.total * (queries + seen * shape.num_kv_heads * kv_bytes)


def tiles_s(
    die: DieSpec,
    constants: PrefillAttentionConstants,
    shape: PrefillAttentionShape,
    unit_s: Floats,
    dtype: str,
) -> Floats:
    """Seconds of all work units on all cores, [n]; unit_s: besides the keys; dtype: multiplied in.

    With packed heads, a tile's rows are its KV head's query heads times fewer tokens.
    """
    rows = tile_rows(constants.query_tile_tokens, shape.head_dim)
    packed = shape.num_heads / shape.num_kv_heads if constants.head_packing_frac >= 0.5 else 1.0
    one_key_s = key_s(
        die, rows, shape.dims, (constants.matmul_frac, constants.softmax_flops), dtype
    )
    load, is_cut = tile_load(shape, rows, packed, constants.outside_frac)
    edge_s = np.where(is_cut, constants.edge_tokens * one_key_s, 0.0)
    return scheduled_s(die.num_cores, load, unit_s + edge_s, one_key_s)


def tile_load(
    shape: PrefillAttentionShape, rows: Floats, packed: Floats | float, outside_frac: float
) -> tuple[TileLoad, NDArray[np.bool_]]:
    """Work units [n], and whether windows cut their keys off [n].

    A tile of `rows / packed` tokens that ends at token t of the context visits all key tiles up to
    t, or those that its window reaches; key tiles outside it count `outside_frac`. Where a query
    tile is shorter than a key tile, its end lies half the difference away from the key tile's.
    """
    step = rows / packed
    tiles = np.maximum(np.ceil(shape.query_tokens / step), 1.0)
    context = whole_tiles(shape.resident_tokens + shape.query_tokens)
    overhang = np.maximum(KEY_TILE_TOKENS - step, 0.0) / 2
    before = shape.resident_tokens + overhang
    reach = np.minimum(context, whole_tiles(shape.window_tokens + step - 1.0) + overhang)
    most = np.where(shape.window_tokens > 0, reach, context)
    inside = visited_keys(tiles, step, before, most)
    every = visited_keys(tiles, step, before, context) if outside_frac > 0 else inside
    last = before + tiles * step
    longest, whole = np.minimum(most, last), np.minimum(context, last)
    load = TileLoad(
        units=shape.num_seqs * shape.num_heads / packed * tiles,
        mean_keys=(inside + outside_frac * (every - inside)) / tiles,
        longest_keys=longest + outside_frac * (whole - longest),
    )
    is_cut = (shape.window_tokens > 0) & (
        shape.window_tokens < shape.resident_tokens + shape.query_tokens
    )
    return load, is_cut


def visited_keys(tiles: Floats, step: Floats, before: Floats, most: Floats) -> Floats:
    """Keys of all tiles of a sequence: sum over i = 1 .. tiles of min(before + i step, most)."""
    growing = np.floor(np.minimum(np.maximum((most - before) / step, 0.0), tiles))
    return growing * before + step * growing * (growing + 1.0) / 2 + (tiles - growing) * most
