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


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPause:
    """One cause of pauses of one die's host."""

    __pydantic_config__: ClassVar[Any] = STRICT

    frac: Frac
    """Share of the launches that are paused."""
    mean_s: Positive
    """Of the exponential length of a pause."""
    mitigated_by: str = ""
    """What takes it away, where `mitigations` has the name; empty: nothing that is known."""


UNMITIGATED: Final = (
    HostPause(frac=1 / 300, mean_s=0.05, mitigated_by="gc"),
    HostPause(frac=0.02, mean_s=0.004, mitigated_by="pinning"),
    HostPause(frac=1.0, mean_s=0.0005, mitigated_by="graph_cache"),
)
"""Collections of garbage, about one in the few hundred forwards after which xDeepServe collects by
hand; loss of the core for a time slice of the kernel's scheduler; guards that are checked before a
graph is reused. Orders of magnitude of the mechanisms, not measurements: xDeepServe publishes only
that the sum exceeds 100 ms at the first dispatch."""


def remedies(causes: Sequence[HostPause]) -> tuple[str, ...]:
    """Names that mitigations can have, each once."""
    return tuple(dict.fromkeys(cause.mitigated_by for cause in causes if cause.mitigated_by))


def left(causes: Sequence[HostPause], mitigations: Sequence[str]) -> tuple[HostPause, ...]:
    """Causes that the mitigations do not take away."""
    return tuple(cause for cause in causes if cause.mitigated_by not in mitigations)


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
