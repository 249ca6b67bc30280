"""Runs that do not know of each other, on the cores of this machine."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from simpod.config import ResolvedExperiment, load_experiment
from simpod.errors import InvariantError, PolicyError
from simpod.run import Result, run

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run, in strings only: what crosses a process border."""

    experiment: str
    overrides: tuple[str, ...] = ()

    def summary(self) -> Json:
        """Load, simulate, and keep the summary."""
        return run_named(load_experiment(self.experiment, self.overrides)).summary


def run_named(
    experiment: ResolvedExperiment, on_progress: Callable[[int, int, float], None] | None = None
) -> Result:
    """Run; an error says which experiment and seed it was."""
    try:
        return run(experiment, on_progress)
    except (InvariantError, PolicyError) as error:
        error.add_note(f"experiment {experiment.name}, seed {experiment.seed}")
        raise


def run_jobs(
    jobs: Sequence[Job], *, processes: int | None = None, on_done: Callable[[], None] | None = None
) -> list[Json]:
    """Summaries in the order of `jobs`, the same whatever the number of processes.

    processes: at most; default one a core. The first error ends all; `on_done` is called after
    each run.
    """
    limit = min(len(jobs), processes or os.cpu_count() or 1)
    summaries: list[Json] = [{} for _ in jobs]
    with closing(_in_process(jobs) if limit <= 1 else _in_processes(jobs, limit)) as done:
        for index, summary in done:
            summaries[index] = summary
            if on_done is not None:
                on_done()
    return summaries


def _in_process(jobs: Sequence[Job]) -> Generator[tuple[int, Json], None, None]:
    for index, job in enumerate(jobs):
        yield index, job.summary()


def _in_processes(jobs: Sequence[Job], processes: int) -> Generator[tuple[int, Json], None, None]:
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, mp_context=spawn, initializer=_die_at_once)
    left = len(jobs)
    try:
        futures = {executor.submit(Job.summary, job): index for index, job in enumerate(jobs)}
        for future in as_completed(futures):
            left -= 1
            yield futures[future], future.result()
    finally:
        if left:  # an error or Ctrl-C: nobody wants what the other workers are at
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
        executor.shutdown(cancel_futures=True)


def _die_at_once() -> None:
    """Ctrl-C ends a worker without a traceback; the parent tells the user."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
