"""Measured beside simulated: points, groups of points, and what was refused with its reason."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simpod.validate.fit import Errors, errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured figure and the simulated one, in the unit of the metric's name."""

    id: str
    group: str
    metric: str
    measured: float
    simulated: float
    source: str
    tolerance_frac: float | None = None

    @property
    def error_frac(self) -> float:
        """Signed: simulated / measured - 1."""
        return self.simulated / self.measured - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Rows that simpod can't express, and why."""

    group: str
    reason: str
    rows: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupErrors:
    """Errors of a group of rows; with no rows, all were refused."""

    group: str
    errors: Errors | None
    refused: int

    def as_json(self) -> dict[str, Any]:
        """The group as `simpod validate --json` prints it."""
        found = self.errors
        return {
            "group": self.group,
            "rows": found.rows if found else 0,
            "median_abs_error_frac": found.median_abs_error_frac if found else None,
            "p90_abs_error_frac": found.p90_abs_error_frac if found else None,
            "worst_abs_error_frac": found.worst_abs_error_frac if found else None,
            "median_signed_error_frac": found.median_signed_error_frac if found else None,
            "refused": self.refused,
        }


@dataclass(slots=True)
class Report:
    """What a validation found. Tables of kernels come as errors alone, the rest as points."""

    points: list[Point] = field(default_factory=list)
    tables: list[GroupErrors] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Take over all of another report."""
        self.points += other.points
        self.tables += other.tables
        self.refusals += other.refusals

    def groups(self) -> list[GroupErrors]:
        """Every group once, in order of appearance."""
        refused: dict[str, int] = {}
        for refusal in self.refusals:
            refused[refusal.group] = refused.get(refusal.group, 0) + refusal.rows
        by_group: dict[str, list[Point]] = {}
        for point in self.points:
            by_group.setdefault(point.group, []).append(point)
        found = [
            GroupErrors(group=name, errors=errors_of(points), refused=refused.pop(name, 0))
            for name, points in by_group.items()
        ]
        nothing = [
            GroupErrors(group=name, errors=None, refused=rows) for name, rows in refused.items()
        ]
        return [*self.tables, *found, *nothing]

    def chosen(self, patterns: Sequence[str]) -> "Report":
        """The groups whose names begin with one of `patterns`; all without any."""
        if not patterns:
            return self

        def fits(group: str) -> bool:
            return any(group.startswith(pattern) for pattern in patterns)

        return Report(
            points=[point for point in self.points if fits(point.group)],
            tables=[table for table in self.tables if fits(table.group)],
            refusals=[refusal for refusal in self.refusals if fits(refusal.group)],
        )

    def as_json(self) -> dict[str, Any]:
        """Stable and documented: what scripts read."""
        return {
            "groups": [group.as_json() for group in self.groups()],
            "points": [_point_json(point) for point in self.points],
            "refused": [
                {"group": group, "reason": reason, "rows": rows}
                for (group, reason), rows in self.reasons().items()
            ],
        }

    def reasons(self) -> Mapping[tuple[str, str], int]:
        """Rows refused by group and reason."""
        counts: dict[tuple[str, str], int] = {}
        for refusal in self.refusals:
            key = (refusal.group, refusal.reason)
            counts[key] = counts.get(key, 0) + refusal.rows
        return counts


def errors_of(points: Iterable[Point]) -> Errors:
    """Errors over points."""
    pairs = np.array([(point.simulated, point.measured) for point in points])
    return errors(pairs[:, 0], pairs[:, 1])


def _point_json(point: Point) -> dict[str, Any]:
    return {
        "id": point.id,
        "group": point.group,
        "metric": point.metric,
        "measured": point.measured,
        "simulated": point.simulated,
        "error_frac": point.error_frac,
        "source": point.source,
    }
