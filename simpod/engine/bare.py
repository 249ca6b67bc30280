"""The least that one event of SimPy costs: the yardstick of the benchmark."""

import time
from collections.abc import Generator

import simpy


def bare_timeouts_cpu_s(count: int) -> float:
    """CPU time of `count` timeouts, one after another, in a process that does nothing else."""
    env = simpy.Environment()

    def sleep() -> Generator[simpy.Event, object, None]:
        for _ in range(count):
            yield env.timeout(1.0)

    env.process(sleep())
    start_s = time.process_time()
    env.run()
    return time.process_time() - start_s
