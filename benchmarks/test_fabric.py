"""Transfers on the whole pod: CPU time of one start or end, with N others under way."""

import time
from collections.abc import Iterator
from itertools import count
from math import inf
from typing import Any

import numpy as np
import pytest

from simpod.cluster.fabric import Fabric, Flow, FlowTable, build_graph, freeze
from simpod.cluster.fabric import plane as plane_module
from simpod.config import load_hardware

EVENTS = 400
READ_BYTES_PER_S = 164e9


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return freeze(build_graph(load_hardware("cloudmatrix384")))


def transfers(pattern: str, fabric: Fabric, amount: int) -> list[Flow]:
    """KV caches of 0.1 to 0.3 GB, drawn beforehand."""
    rng = np.random.default_rng(0)
    half = fabric.num_dies // 2
    if pattern == "prefill to decode":
        ends = np.stack([rng.integers(0, half, amount), rng.integers(half, 2 * half, amount)])
    elif pattern == "hot spots":  # half of all go to the 16 dies of one decode node
        ends = np.stack([rng.integers(0, half, amount), rng.integers(half, 2 * half, amount)])
        is_hot = rng.random(amount) < 0.5
        ends[1, is_hot] = half + rng.integers(0, 16, is_hot.sum())
    elif pattern == "any to any die":
        first = rng.integers(0, fabric.num_dies, amount)
        ends = np.stack([first, (first + rng.integers(1, fabric.num_dies, amount)) % (2 * half)])
    elif pattern == "within 24 instances":
        first = rng.integers(0, fabric.num_dies, amount)
        ends = np.stack([first, first // 32 * 32 + (first + rng.integers(1, 32, amount)) % 32])
    else:  # CPU memory to any die: the pool of a context cache
        cpus = fabric.num_dies + rng.integers(0, fabric.num_cpus, amount)
        ends = np.stack([cpus, rng.integers(0, fabric.num_dies, amount)])
    sizes = rng.uniform(0.1e9, 0.3e9, amount)
    return [
        Flow(source=a, destination=b, size_bytes=size, bytes_per_s=READ_BYTES_PER_S)
        for a, b, size in zip(*ends.tolist(), sizes.tolist(), strict=True)
    ]


PATTERNS = (
    "prefill to decode",
    "any to any die",
    "within 24 instances",
    "pool to die",
    "hot spots",
)


def full_table(fabric: Fabric, flows: Iterator[Flow], concurrent: int) -> FlowTable:
    table = FlowTable(fabric)
    for _ in range(concurrent):
        table.start(0.0, next(flows))
    table.next_completion()
    return table


def cpu_s_of_churn(table: FlowTable, flows: Iterator[Flow], events: int) -> float:
    """CPU time of an event: ends and starts take turns, the next end is asked for after each."""
    start_s = time.process_time()
    for _ in range(events // 2):
        now_s, flow_id = table.next_completion() or (0.0, -1)
        table.finish(now_s, flow_id)
        after = table.next_completion() or (now_s + 1e-9, -1)
        table.start(min(now_s + 1e-9, after[0]), next(flows))
        table.next_completion()
    return (time.process_time() - start_s) / events


@pytest.mark.parametrize("concurrent", [1, 100, 10_000])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_ends_another_starts(
    benchmark: Any, fabric: Fabric, pattern: str, concurrent: int
) -> None:
    """Ends and starts of different instants, and the next end asked for after each."""
    flows = iter(transfers(pattern, fabric, concurrent + 40 * EVENTS))
    table = full_table(fabric, flows, concurrent)
    cpu_s_of_churn(table, flows, 2 * EVENTS)  # by loops until the kernel pays
    spent_s: list[float] = []

    def churn() -> None:
        spent_s.append(cpu_s_of_churn(table, flows, EVENTS))

    benchmark.pedantic(churn, rounds=5, warmup_rounds=1)
    benchmark.extra_info["cpu_ms_per_event"] = 1e3 * float(np.median(spent_s))


@pytest.mark.parametrize("concurrent", [100, 1000, 10_000])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_compiled_against_loops(
    benchmark: Any, fabric: Fabric, pattern: str, concurrent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same events with the kernel and with loops, in turns; what all at once costs, too."""
    spent_s: dict[float, list[float]] = {-1: [], inf: []}
    tables = {}
    for load in spent_s:
        monkeypatch.setattr(plane_module, "LOAD_TRANSFERS", load)
        flows = iter(transfers(pattern, fabric, concurrent + 1000))
        start_s = time.process_time()
        tables[load] = full_table(fabric, flows, concurrent), flows
        once_s = time.process_time() - start_s
        benchmark.extra_info[f"all_at_once_{'loops' if load > 0 else 'kernel'}_ms"] = 1e3 * once_s

    def both() -> None:
        for load, (table, flows) in tables.items():
            monkeypatch.setattr(plane_module, "LOAD_TRANSFERS", load)
            spent_s[load].append(cpu_s_of_churn(table, flows, 100))

    benchmark.pedantic(both, rounds=5, warmup_rounds=1)
    kernel_s, loops_s = (float(np.median(spent_s[load])) for load in spent_s)
    benchmark.extra_info["cpu_ms_per_event"] = 1e3 * kernel_s
    benchmark.extra_info["loops_over_kernel"] = loops_s / kernel_s


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ten_thousand_start_and_drain(benchmark: Any, fabric: Fabric, pattern: str) -> None:
    """All start at once and end one by one: 20,000 events."""
    flows = transfers(pattern, fabric, 10_000)
    spent_s: list[float] = []

    def drain() -> None:
        start_s = time.process_time()
        table = FlowTable(fabric)
        for flow in flows:
            table.start(0.0, flow)
        for events in count(len(flows)):
            first = table.next_completion()
            if first is None:
                spent_s.append((time.process_time() - start_s) / events)
                return
            table.finish(*first)

    benchmark.pedantic(drain, rounds=1)
    benchmark.extra_info["cpu_ms_per_event"] = 1e3 * spent_s[0]
