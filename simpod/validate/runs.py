"""Many experiments, one after another or in processes; what comes back are their figures."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from os import cpu_count
from typing import Any, TypeVar

from simpod.config import ResolvedExperiment
from simpod.errors import ConfigError
from simpod.run.one_step import as_json, step_of
from simpod.run.results import steps_table
from simpod.run.simulate import simulate

Summary = dict[str, Any]
Figures = Mapping[int | None, Mapping[str, Any]]
"""Under None the summary of a run; under a number that decode step, as `explain --json` has it."""

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Asked:
    """An experiment, and the decode steps of it that are wanted beside its summary."""

    experiment: ResolvedExperiment
    steps: dict[int, str] = field(default_factory=dict)
    """Who wants it, by number: said where there is no such step."""


def figures(
    asked: Sequence[Asked],
    processes: int | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> list[Figures]:
    """Of each experiment, in their order; the same with any number of processes.

    Raises ConfigError for a step that a run does not have.
    """
    return _each(figures_of, asked, processes, on_done)


def figures_of(asked: Asked) -> Figures:
    """Run one experiment, and again up to each of the steps."""
    records, summary = simulate(asked.experiment)
    found: dict[int | None, Mapping[str, Any]] = {None: summary}
    if not asked.steps:
        return found
    steps = steps_table(records)
    for step, who in asked.steps.items():
        try:
            found[step] = as_json(step_of(asked.experiment, steps, step))
        except ConfigError as error:
            raise ConfigError(f"{who}: {error}") from error
    return found


def summaries(
    experiments: Sequence[ResolvedExperiment],
    processes: int | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> list[Summary]:
    """Summary of each experiment, in their order; the same with any number of processes."""
    return _each(summary_of, experiments, processes, on_done)


def summary_of(experiment: ResolvedExperiment) -> Summary:
    """Run one experiment."""
    return simulate(experiment)[1]


def _each(
    find: Callable[[Item], Found],
    items: Sequence[Item],
    processes: int | None,
    on_done: Callable[[], None],
) -> list[Found]:
    workers = min(processes or cpu_count() or 1, max(1, len(items)))
    if workers == 1:
        return [_told(on_done, find(item)) for item in items]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return [_told(on_done, found) for found in pool.map(find, items, chunksize=4)]


def _told(on_done: Callable[[], None], found: Found) -> Found:
    on_done()
    return found
