"""Published figures of whole systems, each an experiment with overrides and one number of its
summary, or of one of its decode steps.

A file is a list of `{id, source, experiment, set, step, metric, value, unit, tolerance_frac}`:
`metric` is a dotted key of summary.json, such as `mean_tpot_ms` or
`step_breakdown.decode.mean_step_s`; with `step: N` one of `simpod explain RESULT --step N --json`,
such as `layers.sparse.total_s` or `die_exchanges.dispatch.least_s`.
Those that ship with simpod are in `simpod/validate/published/`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from simpod.config import load_experiment
from simpod.config.nodes import Node, Place
from simpod.config.problems import Problem, Problems
from simpod.config.strict_yaml import read_yaml
from simpod.config.validate import validate
from simpod.errors import ConfigError
from simpod.fields import STRICT, Count, Positive
from simpod.validate.report import Point, Report
from simpod.validate.runs import Asked, figures

PUBLISHED: Final = Path(__file__).parent / "published"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPoint:
    """One published figure and the experiment that should give it."""

    __pydantic_config__: ClassVar[Any] = STRICT

    id: str
    """Unique; what stands before the last dot is its group."""
    source: str
    """Paper, table or figure."""
    experiment: str
    """Name or path, as for `simpod run`."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Overrides by dotted key, as `--set` takes them."""
    step: Count | None = None
    """Decode step of the last pool's first instance, 1, 2, ...; null: the summary of the run."""
    metric: str
    """Dotted key of summary.json, or of the step."""
    value: float
    """What was published, in `unit`."""
    unit: str
    """Unit of the value: that of the metric."""
    tolerance_frac: Positive | None = None
    """What is thought good enough; null: reported only."""

    @property
    def group(self) -> str:
        """The id without its last part."""
        return f"points/{self.id.rpartition('.')[0] or self.id}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """As `--set` takes them."""
        return tuple(f"{key}={_yaml(value)}" for key, value in self.set.items())


def _yaml(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def read_points(path: Path) -> list[PublishedPoint]:
    """Read and check a file of points; ConfigError with all its mistakes."""
    found: list[Problem] = []
    root = read_yaml(path, str(path), found)
    place = Place(str(path))
    tree = root if isinstance(root.value, list) else Node(value=[root], place=place, key=place)
    problems = Problems(tree)
    problems.add_unreadable(found)
    points = validate(list[PublishedPoint], tree, problems)
    problems.stop()
    return points or []


def shipped_points() -> list[PublishedPoint]:
    """Every point that ships with simpod."""
    return [point for path in sorted(PUBLISHED.glob("*.yaml")) for point in read_points(path)]


def validate_points(
    points: list[PublishedPoint],
    processes: int | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> Report:
    """Run every distinct experiment once, and again up to each step that is asked for; compare."""
    runs: dict[tuple[str, tuple[str, ...]], Asked] = {}
    for point in points:
        key = (point.experiment, point.overrides)
        if key not in runs:
            runs[key] = Asked(load_experiment(*key))
        if point.step is not None:
            runs[key].steps.setdefault(point.step, f"point {point.id}")
    found = dict(zip(runs, figures(list(runs.values()), processes, on_done), strict=True))
    return Report(
        points=[
            _compare(point, found[point.experiment, point.overrides][point.step])
            for point in points
        ]
    )


def _compare(point: PublishedPoint, found: Mapping[str, Any]) -> Point:
    return Point(
        id=point.id,
        group=point.group,
        metric=point.metric,
        measured=point.value,
        simulated=_look_up(point, found),
        source=point.source,
        tolerance_frac=point.tolerance_frac,
    )


def _look_up(point: PublishedPoint, found: Mapping[str, Any]) -> float:
    value: Any = found
    for name in point.metric.split("."):
        if not isinstance(value, Mapping) or name not in value:
            known = ", ".join(value) if isinstance(value, Mapping) else "nothing below it"
            raise ConfigError(f"point {point.id}: metric {point.metric}: no {name!r}; has {known}")
        value = value[name]
    if not isinstance(value, int | float):
        raise ConfigError(f"point {point.id}: metric {point.metric} is {value!r}, not a number")
    return float(value)
