"""Experts of a pool over time: decisions on stale loads, weights that take time, prices renewed."""

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from expert_cases import FEW_LAYERS, SMALL

from simpod.cli.render import notes
from simpod.cluster.experts.loads import MomentSampler
from simpod.cluster.experts.placement import ExpertPlacement, expert_slots, in_order
from simpod.cluster.experts.routing import FixedPopularity, ReplayedPopularity, inclusion
from simpod.config import load_experiment
from simpod.errors import ConfigError, PolicyError
from simpod.policies.experts.deepseek_eplb import DeepSeekEplb
from simpod.policies.experts.keep import keep
from simpod.records.columns import TRANSFER_KINDS
from simpod.run import run
from simpod.run.experts import Balancing, ExpertTimeline

EXPERIMENT = "xdeepserve-colocated-288"

MORE = (*SMALL, "workload.num_requests=1024", "workload.arrivals.concurrency=1024")


def timeline(balancer: Any, redundant: int = 1, staging_bytes: float = inf) -> ExpertTimeline:
    """One layer, two experts, a die each and one for a redundant slot.

    Expert 0 is hot for 15 s, then expert 1, and so on.
    """
    slots = expert_slots(num_dies=2 + redundant, num_experts=2, redundant_slots=redundant)
    hot = np.array([[[2.0, 1.0]], [[1.0, 2.0]]])
    return ExpertTimeline(
        ReplayedPopularity(inclusion(hot, 1), 15.0),
        ExpertPlacement(slots=slots, experts=in_order(slots, 1)),
        Balancing(
            balancer=balancer,
            name="mine",
            every_s=10.0,
            expert_bytes=20.0,
            hbm_bytes_per_s=80.0,
            staging_bytes=staging_bytes,
        ),
        MomentSampler(seed=1),
    )


def copies(experts: ExpertTimeline) -> list[int]:
    placed = experts.loads.placement.experts[0]
    return np.bincount(placed[placed >= 0], minlength=2).tolist()


def test_a_placement_serves_once_decided_and_there() -> None:
    """Decided at 10 (nothing new), 20 (a tie), 30 (expert 1); weights come at 32.

    Then a slot leaves the map for the 0.5 s in which 20 bytes are read and written at 80 bytes/s.
    """
    experts = timeline(DeepSeekEplb())
    assert copies(experts) == [2, 1]
    assert experts.next_decision_s == 10.0
    assert experts.until_s(0.0) == 15.0
    assert not experts.advance(9.0)
    assert experts.decide(10.0) == []
    assert experts.advance(16.0)  # popularity
    assert experts.decide(20.0) == []
    ((source, destination, size_bytes),) = experts.decide(30.0)
    assert size_bytes == 20.0
    assert source != destination
    assert experts.next_decision_s == 40.0
    experts.advance(31.0)
    assert copies(experts) == [2, 1]  # its weights are on the way
    experts.arrived(32.0)
    assert experts.until_s(32.0) == 32.0
    assert experts.advance(32.1)
    assert copies(experts) == [1, 1]
    assert experts.until_s(32.1) == pytest.approx(32.6)
    assert not experts.advance(32.5)
    assert experts.advance(32.7)
    assert copies(experts) == [1, 2]
    assert experts.until_s(32.7) == 45.0


def test_nothing_is_decided_while_weights_are_under_way() -> None:
    experts = timeline(DeepSeekEplb())
    experts.decide(20.0)
    assert experts.decide(30.0) != []
    assert experts.decide(50.0) == []
    experts.arrived(51.0)
    for now_s in (51.0, 52.0):
        experts.advance(now_s)
    assert copies(experts) == [1, 2]
    assert experts.decide(60.0) == []  # expert 1 was hot since 45
    assert experts.decide(70.0) != []  # expert 0 since 60: back to where it was


def test_without_spare_memory_a_slot_is_out_of_service_until_its_weights_are_there() -> None:
    experts = timeline(DeepSeekEplb(), staging_bytes=19.0)
    experts.decide(20.0)
    assert len(experts.decide(30.0)) == 1
    assert experts.is_in_place
    assert not experts.holds_steps
    assert experts.advance(30.5)  # a step begins, and the fetch
    assert copies(experts) == [1, 1]
    assert experts.arrived(33.0) == []
    assert not experts.is_in_place
    assert experts.advance(33.1)
    assert copies(experts) == [1, 2]


def swapped(load: np.ndarray, slots: Any) -> np.ndarray:
    return slots.experts[:, ::-1]


def test_a_ring_of_single_copies_holds_steps_where_it_can_not_wait_in_memory() -> None:
    ring = timeline(swapped, redundant=0, staging_bytes=19.0)
    assert ring.decide(10.0) == [(0, 1, 20.0), (1, 0, 20.0)]
    assert ring.holds_steps
    assert ring.loads.placement.experts.tolist() == [[1, 0]]
    assert ring.arrived(12.0) == []
    assert not ring.holds_steps
    assert ring.advance(12.0)
    assert ring.loads.placement.experts.tolist() == [[0, 1]]
    staged = timeline(swapped, redundant=0, staging_bytes=20.0)
    assert len(staged.decide(10.0)) == 2
    assert not staged.holds_steps
    assert staged.arrived(12.0) == []
    assert staged.advance(12.0)  # no step in between: what was fetched takes the place
    assert staged.loads.placement.experts.tolist() == [[0, 1]]


def test_what_was_popular_is_counted_however_seldom_one_looks() -> None:
    """Expert 0 from 0 to 15 s and from 30 s: it is hotter by 35 s, though nobody looked."""
    seen: list[np.ndarray] = []

    def note(load: np.ndarray, slots: Any) -> np.ndarray:
        seen.append(load)
        return slots.experts

    timeline(note).decide(35.0)
    hot, cold = (20.0 * 2 / 3 + 15.0 / 3) / 35.0, (20.0 / 3 + 15.0 * 2 / 3) / 35.0
    np.testing.assert_allclose(seen[1], 1e6 * np.array([[hot, cold]]))


def test_fixed_popularity_never_changes() -> None:
    assert not timeline(keep).is_fixed
    small = load_experiment(EXPERIMENT, SMALL)
    from simpod.run.experts import expert_timeline
    from simpod.workload import streams

    fixed = expert_timeline(small, small.pools[0], streams(0))
    assert fixed is not None
    assert fixed.is_fixed
    assert fixed.next_decision_s == float("inf")


def test_who_starts_in_order_acts_on_what_it_has_seen() -> None:
    """Nothing is known at first; one decision at 10 s, and a popularity that stays is no news."""
    slots = expert_slots(num_dies=3, num_experts=2, redundant_slots=1)
    start = ExpertPlacement(slots=slots, experts=in_order(slots, 1))
    balancing = Balancing(
        balancer=DeepSeekEplb(),
        name="mine",
        every_s=10.0,
        expert_bytes=20.0,
        hbm_bytes_per_s=80.0,
        starts_in_order=True,
    )
    hot = FixedPopularity(np.array([[1.0, 2.0]]) / 3.0)
    experts = ExpertTimeline(hot, start, balancing, MomentSampler(seed=1))
    assert not experts.is_fixed
    assert copies(experts) == [2, 1]
    assert experts.next_decision_s == 10.0
    assert len(experts.decide(10.0)) == 1
    assert experts.next_decision_s == inf
    experts.arrived(11.0)
    for now_s in (11.0, 12.0):
        experts.advance(now_s)
    assert copies(experts) == [1, 2]


def test_a_pool_that_starts_in_order_moves_experts_though_popularity_stays() -> None:
    order = "policies.experts={use: eplb, redundant_slots: 32, every_s: 0.1, initial_placement: %s}"
    short = (
        "workload.output_tokens.value=40",
        "model.num_moe_layers=1",
    )
    fast, slow = (
        run(load_experiment(EXPERIMENT, (*MORE, *FEW_LAYERS, *short, "expert_routing=zipf", o)))
        for o in (order % "balanced", order % "in_order")
    )
    assert len(fast.records.transfers.kind) == 0
    assert slow.records.transfers.start_s.min() == pytest.approx(0.1, abs=0.01)
    assert fast.records.end_s < slow.records.end_s


def test_a_balancer_that_breaks_its_contract_is_blamed() -> None:
    with pytest.raises(PolicyError, match="no slot for expert"):
        timeline(lambda load, slots: slots.experts * 0)
    with pytest.raises(PolicyError, match="raised"):
        timeline(lambda load, slots: 1 / 0)


DRIFT = "expert_routing={kind: correlated, log_scale: 0.8, drift_s: 0.5, epoch_s: 0.2}"


def test_drift_shows_in_the_steps_and_skipping_ahead_does_not_matter() -> None:
    every, short = "policies.experts.every_s=0.3", "workload.output_tokens.value=120"
    moving = load_experiment(EXPERIMENT, (*SMALL, *FEW_LAYERS, short, DRIFT, every))
    first, again = run(moving), run(replace(moving, skip_ahead=False))
    assert first.summary["mean_tpot_ms"] == pytest.approx(again.summary["mean_tpot_ms"], rel=1e-9)
    still = run(load_experiment(EXPERIMENT, (*SMALL, *FEW_LAYERS, short)))
    assert first.summary["mean_tpot_ms"] != still.summary["mean_tpot_ms"]


def test_weights_cross_the_fabric_while_serving_goes_on() -> None:
    """What the balancer moves is in the rows of transfers, between dies of the pool."""
    eplb = "policies.experts={use: eplb, redundant_slots: 32, every_s: 0.2, staging_slots: 0}"
    short = ("workload.num_requests=128", "workload.output_tokens.value=160")
    result = run(load_experiment(EXPERIMENT, (*SMALL, *FEW_LAYERS, *short, DRIFT, eplb)))
    rows = result.records.transfers
    assert set(rows.kind) == {TRANSFER_KINDS.index("expert_weights")}
    assert (rows.request_id == -1).all()
    assert rows.source_die.max() < 32
    assert rows.destination_die.max() < 32
    expert = 7168 * 2048 * 3  # INT8
    assert (rows.size_bytes % expert == 0).all()
    first_s = rows.start_s.min()
    assert first_s in result.records.steps.end_s  # slots have just left the map
    assert 0.4 < first_s < 0.42  # at 0.2 s the load was still that of the start
    ported = (rows.start_s == first_s) & (rows.plane == rows.plane_names.index("scale_up"))
    ends = (rows.source_die[ported], rows.destination_die[ported])
    busiest_bytes = max(np.bincount(die, rows.size_bytes[ported]).max() for die in ends)
    took_s = rows.end_s[ported].max() - first_s
    assert busiest_bytes / 196e9 < took_s < 2 * busiest_bytes / 164e9


RING = (
    *SMALL,
    *FEW_LAYERS,
    "workload.output_tokens.value=100",
    "workload.num_requests=128",
    "deployment.decode.dies=64",
    "deployment.decode.dp=64",
    "deployment.decode.ep=64",
    "expert_routing={kind: correlated, log_scale: 0.8, drift_s: 0.2, epoch_s: 0.1}",
)


def test_a_pool_stops_as_long_as_the_fabric_takes_for_a_ring() -> None:
    """All single copies of 64 dies change places; with room for all of a die none waits.

    That room is not there for KV.
    """
    words = "policies.experts={use: eplb, redundant_slots: 0, every_s: 0.1, staging_slots: %s}"
    stopping, flowing = (load_experiment(EXPERIMENT, (*RING, words % n)) for n in (0, 12))
    first, again = run(stopping).records, run(replace(stopping, skip_ahead=False)).records
    np.testing.assert_allclose(first.steps.end_s, again.steps.end_s, rtol=1e-9)
    gaps_s = first.steps.start_s[1:] - first.steps.end_s[:-1]
    rows = first.transfers
    starts, which = np.unique(rows.start_s, return_inverse=True)
    took_s = np.array([(rows.end_s - rows.start_s)[which == n].max() for n in range(len(starts))])
    assert len(starts) > 0
    assert np.sort(gaps_s)[-len(starts) :] == pytest.approx(np.sort(took_s), rel=0.02)
    assert np.isin(starts, first.steps.end_s).all()  # after the step that was under way
    freely = run(flowing).records.steps
    assert (freely.start_s[1:] - freely.end_s[:-1]).max() == pytest.approx(0.0, abs=1e-9)
    plans = [experiment.memory["decode"] for experiment in (stopping, flowing)]
    assert plans[1].staging_bytes == 12 * 7168 * 2048 * 3
    assert plans[0].kv_bytes - plans[1].kv_bytes == pytest.approx(plans[1].staging_bytes)


def test_balancing_pays() -> None:
    tpot_ms = [
        run(load_experiment(EXPERIMENT, (*MORE, f"policies.experts={policy}", routing))).summary[
            "mean_tpot_ms"
        ]
        for policy in ("{use: none, redundant_slots: 32}", "{use: eplb, redundant_slots: 32}")
        for routing in ("expert_routing=power_law_1.2",)
    ]
    assert tpot_ms[1] < 0.97 * tpot_ms[0]


def test_a_run_says_where_the_optimum_is_not_known() -> None:
    """16 redundant slots of 32 dies: half of these have one slot more than the others."""
    optimum = "policies.experts={use: optimum, redundant_slots: 16, max_variables: 1, gap_frac: 0}"
    short = ("workload.num_requests=32", "workload.output_tokens.value=2")
    summary = run(
        load_experiment(EXPERIMENT, (*SMALL, *FEW_LAYERS, *short, "expert_routing=zipf", optimum))
    ).summary
    (note,) = summary["policy_notes"]
    assert note.startswith("decode: optimum (policies.experts): ")
    assert "of 3 layers may have a better placement" in note
    assert any("may have a better placement" in line for line in notes(summary))


def test_disaggregated_pool_runs_whole() -> None:
    summary = run(
        load_experiment(
            "xdeepserve-disaggregated-768",
            (
                "workload.num_requests=96",
                "workload.arrivals.concurrency=48",
                "workload.output_tokens.value=50",
                "deployment.decode.dies=12",
                "deployment.decode.dp=12",
                "deployment.decode.expert_dies=32",
                "deployment.decode.shared_expert_dies=4",
                "policies.experts.redundant_slots=28",
            ),
        )
    ).summary
    assert summary["completed"] > 0
    assert summary["num_npus"] == 22
    parts = summary["step_breakdown"]["decode"]["mean_s"]
    assert parts["a2e"] > 0.0
    assert sum(parts.values()) == pytest.approx(summary["step_breakdown"]["decode"]["mean_step_s"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("deployment.decode.domains=3", "domains are of attention dies"),
        ("deployment.decode.shared_expert_dies=33", "33 copies on 32 dies"),
        ("expert_routing=pareto", "unknown routing"),
        ("policies.experts.num_slice=3", 'no parameter "num_slice"'),
        ("policies.experts.every_s=0", "every_s"),
    ],
)
def test_mistakes_are_told_at_their_key(change: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_experiment(EXPERIMENT, (*SMALL, change))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("deployment.decode.domains=7", "do not divide"),
        ("deployment.decode.ep=32", "is not expert_dies"),
        ("model=llama-3.1-70b", "no"),
    ],
)
def test_mistakes_of_disaggregation(change: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_experiment("xdeepserve-disaggregated-768", (change,))
