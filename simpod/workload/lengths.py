"""Distributions of token counts (and of turns): whole numbers, at least 1."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from annotated_types import Ge

from simpod.fields import STRICT, Count, Positive, TaggedBy
from simpod.workload.requests import Floats, Ints

_LONGEST = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantLengths:
    """Always the same."""

    __pydantic_config__: ClassVar[Any] = STRICT
    distribution: Literal["constant"] = "constant"
    value: Count

    def sample(self, num: int, rng: np.random.Generator) -> Ints:
        """Return lengths, [num]; `rng` is not used."""
        return np.full(num, self.value, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformLengths:
    """Every whole number from `min` to `max`, both included, with equal chance."""

    __pydantic_config__: ClassVar[Any] = STRICT
    distribution: Literal["uniform"] = "uniform"
    min: Count
    max: Count

    def __post_init__(self) -> None:
        _check_range(self.min, self.max)

    def sample(self, num: int, rng: np.random.Generator) -> Ints:
        """Return lengths, [num]."""
        return rng.integers(self.min, self.max, size=num, endpoint=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalLengths:
    """Lognormal, moved to `min` or `max` where it falls outside, rounded."""

    __pydantic_config__: ClassVar[Any] = STRICT
    distribution: Literal["lognormal"] = "lognormal"
    mean: Positive
    """Mean of what is sent, i.e. after `min` and `max` have cut (to within rounding)."""
    cv: Positive
    """Standard deviation / mean before `min` and `max` cut."""
    min: Count = 1
    max: Count | None = None

    def __post_init__(self) -> None:
        _check_range(self.min, self.max, self.mean)

    def sample(self, num: int, rng: np.random.Generator) -> Ints:
        """Return lengths, [num]."""
        sigma = math.sqrt(math.log1p(self.cv**2))
        mu = _lognormal_location(self.mean, sigma, self.min, self.max)
        lengths = np.exp(mu + sigma * rng.standard_normal(num))
        return _whole(lengths, self.min, self.max)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricLengths:
    """P(k) = (1 - 1/mean)^(k - 1) / mean for k = 1, 2, ..., moved to `max` beyond it."""

    __pydantic_config__: ClassVar[Any] = STRICT
    distribution: Literal["geometric"] = "geometric"
    mean: Annotated[float, Ge(1)]
    """Mean before `max` cuts."""
    max: Count | None = None

    def sample(self, num: int, rng: np.random.Generator) -> Ints:
        """Return lengths, [num]."""
        lengths: Ints = rng.geometric(1 / self.mean, size=num)
        return np.minimum(lengths, self.max or _LONGEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipfLengths:
    """P(k) proportional to k^-exponent for k = `min` ... `max`: many short, few long."""

    __pydantic_config__: ClassVar[Any] = STRICT
    distribution: Literal["zipf"] = "zipf"
    exponent: Positive
    min: Count = 1
    max: Annotated[int, Ge(1)]

    def __post_init__(self) -> None:
        _check_range(self.min, self.max)

    def sample(self, num: int, rng: np.random.Generator) -> Ints:
        """Return lengths, [num]."""
        weights = np.arange(self.min, self.max + 1, dtype=np.float64) ** -self.exponent
        return self.min + draw_index(weights, num, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmpiricalLengths:
    """Drawn with replacement from a column of a CSV file with a header."""

    __pydantic_config__: ClassVar[Any] = STRICT
    distribution: Literal["empirical"] = "empirical"
    path: str
    column: str
    """Its name in the header."""
    min: Count = 1
    max: Count | None = None

    def __post_init__(self) -> None:
        _check_range(self.min, self.max)

    def sample(self, num: int, rng: np.random.Generator) -> Ints:
        """Return lengths, [num]; ConfigError if the file or the column is unfit."""
        from simpod.workload.traces.lengths import read_column

        lengths: Ints = rng.choice(read_column(self.path, self.column), num)
        return np.clip(lengths, self.min, self.max or _LONGEST)


LengthSpec: TypeAlias = Annotated[
    ConstantLengths
    | UniformLengths
    | LognormalLengths
    | GeometricLengths
    | ZipfLengths
    | EmpiricalLengths,
    TaggedBy("distribution"),
]
"""`prompt_tokens:`, `output_tokens:` and `turns:` of an experiment."""


def draw_index(weights: Floats, num: int, rng: np.random.Generator) -> Ints:
    """Indices 0 ... len(weights) - 1, [num], each with a chance proportional to its weight."""
    cumulated = np.cumsum(weights)
    marks = rng.random(num) * cumulated[-1]
    found: Ints = np.searchsorted(cumulated, marks, side="right")
    return np.minimum(found, len(weights) - 1)  # a mark may round up to the very end


def _check_range(low: int, high: int | None, mean: float | None = None) -> None:
    if high is not None and low > high:
        raise ValueError(f"min {low} is above max {high}; allowed: min <= max")
    if mean is not None and not low < mean < (high or math.inf):
        bound = "" if high is None else f" and below max {high}"
        raise ValueError(f"mean {mean:g} is impossible; allowed: above min {low}{bound}")


def _whole(lengths: Floats, low: int, high: int | None) -> Ints:
    return np.asarray(np.clip(np.rint(lengths), low, high or _LONGEST), dtype=np.int64)


def _lognormal_location(mean: float, sigma: float, low: int, high: int | None) -> float:
    """Location mu at which clip(exp(mu + sigma Z), low, high) has this mean; by bisection."""
    floor = math.log(low) - 40 * sigma
    ceiling = math.log(mean) if high is None else math.log(high) + 40 * sigma
    for _ in range(100):
        middle = (floor + ceiling) / 2
        if _clipped_mean(middle, sigma, low, high) < mean:
            floor = middle
        else:
            ceiling = middle
    return (floor + ceiling) / 2


def _clipped_mean(mu: float, sigma: float, low: int, high: int | None) -> float:
    """E[clip(exp(mu + sigma Z), low, high)]: partial expectation between, the bounds outside."""
    below = (math.log(low) - mu) / sigma
    above = math.inf if high is None else (math.log(high) - mu) / sigma
    between = _normal_cdf(above - sigma) - _normal_cdf(below - sigma)
    clipped = low * _normal_cdf(below) + (high or 0) * _normal_cdf(-above)
    return clipped + math.exp(mu + sigma**2 / 2) * between


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))
