"""A step taken apart from a result is the step that was run."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cli_runs import call
from expert_cases import FEW_LAYERS
from report_cases import DRIFT, apart, crowded, uneven

from simpod.config import load_experiment
from simpod.errors import ConfigError
from simpod.records.columns import STEP_PARTS
from simpod.report.sources import result_of
from simpod.run import run
from simpod.run.one_step import one_step

SPLIT = (
    "deployment.decode={role: decode, dies: 24, dp: 24, expert_dies: 32, shared_expert_dies: 4,"
    " domains: 3, micro_batches: 2}"
)
STREAMS = ("deployment.decode.micro_batches=2", "deployment.decode.micro_batch_tokens=0")
LAYER_PARTS = ("attention", "projections", "ffn", "experts", "elementwise", "dispatch", "combine")


def runs_of(result, most_steps=4):
    """First decode step, and row, of runs of few steps of the last pool's first instance."""
    pool = result.steps["pool"].iloc[-1]
    rows = result.steps[(result.steps["pool"] == pool) & (result.steps["instance"] == 0)]
    rows = rows[rows["decode_seqs"] > 0]
    first = rows["num_steps"].cumsum() - rows["num_steps"] + 1
    chosen = rows["num_steps"] <= most_steps
    return list(zip(first[chosen], rows[chosen].to_dict("records"), strict=True))


def check_parts(result, runs) -> None:
    for first, row in runs:
        steps = [one_step(result, first + i) for i in range(row["num_steps"])]
        recorded = [row[f"{part}_s"] for part in STEP_PARTS]
        total_s = sum(step.parts_s for step in steps)
        np.testing.assert_allclose(total_s, recorded, rtol=1e-9, atol=1e-12)
        assert total_s.sum() == pytest.approx(row["end_s"] - row["start_s"])
        assert steps[0].rank_seqs.sum() == row["decode_seqs"]
        assert steps[0].rank_context_tokens.sum() == row["context_tokens"]
        assert steps[0].rank_prompt_tokens.sum() == row["prefill_tokens"]


JITTER = "deployment.decode.launch_jitter={}"
SHORT = (*FEW_LAYERS, "workload.output_tokens.value=4")


@pytest.mark.parametrize(
    "folder",
    [
        apart,
        lambda: uneven(*SHORT),
        lambda: uneven(*SHORT, JITTER, "engine.step_gap_s=5e-3"),
        lambda: uneven(*SHORT, "expert_routing.sampling=exact"),
        pytest.param(lambda: uneven(*DRIFT, "expert_routing.epoch_s=0.1"), marks=pytest.mark.slow),
    ],
    ids=["mtp", "uneven", "jitter", "exact", "drift"],
)
def test_parts_are_those_that_were_recorded(folder) -> None:
    result = result_of(folder())
    runs = runs_of(result)
    assert runs
    check_parts(result, runs[:: max(1, len(runs) // 3)])


def test_steps_that_transfers_hold_up_of_a_model_without_dense_layers() -> None:
    """Exchanges and KV share the adapters: what a step was held up is not in its price."""
    few = ("workload.num_requests=40", "workload.output_tokens={distribution: constant, value: 6}")
    result = result_of(run(load_experiment("qwen3-235b-h200-disaggregated", few)))
    first, row = runs_of(result)[0]
    found = one_step(result, first)
    assert {kind: many for kind, (many, _) in found.layers_s.items()} == {"sparse": 94}
    assert found.rank_seqs.sum() == row["decode_seqs"]


def test_prompts_beside_decodes_and_preempted_sequences() -> None:
    result = result_of(crowded())
    assert result.requests["num_preemptions"].sum() > 0
    runs = runs_of(result)
    mixed = [run for run in runs if run[1]["prefill_tokens"] > 0]
    after = result.requests.loc[result.requests["num_preemptions"] > 0, "scheduled_s"].min()
    late = [run for run in runs if run[1]["start_s"] > after and run[1]["prefill_tokens"] == 0]
    assert mixed
    assert late
    check_parts(result, [*mixed[:2], *mixed[-1:], *late[-2:]])


def test_steps_of_a_prefill_pool() -> None:
    result = result_of(apart())
    rows = result.steps[(result.steps["pool"] == "prefill") & (result.steps["instance"] == 1)]
    found = one_step(result, 3, "prefill", 1)
    assert found.rank_prompt_tokens.sum() == rows["prefill_tokens"].iloc[2]
    assert found.rank_seqs.sum() == 0
    recorded = [rows[f"{part}_s"].iloc[2] for part in STEP_PARTS]
    np.testing.assert_allclose(found.parts_s, recorded)


def test_drawn_loads_are_those_of_the_step() -> None:
    result = result_of(uneven(*SHORT, "expert_routing.sampling=exact"))
    found = [one_step(result, step).layer_imbalance for step in (2, 3)]
    assert found[0].shape == (3,)
    assert not np.array_equal(found[0], found[1])


def test_layers_add_up_to_the_step() -> None:
    result = result_of(apart())
    number = runs_of(result)[0][0]
    found = one_step(result, number)
    assert {kind: count for kind, (count, _) in found.layers_s.items()} == {
        "dense": 3,
        "sparse": 58,
    }
    total_s = sum(count * parts_s for count, parts_s in found.layers_s.values())
    for part in LAYER_PARTS:
        at = STEP_PARTS.index(part)
        whole_s = found.parts_s[at]
        assert total_s[at] == pytest.approx(whole_s, rel=1e-2), part  # embedding: elementwise
    assert found.layers_s["dense"][1][STEP_PARTS.index("experts")] == 0.0


def test_the_slowest_rank_waits_for_nobody() -> None:
    result = result_of(apart())
    found = one_step(result, runs_of(result)[1][0])
    np.testing.assert_allclose(
        found.rank_busy_s + found.rank_wait_s, found.rank_busy_s.max(), rtol=1e-12
    )
    assert found.rank_wait_s.min() == 0.0
    assert found.layer_imbalance is None
    assert found.expected is None


def test_how_even_experts_are_and_could_be() -> None:
    """Fullest die over mean: bound, then what the popularity gives, then what was drawn."""
    result = uneven()
    found = one_step(result_of(result), 2)
    assert found.layer_imbalance.shape == (58,)
    assert found.expected.bound == pytest.approx(1.0)  # no expert is as hot as a whole die
    assert (found.expected.placed > 1.1).all()  # in order: nobody balances
    assert found.layer_imbalance.mean() > found.expected.placed.mean()
    printed = call("explain", result, "--step", 2).output
    assert "Fullest die over mean" in printed
    assert "1.00 or more wherever copies lie" in printed


def test_the_command_prints_it() -> None:
    number = runs_of(result_of(apart()))[0][0]
    done = call("explain", apart(), "--step", number)
    assert done.exit_code == 0, done.output
    for text in ("dispatch wait", "sparse layer (us), 58 of them", "The slowest of 32 ranks"):
        assert text in done.output
    found = json.loads(call("explain", apart(), "--step", number, "--json").output)
    assert sum(found["parts_s"].values()) == pytest.approx(found["step_s"])
    assert len(found["ranks"]["busy_s"]) == 32


def test_what_can_not_be_taken_apart() -> None:
    result = result_of(apart())
    for arguments, message in (
        ((0,), "has decode steps 1 to"),
        ((10**9,), "has decode steps 1 to"),
        ((1, "server"), "pool server: unknown; allowed: prefill, decode"),
        ((1, "decode", 7), "decode 7 has decode steps 1 to 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            one_step(result, *arguments)
    assert call("explain", "--step", 1).exit_code == 2


def test_a_run_that_does_not_come_again() -> None:
    """A recorded step that is shorter than the same step now, and one that begins at no plan."""
    result = result_of(crowded())
    number, _ = runs_of(result, 1)[0]
    steps = result.steps.copy()
    steps["attention_s"] /= 2.0
    with pytest.raises(ConfigError, match="s now: simpod, a trace or a policy"):
        one_step(replace(result, steps=steps), number)
    steps = result.steps.copy()
    steps["first_step"] += 10**6
    with pytest.raises(ConfigError, match="does not come again"):
        one_step(replace(result, steps=steps), number)


def test_stages_of_attention_are_shown() -> None:
    """Latents are gathered, heads exchanged, and nothing is all-reduced."""
    split = ("dp=8", "tp=4", "attention_parallelism=sp_tp_sp")
    changes = [f"deployment.decode.{each}" for each in split]
    shown = call("explain", uneven(*SHORT, *changes), "--step", 2).output
    assert "latent gather" in shown
    assert "head exchange" in shown
    assert "all reduce" not in shown


def test_what_one_die_sees_of_exchanges() -> None:
    """A table where one batch of all waits in its layers; none in a prefill pool."""
    number = runs_of(result_of(apart()))[0][0]
    shown = call("explain", uneven(), "--step", 2).output
    assert "One die, us, waiting included" in shown
    assert "Over 58 sparse layers; means over 32 dies" in shown
    found = json.loads(call("explain", uneven(), "--step", 2, "--json").output)
    for name in ("dispatch", "combine"):
        seen = found["die_exchanges"][name]
        assert list(seen) == ["mean_s", "least_s", "most_s"]
        own_s = found["layers"]["sparse"]["parts_s"][name]
        assert 0.9 * own_s < seen["least_s"] < seen["mean_s"] < seen["most_s"]
        assert seen["mean_s"] > own_s
    assert "Operator before dispatch" in shown
    assert list(found["operators_s"])[-2:] == ["element-wise passes", "gate"]
    sparse = found["layers"]["sparse"]
    assert sparse["total_s"] == pytest.approx(sum(sparse["parts_s"].values()))
    prefill = ("--step", 3, "--pool", "prefill")
    assert "One die" not in call("explain", apart(), *prefill).output
    assert json.loads(call("explain", apart(), *prefill, "--json").output)["die_exchanges"] is None
    exchanges = one_step(result_of(apart()), number).die_exchanges
    assert exchanges is not None
    assert exchanges.dispatch_s.shape == (59, 32)


def test_operators_are_those_of_the_graph() -> None:
    """Of ranks that are not full the products take as long as in their graph, and no longer as in
    one of any size; their sum is what the step has for projections of a layer.
    """
    seconds = []
    for sizes in ("[40]", "any"):
        folder = uneven(*SHORT, f"engine.graph_batch_sizes={sizes}", "workload.num_requests=64")
        found = json.loads(call("explain", folder, "--step", 2, "--json").output)
        names = list(found["operators_s"])
        products = names[: names.index("element-wise passes")]
        seconds.append(sum(found["operators_s"][name] for name in products))
        layer = found["layers"]["sparse"]["parts_s"]["projections"]
        assert layer == pytest.approx(seconds[-1], rel=0.01)
    assert seconds[0] > 1.02 * seconds[1]


def test_exchanges_of_drawn_loads_are_those_of_the_step() -> None:
    result = result_of(uneven(*SHORT, "expert_routing.sampling=exact"))
    second, third = (one_step(result, step).die_exchanges for step in (2, 3))
    assert second is not None
    assert third is not None
    assert np.array_equal(one_step(result, 2).die_exchanges.combine_s, second.combine_s)
    assert not np.array_equal(third.combine_s, second.combine_s)


def test_how_busy_attention_dies_and_expert_dies_are() -> None:
    """Three domains; the recorded step has a head and a gap besides its layers."""
    folder = uneven(*SHORT, SPLIT)
    shown = call("explain", folder, "--step", 2).output
    assert "ms in layers, attention dies are busy" in shown
    assert "expert dies receive" in shown
    found = json.loads(call("explain", folder, "--step", 2, "--json").output)
    halves = found["halves"]
    assert len(halves["attention_busy_s"]) == 3
    assert list(halves["experts_busy_s"]) == ["a2e", "experts", "e2a"]
    busiest_s = max(*halves["attention_busy_s"], *halves["experts_busy_s"].values())
    assert 0.5 * halves["layers_s"] < busiest_s < halves["layers_s"] < found["step_s"]
    rest_s = sum(found["parts_s"][part] for part in ("head", "sampling", "host_gap"))
    assert halves["layers_s"] + rest_s == pytest.approx(found["step_s"], rel=0.01)
    other = call("explain", apart(), "--step", 1, "--json").output
    assert json.loads(other)["halves"] is None


@pytest.mark.parametrize("changes", [(), STREAMS, (SPLIT,)], ids=["lock step", "streams", "split"])
def test_each_layer_and_die_on_request(changes) -> None:
    """Experts of all dies are those of all layers; the die that takes longest waits least."""
    folder = uneven(*SHORT, *changes)
    found = json.loads(call("explain", folder, "--step", 2, "--json").output)
    layers, dies = found["sparse_layers"], found["dies"]
    ways = ["a2e_s", "e2a_s"] if SPLIT in changes else ["dispatch_s", "combine_s"]
    assert {*layers} == {*ways, "experts_s", "dispatch_wait_s", "combine_wait_s", "idle_s"}
    assert {len(each) for each in layers.values()} == {3}
    assert min(min(each) for each in (*layers.values(), *dies.values())) >= 0.0
    times_served = 3 if SPLIT in changes else 1  # by domains
    whole_s = times_served * sum(layers["experts_s"])
    assert np.mean(dies["experts_s"]) == pytest.approx(whole_s)
    assert len(dies["experts_s"]) == len(dies["combine_wait_s"]) == 32
    assert len(dies["dispatch_wait_s"]) == (24 if SPLIT in changes else 32)
    longest = int(np.argmax(dies["experts_s"]))
    assert dies["combine_wait_s"][longest] < 0.5 * np.mean(dies["combine_wait_s"])
    shown = call("explain", folder, "--step", 2, "--by-layer", "--by-die").output
    assert f"{1e6 * layers['experts_s'][2]:,.1f}" in shown
    assert f"{1e3 * dies['experts_s'][longest]:.3f}" in shown
    assert "Sparse layer, us" not in call("explain", folder, "--step", 2).output


def test_layers_where_nothing_is_sent() -> None:
    number = runs_of(result_of(crowded()))[0][0]
    shown = call("explain", crowded(), "--step", number, "--by-layer", "--by-die").output
    assert shown.count("not told apart where dies send nothing") == 1
    found = json.loads(call("explain", crowded(), "--step", number, "--json").output)
    assert found["sparse_layers"] is found["dies"] is None
    assert call("explain", "quickstart", "--by-layer").exit_code == 2
