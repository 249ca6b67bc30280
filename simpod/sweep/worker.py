"""What a worker does, the same on every engine: one run within its time limit, never an exception.

A run that fails is a result: its error goes back as text, because that is what is kept.
"""

import ctypes
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from simpod.config import ResolvedExperiment
from simpod.errors import SimpodError
from simpod.run.simulate import simulate

Json = dict[str, Any]


class OutOfTimeError(BaseException):
    """Raised inside a run at its time limit; no `except Exception` of a policy stops it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run: its summary, flat, or its error."""

    summary: Json | None
    error: str | None = None
    is_out_of_time: bool = False
    wall_s: float
    cpu_s: float


def execute(
    experiment: ResolvedExperiment, time_limit_s: float | None, metrics: tuple[str, ...]
) -> Outcome:
    """Simulate; an outcome in any case but the death of the process."""
    wall_s, cpu_s = time.perf_counter(), time.thread_time()
    summary, error, is_out_of_time = None, None, False
    try:
        with time_limit(time_limit_s):
            summary = flat(simulate(experiment)[1])
    except OutOfTimeError:
        summary, is_out_of_time = None, True
        error = f"OutOfTimeError: the run took longer than its limit of {time_limit_s:g} s"
    except SimpodError as failure:
        error = f"{type(failure).__name__}: {failure}"
    except Exception as failure:  # whatever it is, it must not end the other runs
        where = traceback.extract_tb(failure.__traceback__)[-1]
        place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
        error = f"{type(failure).__name__}: {failure} ({place})"
    if summary is not None and metrics:
        missing = [name for name in metrics if name not in summary]
        error = f"ConfigError: metrics: the run has no {missing[0]}" if missing else None
        summary = None if missing else {name: summary[name] for name in metrics}
    return Outcome(
        summary=summary,
        error=error,
        is_out_of_time=is_out_of_time,
        wall_s=time.perf_counter() - wall_s,
        cpu_s=time.thread_time() - cpu_s,
    )


def flat(summary: Mapping[str, Any], prefix: str = "") -> Json:
    """Dotted keys; lists become text, so that every value fits into a column."""
    found: Json = {}
    for key, value in summary.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = str(value) if isinstance(value, list | tuple) else value
    return found


@contextmanager
def time_limit(limit_s: float | None) -> Iterator[None]:
    """Raise `OutOfTimeError` in this thread after `limit_s` of wall time.

    By an asynchronous exception and not by a signal: a signal reaches main threads alone, and Dask
    runs tasks in others. It takes effect between two byte codes, so not inside a long C call.
    """
    if limit_s is None:
        yield
        return
    lock, ended, thread = threading.Lock(), threading.Event(), threading.get_ident()

    def interrupt() -> None:
        with lock:
            if not ended.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(OutOfTimeError)
                )

    timer = threading.Timer(limit_s, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            ended.set()
        timer.cancel()
