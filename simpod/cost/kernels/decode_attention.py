"""Seconds of decode attention: one or a few query tokens a sequence against its resident KV."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simpod.cost.kernels.decode_split import (
    LIBRARIES,
    SCHEDULED_SEQS,
    Cut,
    DecodeLibrary,
    num_splits,
    tile_of,
)
from simpod.hardware.kernels.decode_attention import DecodeAttentionConstants
from simpod.hardware.spec import DieSpec

Floats = NDArray[np.float64]

KV_BYTES: Final = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5}
"""Bytes of one element of the cache."""
QUERY_BYTES: Final = 2.0
"""Of one element of query and output: bf16 outside the kernel."""
PARTIAL_BYTES: Final = 8.0
"""A split's partial output: fp32, written once and read once."""
L2_USABLE_FRAC: Final = 0.5
"""An L2 cache of two partitions keeps far data twice. Left free, bf16 fits of H100 and B200 gave
0.50 to 0.58; other variants cannot tell."""
COMPUTE_FRAC: Final = 0.7
"""Of the tensor peak: binds only with many query rows on one KV head, which tables do not hold."""
UNPLANNED_SEQ_FRAC: Final = 0.4
"""Of seq_s, for each sequence where there are too many for FlashAttention-3 to plan them; inferred
from H100 at 1,024 and 2,048 sequences."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodeAttentionShape:
    """Counts [n], which broadcast; heads are those of one die."""

    seqs: Floats
    """Sequences that decode."""
    context_tokens: Floats
    """Resident tokens of each sequence, its new ones included."""
    query_heads: Floats
    """After tensor parallelism."""
    kv_heads: Floats
    """After tensor parallelism, at least 1."""
    head_dim: Floats
    """Of keys and of values."""
    window_tokens: Floats
    """Sliding window; 0 for full attention."""
    query_tokens: Floats
    """Of each sequence: 1, or 1 + drafts when speculating."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodePlan:
    """How a library cuts shapes [n] into waves of work."""

    splits: Floats
    """Parts of each unit; 1: no merge."""
    blocks: Floats
    """KV blocks that one part reads."""
    waves: Floats
    """Rounds of all parts over the cores."""
    tile_rows: Floats
    """Query rows of a tile."""
    tile_tokens: Floats
    """KV tokens of a block."""
    query_rows: Floats
    """Rows of one KV head in use: heads that share it times query tokens."""
    resident_tokens: Floats
    """Of each sequence, within its window."""
    is_cut: NDArray[np.bool_]
    """The window leaves something out, so that its far edge must be masked."""


def decode_plan(
    die: DieSpec, library: DecodeLibrary, shape: DecodeAttentionShape, kv_dtype: str
) -> DecodePlan:
    """Tiles, splits and waves.

    units = seqs kv_heads ceil(query_rows / tile_rows); a window adds the block that it starts
    within; waves = ceil(units parts / cores), the parts being those that have blocks left. Under
    the fixed rule parts are cut from the whole context, and empty ones are launched too.
    """
    context, window = shape.context_tokens, shape.window_tokens
    group = shape.query_heads / shape.kv_heads
    rows = group * shape.query_tokens
    tile_rows, tokens = tile_of(library, kv_dtype, shape.head_dim, rows)
    is_cut = (window > 0) & (context > window + shape.query_tokens - 1)
    resident = np.where(is_cut, window + shape.query_tokens - 1, context)
    blocks = np.ceil(resident / tokens) + is_cut
    seq_units = shape.kv_heads * np.ceil(rows / tile_rows)
    cut = Cut(
        seqs=shape.seqs,
        units=shape.seqs * seq_units,
        seq_units=seq_units,
        blocks=blocks,
        context_blocks=np.ceil(context / tokens),
        group=group,
    )
    splits = num_splits(library, die.num_cores, cut)
    ranged = cut.context_blocks if library.rule == "fixed" else blocks
    part = np.minimum(np.ceil(ranged / splits), blocks)
    parts = np.ceil(blocks / part)
    empty = splits - parts if library.rule == "fixed" else 0.0
    waves = np.ceil(cut.units * parts / die.num_cores)
    return DecodePlan(
        splits=splits,
        blocks=part,
        waves=waves + library.empty_frac * cut.units * empty / die.num_cores,
        tile_rows=tile_rows,
        tile_tokens=tokens,
        query_rows=rows,
        resident_tokens=resident,
        is_cut=is_cut,
    )


def decode_attention_s(
    die: DieSpec,
    constants: DecodeAttentionConstants,
    shape: DecodeAttentionShape,
    *,
    library: str,
    kv_dtype: str = "bf16",
    is_cold: bool = False,
) -> Floats:
    """Seconds [n] of one layer's decode attention.

    launch + extra_kernel kernels + split splits + seq seqs + (cores^p + memory^p + compute^p)^(1/p)

    cores = waves (unit + mask + blocks block_bytes / core bandwidth): parts run in waves, a core
    alone is limited by what it can keep in flight. memory = KV, query, output and partial results
    over the bandwidth; what the L2 cache holds of repeated calls comes faster, which `is_cold`
    turns off: in a step, each layer reads a cache of its own. compute = 4 rows head_dim tokens
    over the tensor peak. p is overlap_exponent.
    """
    known = LIBRARIES[library]
    plan = decode_plan(die, known, shape, kv_dtype)
    regrouped = _is_regrouped(known, shape)
    cached = _cached_bytes(shape, plan, kv_dtype)
    slowness = 1.0 if is_cold else _slowness(die, constants, cached)
    moved = cached * slowness + _query_bytes(shape, plan, regrouped)
    power = constants.overlap_exponent
    total = (
        _cores_s(die, constants, shape, plan, known, kv_dtype) ** power
        + (moved / (constants.hbm_frac * die.hbm_bytes_per_s)) ** power
        + _compute_s(die, shape, plan, known, kv_dtype) ** power
    )
    planning = constants.seq_s * shape.seqs * _planned_frac(known, shape)
    is_split = plan.splits > 1
    further = constants.extra_kernel_s * (is_split + 2.0 * regrouped)
    merging = constants.split_s * plan.splits * is_split
    fixed = constants.launch_s + further + merging + planning
    return np.asarray(fixed + total ** (1.0 / power), dtype=np.float64)


def _planned_frac(library: DecodeLibrary, shape: DecodeAttentionShape) -> Floats:
    """Part of seq_s that each sequence costs once, ahead of the waves."""
    if library.is_searching:
        return np.zeros_like(shape.seqs)
    is_planned = (library.rule != "dynamic") | (shape.seqs <= SCHEDULED_SEQS)
    return np.where(is_planned, 1.0, UNPLANNED_SEQ_FRAC)


def _is_regrouped(library: DecodeLibrary, shape: DecodeAttentionShape) -> NDArray[np.bool_]:
    """FlashAttention-2 packs the query heads of each of several KV heads by copying."""
    is_packed = (shape.query_heads > shape.kv_heads) & (shape.query_tokens <= 1)
    several = (shape.kv_heads > 1) & (shape.seqs > 1)
    return np.asarray(library.is_regrouping & is_packed & several)


def _cores_s(
    die: DieSpec,
    constants: DecodeAttentionConstants,
    shape: DecodeAttentionShape,
    plan: DecodePlan,
    library: DecodeLibrary,
    kv_dtype: str,
) -> Floats:
    """Waves of units, as if memory were infinitely fast beyond the cores."""
    tile = shape.head_dim / 128.0 * (plan.tile_rows / 64.0 if library.rows_cost else 1.0)
    vector = die.vector_flops_per_s / die.num_cores
    mask = plan.is_cut * constants.mask_flops * plan.tile_rows * plan.tile_tokens / vector
    wide = (np.maximum(shape.head_dim, 128.0) / 128.0) ** constants.wide_head_exponent
    rate = constants.core_bytes_per_s / wide
    block_bytes = 2.0 * plan.tile_tokens * shape.head_dim * KV_BYTES.get(kv_dtype, 1.0)
    search = constants.seq_s * shape.seqs * library.is_searching
    unit = constants.unit_s + constants.unit_head_s * tile + mask + search
    return np.asarray(plan.waves * (unit + plan.blocks * block_bytes / rate))


def _cached_bytes(shape: DecodeAttentionShape, plan: DecodePlan, kv_dtype: str) -> Floats:
    """Keys and values of all sequences, within their windows."""
    tokens = shape.seqs * shape.kv_heads * plan.resident_tokens
    return np.asarray(2.0 * KV_BYTES.get(kv_dtype, 1.0) * tokens * shape.head_dim)


def _query_bytes(
    shape: DecodeAttentionShape, plan: DecodePlan, regrouped: NDArray[np.bool_]
) -> Floats:
    """Query in, output out; each read and written once more to regroup; partial results."""
    elements = shape.seqs * shape.query_tokens * shape.query_heads * shape.head_dim
    partial = np.where(plan.splits > 1, PARTIAL_BYTES * plan.splits, 0.0)
    return np.asarray(elements * (QUERY_BYTES * (2.0 + 4.0 * regrouped) + partial))


def _slowness(die: DieSpec, constants: DecodeAttentionConstants, cached: Floats) -> Floats:
    """Mean time of a byte, that of the HBM being 1: repeated calls find a small cache in L2.

    The share that hits falls smoothly, 1 / (1 + (bytes / usable L2)^3), as replacement is not LRU.
    """
    filled = cached / (L2_USABLE_FRAC * die.l2_bytes)
    hit = 1.0 / (1.0 + filled * filled * filled)
    return np.asarray(1.0 - hit + hit / constants.l2_bandwidth_scale)


def _compute_s(
    die: DieSpec,
    shape: DecodeAttentionShape,
    plan: DecodePlan,
    library: DecodeLibrary,
    kv_dtype: str,
) -> Floats:
    """Tensor cores: two products of the padded query rows; fp8 caches run in fp8 where it is."""
    peak = die.peak_flops_per_s.get(kv_dtype, die.peak_flops_per_s["bf16"])
    rows = np.ceil(plan.query_rows / library.mma_rows) * library.mma_rows
    heads = shape.seqs * shape.kv_heads
    flops = 4.0 * heads * rows * plan.resident_tokens * shape.head_dim
    return np.asarray(flops / (COMPUTE_FRAC * peak))
