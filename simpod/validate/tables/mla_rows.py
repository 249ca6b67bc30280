"""What the two MLA tables share: the data type of a row's cache, and fits of a fixed structure."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd

from simpod.validate.fit import SOFT_FRAC, Floats, bounds_of, fit

C = TypeVar("C")

FLASH_ATTENTION: Final = "flash_attention"
"""`kernel_source` of SGLang's FlashAttention-3 backend: absorbed in both phases; it has no 8-bit
MLA, so an fp8 cache is converted to bf16 as a whole before each call."""

STRUCTURE: Final = ("tile_rows", "small_tile_rows", "most_small_tiles", "spread_block_tokens")
"""Constants that are properties of a kernel: alternatives are tried, none is fitted."""

WORTHWHILE_FRAC: Final = 0.01
"""Gain in loss for which a more complex kernel structure is taken."""


def cache_dtype(frame: pd.DataFrame) -> "pd.Series[Any]":
    """bf16 or fp8 for each row, from `kv_cache_dtype`; unknown 8-bit types count as fp8."""
    named = frame["kv_cache_dtype"].astype(str)
    return named.str.contains("8").map({True: "fp8", False: "bf16"})


def column(frame: pd.DataFrame, name: str) -> Floats:
    """Numbers [n] of one column."""
    return frame[name].to_numpy(dtype=np.float64)


def heads_in_name(frame: pd.DataFrame) -> Floats:
    """Number of heads [n], with which the column `name` begins: `128-512-64`."""
    return frame["name"].str.partition("-")[0].to_numpy(dtype=np.float64)


def best_fit(price_s: Callable[[C], Floats], measured_s: Floats, starts: Sequence[C]) -> C:
    """The best of the fits from several starts, which differ in structure.

    A constant that starts at one of its bounds stays there (no split, no conversion), as do those
    of `STRUCTURE`. Best: smallest mean soft-L1 loss of log(price / measured), as in `fit`; an
    earlier, simpler start is kept where a later one gains less than `WORTHWHILE_FRAC`.
    """
    tried = [_fit_free(price_s, measured_s, start) for start in starts]
    losses = [_loss(price_s(constants), measured_s) for constants in tried]
    enough = min(losses) * (1.0 + WORTHWHILE_FRAC)
    return next(c for c, loss in zip(tried, losses, strict=True) if loss <= enough)


def _fit_free(price_s: Callable[[C], Floats], measured_s: Floats, start: C) -> C:
    fixed: dict[str, Any] = {
        name: getattr(start, name)
        for name, bounds in bounds_of(type(start)).items()
        if name in STRUCTURE or getattr(start, name) in bounds
    }

    def restored(constants: Any) -> Any:
        return replace(constants, **fixed)

    found: C = restored(fit(lambda c: price_s(restored(c)), measured_s, start))
    return found


def _loss(simulated_s: Floats, measured_s: Floats) -> float:
    ratio = np.log(simulated_s / measured_s) / SOFT_FRAC
    return float(np.mean(np.sqrt(1.0 + ratio**2) - 1.0))
