"""Fits from several starts, for models with constants that are searched in steps."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, field, fields, make_dataclass
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from simpod.validate.fit import bounds_of, errors, fit

Floats = NDArray[np.float64]
C = TypeVar("C")

NUDGE_FRAC = 1e-3
"""Of a constant's range: a constant that may move so far without changing a price is held."""


def held_names(price_s: Callable[[C], Floats], start: C) -> set[str]:
    """Constants that change no price near `start`: steps, and what no row depends on."""
    at_start = price_s(start)
    kind = type(start)
    held = set()
    for name, (low, high) in bounds_of(kind).items():
        value = asdict(start)[name]  # type: ignore[call-overload]
        nudge = NUDGE_FRAC * (high - low)
        other = value - nudge if value + nudge > high else value + nudge
        nudged = kind(**{**asdict(start), name: other})  # type: ignore[call-overload]
        if np.array_equal(price_s(nudged), at_start):
            held.add(name)
    return held


def fit_free(price_s: Callable[[C], Floats], measured_s: Floats, start: C) -> C:
    """`fit` without the constants that change no price: their values stay those of `start`.

    Least squares would let them drift, as nothing holds them.
    """
    kind: type[Any] = type(start)
    whole = asdict(start)  # type: ignore[call-overload]
    held = held_names(price_s, start)
    hints = get_type_hints(kind, include_extras=True)
    free = [
        (each.name, hints[each.name], field()) for each in fields(kind) if each.name not in held
    ]
    reduced = make_dataclass("Free", free, frozen=True, kw_only=True)

    def filled(part: Any) -> C:
        found: C = kind(**{**whole, **asdict(part)})
        return found

    first = reduced(**{name: whole[name] for name, _, _ in free})
    return filled(fit(lambda part: price_s(filled(part)), measured_s, first))


def best_fit(
    price_s: Callable[[C], Floats], measured_s: Floats, starts: Iterable[C]
) -> tuple[C, float]:
    """The fit with the smallest sum of median and 90th-percentile error, and that sum."""

    def badness(constants: C) -> float:
        found = errors(price_s(constants), measured_s)
        return found.median_abs_error_frac + found.p90_abs_error_frac

    fits = [fit_free(price_s, measured_s, start) for start in starts]
    best = min(fits, key=badness)
    return best, badness(best)
