"""Seconds of absorbed MLA decode attention (FlashMLA, FlashAttention-3, trtllm-gen, CANN)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from simpod.cost.kernels.mla import DEEPSEEK, Floats, MlaDims, overlap_s, waves_time
from simpod.hardware.kernels.decode_mla import DecodeMlaConstants
from simpod.hardware.spec import DieSpec
from simpod.units import BYTES_PER_ELEMENT

BF16_BYTES = BYTES_PER_ELEMENT["bf16"]
FP32_BYTES = BYTES_PER_ELEMENT["fp32"]

KEY_BLOCK_TOKENS = 64
"""Keys of one inner step: FlashMLA's page and block; caches are padded to it."""

L2_SHARE = 0.5
"""Of L2, what a cache may fill and still be found there by the next call."""

L2_POWER = 4.0
"""How sharply hits end there: half at that size, 6 % at twice of it (cyclic reads evict)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodeMlaShape:
    """Shapes [n], or arrays that broadcast to it; fractional means are allowed."""

    num_seqs: ArrayLike
    context_tokens: ArrayLike
    """Keys of each sequence, the new tokens included."""
    num_heads: ArrayLike
    """Query heads of one die."""
    query_tokens: ArrayLike = 1.0
    """New tokens of each sequence: 1, or 1 + drafts."""


def decode_mla_s(
    die: DieSpec,
    constants: DecodeMlaConstants,
    shape: DecodeMlaShape,
    *,
    kv_dtype: str = "bf16",
    is_cold: bool = False,
    dims: MlaDims = DEEPSEEK,
) -> Floats:
    """Seconds [n] of attention over the latent cache; without projections and cache write.

    All heads read one latent, so rows = num_heads * query_tokens form tiles of `tile_rows` (padded)
    and a tile costs a core  block_s + keys * tile_rows * 2 * (576 + 512) / (its share of the peak).
    Fewer rows than one tile's go in up to `most_small_tiles` of `small_tile_rows`, if they fit.
    How tiles fill the cores, see `_busiest`. Merging what was cut reads and writes fp32 partial
    outputs, which stay in L2, and costs `combine_s` and `combine_per_split_s`.
    Memory: the cache is read once, and again from L2 by each further small tile of a sequence (big
    tiles share it through the cluster). In benchmarks that repeat a call, caches below half of L2
    are read from L2; `is_cold` denies it, as in a model whose layers evict each other. Queries and
    outputs in bf16 are not overlapped: they are the first and last thing that a tile does.
    time = launch + overlap(compute, memory) + conversion + queries and outputs + merge.
    """
    c = constants
    seqs, context, heads, new = (
        np.asarray(each, dtype=np.float64)
        for each in (shape.num_seqs, shape.context_tokens, shape.num_heads, shape.query_tokens)
    )
    rows = heads * new
    is_small = (rows < c.tile_rows) & (rows <= c.most_small_tiles * c.small_tile_rows)
    tile_rows = np.where(is_small, c.small_tile_rows, c.tile_rows)
    tiles = np.ceil(rows / tile_rows)
    core_flops_per_s = c.compute_frac * die.peak_flops_per_s["bf16"] / float(die.num_cores)
    key_s = tile_rows * (2 * dims.absorbed) / core_flops_per_s
    compute_s, parts = _busiest(die, c, seqs * tiles, context, key_s)

    bytes_per_s = die.hbm_bytes_per_s * c.hbm_frac
    latents = seqs * context * dims.latent
    cache_bytes = seqs * context * dims.cached_bytes(kv_dtype)
    memory_s = _reads_s(die, c, cache_bytes, np.where(is_small, tiles - 1.0, 0.0), is_cold)
    cast_s = latents * (BF16_BYTES * c.cast_passes) / bytes_per_s
    in_out_s = seqs * rows * (dims.absorbed * BF16_BYTES) / bytes_per_s
    row_bytes = seqs * rows * (2 * dims.kv_lora_rank * FP32_BYTES)
    merge_s = _merge_s(c, parts, row_bytes / (bytes_per_s * c.l2_bandwidth_scale))
    return c.launch_s + overlap_s(compute_s, memory_s) + cast_s + in_out_s + merge_s


def _busiest(
    die: DieSpec, c: DecodeMlaConstants, tiles: Floats, context: Floats, key_s: Floats
) -> tuple[Floats, Floats]:
    """Seconds [n] that the busiest core computes, and into how many parts a tile is cut (a mean:
    1.3 are 30 % of the tiles in two).

    tiles: of all sequences. A tile is one block or as many blocks of `spread_block_tokens` keys as
    its cache has, and each core gets ceil(blocks / cores) in a row, so that 24 tiles of many blocks
    take 16 cores as long as 1.5 tiles; of single blocks, two waves. A share that is no whole number
    of tiles cuts one at its end, unless that falls between two tiles. Fewer blocks than cores are
    split further, so that each core has context / splits keys, at least `min_split_tokens` (as
    FlashMLA's scheduler and FlashAttention's heuristic do).
    """
    padded = np.ceil(context / KEY_BLOCK_TOKENS) * KEY_BLOCK_TOKENS
    blocks = np.maximum(np.ceil(padded / c.spread_block_tokens), 1.0)  # of a tile
    load = tiles * blocks / float(die.num_cores)
    splits = np.maximum(np.minimum(1.0 / load, padded / c.min_split_tokens), 1.0)

    share = np.maximum(np.ceil(load), 1.0)
    whole, rest = np.divmod(share, blocks)
    share_tokens = whole * padded + np.minimum(rest * c.spread_block_tokens, padded)
    keys = np.maximum(share_tokens / share / splits, KEY_BLOCK_TOKENS)
    starts = np.maximum(1.0 / blocks, 1.0 / share)  # of tiles, a block
    busy = (load - np.floor(load)) * splits
    busiest = waves_time(load, busy, c.uncrowded_gain_frac)
    between = np.gcd(share.astype(np.int64), blocks.astype(np.int64)) / blocks
    cuts = (1.0 - between) * blocks / share
    return busiest * (c.block_s * starts + keys * key_s), splits + cuts


def _reads_s(
    die: DieSpec, c: DecodeMlaConstants, cache_bytes: Floats, reads_again: Floats, is_cold: bool
) -> Floats:
    """Time [n] of reading the cache once from memory (or L2), and `reads_again` times from L2."""
    filled = cache_bytes / (L2_SHARE * die.l2_bytes)
    hits = 0.0 if is_cold else 1.0 / (1.0 + filled**L2_POWER)
    passes: Floats = (1.0 - hits) + (hits + reads_again) / c.l2_bandwidth_scale
    return cache_bytes * passes / (die.hbm_bytes_per_s * c.hbm_frac)


def _merge_s(c: DecodeMlaConstants, parts: Floats, partial_s: Floats) -> Floats:
    """Time [n] of merging `parts` of each tile; partial_s: writing and reading one partial output
    of each row."""
    partials = np.where(parts < 2.0, 2.0 * (parts - 1.0), parts)
    fixed_s = c.combine_s * (1.0 - 1.0 / parts) + c.combine_per_split_s * (parts - 1.0)
    total: Floats = fixed_s + partials * partial_s
    return total
