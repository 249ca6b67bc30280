"""Host pauses before a launch: rare on one die, but the slowest of all dies sets the pace.

Each die's host pauses for a cause with probability p, for an exponential time of mean mu. Of n dies
the longest pause M has P(M <= x) = product over causes of (1 - p exp(-x / mu))^n. A pause at one
die's launch holds up all dies at the first dispatch (xDeepServe 4.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from simpod.fields import STRICT, Frac, Positive

Floats = NDArray[np.float64]

POINTS: Final = 2049
TAIL: Final = 30.0
"""Means beyond the last one expected, to which the integral goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPause:
    """One cause of pauses of one die's host."""

    __pydantic_config__: ClassVar[Any] = STRICT

    frac: Frac
    """Share of the launches that are paused."""
    mean_s: Positive
    """Of the exponential length of a pause."""
    mitigated_by: str = ""
    """What takes it away; empty: nothing that is known."""


UNMITIGATED: Final = (
    HostPause(frac=1 / 300, mean_s=0.05, mitigated_by="gc"),
    HostPause(frac=0.02, mean_s=0.004, mitigated_by="pinning"),
    HostPause(frac=1.0, mean_s=0.0005, mitigated_by="graph_cache"),
)
"""Collections of garbage, about one in the few hundred forwards after which xDeepServe collects by
hand; loss of the core for a time slice of the kernel's scheduler; guards that are checked before a
graph is reused. Orders of magnitude of the mechanisms, not measurements: xDeepServe publishes only
that the sum exceeds 100 ms at the first dispatch."""

MITIGATIONS: Final = ("gc", "pinning", "graph_cache")


def left(causes: Sequence[HostPause], mitigations: Sequence[str]) -> tuple[HostPause, ...]:
    """Causes that the mitigations do not take away."""
    return tuple(cause for cause in causes if cause.mitigated_by not in mitigations)


def expected_max_s(causes: Sequence[HostPause], num_dies: int) -> float:
    """Mean of the longest pause of `num_dies` dies: integral of P(M > x)."""
    if not causes:
        return 0.0
    slowest = max(cause.mean_s for cause in causes)
    end = slowest * (np.log(num_dies + 1.0) + TAIL)
    x = end * np.linspace(0.0, 1.0, POINTS) ** 3  # most points where the short pauses are
    return float(np.trapezoid(1.0 - below_frac(causes, num_dies, x), x))


def below_frac(causes: Sequence[HostPause], num_dies: int, x_s: Floats) -> Floats:
    """P(M <= x) [...] for x [...]."""
    found = np.ones(np.shape(x_s))
    for cause in causes:
        found = found * (1.0 - cause.frac * np.exp(-x_s / cause.mean_s)) ** num_dies
    return found


def quantile_s(causes: Sequence[HostPause], num_dies: int, share: float) -> float:
    """x with P(M <= x) = share, by bisection."""
    low, high = 0.0, max((cause.mean_s for cause in causes), default=0.0)
    high *= np.log(num_dies + 1.0) - np.log1p(-share) + 1.0
    if not causes or below_frac(causes, num_dies, np.zeros(())) >= share:
        return 0.0
    for _ in range(64):
        middle = 0.5 * (low + high)
        is_below = below_frac(causes, num_dies, np.asarray(middle)) < share
        low, high = (middle, high) if is_below else (low, middle)
    return float(high)


def sample_max_s(
    causes: Sequence[HostPause], num_dies: int, size: int, rng: np.random.Generator
) -> Floats:
    """[size] longest pauses: of each cause by its inverse, then the longest of all causes.

    P(M_c <= x) = u gives x = mu ln(p / (1 - u^(1/n))), 0 where u^(1/n) <= 1 - p.
    """
    found = np.zeros(size)
    for cause in causes:
        beyond = -np.expm1(np.log(rng.random(size)) / num_dies)  # 1 - u^(1/n)
        with np.errstate(divide="ignore"):
            pause = cause.mean_s * np.log(cause.frac / np.maximum(beyond, 1e-300))
        found = np.maximum(found, pause)
    return found
