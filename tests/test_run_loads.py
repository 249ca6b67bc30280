"""Loads of experts and use of links in the result: nothing is lost, and balancing shows."""

import numpy as np
import pytest
from engine_cases import assert_same
from report_cases import APART, DRIFT, apart, uneven

from simpod.config import load_experiment
from simpod.report.loads import each_load, expert_loads, imbalance_of, link_use
from simpod.report.sources import result_of
from simpod.run import run

TOP_K = 8
FIRST_SPARSE = 3


def tokens_of_steps(steps) -> float:
    return float((steps["decode_seqs"] * steps["num_steps"] + steps["prefill_tokens"]).sum())


@pytest.mark.parametrize(("changes", "layers"), [((), 61), (DRIFT, 6)], ids=["steady", "drift"])
def test_every_token_reaches_top_k_slots_in_every_layer(changes, layers) -> None:
    result = result_of(uneven(*changes))
    rows, tokens = result.experts, tokens_of_steps(result.steps)
    routed, shared = rows[rows["slot"] >= 0], rows[rows["slot"] < 0]
    assert sorted(rows["layer"].unique()) == list(range(FIRST_SPARSE, layers))
    for column in ("tokens", "tokens_before"):
        by_layer = routed.groupby("layer")[column].sum()
        np.testing.assert_allclose(by_layer, TOP_K * tokens, rtol=1e-9)
        np.testing.assert_allclose(shared.groupby("layer")[column].sum(), tokens, rtol=1e-9)


def test_a_slot_has_its_share_of_its_expert() -> None:
    """Copies of an expert get alike; experts get the same before and after."""
    rows = result_of(uneven()).experts
    layer = rows[(rows["layer"] == 10) & (rows["slot"] >= 0)]
    spread = layer.groupby("expert")["tokens"].agg(["min", "max", "sum"])
    np.testing.assert_allclose(spread["min"], spread["max"])
    before = layer.groupby("expert_before")["tokens_before"].sum()
    np.testing.assert_allclose(spread["sum"], before)
    assert len(spread) == 256
    assert layer.groupby("die").size().sum() == 256 + 60


def test_balancing_flattens_the_dies() -> None:
    ((pool, loads),) = expert_loads(result_of(uneven())).items()
    assert pool == "decode"
    before, after = loads.values()
    assert before.shape == after.shape == (58, 32)
    assert 1.0 < imbalance_of(after) < 0.7 * imbalance_of(before)
    assert list(each_load(result_of(uneven()), "expert")) == ["all slots"]
    plain = result_of(uneven("policies.experts.use=none"))
    assert list(each_load(plain)) == ["not balanced"]


def test_placements_follow_one_another_without_a_gap() -> None:
    result = result_of(uneven(*DRIFT))
    spans = result.experts[["start_s", "end_s"]].drop_duplicates().to_numpy()
    assert len(spans) > 1
    assert spans[0, 0] == 0.0
    assert spans[-1, 1] == pytest.approx(result.summary["simulated_s"])
    np.testing.assert_array_equal(spans[1:, 0], spans[:-1, 1])


SHARED = "fabric.exchanges=shared"


def carried_by(result, kind: str) -> float:
    rows = result.links
    carried = rows["bytes_per_s"] * (rows["time_s"] - rows["start_s"])
    return float(carried[rows["link"].astype(str).str.startswith(kind)].sum())


def exchanged_by(steps) -> float:
    """Dispatch and combine of 8 copies, 30 of 32 of them beyond the NPU, in 58 layers; a decode
    step has a draft beside each token and an MTP layer, prefill ranks of 4 dies all-reduce."""
    token = TOP_K * (7680 + 2 * 7168) * 30 / 32
    in_decode = steps["pool"] == "decode"
    decoded = float((steps["decode_seqs"] * steps["num_steps"])[in_decode].sum())
    prompts = float(steps["prefill_tokens"].sum())
    reduced = 4 * 2 * 7168 * (2 * 3 + 58) * 1.5 / 2
    return 2 * decoded * 59 * token + prompts * (58 * token + reduced)


def test_links_carry_what_was_sent_with_and_without_samples(tmp_path) -> None:
    path = tmp_path / "apart.yaml"
    path.write_text(APART)

    def result(*changes: str):
        return result_of(run(load_experiment(str(path), changes)))

    whole, parts = result(SHARED), result(SHARED, "engine.link_samples_s=0.5")
    sent = float(whole.transfers["size_bytes"].sum())
    alone, unmet = result(SHARED, "kv_transfer.plane=scale_out"), result_of(apart())
    for kind in ("up", "down"):
        both = carried_by(whole, f"scale_up/{kind}/")
        assert both == pytest.approx(sent + exchanged_by(whole.steps), rel=1e-9)
        assert carried_by(parts, f"scale_up/{kind}/") == pytest.approx(both, rel=1e-9)
        assert carried_by(alone, f"scale_out/{kind}/") == pytest.approx(sent, rel=1e-9)
        assert carried_by(alone, f"scale_up/{kind}/") == 0.0  # nothing else is there to meet
        assert carried_by(unmet, f"scale_up/{kind}/") == pytest.approx(sent, rel=1e-9)
    for each in (whole, parts, alone, unmet):
        assert each.links["used_frac"].between(0, 1 + 1e-9).all()
    assert whole.planes is None
    assert len(parts.links) > len(whole.links) == whole.links["link"].nunique()
    mean, same = (link_use(each).set_index("link")["used_frac"] for each in (whole, parts))
    np.testing.assert_allclose(same[mean.index], mean, atol=1e-12)
    assert (link_use(parts, peak=True).set_index("link")["used_frac"] >= same - 1e-12).all()


SCALED = (
    SHARED,
    "workload.arrivals.rate_per_s=60",
    "workload.num_requests=900",
    "policies.scaling={use: kubernetes_hpa, target: 0.3, metric: waiting_seqs, pool: prefill,"
    " average_s: 2, stabilization_s: 3, every_s: 2, sample_s: 1, window_s: 4, spare_dies: 128}",
)


def test_exchanges_move_with_the_dies_of_an_instance(tmp_path) -> None:
    """Dies, up to endpoint 767, send KV and exchanges; weights come from CPUs."""
    path = tmp_path / "apart.yaml"
    path.write_text(APART)
    ran = run(load_experiment(str(path), SCALED))
    scaling, result = ran.records.scaling, result_of(ran)
    assert scaling is not None
    assert min(scaling.num_added, scaling.num_removed) > 0
    names = [f"scale_up/up/{die}" for die in range(768)]
    rows = result.links[result.links["link"].astype(str).isin(names)]
    carried = float((rows["bytes_per_s"] * (rows["time_s"] - rows["start_s"])).sum())
    sent = float(result.transfers["size_bytes"].sum())
    assert carried == pytest.approx(sent + exchanged_by(result.steps), rel=1e-9)
    walked = run(load_experiment(str(path), (*SCALED, "engine.skip_ahead=false")))
    assert_same(ran.records, walked.records)


def test_a_policy_that_keeps_all_changes_nothing(tmp_path) -> None:
    path = tmp_path / "apart.yaml"
    path.write_text(APART)
    kept = run(load_experiment(str(path), ["policies.scaling.use=keep"]))
    plain = run(load_experiment(str(path)))
    mine, other = kept.records.requests, plain.records.requests
    np.testing.assert_allclose(mine.first_token_s, other.first_token_s, rtol=1e-12)
    np.testing.assert_allclose(mine.finish_s, other.finish_s, rtol=1e-12)


def test_without_uneven_experts_there_is_no_table() -> None:
    assert result_of(apart()).experts is None
