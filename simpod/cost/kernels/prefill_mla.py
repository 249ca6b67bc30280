"""Seconds of MLA prefill attention, with the latent projected up or absorbed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from simpod.cost.kernels.mla import DEEPSEEK, Floats, MlaDims, overlap_s, waves_time
from simpod.hardware.kernels.prefill_mla import PrefillMlaConstants
from simpod.hardware.spec import DieSpec
from simpod.units import BYTES_PER_ELEMENT

BF16_BYTES = BYTES_PER_ELEMENT["bf16"]

KEY_BLOCK_TOKENS = 128
"""Keys of one inner step: masked corners are computed in whole blocks."""

BALANCE_POWER = 4.0
"""Even share s of a core and longest tile t take (s^4 + t^4)^(1/4): long tiles start first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefillMlaShape:
    """Shapes [n], or arrays that broadcast to it; fractional means are allowed."""

    num_seqs: ArrayLike
    query_tokens: ArrayLike
    """Prompt tokens of each sequence in this step (its chunk)."""
    num_heads: ArrayLike
    """Query heads of one die."""
    resident_tokens: ArrayLike = 0.0
    """Tokens before the chunk, whose keys it also sees."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tiling:
    """Independent groups of query rows [n], each with its tokens and keys."""

    groups: Floats
    rows: Floats
    rows_per_token: Floats
    query_tokens: Floats
    resident_tokens: Floats
    flops_per_pair: float


def prefill_mla_s(
    die: DieSpec,
    constants: PrefillMlaConstants,
    shape: PrefillMlaShape,
    *,
    is_absorbed: bool = False,
    dims: MlaDims = DEEPSEEK,
) -> Floats:
    """Seconds [n] of causal attention of prompt chunks.

    Plain (FlashAttention): each head has its own keys (128 + 64 wide) and values (128 wide), so the
    query tokens of one head form tiles of `tile_rows`, or of half of it where that is faster.
    Absorbed: heads share the latent, so tokens * heads rows of a sequence form tiles, 576 + 512
    wide; kernels that also decode run so and split the keys if there are fewer tiles than cores.
    A tile costs a core block_s + keys * tile_rows * 2 * width / (its share of the peak), keys being
    resident + (query + tile) / 2 on average; see `_attention_s`.
    Overlapped with it: bf16 queries and outputs, and once the keys and values. Added to it: the
    copying kernels of the measured operator (join with the rotated part, quantisation, cache write)
    at `head_passes` and `latent_passes`. The up-projection of latents is a GEMM and not in here.
    """
    c = constants
    seqs, new, heads, resident = (
        np.asarray(each, dtype=np.float64)
        for each in (shape.num_seqs, shape.query_tokens, shape.num_heads, shape.resident_tokens)
    )
    ones = np.ones_like(heads)
    width = dims.absorbed if is_absorbed else dims.plain
    tiling = _Tiling(
        groups=seqs if is_absorbed else seqs * heads,
        rows=new * heads if is_absorbed else new * ones,
        rows_per_token=heads if is_absorbed else ones,
        query_tokens=new,
        resident_tokens=resident,
        flops_per_pair=2.0 * width,
    )
    compute_s = np.minimum(
        _attention_s(die, c, tiling, c.tile_rows, c.compute_frac),
        _attention_s(die, c, tiling, c.tile_rows / 2.0, c.compute_frac * c.small_tile_frac),
    )
    per_query = heads * (width * BF16_BYTES)
    per_latent = dims.latent * BF16_BYTES
    per_key = per_latent if is_absorbed else per_query
    queries, keys = seqs * new, seqs * (resident + new)
    own_s = (queries * per_query + keys * per_key) / (c.hbm_frac * die.hbm_bytes_per_s)
    copied_bytes = queries * per_query * c.head_passes + keys * per_latent * c.latent_passes
    return c.launch_s + overlap_s(compute_s, own_s) + copied_bytes / die.hbm_bytes_per_s


def _attention_s(
    die: DieSpec, c: PrefillMlaConstants, tiling: _Tiling, tile_rows: float, compute_frac: float
) -> Floats:
    """Time [n] on the cores with tiles of `tile_rows`.

    Tiles are dealt in waves; a causal mask makes them unequal, so that the last (longest) tile of a
    sequence may outlast the even share.
    """
    cores = float(die.num_cores)
    all_keys = tiling.resident_tokens + tiling.query_tokens
    load = tiling.groups * np.ceil(tiling.rows / tile_rows) / cores
    tokens = np.minimum(tile_rows / tiling.rows_per_token, tiling.query_tokens)
    corner = np.where(
        tiling.query_tokens <= tokens,
        np.ceil(all_keys / KEY_BLOCK_TOKENS) * KEY_BLOCK_TOKENS,
        tiling.resident_tokens + (tiling.query_tokens + tokens + KEY_BLOCK_TOKENS) / 2.0,
    )
    mean_keys = np.maximum(corner, KEY_BLOCK_TOKENS)
    splits = np.maximum(np.minimum(1.0 / load, mean_keys / c.min_split_tokens), 1.0)
    key_s = (
        tile_rows * tiling.flops_per_pair * cores / (compute_frac * die.peak_flops_per_s["bf16"])
    )
    tile_s = c.block_s + np.maximum(mean_keys / splits, KEY_BLOCK_TOKENS) * key_s
    last = (load - np.floor(load)) * splits
    even_s = waves_time(load, last, c.uncrowded_gain_frac) * tile_s
    longest_s = c.block_s + all_keys / splits * key_s
    p = BALANCE_POWER
    total: Floats = (even_s**p + longest_s**p) ** (1.0 / p) + c.combine_s * (1.0 - 1.0 / splits)
    return total
