"""Small sweeps in files, policies that misbehave, and sweeps run in a process of their own."""

import os
import subprocess
import sys
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from cli_runs import ROOT, tiny

from simpod.sweep.driver import Driver, Tally, write_table
from simpod.sweep.engines import Engine, open_engine
from simpod.sweep.journal import open_journal
from simpod.sweep.plan import Plan
from simpod.sweep.spec import load_sweep

MISBEHAVING = '''\
"""Routers that end their process, never end, or fail."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass
class KillsOnce:
    """The process dies when it first decides; the marker file remembers it."""

    marker: str

    def __call__(self, request, view):
        path = Path(self.marker)
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 0


def kills(request, view):
    os.kill(os.getpid(), signal.SIGKILL)


def loops(request, view):
    while True:
        try:
            pass
        except Exception:
            pass


def fails(request, view):
    raise ValueError("no idea")
'''


def sweep_file(folder: Path, **content: Any) -> Path:
    """A sweep over the tiny experiment; `content` replaces its sections."""
    tiny(folder)
    (folder / "misbehaving.py").write_text(MISBEHAVING, encoding="utf-8")
    path = folder / "sweep.yaml"
    given = {"base": "tiny.yaml", "grid": {"workload.arrivals.rate_per_s": [2, 4]}, "seeds": 2}
    path.write_text(yaml.safe_dump(given | content, sort_keys=False), encoding="utf-8")
    return path


class Here(Executor):
    """Every run is made in this process, when it is asked for."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


HERE = Engine(name="here", workers=1, make=Here, end=lambda _: None, lost=(), breaks_whole=False)


def made(
    path: Path, out: Path, engine: tuple[str, int] | None = None, **options: Any
) -> tuple[Tally, pd.DataFrame]:
    """Drive a sweep; engine: its name and workers, or this process. Its tally and its table."""
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan(load_sweep(str(path)))
    opening = nullcontext(HERE) if engine is None else open_engine(*engine)
    with open_journal(out) as writer, opening as opened:
        driver = Driver(plan, writer, opened, **options)
        tally = driver.run()
        write_table(driver, out)
    return tally, pd.read_parquet(out / "runs.parquet")


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """`simpod sweep` in a process of its own, with output to pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "simpod", "sweep", *(str(each) for each in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
    )
