"""The sweep file: a base experiment, what varies, and how the runs are to be made."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from simpod.config.library import find, find_path, folder, is_path, label
from simpod.config.nodes import Node
from simpod.config.problems import Problems, did_you_mean, listed
from simpod.config.strict_yaml import read_yaml
from simpod.config.validate import validate
from simpod.errors import ConfigError, InvariantError
from simpod.fields import STRICT, Count, Index, Positive

Values = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One sampled key: a range of numbers, or a list of values of equal chance."""

    __pydantic_config__: ClassVar[Any] = STRICT
    min: float | None = None
    """Least value of a range."""
    max: float | None = None
    """Greatest value of a range."""
    scale: Literal["linear", "log"] = "linear"
    """log: equal chance for equal ratios."""
    integer: bool = False
    """Round to whole numbers; both ends have the chance of the others."""
    choices: Values = ()
    """Values instead of a range."""

    def __post_init__(self) -> None:
        if bool(self.choices) == (self.min is not None or self.max is not None):
            raise ValueError("needs either min and max, or choices")
        if self.choices:
            return
        if self.min is None or self.max is None or not self.min < self.max:
            raise ValueError("needs min below max")
        if self.scale == "log" and self.min <= 0:
            raise ValueError("a log scale needs min above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Points drawn at random, crossed with grid and zip."""

    __pydantic_config__: ClassVar[Any] = STRICT
    method: Literal["random", "latin_hypercube"] = "latin_hypercube"
    """latin_hypercube: every key takes each of `count` equal slices of its range once."""
    count: Count
    """Points."""
    seed: Index = 0
    """Of the draw, not of the runs."""
    keys: dict[str, Axis] = field(default_factory=dict)
    """Dotted key -> range or choices."""

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("keys: at least one")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """What a sweep file says: the runs are grid x zip x sample x seeds."""

    __pydantic_config__: ClassVar[Any] = STRICT
    base: str
    """A shipped experiment's name, or a path (beside the sweep file first)."""
    set: dict[str, Any] = field(default_factory=dict)
    """Dotted key -> value, for every run."""
    grid: dict[str, Values] = field(default_factory=dict)
    """Dotted key -> values; every combination is run."""
    zip: dict[str, Values] = field(default_factory=dict)
    """Dotted key -> values; the first of each together, the second of each, ..."""
    sample: Sample | None = None
    """Points drawn at random."""
    seeds: Count | tuple[Index, ...] = 1
    """N: seeds 0 to N - 1; or the seeds themselves."""
    time_limit_s: Positive | None = None
    """Wall time of one run, after which it fails."""
    retries: Index = 1
    """Further attempts after a worker's death or a time limit; a run's own error is its result."""
    metrics: tuple[str, ...] = ()
    """Columns of the summary that are kept, dotted; all when left out."""
    invalid: Literal["stop", "keep"] = "stop"
    """stop: no run starts if a point is no valid experiment; keep: such a point is a failed run."""

    def __post_init__(self) -> None:
        empty = [key for values in (self.grid, self.zip) for key in values if not values[key]]
        if empty:
            raise ValueError(f"{empty[0]}: needs at least one value")
        try:
            json.dumps([self.set, self.grid, self.zip], allow_nan=False)
        except ValueError:
            raise ValueError("a value is no finite number") from None
        lengths = {len(values) for values in self.zip.values()}
        if len(lengths) > 1:
            raise ValueError(f"zip: lists of different lengths: {sorted(lengths)}")
        sampled = self.sample.keys if self.sample else {}
        keys = [*self.set, *self.grid, *self.zip, *sampled]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"{twice[0]}: given twice, under set, grid, zip or sample")
        if "seed" in keys:
            raise ValueError("seed: give it under `seeds`")
        if not self.seed_list:
            raise ValueError("seeds: at least one")
        if len(set(self.seed_list)) < len(self.seed_list):
            raise ValueError("seeds: one of them twice")

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of every point."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFile:
    """A sweep, and where it and its base stand."""

    name: str
    spec: SweepSpec
    base: Path


FOLDER: Final = "sweeps"
"""Of the shipped sweeps, below that of the experiments."""


def sweep_names() -> tuple[str, ...]:
    """Names of the shipped sweeps, sorted."""
    return tuple(sorted(path.stem for path in (folder("experiments") / FOLDER).glob("*.yaml")))


def load_sweep(name_or_path: str) -> SweepFile:
    """Read a sweep; ConfigError with all its mistakes at once."""
    path = _find(name_or_path)
    root: Node = read_yaml(path, label(path))
    problems = Problems(root)
    spec = validate(SweepSpec, root, problems)
    problems.stop()
    if spec is None:
        raise InvariantError("a sweep is invalid without a problem")
    base: Path | None = None
    with problems.below(("base",)):
        base = find("experiments", spec.base, path.parent)
    problems.stop()
    if base is None:
        raise InvariantError("a sweep has no base without a problem")
    return SweepFile(name=path.stem, spec=spec, base=base)


def _find(name_or_path: str) -> Path:
    if is_path(name_or_path):
        return find_path(name_or_path, None, "sweep")
    path = folder("experiments") / FOLDER / f"{name_or_path}.yaml"
    if path.is_file():
        return path
    known = sweep_names()
    parts = [f'unknown sweep "{name_or_path}"', did_you_mean(name_or_path, known)]
    parts += [f"allowed: {listed(known)}", "or a path to a file"]
    raise ConfigError("; ".join(part for part in parts if part))
