"""Many experiments, one after another or in processes; what comes back are their summaries."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from os import cpu_count
from typing import Any

from simpod.config import ResolvedExperiment
from simpod.run.simulate import simulate

Summary = dict[str, Any]


def summaries(
    experiments: Sequence[ResolvedExperiment],
    processes: int | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> list[Summary]:
    """Summary of each experiment, in their order; the same with any number of processes."""
    workers = min(processes or cpu_count() or 1, max(1, len(experiments)))
    if workers == 1:
        return [_told(on_done, summary_of(experiment)) for experiment in experiments]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        found = pool.map(summary_of, experiments, chunksize=4)
        return [_told(on_done, summary) for summary in found]


def summary_of(experiment: ResolvedExperiment) -> Summary:
    """Run one experiment."""
    return simulate(experiment)[1]


def _told(on_done: Callable[[], None], summary: Summary) -> Summary:
    on_done()
    return summary
