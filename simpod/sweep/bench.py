"""How fast the simulator itself is, in seconds and in bare SimPy timeouts.

A bare timeout, `yield env.timeout(1.0)` in a loop of one process, is the least that one event can
cost. It is measured in the same process just before and after, so that figures of different
machines compare.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from simpod.config import resolve_document
from simpod.engine.bare import bare_timeouts_cpu_s
from simpod.run import run
from simpod.sweep.bench_cases import Case

BARE_TIMEOUTS: Final = 100_000
BARE_REPEATS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One case: from the resolved experiment to its summary, imports not counted."""

    name: str
    requests: int
    wall_s: float
    cpu_s: float
    steps: int
    peak_memory_bytes: int  # of the whole process
    bare_timeout_s: float  # CPU time of one

    @property
    def requests_per_s(self) -> float:
        """Requests per second of wall time."""
        return self.requests / self.wall_s

    @property
    def timeouts_per_request(self) -> float:
        """CPU time of one request in bare timeouts."""
        return self.cpu_s / self.requests / self.bare_timeout_s

    @property
    def timeouts_per_step(self) -> float:
        """CPU time of one simulated step of one group in bare timeouts."""
        return self.cpu_s / self.steps / self.bare_timeout_s

    def as_json(self) -> dict[str, Any]:
        """All figures, as `simpod bench --json` prints them."""
        return {
            **asdict(self),
            "requests_per_s": self.requests_per_s,
            "timeouts_per_request": self.timeouts_per_request,
            "timeouts_per_step": self.timeouts_per_step,
        }


def time_case(case: Case, requests: int | None = None) -> Timing:
    """Time a case in a fresh process: its peak memory is its own, its caches are cold."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        return executor.submit(time_here, case, requests or case.requests).result()


def over_budget(case: Case, timing: Timing) -> tuple[str, ...]:
    """Figures that exceed the limits, which are for the case's own number of requests."""
    if timing.requests != case.requests:
        return ()
    return tuple(name for name, most in case.limits.items() if getattr(timing, name) > most)


def cost_ratio(timings: Sequence[Timing]) -> float:
    """Bare timeouts per request, the most expensive to the cheapest."""
    costs = [timing.timeouts_per_request for timing in timings]
    return max(costs) / min(costs)


def time_here(case: Case, requests: int) -> Timing:
    """Time a case in this process."""
    overrides = [*case.overrides, f"workload.num_requests={requests}"]
    experiment = resolve_document(case.document, overrides, source=case.name)
    before_s = bare_timeout_s()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    summary = run(experiment).summary
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return Timing(
        name=case.name,
        requests=requests,
        wall_s=wall_s,
        cpu_s=cpu_s,
        steps=summary["num_steps"],
        peak_memory_bytes=peak_memory_bytes(),
        bare_timeout_s=(before_s + bare_timeout_s()) / 2,
    )


def bare_timeout_s() -> float:
    """CPU time of one timeout, the mean of three loops: the case runs once, in the same noise."""
    loops_s = [bare_timeouts_cpu_s(BARE_TIMEOUTS) for _ in range(BARE_REPEATS)]
    return sum(loops_s) / BARE_REPEATS / BARE_TIMEOUTS


def peak_memory_bytes() -> int:
    """Most memory that this process has held.

    getrusage is the second choice: on Linux its figure survives `exec`, so a child starts with that
    of its parent.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
