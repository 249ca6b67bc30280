"""Runs that do not know of each other, on the cores of this machine; the first error ends all."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from simpod.config import ResolvedExperiment, load_experiment
from simpod.errors import InvariantError, PolicyError
from simpod.run import Result, run
from simpod.run.simulate import simulate
from simpod.sweep.engines import end_pool, spawn_pool, usable_cores

Json = dict[str, Any]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run, in strings only: what crosses a process border."""

    experiment: str
    overrides: tuple[str, ...] = ()

    def summary(self) -> Json:
        """Load, simulate, and keep the summary."""
        experiment = load_experiment(self.experiment, self.overrides)
        try:
            return simulate(experiment)[1]
        except (InvariantError, PolicyError) as error:
            error.add_note(f"experiment {experiment.name}, seed {experiment.seed}")
            raise


def run_named(
    experiment: ResolvedExperiment, on_progress: Callable[[int, int, float], None] | None = None
) -> Result:
    """Run; an error says which experiment and seed it was."""
    try:
        return run(experiment, on_progress)
    except (InvariantError, PolicyError) as error:
        error.add_note(f"experiment {experiment.name}, seed {experiment.seed}")
        raise


class Runner:
    """Processes that stay for many calls of `map`; with one process all is done in this one."""

    def __init__(self, processes: int | None = None) -> None:
        self.processes = processes or usable_cores()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """After an error or Ctrl-C nobody wants what the other workers are at."""
        if self._pool is not None:
            if error is not None:
                end_pool(self._pool)
            self._pool.shutdown()

    def map(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        on_done: Callable[[], None] = lambda: None,
    ) -> list[R]:
        """Results in the order of `items`, the same whatever the number of processes."""
        if self.processes == 1 or (len(items) == 1 and self._pool is None):
            return [_told(on_done, function(item)) for item in items]
        if self._pool is None:
            self._pool = spawn_pool(self.processes)
        futures = [self._pool.submit(function, item) for item in items]
        for future in as_completed(futures):
            future.result()
            on_done()
        return [future.result() for future in futures]


def _told(on_done: Callable[[], None], result: R) -> R:
    on_done()
    return result
