"""The parts that a run spends its time in, one by one; `pytest benchmarks` measures them."""

from typing import Any

import numpy as np
import pytest

from simpod.cluster import KvBlocks
from simpod.config import ResolvedExperiment, load_experiment
from simpod.cost import Batch, StepPricer
from simpod.engine import Simulation
from simpod.run import run, run_inputs, summarise
from simpod.workload import build, streams

RANKS = 288


@pytest.fixture(scope="module")
def quickstart() -> ResolvedExperiment:
    return load_experiment("quickstart")


@pytest.fixture(scope="module")
def pod() -> ResolvedExperiment:
    return load_experiment("cloudmatrix384-deepseek-r1-peak-decode")


def full_batch() -> Batch:
    decode_seqs = np.full(RANKS, 60, dtype=np.int64)
    return Batch.of(decode_seqs, decode_seqs * (3000 + np.arange(RANKS)))


def test_resolve_an_experiment(benchmark: Any) -> None:
    assert benchmark(load_experiment, "quickstart").name == "quickstart"


def test_build_requests(benchmark: Any, quickstart: ResolvedExperiment) -> None:
    requests = benchmark(lambda: build(quickstart.workload, streams(0)))
    assert len(requests) == 2000


def test_price_a_full_decode_step(benchmark: Any, pod: ResolvedExperiment) -> None:
    spec = pod.pools[0]
    pricer = StepPricer(pod.model, pod.hardware[spec.name], spec.layout)
    batch = full_batch()
    assert benchmark(lambda: pricer.price(batch)).base_s > 0


def test_kv_in_use_of_a_full_group(benchmark: Any) -> None:
    kv = KvBlocks(num_ranks=RANKS, capacity_blocks=10**12, block_tokens=16)
    for rank in range(RANKS):
        for tokens in range(1000, 1060):
            kv.take(rank, kv.blocks_for(tokens))
            kv.join(rank, tokens)
    used = benchmark(kv.used_everywhere, 1)
    assert used.min() == used.max() == sum(kv.blocks_for(n + 1) for n in range(1000, 1060))


def test_simulate(benchmark: Any, quickstart: ResolvedExperiment) -> None:
    def simulate() -> int:
        stream = streams(0)
        requests = build(quickstart.workload, stream)
        return len(Simulation(run_inputs(quickstart, requests, stream)).run().requests.status)

    assert benchmark(simulate) == 2000


def test_summarise(benchmark: Any, quickstart: ResolvedExperiment) -> None:
    requests = build(quickstart.workload, streams(0))
    records = run(quickstart).records
    assert benchmark(lambda: summarise(quickstart, requests, records))["finished"] == 2000
