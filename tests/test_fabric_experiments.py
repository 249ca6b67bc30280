"""Links and shared memory in the experiment file: what is refused, and what a run leaves."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simpod.config import ResolvedExperiment, load_experiment, resolve_document
from simpod.engine import Simulation
from simpod.errors import ConfigError
from simpod.records.columns import TRANSFER_KINDS
from simpod.run import read_results, run, write_results
from simpod.run.network import kv_law, links_of

SPLIT = """\
model: llama-3.1-8b
hardware: cloudmatrix384
seed: 3
workload:
  arrivals: {process: poisson, rate_per_s: 60}
  prompt_tokens: {distribution: constant, value: 1000}
  output_tokens: {distribution: constant, value: 8}
  shared_prefix: {num_prefixes: 3, tokens: 1024, exponent: 0.0}
  hash_block_tokens: 128
  num_requests: 60
deployment:
  p: {role: prefill, instances: 8, dp: 2, tp: 1, prefix_caching: false}
  d: {role: decode, dp: 4, tp: 1}
"""
SHARED = "shared_memory={hosts: 2, dram_bytes_per_host: 1.0e+11}"

Load = Callable[..., ResolvedExperiment]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "split.yaml").write_text(SPLIT, encoding="utf-8")
    return lambda *overrides: load_experiment("split.yaml", overrides)


def only_problem(load: Load, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    (problem,) = caught.value.problems
    return problem


def test_contention_where_there_is_a_topology(load: Load) -> None:
    got = load()
    assert got.network.contends
    assert got.document["kv_transfer"]["contention"] == "fabric"
    origin = got.origins["kv_transfer.contention"]
    assert origin == "derived: cloudmatrix384 has a topology"
    assert not load("kv_transfer.contention=none").network.contends
    bare = load("hardware.topology={}")
    assert (bare.network.contends, links_of(bare).fabric) == (False, None)
    apart = load("deployment.p.hardware=h100-pod", "deployment.p.instances=4")
    assert not apart.network.contends
    problem = only_problem(load, "deployment.p.hardware=h100-pod", "kv_transfer.contention=fabric")
    assert "kv_transfer.contention: p (h100-pod) and d (cloudmatrix384) are in different" in problem


def test_the_law_of_a_transfer_is_a_measured_one(load: Load) -> None:
    profile = load().hardware["p"]
    assert kv_law(profile, "scale_up").inter_node_bytes_per_s == pytest.approx(151.2e9, rel=0.01)
    assert kv_law(profile, "scale_out").inter_node_bytes_per_s == pytest.approx(22.65e9, rel=0.02)
    assert kv_law(profile, "vpc").bytes_per_s(same_node=False) == pytest.approx(0.8 * 3.125e9)


def test_losses_are_names_of_the_fabric(load: Load) -> None:
    assert "no link or switch is called 'scale_up/spyne/*'" in only_problem(
        load, 'fabric.degrade={"scale_up/spyne/*": 0}'
    )
    assert "fabric.degrade.die/0" in only_problem(load, 'fabric.degrade={"die/0": 1.5}')
    assert "nothing runs over the fabric here" in only_problem(
        load, 'fabric.degrade={"die/0": 0.5}', "kv_transfer.contention=none"
    )
    assert "engine.link_samples_s: nothing runs over" in only_problem(
        load, "engine.link_samples_s=0.1", "kv_transfer.contention=none"
    )
    with pytest.raises(ConfigError, match="die/1 has no link into scale_up left"):
        run(load('fabric.degrade={"die/1--scale_up/*": 0}'))


SLOW_DIE = '{"die/16--scale_up/*": 0.25}'
LOSSES = (
    '{"scale_up/spine/3/5": 0}',
    '{"scale_up/*/3/*": 0}',
    '{"die/16--scale_up/leaf/2/1": 0}',
    SLOW_DIE,
)


def test_runs_with_losses_complete(load: Load) -> None:
    mine = run(load()).records.transfers
    hurt = {loss: run(load(f"fabric.degrade={loss}")) for loss in LOSSES}
    for loss, each in hurt.items():
        other = each.records.transfers
        assert each.summary["finished"] == 60, loss
        assert mine.size_bytes.sum() == other.size_bytes.sum(), loss
        assert other.alone_s.max() >= mine.alone_s.max() * (1 - 1e-9), loss
    other = hurt[SLOW_DIE].records.transfers  # 49 GB/s into the first decode die, not 151.8
    felt = other.destination_die == 16
    assert felt.any()
    rate = other.size_bytes[felt] / other.alone_s[felt]
    np.testing.assert_allclose(rate, 49e9, rtol=0.01)


def test_planes_over_time_are_in_the_result(load: Load, tmp_path: Path) -> None:
    got = run(load("engine.link_samples_s=0.05"))
    folder = write_results(tmp_path / "r", got.records, got.summary, got.provenance)
    links = read_results(folder).planes
    assert links is not None
    assert set(links["plane"]) == {"scale_up", "scale_out", "vpc", "peer"}
    mine = links[links["plane"] == "scale_up"]
    sent = (mine["bytes_per_s"] * 0.05).sum()
    assert sent == pytest.approx(got.records.transfers.size_bytes.sum(), rel=0.05)
    assert (links[["share_frac", "busiest_frac"]] <= 1 + 1e-9).all().all()
    assert 0 < mine["share_frac"].max() < mine["busiest_frac"].max()
    again = write_results(tmp_path / "r", got.records, got.summary, got.provenance, overwrite=True)
    assert read_results(again).planes is not None
    assert run(load()).records.planes is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("hosts=99", "shared_memory.hosts: cloudmatrix384 has 48 nodes"),
        ("dram_bytes_per_host=9.0e+12", "a node of cloudmatrix384 has 1,500,000,000,000 bytes"),
        ("dram_bytes_per_host=1.0e+6", "each of 4 sockets gets less than one block of 16,777,216"),
        ("replication=3", "shared_memory.replication: copies lie on different nodes"),
        ("block_tokens=100", "100 and the workload's blocks of 128 tokens: neither divides"),
        ("eviction=mru", 'shared_memory.eviction.use: unknown cache policy "mru"'),
        ("plane=scale_out", "shared_memory.plane"),
        ("blocks=3", "shared_memory.blocks"),
    ],
)
def test_shared_memory_that_can_not_be(load: Load, change: str, problem: str) -> None:
    assert problem in only_problem(load, SHARED, f"shared_memory.{change}")


def test_shared_memory_needs_prefixes_prefill_and_cpus(load: Load) -> None:
    assert "names no prefixes" in only_problem(load, SHARED, "workload.shared_prefix=null")
    bare = "hardware.topology.planes.scale_up.cpu_bytes_per_s=0"
    problem = only_problem(load, SHARED, bare)
    assert "the CPUs of cloudmatrix384 are not on scale_up" in problem
    assert "allowed: scale_out, vpc" in problem


def test_prefixes_are_read_from_the_pool(load: Load) -> None:
    plain, cached = run(load()), run(load(SHARED))
    assert plain.summary["shared_memory"] is None
    assert plain.summary["prefix_hit_frac_by_tier"] == {"hbm": 0.0, "dram": 0.0, "ssd": 0.0}
    tiers = cached.summary["prefix_hit_frac_by_tier"]
    assert 0.3 < tiers["dram"] == cached.summary["prefix_hit_frac"] < 1024 / 2024
    assert cached.summary["mean_ttft_ms"] < plain.summary["mean_ttft_ms"]
    pool = cached.summary["shared_memory"]
    assert pool["held_blocks"]["dram"] >= 3 * 1024 // 128
    requests = cached.records.requests
    assert pool["read_bytes"]["dram"] == requests.dram_tokens.sum() / 128 * pool["block_bytes"]
    assert requests.cache_read_s[requests.dram_tokens > 0].min() > 0


def test_what_the_rank_has_itself_is_not_read(load: Load) -> None:
    own = "deployment.p.prefix_caching=true"
    got = run(load(SHARED, own)).summary["prefix_hit_frac_by_tier"]
    assert got["hbm"] > 0
    assert got["dram"] > 0


def test_ssd_takes_over_and_is_slower(load: Load) -> None:
    """DRAM for eight blocks in all, of 24 that are shared: most come from SSD, over vpc."""
    tight = "shared_memory={hosts: 1, dram_bytes_per_host: 1.4e+8, ssd_bytes: 1.0e+11}"
    got = run(load(tight, "shared_memory.plane=scale_up"))
    tiers = got.summary["prefix_hit_frac_by_tier"]
    assert tiers["ssd"] > tiers["dram"]
    moved = got.records.transfers
    over = np.array(moved.plane_names)[moved.plane]
    reads = moved.kind == 1
    assert {"vpc", "scale_up"} == set(over[reads])
    lost = run(load("shared_memory={hosts: 1, dram_bytes_per_host: 1.4e+8}"))
    assert lost.summary["shared_memory"]["lost_blocks"] > 0


def test_demotions_take_time_on_the_links_and_are_readable_only_then(load: Load) -> None:
    """Two sockets of one host write at most what its SSD takes in; slow SSD has fewer hits."""
    tight = "shared_memory={hosts: 1, dram_bytes_per_host: 1.4e+8, ssd_bytes: 1.0e+11}"
    found = []
    for rate in (5e9, 3e8):
        got = run(load(tight, f"shared_memory.ssd_write_bytes_per_s={rate:e}"))
        moved, pool = got.records.transfers, got.summary["shared_memory"]
        kinds, planes = np.array(TRANSFER_KINDS)[moved.kind], np.array(moved.plane_names)
        down = kinds == "demotion"
        assert set(planes[moved.plane[down]]) == {"vpc"}
        assert set(moved.host[down].tolist()) == {0}
        assert moved.size_bytes[down].sum() == pool["written_bytes"]["ssd"] > 0
        start_s, end_s = moved.start_s[down], moved.end_s[down]
        assert (end_s - start_s >= moved.size_bytes[down] / rate * (1 - 1e-9)).all()
        assert moved.size_bytes[down].sum() / (end_s.max() - start_s.min()) <= rate
        from_ssd = (kinds == "cache_read") & (planes[moved.plane] == "vpc")
        assert moved.start_s[from_ssd].min() >= end_s.min()
        found.append(got.summary["prefix_hit_frac_by_tier"]["ssd"])
    assert found[0] > 1.2 * found[1] > 0


def test_writes_to_ssd_need_ssd(load: Load) -> None:
    problem = only_problem(load, SHARED, "shared_memory.ssd_write_bytes_per_s=1.0e+9")
    assert "shared_memory.ssd_write_bytes_per_s: there is no SSD to write to" in problem
    got = load(SHARED, "shared_memory.ssd_bytes=1.0e+12").network.shared_memory
    assert got is not None
    assert got.ssd_write_bytes_per_s == 50e9  # the card of a node, 400 Gb/s


def test_a_document_with_everything_loads_again(load: Load) -> None:
    got = load(
        SHARED, "shared_memory.eviction={use: lfu}", 'fabric.degrade={"scale_up/spine/0/0": 0.5}'
    )
    again = resolve_document(got.document)
    assert again.network == got.network
    assert again.document == got.document


# --- CloudMatrix-Infer 5.4.3 ----------------------------------------------------------------------


@cache
def reuse(share: float, plane: str = "scale_up") -> dict[str, Any]:
    """The shipped experiment, shortened, at a share of reuse."""
    tokens = round(4096 * share)
    prefix = f"tokens={tokens}" if tokens else "share_frac=0"
    overrides = [
        "workload.num_requests=1536",
        "workload.shared_prefix.num_prefixes=16",
        f"workload.shared_prefix.{prefix}",
        f"workload.prompt_tokens.value={4096 - tokens}",
        f"shared_memory.plane={plane}",
        "measure={warmup_frac: 0.5, drain_frac: 0.0}",
    ]
    return run(load_experiment("cloudmatrix-infer-context-caching", overrides)).summary


def test_context_caching_against_the_published_figures() -> None:
    """docs/shared-memory.md: 1.42 x and -34 % were measured."""
    none, little, half = reuse(0.0), reuse(0.125), reuse(0.5)
    assert (little["prefix_hit_frac"], half["prefix_hit_frac"]) == (0.125, 0.5)
    assert none["mean_ttft_ms"] == pytest.approx(2540, rel=0.03)  # measured: 861 / 0.34
    gain = little["mean_ttft_ms"] / half["mean_ttft_ms"]  # all slots are always taken
    assert gain == pytest.approx(1.42, rel=0.05)
    fall = 1 - half["mean_ttft_ms"] / none["mean_ttft_ms"]
    assert fall == pytest.approx(0.34, abs=0.034)


def test_ub_reads_much_faster_than_vpc() -> None:
    ub, vpc = reuse(0.5), reuse(0.5, "vpc")
    read_ms = [s["ttft_attribution_ms"]["cache_read"]["mean"] for s in (ub, vpc)]
    assert read_ms[1] > 10 * read_ms[0]
    assert vpc["mean_ttft_ms"] > ub["mean_ttft_ms"] + 0.8 * (read_ms[1] - read_ms[0])


def test_a_simulation_without_a_fabric_has_no_network(load: Load) -> None:
    from simpod.run.simulate import run_inputs
    from simpod.workload import build, streams

    experiment = load("kv_transfer.contention=none")
    stream = streams(0)
    inputs = run_inputs(experiment, build(experiment.workload, stream), stream)
    assert Simulation(inputs).network is None
