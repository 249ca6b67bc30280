"""Arrival processes: when the requests (with `sessions`: the conversations) start.

Each samples from standard variates in order, so a longer run begins like a shorter one, and twice
the rate gives the same arrivals in half the time.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from annotated_types import Ge, Le, MinLen

from simpod.fields import STRICT, Count, Frac, NonNegative, Positive, TaggedBy
from simpod.workload.requests import Floats

_GRID = 65_536  # knots per period of the diurnal inverse: off by < 1e-8 periods


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantArrivals:
    """One every 1 / `rate_per_s` seconds, the first at 0."""

    __pydantic_config__: ClassVar[Any] = STRICT
    process: Literal["constant"] = "constant"
    rate_per_s: Positive
    """Requests per second."""

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return arrival times in seconds, [num], ascending; `rng` is not used."""
        return np.arange(num) / self.rate_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonArrivals:
    """Memoryless: exponential gaps."""

    __pydantic_config__: ClassVar[Any] = STRICT
    process: Literal["poisson"] = "poisson"
    rate_per_s: Positive
    """Requests per second, mean."""

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return arrival times in seconds, [num], ascending."""
        return np.cumsum(rng.standard_exponential(num)) / self.rate_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class GammaArrivals:
    """Gamma-distributed gaps: burstier than Poisson for cv > 1, smoother for cv < 1."""

    __pydantic_config__: ClassVar[Any] = STRICT
    process: Literal["gamma"] = "gamma"
    rate_per_s: Positive
    """Requests per second, mean."""
    cv: Annotated[float, Ge(0.01), Le(100)]
    """Coefficient of variation of the gaps (standard deviation / mean)."""

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return arrival times in seconds, [num], ascending."""
        shape = 1 / self.cv**2
        return np.cumsum(rng.standard_gamma(shape, num)) / (shape * self.rate_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeibullArrivals:
    """Weibull-distributed gaps, given by `shape` or by `cv`."""

    __pydantic_config__: ClassVar[Any] = STRICT
    process: Literal["weibull"] = "weibull"
    rate_per_s: Positive
    """Requests per second, mean."""
    shape: Annotated[float, Ge(0.05), Le(1000)] | None = None
    """Weibull shape: 1 is Poisson, below 1 is bursty."""
    cv: Annotated[float, Ge(0.01), Le(100)] | None = None
    """Coefficient of variation of the gaps, instead of `shape`."""

    def __post_init__(self) -> None:
        if (self.shape is None) == (self.cv is None):
            given = "neither" if self.shape is None else "both"
            raise ValueError(f"weibull takes exactly one of shape, cv (got {given})")

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return arrival times in seconds, [num], ascending."""
        shape = self.shape or _weibull_shape(self.cv or 1.0)
        return np.cumsum(rng.weibull(shape, num)) / (math.gamma(1 + 1 / shape) * self.rate_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class MmppState:
    """One state of a Markov-modulated process."""

    __pydantic_config__: ClassVar[Any] = STRICT
    rate_per_s: NonNegative
    """Poisson rate while the state lasts."""
    mean_dwell_s: Positive
    """Mean of its exponential duration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MmppArrivals:
    """Markov-modulated Poisson: bursts and lulls.

    The state changes to any of the others with equal chance; the first one is drawn from the
    stationary law. Mean rate: sum(rate x dwell) / sum(dwell).
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    process: Literal["mmpp"] = "mmpp"
    states: Annotated[tuple[MmppState, ...], MinLen(2)]
    """At least two states."""

    def __post_init__(self) -> None:
        if not any(state.rate_per_s > 0 for state in self.states):
            raise ValueError("mmpp: every state has rate_per_s 0; allowed: at least one > 0")

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return arrival times in seconds, [num], ascending.

        Arrivals of a unit Poisson process, mapped through the inverse of the integrated rate.
        """
        path_rng, arrival_rng = rng.spawn(2)
        marks = np.cumsum(arrival_rng.standard_exponential(num))
        rates = np.array([state.rate_per_s for state in self.states])
        dwells_s = np.array([state.mean_dwell_s for state in self.states])
        state = int(path_rng.choice(len(rates), p=dwells_s / dwells_s.sum()))
        times_s, integrals, changes = [np.zeros(1)], [np.zeros(1)], 1024
        while integrals[-1][-1] < marks[-1]:
            jumps = path_rng.integers(1, len(rates), size=changes)
            path = (state + np.concatenate(([0], np.cumsum(jumps)))) % len(rates)
            spans_s = path_rng.standard_exponential(changes) * dwells_s[path[:-1]]
            times_s.append(times_s[-1][-1] + np.cumsum(spans_s))
            integrals.append(integrals[-1][-1] + np.cumsum(spans_s * rates[path[:-1]]))
            state, changes = int(path[-1]), min(2 * changes, 2**20)
        return np.interp(marks, np.concatenate(integrals), np.concatenate(times_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class DiurnalArrivals:
    """Poisson with a rate that swings like a sine.

    rate(t) = rate_per_s (1 + amplitude_frac sin(2 pi (t / period_s + phase_frac))).
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    process: Literal["diurnal"] = "diurnal"
    rate_per_s: Positive
    """Requests per second, mean over a period."""
    amplitude_frac: Frac
    """Swing of the rate: 0.5 goes from half the mean to one and a half."""
    period_s: Positive = 86_400.0
    """Length of the cycle."""
    phase_frac: Frac = 0.0
    """Where in the cycle the run starts: 0 at the mean, rising; 0.25 at the peak."""

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return arrival times in seconds, [num], ascending (time change of a unit Poisson)."""
        marks = np.cumsum(rng.standard_exponential(num))
        cycle = np.linspace(0.0, 1.0, _GRID + 1)
        start, turn = 2 * math.pi * self.phase_frac, 2 * math.pi
        swing = (math.cos(start) - np.cos(turn * cycle + start)) / turn
        periods, rest = np.divmod(marks / (self.rate_per_s * self.period_s), 1.0)
        within = np.interp(rest, cycle + self.amplitude_frac * swing, cycle)
        return (periods + within) * self.period_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoopArrivals:
    """A fixed number of clients, each sending its next request when one is answered."""

    __pydantic_config__: ClassVar[Any] = STRICT
    process: Literal["closed_loop"] = "closed_loop"
    concurrency: Count | None = None
    """Requests in flight; default: one for each slot of the pool that decodes, instances x dp x
    max_num_seqs."""
    requests_per_client: Annotated[int, Ge(1), Le(1_000_000)] = 10
    """Where workload.num_requests is left out, and there is no trace: that many for each client; as
    in InferenceX's scripts, and the last of each are the tenth that measure.drain_frac leaves out.
    """

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return NaN, [num]: the engine finds the times; `rng` is not used."""
        return np.full(num, math.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstArrivals:
    """All at time 0."""

    __pydantic_config__: ClassVar[Any] = STRICT
    process: Literal["burst"] = "burst"

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return zeros, [num]; `rng` is not used."""
        return np.zeros(num)


ArrivalSpec: TypeAlias = Annotated[
    ConstantArrivals
    | PoissonArrivals
    | GammaArrivals
    | WeibullArrivals
    | MmppArrivals
    | DiurnalArrivals
    | ClosedLoopArrivals
    | BurstArrivals,
    TaggedBy("process"),
]
"""`arrivals:` of an experiment."""


def _weibull_shape(cv: float) -> float:
    """Shape k with cv^2 = G(1 + 2/k) / G(1 + 1/k)^2 - 1, falling in k; bisects ln k."""
    low, high = math.log(0.05), math.log(1000.0)
    for _ in range(100):
        middle = (low + high) / 2
        inverse = math.exp(-middle)
        log_ratio = math.lgamma(1 + 2 * inverse) - 2 * math.lgamma(1 + inverse)
        if math.expm1(log_ratio) > cv**2:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)
