"""InferSim's benchmark of DeepGEMM: the two grouped products of fp8 experts, nothing around them.

What its scripts do (`kernel_benchmark/deepgemm_grouped_gemm_masked.py` and `..._contiguous.py`,
github.com/alibaba/InferSim), and no column says:

* `tokens_per_expert` m is the mean that the kernel is told. Each group then has int(m u) tokens, u
  uniform in [0.7, 1.3], drawn anew for either product. So of groups of 1 token half are empty, and
  of groups of 64 half need a second tile.
* the MFU counts the tokens that were drawn; times its latency, it gives their number.
* prompts (contiguous): each group is padded to 128 rows, which are multiplied.
* the cache is flushed before every call (`deep_gemm.testing.bench_kineto`); the times are of the
  kernels alone;
* newer tables have a column `tp_size`: `intermediate_size` is that of all its dies.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simpod.cost.kernels.expert_load import ExpertLoads
from simpod.cost.kernels.grouped_gemm import GroupedGemmShape, products_s
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.spec import DieSpec
from simpod.units import US
from simpod.validate.tables.group import Group
from simpod.validate.tables.grouped_gemm import OPERATOR, policy_of

Floats = NDArray[np.float64]

DTYPE = "fp8_block"
VARIANT = f"{DTYPE}/deepgemm"
SPREAD = (0.7, 1.3)
"""Tokens of a group over those that the kernel is told: uniform between these."""
LEVELS = 16
"""Quantiles of the spread that stand for the groups, where there are so many."""
CONTIGUOUS_ROWS = 128.0
"""DeepGEMM's get_mk_alignment_for_contiguous_layout."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProductsShape:
    """The two products of a row: other tokens were drawn for each."""

    up: GroupedGemmShape
    down: GroupedGemmShape


def drawn_loads(tokens: Floats, slots: Floats) -> ExpertLoads:
    """Loads [n, LEVELS] of `slots` groups [n] that were told `tokens` [n]: quantiles of the draw.

    With fewer groups than LEVELS each group is a level.
    """
    levels = np.minimum(slots, LEVELS)[:, None]
    level = np.arange(LEVELS)
    share = SPREAD[0] + (SPREAD[1] - SPREAD[0]) * (level + 0.5) / levels
    return ExpertLoads(
        tokens=np.floor(tokens[:, None] * np.minimum(share, SPREAD[1]) + 1e-9),
        experts=np.where(level < levels, slots[:, None] / levels, 0.0),
    )


def drawn_over_expected(frame: pd.DataFrame, loads: ExpertLoads) -> tuple[Floats, Floats]:
    """Tokens drawn over those of `loads` [n], for the gate-up and the down product.

    latency * mfu / (columns * inner) is their number in a unit of the peak that the benchmark was
    told; the unit makes the mean group of the whole table what it was told. A row is kept within
    the spread, as an MFU near 0 has few digits; a table without MFU has no answer but 1.
    """
    area = frame["hidden_size"].to_numpy(np.float64) * _inter_size(frame)
    if not {"up_mfu", "down_mfu"} <= set(frame.columns):
        return np.ones(len(frame)), np.ones(len(frame))
    drawn = np.stack(
        [
            (frame["up_mfu"] * frame["up_proj_us"]).to_numpy(np.float64) / (2.0 * area),
            (frame["down_mfu"] * frame["down_proj_us"]).to_numpy(np.float64) / area,
        ]
    )
    tokens = frame["tokens_per_expert"].to_numpy(np.float64)
    unit = 2.0 * (loads.pairs / tokens).sum() / (drawn / tokens).sum()
    up, down = np.clip(drawn * unit / loads.pairs, *SPREAD)
    return up, down


def price(
    die: DieSpec, variant: str, constants: GroupedGemmConstants, shape: ProductsShape
) -> Floats:
    """Seconds [n] of the two products alone, nothing of the last call in the cache."""
    up, down = (
        products_s(die, constants, part, dtype=DTYPE, policy=policy_of(variant), is_cold=True)[
            which
        ]
        for which, part in enumerate((shape.up, shape.down))
    )
    return up + down


def read_masked(frame: pd.DataFrame) -> list[Group[ProductsShape]]:
    """Rows of the masked layout, which decoding uses: groups end where their tokens do."""
    return _read(frame, row_multiple=1.0)


def read_contiguous(frame: pd.DataFrame) -> list[Group[ProductsShape]]:
    """Rows of the contiguous layout, which prompts use: groups of whole tiles."""
    return _read(frame, row_multiple=CONTIGUOUS_ROWS)


def _inter_size(frame: pd.DataFrame) -> Floats:
    """Of one expert on this die [n]."""
    whole = frame["intermediate_size"].to_numpy(np.float64)
    return whole / frame["tp_size"].to_numpy(np.float64) if "tp_size" in frame else whole


def _read(table: pd.DataFrame, row_multiple: float) -> list[Group[ProductsShape]]:
    frame = table[table["tokens_per_expert"] >= 1]  # the benchmark rounds few tokens to none
    slots = frame["num_local_experts"].to_numpy(np.float64)
    topk = frame["topk"].to_numpy(np.float64)
    loads = drawn_loads(frame["tokens_per_expert"].to_numpy(np.float64), slots)

    def shape(factor: Floats) -> GroupedGemmShape:
        rows = loads.scaled(factor).tokens / row_multiple
        padded = np.ceil(rows - 1e-9) if row_multiple > 1.0 else rows
        own = ExpertLoads(tokens=padded * row_multiple, experts=loads.experts)
        return GroupedGemmShape(
            loads=own,
            num_tokens=own.pairs / topk,
            topk=topk,
            num_slots=slots,
            hidden_size=frame["hidden_size"].to_numpy(np.float64),
            inter_size=_inter_size(frame),
        )

    up, down = (shape(factor) for factor in drawn_over_expected(frame, loads))
    measured_s = (frame["up_proj_us"] + frame["down_proj_us"]).to_numpy(np.float64) * US
    return [
        Group(
            operator=OPERATOR,
            variant=VARIANT,
            shape=ProductsShape(up=up, down=down),
            measured_s=measured_s,
        )
    ]
