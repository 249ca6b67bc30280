"""The one process that plans, submits, collects and writes; everything else is a worker.

What is in flight is bounded, what is finished is on the disk: memory does not grow with the sweep
but for some 150 bytes a run.
"""

import array
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from simpod.config import ResolvedExperiment
from simpod.sweep.compact import TABLE, compact
from simpod.sweep.engines import Engine
from simpod.sweep.identity import version
from simpod.sweep.journal import FAILED, OK, JournalWriter, Record
from simpod.sweep.plan import Plan, PlannedRun
from simpod.sweep.worker import Outcome, execute

IN_FLIGHT_PER_WORKER: Final = 3
"""One at work, one ready on its side of the border, one on the way."""


@dataclass(slots=True)
class Tally:
    """How far a sweep is."""

    total: int
    found: int = 0  # finished by an earlier call
    ok: int = 0  # by this one
    failed: int = 0
    lost_workers: int = 0
    run_wall_s: float = 0.0
    run_cpu_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)  # kind of error -> runs, of this call

    @property
    def done(self) -> int:
        """Runs that are on the disk."""
        return self.found + self.ok + self.failed


@dataclass(slots=True)
class _Flight:
    run: PlannedRun
    experiment: ResolvedExperiment
    attempts: int = 1


class Driver:
    """Makes the runs of a plan that the journal does not hold yet."""

    def __init__(
        self,
        plan: Plan,
        writer: JournalWriter,
        engine: Engine,
        *,
        retry_failed: bool = False,
        on_done: Callable[[Tally], None] = lambda tally: None,
    ) -> None:
        self.plan, self.writer, self.engine = plan, writer, engine
        self.retry_failed, self.on_done = retry_failed, on_done
        self.tally = Tally(total=len(plan))
        self.offsets = array.array("q", [-1]) * len(plan)
        self._executor: Executor | None = None
        self._in_flight: dict[Future[Outcome], _Flight] = {}
        self._again: deque[_Flight] = deque()  # to be submitted once more
        self._suspects: deque[_Flight] = deque()  # in flight when a pool broke
        self._started: set[str] = set()  # identities in flight, and those that failed once more
        self._twins: list[PlannedRun] = []  # equal to a run that was in flight

    def run(self) -> Tally:
        """Make every run; on an error or Ctrl-C the engine's workers are ended at once."""
        waiting = self._waiting()
        try:
            self._fill(waiting)
            while self._in_flight:
                done, _ = wait(self._in_flight, return_when=FIRST_COMPLETED)
                self._collect(done)
                self._fill(waiting)
        finally:
            if self._executor is not None:
                self.engine.end(self._executor)
            for twin in self._twins:
                self.offsets[twin.index] = self._offset(twin)
        self.tally.found += len(self._twins)
        self.on_done(self.tally)
        return self.tally

    def _waiting(self) -> Iterator[_Flight]:
        """Runs that are to be made, in the order of the plan; the others are counted."""
        for run in self.plan:
            if run.run_id in self._started:
                self._twins.append(replace(run, experiment=None))
            elif self.writer.journal.is_done(run.run_id, retry_failed=self.retry_failed):
                self.offsets[run.index] = self._offset(run)
                self.tally.found += 1
                self.on_done(self.tally)
            elif run.experiment is None:
                self._write(run, None, run.error or "", attempts=0)
            else:
                yield _Flight(run, run.experiment)

    def _offset(self, run: PlannedRun) -> int:
        offset = self.writer.journal.offset(run.run_id)
        return -1 if offset is None else offset

    def _fill(self, waiting: Iterator[_Flight]) -> None:
        """Submit up to the bound; suspects one at a time and alone, so that blame is certain."""
        if self._suspects:
            if not self._in_flight:
                self._submit(self._suspects.popleft())
            return
        bound = IN_FLIGHT_PER_WORKER * self.engine.workers
        while len(self._in_flight) < bound:
            flight = self._again.popleft() if self._again else next(waiting, None)
            if flight is None:
                return
            self._submit(flight)

    def _submit(self, flight: _Flight) -> None:
        self._started.add(flight.run.run_id)
        try:
            future = self._start(flight)
        except BrokenExecutor:  # it broke since the last look: nothing of this run was started
            self._rebuild()
            future = self._start(flight)
        self._in_flight[future] = flight

    def _start(self, flight: _Flight) -> "Future[Outcome]":
        if self._executor is None:
            self._executor = self.engine.make()
        spec = self.plan.file.spec
        return self._executor.submit(execute, flight.experiment, spec.time_limit_s, spec.metrics)

    def _collect(self, done: "set[Future[Outcome]]") -> None:
        was_alone = len(self._in_flight) == 1
        broken = False
        for future in done:
            flight = self._in_flight.pop(future)
            error = future.exception()
            if error is None:
                self._take(flight, future.result())
            elif isinstance(error, self.engine.lost):
                broken = broken or self.engine.breaks_whole
                self.tally.lost_workers += not self.engine.breaks_whole
                self._lose(flight, is_to_blame=was_alone or not self.engine.breaks_whole)
            else:  # it never came to the run: a worker without simpod, an object that won't travel
                self._write(flight.run, None, f"{type(error).__name__}: {error}", flight.attempts)
        if broken:
            self._after_break()

    def _after_break(self) -> None:
        """Keep what came back in time, suspect the rest, go on with new processes."""
        self.tally.lost_workers += 1
        self._rebuild()
        for future, flight in self._in_flight.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._take(flight, future.result())
            else:
                self._lose(flight, is_to_blame=False)
        self._in_flight.clear()

    def _take(self, flight: _Flight, outcome: Outcome) -> None:
        if outcome.is_out_of_time and flight.attempts <= self.plan.file.spec.retries:
            self._again.append(replace(flight, attempts=flight.attempts + 1))
            return
        self._write(flight.run, outcome, outcome.error, flight.attempts)

    def _lose(self, flight: _Flight, *, is_to_blame: bool) -> None:
        """Make it again, or give it up if its own process has died too often."""
        if not is_to_blame:
            self._suspects.append(flight)
        elif flight.attempts <= self.plan.file.spec.retries:
            queue = self._suspects if self.engine.breaks_whole else self._again
            queue.append(replace(flight, attempts=flight.attempts + 1))
        else:
            error = (
                "WorkerDiedError: the process that made this run was killed or ran out of memory"
            )
            self._write(flight.run, None, error, flight.attempts)

    def _rebuild(self) -> None:
        if self._executor is not None:
            self.engine.end(self._executor)
        self._executor = self.engine.make()

    def _write(
        self, run: PlannedRun, outcome: Outcome | None, error: str | None, attempts: int
    ) -> None:
        record: Record = {
            "run_id": run.run_id,
            "seed": run.seed,
            "version": version(),
            "values": run.values,
            "status": OK if error is None else FAILED,
            "attempts": attempts,
            "finished_at_s": round(time.time(), 3),
        }
        if outcome is not None:
            record |= {"wall_s": round(outcome.wall_s, 6), "cpu_s": round(outcome.cpu_s, 6)}
            self.tally.run_wall_s += outcome.wall_s
            self.tally.run_cpu_s += outcome.cpu_s
        record |= {"summary": outcome.summary} if outcome and error is None else {"error": error}
        self.offsets[run.index] = self.writer.write(record)
        if error is None or not self.retry_failed:
            self._started.discard(run.run_id)
        if error is None:
            self.tally.ok += 1
        else:
            self.tally.failed += 1
            self.tally.errors[error.partition(":")[0]] += 1
        self.on_done(self.tally)


def write_table(driver: Driver, folder: Path) -> int:
    """`runs.parquet` of what is there; the number of its rows."""
    journal: Any = driver.writer.journal
    return compact(journal.path, driver.offsets, driver.plan.points.keys, folder / TABLE)
