"""The parts that a run spends its time in, one by one; `pytest benchmarks` measures them."""

from typing import Any

import numpy as np
import pytest

from simpod.cluster import KvBlocks
from simpod.config import ResolvedExperiment, load_experiment, load_hardware, load_model
from simpod.cost import Batch, StepPricer
from simpod.cost.kernels.pricer import AttentionSite, ExpertWork, KernelPricer
from simpod.engine import Simulation
from simpod.run import run, run_inputs, summarise
from simpod.workload import build, streams

RANKS = 288
QUICKSTART_REQUESTS = 6000
SHAPES = 200_000


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
    assert len(requests) == QUICKSTART_REQUESTS


def test_price_a_full_decode_step(benchmark: Any, pod: ResolvedExperiment) -> None:
    spec = pod.pools[0]
    pricer = StepPricer(pod.model, pod.hardware[spec.name], spec.layout)
    batch = full_batch()
    assert benchmark(lambda: pricer.price(batch)).base_s > 0


@pytest.mark.parametrize("kernel", ["gemm", "decode attention", "prefill attention", "experts"])
def test_price_kernels(benchmark: Any, kernel: str) -> None:
    """Shapes in one call, of the kernels of Llama-3.1-70B and Qwen3-235B on an H100."""
    rng = np.random.default_rng(0)
    pricer = KernelPricer(load_hardware("h100"))
    spec = load_model("llama-3.1-70b").attention
    site = AttentionSite(spec=spec, num_heads=8, num_kv_heads=1, kv_dtype="bf16", window_tokens=0)
    seqs = rng.integers(1, 256, SHAPES).astype(np.float64)
    tokens = rng.integers(1, 8192, SHAPES).astype(np.float64)
    work = ExpertWork(
        group_tokens=tokens,
        arriving_tokens=tokens,
        num_experts=128,
        top_k=8,
        num_slots=128,
        hidden_size=4096,
        inter_size=1536,
    )
    calls = {
        "gemm": lambda: pricer.gemm_s(tokens, 8192, 8192, "bf16"),
        "decode attention": lambda: pricer.decode_attention_s(site, seqs, tokens, 1),
        "prefill attention": lambda: pricer.prefill_attention_s(site, seqs, tokens, 0.0 * tokens),
        "experts": lambda: pricer.experts_s(work, "bf16"),
    }
    seconds = benchmark(calls[kernel])
    assert (seconds > 0).all()
    benchmark.extra_info["shapes_per_s"] = SHAPES / benchmark.stats.stats.mean


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

    assert benchmark(simulate) == QUICKSTART_REQUESTS


def test_summarise(benchmark: Any, quickstart: ResolvedExperiment) -> None:
    requests = build(quickstart.workload, streams(0))
    records = run(quickstart).records
    assert (
        benchmark(lambda: summarise(quickstart, requests, records))["finished"]
        == QUICKSTART_REQUESTS
    )
