"""Experts of MTP layers: layers of their own in popularity, placement, loads and prices."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cost_examples import DEEPSEEK_R1
from expert_cases import FEW_LAYERS, SMALL

from simpod.cluster.experts.loads import MomentLoads
from simpod.cluster.experts.placement import ExpertPlacement, expert_slots, in_order
from simpod.cluster.experts.routing import CorrelatedRouting, RouterDims, popularity
from simpod.config import load_experiment, load_hardware
from simpod.cost import Batch, Layout, step_pricer
from simpod.cost.pipeline.disaggregated import SplitStages, alike_domain_s, split_times
from simpod.cost.pipeline.streams import StreamTimes, alike_s, period_s
from simpod.cost.uneven import by_kind
from simpod.errors import ConfigError
from simpod.records.columns import STEP_PARTS
from simpod.run import run
from simpod.run.experts import expert_timelines
from simpod.workload import streams

DIES = 32
HARDWARE = load_hardware("cloudmatrix384")
LAYOUT = Layout(dies=DIES, dp=DIES, ep=DIES, weight_dtype="int8", kv_dtype="int8", mtp_layers=1)
SEQS = np.full(DIES, 60, dtype=np.int64)
BATCH = Batch.of(SEQS, 3000 * SEQS)


def loads_of(mtp_log_scale: float) -> MomentLoads:
    """Even loads but for the MTP layer's."""
    slots = expert_slots(num_dies=DIES, num_experts=256)
    dims = RouterDims(num_layers=59, num_experts=256, top_k=8)
    rng = np.random.default_rng(1)
    shares = popularity(CorrelatedRouting(log_scale=mtp_log_scale), dims, rng).at(0.0).copy()
    shares[:-1] = 8 / 256
    return MomentLoads.of(ExpertPlacement(slots=slots, experts=in_order(slots, 59)), shares, 3)


def parts_of(layout: Layout, loads: MomentLoads) -> dict[str, float]:
    prices = step_pricer(DEEPSEEK_R1, HARDWARE, layout, "flowserve", loads).price(BATCH)
    assert prices.parts().sum() == pytest.approx(prices.base_s)
    return dict(zip(STEP_PARTS, prices.parts().tolist(), strict=True))


def test_rows_are_told_apart_in_every_step() -> None:
    rows = np.array([[1.0, 3.0, 10.0, 5.0, 7.0, 20.0]])  # two steps of three layers
    own, mtp = by_kind(rows, 3, 1)
    assert (own.tolist(), mtp.tolist()) == ([4.0], [15.0])
    own, same = by_kind(rows, 3, 0)
    assert own.tolist() == same.tolist() == [46 / 6]


def test_what_an_uneven_mtp_layer_costs_is_booked_under_mtp() -> None:
    even, uneven = (parts_of(LAYOUT, loads_of(scale)) for scale in (0.0, 1.0))
    assert uneven["mtp"] > even["mtp"] + 1e-4
    for part in STEP_PARTS:
        if part != "mtp":
            assert uneven[part] == pytest.approx(even[part], rel=1e-9, abs=1e-12), part


@pytest.mark.parametrize(
    "apart",
    [
        {"micro_batches": 2},
        {"dp": 32, "expert_dies": 32, "ep": 32, "domains": 2, "micro_batches": 2},
    ],
    ids=["streams", "split"],
)
def test_an_uneven_mtp_layer_costs_no_less_where_others_hide_experts(apart) -> None:
    """It has nothing to hide behind; the others stay as they are."""
    layout = replace(LAYOUT, **apart)
    even, uneven = (
        step_pricer(DEEPSEEK_R1, HARDWARE, layout, "flowserve", loads_of(scale)).price(BATCH)
        for scale in (0.0, 1.0)
    )
    longer_s = uneven.base_s - even.base_s
    assert 1e-5 < longer_s < 0.05 * even.base_s


@pytest.mark.parametrize("expert_s", [0.3, 0.5, 0.9, 4.0])
def test_layers_of_another_kind_at_the_end_of_two_streams(expert_s: float) -> None:
    """Closed form against the recurrence: no further apart than one stage of each kind."""
    layers, mtp, micro = 30, 2, 2
    stages = np.full((micro, layers), 0.5)
    stages[:, -mtp:] = expert_s
    exact = StreamTimes.of(np.full((micro, layers), 0.7), stages).total_s
    found = alike_s(0.7, 0.5, micro_batches=micro, layers=layers)
    found = found + mtp * np.diff(period_s(0.7, [0.5, expert_s], micro_batches=micro))
    assert abs(float(found[0]) - float(exact)) <= max(0.7, expert_s)


@pytest.mark.parametrize("experts_s", [0.05, 0.12, 0.9])
@pytest.mark.parametrize("layers", [2, 12, 61])
def test_layers_of_another_kind_at_the_end_of_a_split_step(experts_s: float, layers: int) -> None:
    def stages(experts: object, count: int) -> SplitStages:
        return SplitStages(
            attention_s=0.7,
            sending_s=0.05,
            a2e_s=0.12,
            experts_s=experts,
            e2a_s=0.19,
            num_domains=3,
            micro_batches=2,
            num_layers=count,
        )

    by_layer = np.full((3, 2, layers + 2), 0.12)
    by_layer[..., -2:] = experts_s
    whole = split_times(stages(by_layer, layers + 2)).domain_s
    found = alike_domain_s(stages(0.12, layers), stages(experts_s, 2))
    assert found == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("balanced", [True, False])
def test_a_balancer_places_the_experts_of_mtp_layers_or_leaves_them(balanced: bool) -> None:
    settings = (
        *SMALL,
        *FEW_LAYERS,
        "policies.experts.redundant_slots=32",
        f"deployment.decode.mtp.balanced={str(balanced).lower()}",
    )
    experiment = load_experiment("xdeepserve-colocated-288", settings)
    (timeline,) = expert_timelines(experiment, streams(experiment.seed)).values()
    assert timeline is not None
    placed = timeline.loads.placement.experts
    is_left = (placed == timeline.start.experts).all(axis=1)
    assert is_left.tolist() == [False, False, False, not balanced]


@pytest.mark.slow
def test_a_run_with_placements_that_change_leaves_mtp_layers_alone() -> None:
    settings = (
        *SMALL,
        *FEW_LAYERS,
        "workload.num_requests=128",
        "workload.output_tokens.value=200",
        "expert_routing={kind: correlated, log_scale: 0.8, drift_s: 0.2, epoch_s: 0.1}",
        "policies.experts={use: eplb, redundant_slots: 32, every_s: 0.1}",
    )
    rows = run(load_experiment("xdeepserve-colocated-288", settings)).records.experts
    assert rows is not None
    starts = np.unique(rows.start_s)
    assert len(starts) > 1
    first, *later = ([rows.expert[(rows.layer == 6) & (rows.start_s == at)]] for at in starts)
    assert all(np.array_equal(first[0], each[0]) for each in later)


def test_recorded_loads_may_lack_mtp_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    loads = rng.integers(1, 100, (4, 256))
    times = {}
    for name, rows in (("own", loads[:3]), ("all", loads), ("one", loads[:2])):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(rows.tolist()))
        routing = f"expert_routing={{kind: replay, path: {path}}}"
        settings = (*SMALL, *FEW_LAYERS, routing)
        if name == "one":
            with pytest.raises(ConfigError, match=r"has shape \[1, 2, 256\]"):
                run(load_experiment("xdeepserve-colocated-288", settings))
        else:
            records = run(load_experiment("xdeepserve-colocated-288", settings)).records
            times[name] = records.steps.end_s[-1]
    assert times["own"] != times["all"]
