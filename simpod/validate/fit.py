"""Fitting constants of a kernel model to measured times."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
C = TypeVar("C")

SOFT_FRAC = 0.1
"""Relative error from which the loss grows linearly: single measurements are noisy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Relative errors of a model over measured rows."""

    rows: int
    median_abs_error_frac: float
    p90_abs_error_frac: float
    worst_abs_error_frac: float
    median_signed_error_frac: float


def errors(simulated_s: Floats, measured_s: Floats) -> Errors:
    """Errors of `simulated_s` [n] against `measured_s` [n]."""
    signed = simulated_s / measured_s - 1.0
    size = np.abs(signed)
    return Errors(
        rows=len(size),
        median_abs_error_frac=float(np.median(size)),
        p90_abs_error_frac=float(np.quantile(size, 0.9)),
        worst_abs_error_frac=float(size.max()),
        median_signed_error_frac=float(np.median(signed)),
    )


def split(rows: int, share: float = 0.7, seed: int = 0) -> tuple[NDArray[np.bool_], ...]:
    """Masks [rows] of the rows to fit on and of those kept aside."""
    kept = np.random.default_rng(seed).random(rows) < share
    return kept, ~kept


def bounds_of(kind: type[Any]) -> dict[str, tuple[float, float]]:
    """Lower and upper bound of each constant, from `Annotated[float, Ge(a), Le(b)]`."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):
        marks = get_args(hints[field.name])[1:]
        low = next(float(mark.ge) for mark in marks if hasattr(mark, "ge"))
        high = next(float(mark.le) for mark in marks if hasattr(mark, "le"))
        found[field.name] = (low, high)
    return found


def fit(price_s: Callable[[C], Floats], measured_s: Floats, start: C) -> C:
    """The constants near `start` whose prices [n] come closest to `measured_s` [n].

    Trust-region least squares (scipy) of log(price / measured) with a soft-L1 loss; a constant with
    a lower bound above 0 and a range of more than 30 x is searched on a logarithmic scale.
    """
    from scipy.optimize import least_squares

    kind = type(start)
    bounds = bounds_of(kind)
    names = list(bounds)
    is_log = np.array([low > 0 and high / low > 30 for low, high in bounds.values()])
    low, high = (np.array(side) for side in zip(*bounds.values(), strict=True))

    def inward(values: Floats) -> Floats:
        return np.where(is_log, np.log(np.where(is_log, values, 1.0)), values)

    def constants(x: Floats) -> C:
        values = np.where(is_log, np.exp(np.where(is_log, x, 0.0)), x)
        values = np.clip(values, low, high)
        return kind(**dict(zip(names, values.tolist(), strict=True)))

    def residuals(x: Floats) -> Floats:
        return np.asarray(np.log(price_s(constants(x)) / measured_s), dtype=np.float64)

    first = np.array([float(getattr(start, name)) for name in names])
    x_low, x_high = inward(low), inward(high)
    span = x_high - x_low
    x0 = np.clip(inward(first), x_low + 1e-6 * span, x_high - 1e-6 * span)
    found = least_squares(
        residuals,
        x0,
        bounds=(x_low, x_high),
        x_scale=span,
        loss="soft_l1",
        f_scale=SOFT_FRAC,
        diff_step=1e-4,
        max_nfev=200,
    )
    return constants(found.x)
