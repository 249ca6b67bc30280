"""Where runs are made: processes of this machine, a Ray cluster or a Dask cluster.

All three are a `concurrent.futures.Executor`; the driver knows nothing else of them.
"""

import importlib.util
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Final

from simpod.errors import ConfigError

ENGINES: Final = ("local", "ray", "dask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A way to make executors.

    lost: what a future raises when the process that ran it is gone.
    breaks_whole: such a loss takes the executor and everything in flight with it, so that nobody
    knows which run was to blame; the executor must then be made anew.
    """

    name: str
    workers: int
    make: Callable[[], Executor]
    end: Callable[[Executor], None]
    lost: tuple[type[BaseException], ...]
    breaks_whole: bool


@contextmanager
def open_engine(
    name: str, workers: int | None = None, address: str | None = None
) -> Iterator[Engine]:
    """Start or join the engine, and leave it again.

    address: of a running cluster; without it Ray and Dask start one on this machine.
    """
    openers = {"local": _local, "ray": _ray, "dask": _dask}
    if name not in openers:
        raise ConfigError(f"--engine {name}: unknown; allowed: {', '.join(ENGINES)}")
    if name == "local" and address is not None:
        raise ConfigError("--address is for --engine ray or dask")
    if name != "local" and importlib.util.find_spec(_MODULES[name]) is None:
        raise ConfigError(f"--engine {name}: not installed; run: pip install 'simpod[{name}]'")
    with openers[name](workers or usable_cores(), address) as engine:
        yield engine


_MODULES: Final = {"ray": "ray", "dask": "distributed"}


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- processes of this machine ------------------------------------------------------------------


@contextmanager
def _local(workers: int, address: str | None) -> Iterator[Engine]:
    yield Engine(
        name="local",
        workers=workers,
        make=lambda: spawn_pool(workers),
        end=end_pool,
        lost=(BrokenProcessPool,),
        breaks_whole=True,
    )


def spawn_pool(workers: int) -> ProcessPoolExecutor:
    """A pool whose processes end with this one, however it ends."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=_tie_to_parent)


def end_pool(executor: Executor) -> None:
    """End a pool at once, whatever its processes are at."""
    processes = getattr(executor, "_processes", None) or {}
    for process in list(processes.values()):
        process.terminate()
    executor.shutdown(wait=True, cancel_futures=True)


def _tie_to_parent() -> None:
    """End with the parent, even if that is killed; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


# --- Ray ----------------------------------------------------------------------------------------


class RayExecutor(Executor):
    """Ray tasks as futures; a lost task is told, the driver decides about another attempt."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._remote: dict[Callable[..., Any], Any] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Start a task on the cluster."""
        if fn not in self._remote:
            self._remote[fn] = self._ray.remote(fn).options(max_retries=0)
        future: Future[Any] = self._remote[fn].remote(*args, **kwargs).future()
        return future


@contextmanager
def _ray(workers: int, address: str | None) -> Iterator[Engine]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a notice
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"num_cpus": workers, "include_dashboard": False}
    else:
        options["address"] = address
    ray.init(**options)
    try:
        yield Engine(
            name="ray",
            workers=max(1, int(ray.cluster_resources().get("CPU", workers))),
            make=lambda: RayExecutor(ray),
            end=lambda executor: executor.shutdown(wait=False),
            lost=(WorkerCrashedError, OutOfMemoryError, NodeDiedError),
            breaks_whole=False,
        )
    finally:
        ray.shutdown()


# --- Dask ---------------------------------------------------------------------------------------


@contextmanager
def _dask(workers: int, address: str | None) -> Iterator[Engine]:
    from distributed import Client, KilledWorker, LocalCluster

    cluster = None
    if address is None:
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
        )
    client = Client(cluster or address, set_as_default=False)
    try:
        yield Engine(
            name="dask",
            workers=max(1, sum(client.nthreads().values())),
            make=lambda: client.get_executor(pure=False, retries=0),
            end=lambda executor: executor.shutdown(wait=False),
            lost=(KilledWorker,),
            breaks_whole=False,
        )
    finally:
        client.close()  # before the cluster, or it complains of a lost connection
        if cluster is not None:
            with suppress(TimeoutError):
                cluster.close()
