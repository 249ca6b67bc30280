"""Scaling policies: one exact case each, and what they do to a load that doubles."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_runs import call
from policy_cases import make

from simpod.config import load_experiment
from simpod.engine import Simulation
from simpod.errors import ConfigError
from simpod.policies import AddInstance, RemoveInstance, SwitchInstance
from simpod.policies.checks import CHECKS
from simpod.policies.scaling_checks import FakePoolLoad, FakeScalingView
from simpod.report.series import timeline_of
from simpod.run import read_results, run, run_inputs, summarise
from simpod.workload import make_requests, streams

NONE = np.empty(0)


def load_of(name: str, *, waiting: Any = (0.0,), running: Any = (0.0,), **given: Any) -> Any:
    columns: dict[str, Any] = {"kv_frac": np.zeros(len(waiting)), "dies_per_instance": 8}
    return FakePoolLoad(
        name=name,
        role=given.pop("role", name if name in {"prefill", "decode"} else "mixed"),
        waiting_seqs=np.array(waiting, dtype=float),
        running_seqs=np.array(running, dtype=float),
        **(columns | given),
    )


def view_of(*pools: Any, **given: Any) -> FakeScalingView:
    columns: dict[str, Any] = {
        "now_s": 100.0,
        "spare_dies": 64,
        "arrivals_per_s": np.zeros(1),
        "arrived_tokens_per_s": np.zeros(1),
        "ttft_s": NONE,
        "tpot_s": NONE,
        "finished_prompt_tokens": NONE,
        "finished_output_tokens": NONE,
    }
    return FakeScalingView(pools=pools, **(columns | given))


# --- by hand --------------------------------------------------------------------------------------


def test_keep_does_nothing() -> None:
    assert make("scaling", "keep")(view_of(load_of("server", waiting=[900.0]))) == []


def test_hpa_brings_the_metric_to_its_target() -> None:
    """3 instances hold 90: 30 each, wanted 20: ceil(3 x 30 / 20) = 5."""
    hpa = make("scaling", "kubernetes_hpa", target=20.0, average_s=2.0)
    busy = load_of("server", waiting=[500.0, 20.0, 40.0], running=[0.0, 60.0, 60.0], serving=3)
    assert hpa(view_of(busy)) == [AddInstance("server")] * 2
    assert hpa(view_of(busy, spare_dies=15)) == [AddInstance("server")]
    assert hpa(view_of(replace(busy, serving=2, coming=1))) == [AddInstance("server")] * 2
    within = load_of("server", running=[65.0], serving=3)  # 1.083 of the target
    fresh = make("scaling", "kubernetes_hpa", target=20.0)
    assert fresh(view_of(within)) == []
    assert make("scaling", "kubernetes_hpa", target=20.0, tolerance_frac=0.0)(view_of(within)) == [
        AddInstance("server")
    ]


def test_hpa_takes_instances_away_when_it_has_been_calm_for_a_while() -> None:
    calm = load_of("server", running=[20.0], serving=4)
    first = make("scaling", "kubernetes_hpa", target=20.0, stabilization_s=300.0)
    busy = load_of("server", running=[80.0], serving=4)
    assert first(view_of(busy, now_s=0.0)) == []
    assert first(view_of(calm, now_s=300.0)) == []
    assert first(view_of(calm, now_s=301.0)) == [RemoveInstance("server")] * 3
    least = make("scaling", "kubernetes_hpa", target=20.0, stabilization_s=5.0, min_instances=2)
    assert least(view_of(calm)) == []  # the number at the start holds for a while, too
    assert least(view_of(calm, now_s=110.0)) == [RemoveInstance("server")] * 2


def test_hpa_by_kv_use_of_one_pool() -> None:
    full = {"kv_frac": np.array([0.9]), "serving": 2}
    view = view_of(load_of("prefill", **full), load_of("decode", **full))
    hpa = make("scaling", "kubernetes_hpa", target=0.6, metric="kv_frac", pool="decode")
    assert hpa(view) == [AddInstance("decode")]


def test_the_planner_counts_by_the_profile_and_corrects_it() -> None:
    """Prefill: 60,000 tokens/s over 20,000 are 3, and 4 served; decode: TPOT of 20 running is
    0.02 + 0.001 x 10 = 0.03 s, measured 0.036: the target of 0.06 counts as 0.05, at which 30
    sequences give 600 tokens/s; 8 x 300 tokens/s take 4."""
    planner = make(
        "scaling",
        "dynamo_planner",
        prefill_tokens_per_s=20_000.0,
        tpot_at_0_s=0.02,
        tpot_per_seq_s=0.001,
    )
    view = view_of(
        load_of("prefill", serving=4),
        load_of("decode", running=[20.0], serving=2),
        arrivals_per_s=np.array([8.0]),
        arrived_tokens_per_s=np.array([60_000.0]),
        ttft_s=np.array([3.0]),
        tpot_s=np.array([0.036]),
        finished_prompt_tokens=np.array([6000.0]),
        finished_output_tokens=np.array([300.0]),
        tpot_target_s=0.06,
    )
    assert planner(view) == [RemoveInstance("prefill"), *[AddInstance("decode")] * 2]
    half = replace(view, ttft_s=np.array([0.15]))  # of the 0.3 s expected: half the load counts
    assert planner(half) == [RemoveInstance("prefill")] * 2 + [AddInstance("decode")] * 2
    assert planner(replace(view, tpot_s=NONE, finished_output_tokens=NONE)) == [
        RemoveInstance("prefill")
    ]


def test_epd_switches_towards_the_longest_queue() -> None:
    switch = make("scaling", "epd")
    prefill = load_of("prefill", waiting=[9.0, 10.0], serving=2)
    decode = load_of("decode", waiting=[9.0, 4.0], serving=3)
    assert switch(view_of(prefill, decode)) == [SwitchInstance("decode", "prefill")]
    assert switch(view_of(prefill, load_of("decode", waiting=[5.0], serving=3))) == []
    assert switch(view_of(prefill, load_of("decode", waiting=[4.0], serving=1))) == []
    assert switch(view_of(prefill, replace(decode, draining=1))) == []
    large = replace(prefill, dies_per_instance=80)
    assert switch(view_of(large, decode)) == []


def test_pd_serve_moves_the_ratio_towards_equal_capacity() -> None:
    """A prefill instance does 40,000 / 4 / 1,000 = 10 requests/s, a decode instance 32 / (200 x
    0.04) = 4: of 4 and 2 min(40, 8); with 3 and 3 min(30, 12)."""
    policy = make("scaling", "pd_serve", batch_seqs=32)
    prefill = load_of("prefill", serving=4, prompt_tokens_per_s=np.array([9000.0, 40_000.0]))
    decode = load_of("decode", serving=2)
    finished = {
        "tpot_s": np.array([0.04, np.nan]),
        "finished_prompt_tokens": np.array([1000.0, 1000.0]),
        "finished_output_tokens": np.array([200.0, 1.0]),
    }
    assert policy(view_of(prefill, decode, **finished)) == [SwitchInstance("prefill", "decode")]
    assert policy(view_of(prefill, replace(decode, coming=1), **finished)) == []
    assert policy(view_of(prefill, decode)) == []
    picky = make("scaling", "pd_serve", batch_seqs=32, gain_frac=0.5)
    assert picky(view_of(prefill, decode, **finished)) == []


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (None, "not a list of actions"),
        (["add"], "not an action"),
        ([AddInstance("other")], "allowed: "),
        ([RemoveInstance("prefill")] * 99, "which stays"),
        ([AddInstance("prefill")] * 9999, "more dies than are spare"),
    ],
)
def test_the_check_finds_broken_policies(answer: Any, complaint: str) -> None:
    problems = CHECKS["scaling"](lambda: lambda view: answer, "mine", views=50)
    assert any(complaint in problem for problem in problems)


# --- in an experiment -----------------------------------------------------------------------------

ONE = ("deployment.server.instances=1", "policies.scaling.spare_dies=4")
HPA = ("policies.scaling.use=kubernetes_hpa", "policies.scaling.target=60")
PLANNER = (
    "policies.scaling.use=dynamo_planner",
    "policies.scaling.prefill_tokens_per_s=12000",
    "policies.scaling.tpot_at_0_s=0.02",
    "policies.scaling.tpot_per_seq_s=0.0005",
)


def doubled(*overrides: str) -> dict[str, Any]:
    """Summary under 6 requests/s for two minutes, then 12 for four."""
    experiment = load_experiment("llama70b-h100-colocated", overrides)
    rng = np.random.default_rng(1)
    gaps = [rng.exponential(1 / 6, 720), rng.exponential(1 / 12, 2880)]
    arrivals = np.cumsum(np.concatenate(gaps))
    num = len(arrivals)
    requests = make_requests(arrivals, rng.integers(200, 2000, num), rng.integers(50, 400, num))
    records = Simulation(run_inputs(experiment, requests, streams(0))).run()
    return summarise(experiment, requests, records)


def test_scaling_holds_the_slo_when_the_load_doubles() -> None:
    """One instance fails, two hold it; both policies hold it with fewer die-seconds than two."""
    alone = doubled("deployment.server.instances=1")
    two = doubled("deployment.server.instances=2")
    assert alone["slo_attainment"] < 0.5
    assert two["slo_attainment"] > 0.99
    for policy in (HPA, PLANNER):
        scaled = doubled(*policy, *ONE)
        assert scaled["slo_attainment"] > 0.99
        assert scaled["scaling"]["added"] == 1
        assert scaled["scaling"]["used_die_seconds"] < 0.95 * 8 * two["simulated_s"]
        assert scaled["num_npus"] < two["num_npus"]


def test_weights_take_their_time_by_where_they_lie() -> None:
    """141 GB in bf16: at 147 GB/s out of DRAM, at 0.84 x 2.5 GB/s out of the store."""
    for place, load_s in (("pool", 0.96), ("host", 0.96), ("store", 67.2)):
        scaled = doubled(*HPA, *ONE, f"policies.scaling.weights_from={place}")["scaling"]
        assert scaled["load_s"]["mean"] == pytest.approx(load_s, rel=0.01)


SWITCH = (
    "workload.num_requests=1500",
    "deployment.prefill.instances=1",
    "deployment.decode.instances=2",
    "policies.scaling={use: epd, every_s: 5}",
)


def test_weights_from_the_pool_share_the_links_with_the_kv() -> None:
    """A decode instance of 64 dies becomes a prefill instance of 32: weights of 671 GB in 4.58 s
    when nobody else is on the links, as `ModelCache` says, and no sooner with others; the other 32
    dies are spare. Skipping ahead changes nothing."""
    records = [
        run(load_experiment("quickstart", (*SWITCH, f"engine.skip_ahead={skip}"))).records
        for skip in ("true", "false")
    ]
    scaling = records[0].scaling
    assert scaling is not None
    assert scaling.num_switched == 1
    assert 4.578 <= scaling.load_s[0] < 4.7
    assert (records[0].requests.status == 1).all()
    np.testing.assert_allclose(
        records[0].requests.finish_s, records[1].requests.finish_s, rtol=1e-9
    )
    rows = records[0].timeseries
    assert rows is not None
    assert rows.spare_dies.max() == 32
    moved = records[0].transfers
    dies = set(moved.source_die[moved.source >= 8].tolist())  # of the new instance's 8 ranks
    assert dies
    assert dies <= set(range(32, 64)) or dies <= set(range(96, 128))


EVERYTHING = (
    *SWITCH,
    "workload.num_requests=900",
    "workload.shared_prefix={num_prefixes: 8, tokens: 1024}",
    "workload.hash_block_tokens=128",
    "shared_memory={dram_bytes_per_host: 1.0e+11, local_bytes_per_host: 1.0e+10, reads: layerwise}",
    "kv_transfer.layerwise=true",
    "policies.scaling.every_s=3",
    "policies.scaling.drain=recompute",
)


def test_scaling_goes_with_caches_and_layers_on_shared_links() -> None:
    fast, slow = (
        run(load_experiment("quickstart", (*EVERYTHING, f"engine.skip_ahead={skip}"))).records
        for skip in ("true", "false")
    )
    assert fast.scaling is not None
    assert fast.scaling.num_switched > 0
    assert (fast.requests.status == 1).all()
    assert fast.requests.dram_tokens.sum() > 0
    np.testing.assert_allclose(fast.requests.finish_s, slow.requests.finish_s, rtol=1e-9)
    assert fast.scaling == slow.scaling


def test_results_have_the_time_series(tmp_path: Path) -> None:
    overrides = [part for text in SWITCH for part in ("--set", text)]
    out = tmp_path / "out"
    assert call("run", "quickstart", *overrides, "-o", str(out)).exit_code == 0
    rows = pd.read_parquet(out / "timeseries.parquet")
    assert set(rows["pool"]) == {"prefill", "decode"}
    assert rows.groupby("pool", observed=True)["serving"].max().to_dict() == {
        "decode": 2,
        "prefill": 2,
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary["scaling"]["switched"] == 1
    assert call("run", "quickstart", *overrides, "-o", str(out), "--overwrite").exit_code == 0
    assert call("report", str(out), "-o", str(tmp_path / "page.html")).exit_code == 0
    kv_frac = timeline_of(read_results(out)).kv_frac["decode"]
    assert 0 < kv_frac.max() < 1


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["policies.scaling.sample_s=3"], "every_s: 10 is no multiple of sample_s 3"),
        (["policies.scaling.spare_dies=5000"], "spare_dies: the pools have 128 of 768 dies"),
        (["policies.migration=llumnix"], "migration: requests do not migrate between instances"),
        (["policies.scaling.use=kubernetes_hp"], 'did you mean "kubernetes_hpa"'),
        (["policies.scaling={use: kubernetes_hpa, target: 0}"], "target: kubernetes_hpa: must be"),
        (["engine.samples_s=1"], "engine.samples_s: policies.scaling takes samples at its own"),
        (["policies.scaling.drain=never"], "policies.scaling.drain"),
        (["deployment.decode.hardware=h200-pod"], "pools on different hardware"),
    ],
)
def test_what_can_not_scale_is_told(overrides: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_experiment("quickstart", ("policies.scaling=epd", *overrides))


def test_the_settings_of_the_section_stay_when_the_policy_changes() -> None:
    changed = load_experiment(
        "quickstart",
        (
            "policies.scaling={use: kubernetes_hpa, target: 3, spare_dies: 64}",
            "policies.scaling.use=epd",
        ),
    )
    assert changed.policies["scaling"].params == {}
    assert changed.scaling is not None
    assert changed.scaling.spare_dies == 64
    assert changed.scaling.most_instances == (4, 2)
