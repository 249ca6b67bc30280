"""A step taken apart from a result is the step that was run."""

import json

import numpy as np
import pytest
from cli_runs import call
from report_cases import DRIFT, apart, together, uneven

from simpod.errors import ConfigError
from simpod.records.columns import STEP_PARTS
from simpod.report.one_step import one_step
from simpod.report.sources import result_of

LAYER_PARTS = ("attention", "projections", "ffn", "experts", "elementwise", "dispatch", "combine")


def runs_of(result):
    """First decode step, and row, of runs of few steps without prompts."""
    rows = result.steps[(result.steps["pool"] == "decode") & (result.steps["decode_seqs"] > 0)]
    first = rows["num_steps"].cumsum() - rows["num_steps"] + 1
    chosen = (rows["num_steps"] <= 4) & (rows["prefill_tokens"] == 0)
    return list(zip(first[chosen], rows[chosen].to_dict("records"), strict=True))


@pytest.mark.parametrize(
    "folder",
    [apart, lambda: uneven("workload.output_tokens.value=4")],
    ids=["mtp", "uneven"],
)
def test_parts_are_those_that_were_recorded(folder) -> None:
    result = result_of(folder())
    runs = runs_of(result)
    assert runs
    for first, row in runs[:: max(1, len(runs) // 4)]:
        steps = [one_step(result, first + i) for i in range(row["num_steps"])]
        recorded = [row[f"{part}_s"] for part in STEP_PARTS]
        total_s = sum(step.parts_s for step in steps)
        np.testing.assert_allclose(total_s, recorded, rtol=1e-9, atol=1e-12)
        assert total_s.sum() == pytest.approx(row["end_s"] - row["start_s"])
        assert steps[0].rank_seqs.sum() == row["decode_seqs"]
        assert steps[0].rank_context_tokens.sum() == row["context_tokens"]


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
    uneven_layers = one_step(result_of(uneven()), 2).layer_imbalance
    assert uneven_layers.shape == (58,)
    assert uneven_layers.min() > 1.0


def test_the_command_prints_it() -> None:
    number = runs_of(result_of(apart()))[0][0]
    done = call("explain", apart(), "--step", number)
    assert done.exit_code == 0, done.output
    for text in ("dispatch wait", "sparse layer (us), 58 of them", "The slowest of 32 ranks"):
        assert text in done.output
    found = json.loads(call("explain", apart(), "--step", number, "--json").output)
    assert sum(found["parts_s"].values()) == pytest.approx(found["step_s"])
    assert len(found["ranks"]["busy_s"]) == 32
    assert "Fullest die over mean" in call("explain", uneven(), "--step", 2).output


def test_what_can_not_be_taken_apart() -> None:
    result = result_of(apart())
    for arguments, message in (
        ((0,), "has decode steps 1 to"),
        ((10**9,), "has decode steps 1 to"),
        ((1, "prefill"), "pool prefill: decodes nothing; allowed: decode"),
        ((1, "decode", 7), "decode 7 has decode steps 1 to 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            one_step(result, *arguments)
    mixed = result_of(together(200, 0))
    rows = mixed.steps[(mixed.steps["instance"] == 0) & (mixed.steps["decode_seqs"] > 0)]
    with_prompt = rows["num_steps"].cumsum()[rows["prefill_tokens"] > 0].iloc[0]
    with pytest.raises(ConfigError, match="prompts beside its decodes"):
        one_step(mixed, int(with_prompt))
    with pytest.raises(ConfigError, match="changes over time"):
        one_step(result_of(uneven(*DRIFT)), 2)
    assert call("explain", "--step", 1).exit_code == 2


def test_stages_of_attention_are_shown() -> None:
    """Latents are gathered, heads exchanged, and nothing is all-reduced."""
    split = ("dp=8", "tp=4", "attention_parallelism=sp_tp_sp")
    changes = [f"deployment.decode.{each}" for each in split]
    shown = call("explain", uneven("workload.output_tokens.value=4", *changes), "--step", 2).output
    assert "latent gather" in shown
    assert "head exchange" in shown
    assert "all reduce" not in shown
