"""How attention libraries cut decode attention into work units: tiles and split-KV.

A unit is one KV head of one sequence with the query heads that share it (packed GQA), times the
splits of its context. Units run on cores in waves, so the number of splits makes the steps that a
measured latency has. Rules, tiles and bounds of FlashAttention 2 and 3 and of vLLM's Triton kernel
are those of their public sources. Inferred from the steps of measured tables are: the tiles of
FlashAttention-3 with an fp8 cache, all of FlashAttention-4, and TensorRT-LLM, which is closed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WAVES: Final = 6
"""Whole waves that the wave rule looks at; more never pays."""
GOOD_ENOUGH_FRAC: Final = 0.85
"""FlashAttention takes the fewest splits whose waves are this full, relative to the best."""
NO_SPLIT_FRAC: Final = 0.8
"""FlashAttention does not split once units fill this part of the cores."""
DYNAMIC_SLACK: Final = 1.1
"""FlashAttention-3 gives a core up to 10 % more blocks than its even share."""
SCHEDULED_SEQS: Final = 992
"""Sequences that one block of FlashAttention-3's scheduler handles (31 a warp, 32 warps)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLibrary:
    """How one library tiles and splits."""

    name: str
    """As in variant keys."""
    rule: Literal["dynamic", "waves", "fill", "fixed"]
    """How it chooses splits; see `num_splits`."""
    tiles: Mapping[str, Mapping[int, tuple[tuple[int, ...], int]]]
    """Type of the cache -> largest head_dim -> (choices of query rows, KV tokens of a block)."""
    max_splits: int
    """Upper bound."""
    slots_per_core: int = 1
    """Units that the split rule counts on to share a core."""
    max_split_seqs: int = 1_000_000_000
    """With more sequences there is no split."""
    max_split_units: int = 1_000_000_000
    """With more units there is no split."""
    mma_rows: int = 16
    """Rows of one tensor-core operation: fewer query rows are padded to these."""
    rows_cost: bool = False
    """Prologue and epilogue follow the rows of the tile: a second, larger kernel for many heads."""
    empty_frac: float = 0.0
    """Cost of a part without blocks, relative to a unit's (inferred); the fixed rule has them."""
    is_searching: bool = False
    """Each unit walks the batch to find its sequence, which thus costs in every wave."""
    is_regrouping: bool = False
    """Query and output of several KV heads are copied into packed order and back."""


_FA3_BF16 = {
    64: ((192,), 160),
    96: ((192,), 128),
    128: ((64,), 128),
    192: ((128,), 96),
    256: ((128,), 64),
}
_FA3_FP8 = {64: ((192,), 160), 192: ((128,), 160), 256: ((128,), 128)}
_FA2 = {64: ((64,), 256), 128: ((64,), 128), 256: ((64,), 64)}

LIBRARIES: Final[Mapping[str, DecodeLibrary]] = {
    library.name: library
    for library in (
        DecodeLibrary(
            name="fa3",
            rule="dynamic",
            tiles={"bf16": _FA3_BF16, "fp8": _FA3_FP8},
            max_splits=32,  # vLLM's bound, so that partial results have a fixed size
            max_split_seqs=SCHEDULED_SEQS,
            mma_rows=64,
        ),
        DecodeLibrary(
            name="fa4",
            rule="fixed",
            tiles={"bf16": {512: ((64,), 64)}},
            max_splits=32,
            max_split_seqs=512,  # inferred: the largest batch of vLLM's CUDA graphs
            mma_rows=64,
            empty_frac=1.0,
            is_searching=True,
        ),
        DecodeLibrary(
            name="fa2",
            rule="waves",
            tiles={"bf16": _FA2},
            max_splits=128,
            slots_per_core=2,
            is_regrouping=True,
        ),
        DecodeLibrary(
            name="trtllm",
            rule="fill",
            tiles={"bf16": {128: ((16, 64), 128)}},
            max_splits=128,
            rows_cost=True,
        ),
        DecodeLibrary(
            name="triton",
            rule="fixed",
            tiles={"bf16": {128: ((16, 64), 32)}},
            max_splits=16,
            max_split_units=128,
            empty_frac=0.3,
            rows_cost=True,
        ),
    )
}
"""By name."""

LIBRARY_OF_FAMILY: Final[Mapping[str, str]] = {
    "ampere": "fa2",
    "ada": "fa2",
    "hopper": "fa3",
    "blackwell": "trtllm",
    "ascend": "trtllm",
}
"""What engines use on a device generation unless told otherwise."""


def tile_of(
    library: DecodeLibrary, kv_dtype: str, head_dim: Floats, rows: Floats
) -> tuple[Floats, Floats]:
    """Query rows and KV tokens of a tile: the smallest that holds `rows`, else the largest."""
    table = library.tiles.get(kv_dtype, library.tiles["bf16"])
    widths = np.array(sorted(table), dtype=np.float64)
    index = np.minimum(np.searchsorted(widths, head_dim), len(widths) - 1)
    tokens = np.array([table[int(width)][1] for width in widths], dtype=np.float64)[index]
    choices = np.array([table[int(width)][0] for width in widths], dtype=np.float64)[index]
    tile_rows = choices[..., -1]
    for choice in range(choices.shape[-1] - 2, -1, -1):
        tile_rows = np.where(rows <= choices[..., choice], choices[..., choice], tile_rows)
    return tile_rows, tokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """Counts [n] that a split rule looks at."""

    seqs: Floats
    """Sequences."""
    units: Floats
    """Of all sequences, before splitting."""
    seq_units: Floats
    """Of one sequence."""
    blocks: Floats
    """Of one unit: those that its window leaves."""
    context_blocks: Floats
    """Of one unit: those of the whole context."""
    group: Floats
    """Query heads of one KV head."""


def num_splits(library: DecodeLibrary, num_cores: int, cut: Cut) -> Floats:
    """Parts that each unit's context is split into.

    dynamic: blocks of a core = ceil(1.1 units context_blocks / cores), splits those of a unit;
    4 blocks or fewer are not split. The scheduler does not know of windows.
    waves: the fewest splits whose waves over the cores are within 85 % of the fullest.
    fill: as many as fit the idle cores, with two blocks each at least.
    fixed: always the maximum.
    """
    if library.rule == "dynamic":
        splits = _dynamic(num_cores, cut)
    elif library.rule == "waves":
        splits = _waves(float(num_cores * library.slots_per_core), library.max_splits, cut)
    elif library.rule == "fill":
        idle = np.floor(num_cores / cut.units)
        splits = np.clip(idle, 1.0, np.maximum(np.floor(cut.blocks / 2.0), 1.0))
    else:
        splits = np.full_like(cut.units, float(library.max_splits))
    splits = np.minimum(splits, float(library.max_splits))
    is_split = (cut.seqs <= library.max_split_seqs) & (cut.units <= library.max_split_units)
    return np.where(is_split, splits, 1.0)


def _dynamic(num_cores: int, cut: Cut) -> Floats:
    share = np.ceil(DYNAMIC_SLACK * cut.units * cut.context_blocks / num_cores)
    wanted = np.ceil(cut.context_blocks / share)
    bound = np.minimum(cut.blocks, np.ceil(GOOD_ENOUGH_FRAC * num_cores / cut.seq_units))
    return np.where(cut.blocks <= 4, 1.0, np.minimum(wanted, np.maximum(bound, 1.0)))


def _waves(slots: float, max_splits: int, cut: Cut) -> Floats:
    most = np.minimum(np.minimum(cut.blocks, float(max_splits)), slots)
    best = np.zeros_like(cut.units)
    for wave in range(1, WAVES + 1):
        fit = np.minimum(np.floor(wave * slots / cut.units), most)
        best = np.maximum(best, cut.units * fit / (wave * slots))
    splits = np.ones_like(cut.units)
    for wave in range(WAVES, 0, -1):
        fewest = np.ceil(GOOD_ENOUGH_FRAC * best * wave * slots / cut.units)
        fit = np.minimum(np.floor(wave * slots / cut.units), most)
        splits = np.where(fewest <= fit, fewest, splits)
    is_split = (cut.units < NO_SPLIT_FRAC * slots) & (cut.group > 1)
    return np.where(is_split, np.maximum(splits, 1.0), 1.0)
