"""Experts cut over neighbouring dies: fewer places of experts than dies (MoE tensor parallel)."""

from typing import Any

import numpy as np
import pytest
from expert_cases import FEW_LAYERS, SMALL

from simpod.config import load_experiment
from simpod.cost import Batch, step_pricer
from simpod.cost.pricer import meetings_of
from simpod.cost.stragglers import counts_of, group_sizes
from simpod.records.columns import STEP_PARTS
from simpod.run import run
from simpod.run.experts import expert_timeline
from simpod.workload import streams

EXPERIMENT = "xdeepserve-colocated-288"
CUT = (*SMALL, *FEW_LAYERS, "deployment.decode.ep=16", "deployment.decode.mtp.layers=0")
"""32 dies, two of them for each sixteenth of the experts."""
WAIT, EXPERTS = STEP_PARTS.index("combine_wait"), STEP_PARTS.index("experts")


def priced(*changes: str) -> tuple[np.ndarray, Any]:
    """Parts of a step of 60 sequences on each of 32 dies, and what its dies bring to it."""
    experiment = load_experiment(EXPERIMENT, (*CUT, *changes))
    (spec,) = experiment.pools
    timeline = expert_timeline(experiment, spec, streams(0))
    loads = timeline.loads if timeline else None
    hardware = experiment.hardware[spec.name]
    pricer = step_pricer(experiment.model, hardware, spec.layout, experiment.semantics, loads)
    few = np.full(32, 60)
    batch = Batch.of(few, 2000 * few)
    return pricer.price(batch).parts(), meetings_of(pricer, batch)


def test_uneven_experts_cost_and_balancing_pays_where_each_is_cut() -> None:
    even, _ = priced("expert_routing={kind: balanced, step_log_scale: 0}")
    zipf = "expert_routing={kind: zipf, exponent: 1}"
    left, meetings = priced(zipf, "policies.experts={use: none, redundant_slots: 16}")
    spread, _ = priced(zipf, "policies.experts={use: eplb, redundant_slots: 16}")
    assert even[EXPERTS] < spread[EXPERTS] + spread[WAIT]
    assert even[WAIT] < spread[WAIT] < 0.5 * left[WAIT]
    experts_s = meetings.dies.experts_s
    assert experts_s.shape == (3, 32)
    assert (experts_s[:, ::2] == experts_s[:, 1::2]).all()  # of one place
    assert len(np.unique(experts_s[0, ::2])) > 8


def test_each_die_reads_its_slice_of_an_expert_from_its_like() -> None:
    """Half of an expert crosses the fabric to each of the two dies that share it."""
    eplb = "policies.experts={use: eplb, redundant_slots: 16, every_s: 0.3, staging_slots: 8}"
    drift = "expert_routing={kind: correlated, log_scale: 0.8, drift_s: 0.5, epoch_s: 0.2}"
    short = (
        "workload.num_requests=32",
        "workload.output_tokens.value=70",
        "model.num_moe_layers=1",
    )
    experiment = load_experiment(EXPERIMENT, (*CUT, *short, drift, eplb))
    rows = run(experiment).records.transfers
    half = 7168 * 2048 * 3 / 2  # INT8
    assert len(rows.kind) > 0
    assert (rows.size_bytes % half == 0).all()
    assert (rows.source_die % 2 == rows.destination_die % 2).all()
    is_first = rows.destination_die % 2 == 0
    assert rows.size_bytes[is_first].sum() == rows.size_bytes[~is_first].sum()
    assert experiment.memory["decode"].staging_bytes == 8 * half


def test_places_of_experts_on_nodes() -> None:
    """Two dies are a place, 16 a node: eight places are a node's."""
    experiment = load_experiment(EXPERIMENT, (*CUT, "expert_routing=zipf"))
    timeline = expert_timeline(experiment, experiment.pools[0], streams(0))
    assert timeline is not None
    assert timeline.start.slots.node_of_die.tolist() == [0] * 8 + [1] * 8


@pytest.mark.parametrize(("places", "ranks"), [(4, 8), (16, 32), (8, 8), (32, 8)])
def test_every_rank_varies_once_however_many_share_a_place(places: int, ranks: int) -> None:
    sizes = group_sizes(places, ranks)
    assert len(sizes) == len(counts_of(places))
    assert sizes.sum() == pytest.approx(ranks)
