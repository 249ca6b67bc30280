"""The runs of a sweep in a fixed order, each resolved when its turn comes."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from simpod.config import ResolvedExperiment, resolve_tree
from simpod.config.library import label
from simpod.config.nodes import Node
from simpod.config.problems import Problem, Problems
from simpod.config.references import expand_reference, reference_paths
from simpod.config.strict_yaml import read_yaml
from simpod.errors import ConfigError
from simpod.sweep.identity import ID_DIGITS, run_id, version, with_seed
from simpod.sweep.points import Assignment, Points, points_of
from simpod.sweep.spec import SweepFile

CHECKED_POINTS: Final = 1000
"""Points that are resolved before the first run starts, so that mistakes come out at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run: its place in the plan, what was assigned, and what that comes to.

    experiment: None if the assignment is no valid experiment, `error` then says why.
    """

    index: int
    run_id: str
    seed: int
    values: Assignment
    experiment: ResolvedExperiment | None
    error: str | None = None


class Plan:
    """All runs of a sweep: points in order, the seeds of a point one after the other."""

    def __init__(self, file: SweepFile) -> None:
        self.file = file
        self.points: Points = points_of(file.spec)
        self.seeds = file.spec.seed_list

    def __len__(self) -> int:
        return len(self.points) * len(self.seeds)

    def __iter__(self) -> Iterator[PlannedRun]:
        for number in range(len(self.points)):
            yield from self._runs(number)

    def check(self) -> list[tuple[Assignment, str]]:
        """Of the first `CHECKED_POINTS` points those that are no valid experiment, and why."""
        found = []
        for number in range(min(len(self.points), CHECKED_POINTS)):
            try:
                self.resolve(self.points[number])
            except ConfigError as error:
                found.append((self.points[number], str(error)))
        return found

    def resolve(self, values: Assignment) -> ResolvedExperiment:
        """The base with the sweep's fixed values and a point's."""
        changes = [override(key, value) for key, value in {**self.file.spec.set, **values}.items()]
        path = self.file.base
        problems = Problems(copied(self._base))
        problems.add_unreadable(self._unreadable)
        return resolve_tree(problems, changes, path.parent, default_name=path.stem)

    def _runs(self, number: int) -> Iterator[PlannedRun]:
        values = self.points[number]
        first = number * len(self.seeds)
        try:
            resolved = self.resolve(values)
        except ConfigError as error:
            for offset, seed in enumerate(self.seeds):
                yield PlannedRun(
                    index=first + offset,
                    run_id=self._invalid_id(values, seed),
                    seed=seed,
                    values=values,
                    experiment=None,
                    error=f"ConfigError: {error}",
                )
            return
        for offset, seed in enumerate(self.seeds):
            seeded = with_seed(resolved, seed)
            yield PlannedRun(
                index=first + offset,
                run_id=run_id(seeded),
                seed=seed,
                values=values,
                experiment=seeded,
            )

    @cached_property
    def _read(self) -> tuple[Node, list[Problem]]:
        """The base, parsed once, with the numbers of model and hardware in place of their names."""
        found: list[Problem] = []
        path = self.file.base
        root = read_yaml(path, label(path), found)
        if isinstance(root.value, dict):
            quiet = Problems(root)  # what is wrong is told when a point is resolved
            for reference in reference_paths(root):
                expand_reference(root, reference, path.parent, quiet)
        return root, found

    @property
    def _base(self) -> Node:
        return self._read[0]

    @property
    def _unreadable(self) -> list[Problem]:
        return self._read[1]

    def _invalid_id(self, values: Assignment, seed: int) -> str:
        """What cannot be resolved is told apart by what was written."""
        written = [self._base.plain(), self.file.spec.set, values, seed, version()]
        text = json.dumps(written, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def copied(node: Node) -> Node:
    """A tree of one's own; places, which never change, are shared (8 times as fast as deepcopy)."""
    value = node.value
    if isinstance(value, dict):
        value = {key: copied(child) for key, child in value.items()}
    elif isinstance(value, list):
        value = [copied(child) for child in value]
    return Node(value=value, place=node.place, key=node.key, written=node.written)


def override(key: str, value: Any) -> str:
    """`key=value` as `--set` takes it."""
    return f"{key}={json.dumps(value)}"


def in_one_line(values: Mapping[str, Any]) -> str:
    """`a.b=1, c=x` for messages."""
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in values.items()
    )
