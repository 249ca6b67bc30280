"""Deployments to choose from: discrete values of keys, crossed.

What does not resolve (it does not fit into memory, ranks do not divide) is left out and counted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simpod.config import ResolvedExperiment, load_experiment
from simpod.config.key_names import short_names
from simpod.errors import ConfigError
from simpod.sweep.search.measure import Overrides

_TRIED: Final = 64
"""Combinations among which one must be an experiment, where it is none without choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One deployment: what was chosen, and the NPUs that it takes."""

    values: Mapping[str, str]
    num_npus: float

    @property
    def overrides(self) -> Overrides:
        """As `--set` takes them."""
        return tuple(f"{key}={value}" for key, value in self.values.items())


@dataclass(frozen=True, slots=True)
class Space:
    """Every combination of choices, by number; the last key varies fastest."""

    experiment: str
    fixed: Overrides
    axes: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.axes.values())

    def values(self, number: int) -> dict[str, str]:
        """The combination of a number."""
        chosen: dict[str, str] = {}
        for key, values in reversed(list(self.axes.items())):
            number, position = divmod(number, len(values))
            chosen[key] = values[position]
        return {key: chosen[key] for key in self.axes}

    def example(self) -> ResolvedExperiment:
        """The experiment as it is, or with the first choices that make it one."""
        combinations = (self.values(number) for number in range(min(len(self), _TRIED)))
        mistake: ConfigError | None = None
        for values in ({}, *combinations):
            changes = [f"{key}={value}" for key, value in values.items()]
            try:
                return load_experiment(self.experiment, [*self.fixed, *changes])
            except ConfigError as error:
                mistake = mistake or error
        raise mistake or ConfigError(f"{self.experiment}: no deployment")

    def candidate(self, values: Mapping[str, str]) -> Candidate | ConfigError:
        """A combination as a deployment, or why it is none."""
        changes = [f"{key}={value}" for key, value in values.items()]
        try:
            resolved = load_experiment(self.experiment, [*self.fixed, *changes])
        except ConfigError as error:
            return error
        return Candidate(values=dict(values), num_npus=num_npus(resolved))

    def candidates(self) -> tuple[list[Candidate], list[ConfigError]]:
        """All deployments, the cheapest first, and what is wrong with the other combinations."""
        found = [self.candidate(self.values(number)) for number in range(len(self))]
        deployments = [each for each in found if isinstance(each, Candidate)]
        errors = [each for each in found if isinstance(each, ConfigError)]
        if not deployments:
            raise ConfigError([f"no combination is a deployment; the first: {errors[0]}"])
        return sorted(deployments, key=lambda each: each.num_npus), errors


def space_of(
    experiment: str, fixed: Sequence[str], axes: Sequence[tuple[str, tuple[str, ...]]]
) -> Space:
    """The space of `--choose` options."""
    keys = [key for key, _ in axes]
    if len(set(keys)) < len(keys):
        raise ConfigError("--choose: a key twice; put all its values into one --choose")
    return Space(experiment, tuple(fixed), dict(axes))


def num_npus(experiment: ResolvedExperiment) -> float:
    """NPUs (chips, not dies) of all pools."""
    return math.fsum(
        pool.instances * pool.layout.all_dies / experiment.hardware[pool.name].dies_per_npu
        for pool in experiment.pools
    )


def in_words(values: Mapping[str, Any]) -> str:
    """`instances=2, tp=4`: as few last words of the keys as tell them apart."""
    names = short_names(list(values))
    return ", ".join(f"{names[key]}={value}" for key, value in values.items())
