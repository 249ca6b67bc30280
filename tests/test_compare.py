"""Comparisons: the statistics by hand, and paired runs end to end."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runs import DATA, ROOT, call, tiny

from simpod.errors import ConfigError, PolicyError
from simpod.sweep.bootstrap import critical_value, half_widths
from simpod.sweep.compare import Comparison, Summary, compare, more_is_better
from simpod.sweep.gates import broken_gates, parse_gate
from simpod.sweep.jobs import Job, Runner
from simpod.sweep.variants import plan_jobs, split_variation, variants_of


def summaries_of(*rows: list[float | None], verdict: str = "STABLE") -> list[list[dict[str, Any]]]:
    return [
        [{"figure": value, "stationarity": {"verdict": verdict}} for value in row] for row in rows
    ]


def compared(rows: Sequence[Sequence[Summary]], metric: str = "figure") -> Comparison:
    """Variants a, b, c, ... with as many seeds as the rows have."""
    labels = "abcdef"[: len(rows)]
    return compare("x", (["k"], labels), range(len(rows[0])), rows, [metric])


# --- splitting `--vary` ------------------------------------------------------------------------


def test_values_split_at_commas_outside_brackets_and_quotes() -> None:
    assert split_variation("a.b=1,2") == ("a.b", ("1", "2"))
    assert split_variation("a=[1, 2],{x: 1, y: 2}") == ("a", ("[1, 2]", "{x: 1, y: 2}"))
    assert split_variation("a='x,y',\"z,(\", f(1,2)") == ("a", ("'x,y'", '"z,("', "f(1,2)"))
    assert split_variation("a=./b.py:C,d=e") == ("a", ("./b.py:C", "d=e"))


@pytest.mark.parametrize("text", ["a", "a=", "a=1", "=1,2", "a=1,", "a=1,,2", "a=1,1", "seed=1,2"])
def test_what_is_no_variation_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--vary"):
        split_variation(text)


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=1,,2", "a=1,1", "seed=1"])
def test_one_value_is_enough_where_nothing_is_compared(text: str) -> None:
    with pytest.raises(ConfigError, match="--choose"):
        split_variation(text, 1, "--choose")
    assert split_variation("a=1", 1, "--choose") == ("a", ("1",))


def test_several_keys_are_crossed_and_called_by_what_tells_them_apart() -> None:
    variants = variants_of(
        [("policies.router.use", ("x", "y")), ("a.tp", ("1", "2")), ("b.tp", ("3",))]
    )
    assert [variant.label for variant in variants] == [
        "router.use=x, a.tp=1, b.tp=3",
        "router.use=x, a.tp=2, b.tp=3",
        "router.use=y, a.tp=1, b.tp=3",
        "router.use=y, a.tp=2, b.tp=3",
    ]
    assert variants[1].overrides == ("policies.router.use=x", "a.tp=2", "b.tp=3")
    assert [variant.label for variant in variants_of([("a.b", ("1", "2"))])] == ["1", "2"]
    with pytest.raises(ConfigError, match="given twice"):
        variants_of([("a", ("1", "2")), ("a", ("3", "4"))])


# --- intervals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("seeds", "quantile"), [(2, 12.7062), (3, 4.3027), (5, 2.7764)])
def test_one_comparison_of_few_seeds_is_students_paired_t(seeds: int, quantile: float) -> None:
    """Printed t quantiles, two-sided 95 %; the bootstrap draws 10,000 samples: 5 % of its value."""
    pairs = np.random.default_rng(5).standard_normal((1, seeds))
    assert critical_value(pairs) == pytest.approx(quantile, rel=0.06)


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0), (5, 1), (10, 0)])
def test_nothing_is_shown_where_nothing_differs(seeds: int, spread: int) -> None:
    """Five comparisons with a common first variant: at most 5 % of the families show anything.

    60 families: with a true rate of 5 % 9 or more of them are a chance of 0.3 %.
    """
    rng = np.random.default_rng(100 * seeds + spread)
    wrong = 0
    for _ in range(60):
        values = rng.standard_normal((6, seeds)) * (1 + spread * np.arange(6)[:, None])
        pairs = values[1:] - values[0]
        wrong += bool((np.abs(pairs.mean(axis=1)) > half_widths(pairs)).any())
    assert wrong <= 8


def test_more_comparisons_need_more_and_alike_ones_cost_nothing() -> None:
    rng = np.random.default_rng(3)
    pairs = rng.standard_normal((12, 6))
    one, many = critical_value(pairs[:1]), critical_value(pairs)
    assert many > 1.5 * one
    twins = np.repeat(rng.standard_normal((1, 10)), 12, axis=0)
    assert critical_value(twins) == pytest.approx(critical_value(twins[:1]), rel=1e-9)


def test_a_paired_difference_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, s = 1, half width 4.3027 / sqrt(3) = 2.4842: 0 is inside."""
    rows = summaries_of([10.0, 20.0, 30.0], [11.0, 22.0, 33.0])
    first, second = compared(rows).cells["figure"]
    assert (first.mean, first.difference, first.low) == (20.0, None, None)
    assert (second.mean, second.difference) == (22.0, 2.0)
    assert second.low is not None
    assert second.high is not None
    assert second.low == pytest.approx(2 - 4.302653 / math.sqrt(3), rel=0.2)
    assert second.high == pytest.approx(2 + 4.302653 / math.sqrt(3), rel=0.05)
    assert not second.is_shown


def test_pairing_shows_what_the_spread_between_seeds_would_hide() -> None:
    base = [100.0, 200.0, 300.0, 400.0]
    rows = summaries_of(
        base, [value + step for value, step in zip(base, (9, 10, 11, 10), strict=True)]
    )
    _, second = compared(rows).cells["figure"]
    assert second.is_shown
    assert second.difference == 10.0


def test_one_seed_has_a_difference_but_shows_nothing() -> None:
    _, second = compared(summaries_of([1.0], [5.0])).cells["figure"]
    assert (second.difference, second.low, second.is_shown) == (4.0, None, False)
    assert second.first_rank is None


def test_equal_runs_show_no_difference_and_are_said_to_be_not_random() -> None:
    found = compared(summaries_of([3.0, 3.0], [3.0, 3.0]))
    assert not found.cells["figure"][1].is_shown
    assert not found.is_random


def test_what_does_not_vary_needs_no_statistics() -> None:
    _, second = compared(summaries_of([3.0, 4.0], [5.0, 6.0])).cells["figure"]
    assert (second.low, second.high, second.is_shown) == (2.0, 2.0, True)


def test_figures_that_a_run_does_not_have() -> None:
    rows = summaries_of([1.0, None], [2.0, 3.0], [2.0, 3.5])
    first, second, third = compared(rows).cells["figure"]
    assert (first.mean, first.last_rank) == (None, None)
    assert (second.mean, second.difference) == (2.5, None)
    assert (third.first_rank, third.last_rank) == (1, 2)
    with pytest.raises(ConfigError, match="no such figure"):
        compared(rows, "figures")
    with pytest.raises(ConfigError, match="not a number"):
        compared(rows, "stationarity.verdict")


@pytest.mark.parametrize(
    ("verdict", "saturated", "unsteady"),
    [("STABLE", 0, 0), ("BACKLOGGED", 2, 0), ("GROWING", 0, 2), ("BURST", 0, 0)],
)
def test_runs_that_were_no_steady_state_are_named(
    verdict: str, saturated: int, unsteady: int
) -> None:
    found = compared(summaries_of([1.0, 2.0], [3.0, 4.0], verdict=verdict))
    assert sum(len(seeds) for seeds in found.saturated.values()) == 2 * saturated
    assert sum(len(seeds) for seeds in found.unsteady.values()) == 2 * unsteady


# --- ranks -------------------------------------------------------------------------------------


def test_ranks_are_ranges_where_no_difference_is_shown() -> None:
    """b is far better than all; a and c differ by less than their spread; d is far worse."""
    noise = np.array([0.0, 1.0, -1.0, 0.5, -0.5])
    rows = summaries_of(
        (100 + noise).tolist(), (50 + noise[::-1]).tolist(), (100.2 - noise).tolist(),
        (150 + noise / 2).tolist(),
    )  # fmt: skip
    found = compared(rows)
    ranks = [(cell.first_rank, cell.last_rank) for cell in found.cells["figure"]]
    assert ranks == [(2, 3), (1, 1), (2, 3), (4, 4)]
    assert found.unlike["figure"][0] == {"b", "d"}
    assert found.ranking("figure") == [1, 0, 2, 3]


@pytest.mark.parametrize(
    ("metric", "is_more"),
    [("p99_ttft_ms", False), ("request_goodput", True), ("slo_attainment", True),
     ("output_throughput", True), ("max_rate_per_s", True), ("preemptions", False)],
)  # fmt: skip
def test_which_direction_is_better(metric: str, is_more: bool) -> None:
    assert more_is_better(metric) == is_more


# --- gates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("figure>+5%", True), ("figure>+11%", False), ("figure>=+10%", True), ("figure<-5%", False),
        ("figure > +9", True), ("figure>+10", False), ("figure>105", True), ("figure<100", False),
        ("figure<101", True), ("figure<=1e2", True),
    ],
)  # fmt: skip
def test_gates_by_hand(text: str, fails: bool) -> None:
    """100 against 110: +10, +10 %; an absolute value is asked of both."""
    found = compared(summaries_of([90.0, 110.0], [101.0, 119.0]))
    assert bool(broken_gates(found, [parse_gate(text)])) == fails


def test_a_gate_names_variant_and_figure() -> None:
    found = compared(summaries_of([90.0, 110.0], [101.0, 119.0]))
    sentences = broken_gates(found, [parse_gate("figure>+5%")])
    assert sentences == ["figure>+5%: b has +10 % against a"]
    missing = compared(summaries_of([1.0], [None]))
    assert broken_gates(missing, [parse_gate("figure>3")]) == ["figure>3: b has no such figure"]
    from_nothing = compared(summaries_of([0.0], [1.0]))
    assert broken_gates(from_nothing, [parse_gate("figure>+5%")]) != []


@pytest.mark.parametrize("text", ["", "figure", "figure>", "figure=5", ">5", "figure>five"])
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--fail-if"):
        parse_gate(text)


# --- runs --------------------------------------------------------------------------------------


def test_jobs_pair_seeds_across_variants() -> None:
    jobs = plan_jobs("exp", ["a=1"], variants_of([("k", ("x", "y"))]), (4, 5))
    assert [job.overrides for job in jobs] == [
        ("a=1", "k=x", "seed=4"),
        ("a=1", "k=x", "seed=5"),
        ("a=1", "k=y", "seed=4"),
        ("a=1", "k=y", "seed=5"),
    ]


def test_summaries_and_errors_cross_the_border_of_a_process(tmp_path: Path) -> None:
    """Summaries do not depend on the number of processes; an error of a policy says its run."""
    file = str(tiny(tmp_path))
    jobs = [Job(experiment=file, overrides=(f"seed={seed}",)) for seed in (2, 1)]
    done: list[int] = []
    with Runner(1) as one:
        in_one = one.map(Job.summary, jobs)
    use = f"policies.batching.use={DATA / 'bad_policies.py'}:over_budget"
    wrong = Job(experiment=file, overrides=(use,))
    with Runner(2) as two:
        assert two.map(Job.summary, jobs, lambda: done.append(1)) == in_one
        with pytest.raises(PolicyError, match="over_budget") as caught:
            two.map(Job.summary, [wrong, wrong])
    assert [summary["seed"] for summary in in_one] == [2, 1]
    assert len(done) == 2
    assert any("seed 0" in note for note in caught.value.__notes__)


def test_the_same_arrivals_for_every_variant(tmp_path: Path) -> None:
    done = call(
        "compare", tiny(tmp_path), "--vary", "policies.router.use=round_robin,least_requests",
        "--seeds", 3, "-j", 1, "--json", "-m", "mean_ttft_ms", "-m", "total_input_tokens",
        "-s", "measure={warmup_frac: 0, drain_frac: 0}",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["values"] == ["round_robin", "least_requests"]
    assert found["seeds"] == [0, 1, 2]
    tokens = found["metrics"]["total_input_tokens"]
    assert tokens[1]["difference"] == tokens[1]["low"] == tokens[1]["high"] == 0
    assert not tokens[1]["difference_shown"]
    assert found["metrics"]["mean_ttft_ms"][1]["mean"] > 0


def test_a_clear_difference_is_shown_in_the_table(tmp_path: Path) -> None:
    arguments = (
        "compare", tiny(tmp_path), "--vary", "hardware=a100,h100", "--seeds", 3, "-j", 1,
        "-m", "mean_tpot_ms", "-m", "slo_attainment",
    )  # fmt: skip
    table = call(*arguments)
    assert table.exit_code == 0
    row = next(line for line in table.stdout.splitlines() if line.startswith("mean_tpot_ms"))
    assert len(row.split()) == 3
    assert "no difference shown" in table.stdout  # the attainment
    assert "95 % interval" in table.stdout
    markdown = call(*arguments, "--markdown").stdout
    assert markdown.splitlines()[0] == "| hardware | a100 | h100 |"
    assert markdown.splitlines()[1] == "| --- | --- | --- |"


def test_an_overloaded_variant_is_warned_about(tmp_path: Path) -> None:
    done = call(
        "compare", tiny(tmp_path), "--vary", "workload.arrivals.rate_per_s=1,1000",
        "--seeds", 1, "-j", 1, "-s", "workload.num_requests=300",
    )  # fmt: skip
    assert "WARNING: 1000 was not stationary: beyond saturation" in done.stdout
    assert "WARNING: 1 " not in done.stdout
    assert "One seed" in done.stdout


def test_many_variants_of_several_keys_and_a_gate(tmp_path: Path) -> None:
    arguments = (
        "compare", tiny(tmp_path), "--vary", "hardware=a100,h100", "--seeds", 2, "-j", 1,
        "--vary", "policies.router.use=random,round_robin,least_requests", "-m", "mean_tpot_ms",
    )  # fmt: skip
    gate = ("--fail-if", "mean_tpot_ms<-20%")
    done = call(*arguments, *gate)
    assert done.exit_code == 4
    assert done.stderr.count("FAILED mean_tpot_ms<-20%: hardware=h100") == 3
    lines = done.stdout.splitlines()
    assert sum(line.startswith("mean_tpot_ms") for line in lines) == 6
    assert "Rank by" in done.stdout
    assert call(*arguments, "--fail-if", "mean_tpot_ms>+50%", "-q").exit_code == 0
    assert call(*arguments, "--fail-if", "mean_tpot_ms").exit_code == 2
    assert call(*arguments, "--csv", "--json").exit_code == 2


def test_csv_has_a_row_a_metric_and_variant(tmp_path: Path) -> None:
    done = call(
        "compare", tiny(tmp_path), "--vary", "hardware=a100,h100", "--seeds", 2, "-j", 1,
        "-m", "mean_tpot_ms", "-m", "slo_attainment", "--csv",
    )  # fmt: skip
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [(row["metric"], row["variant"]) for row in rows] == [
        ("mean_tpot_ms", "a100"), ("mean_tpot_ms", "h100"),
        ("slo_attainment", "a100"), ("slo_attainment", "h100"),
    ]  # fmt: skip
    assert float(rows[1]["difference"]) < 0
    assert rows[0]["difference"] == ""


def test_the_effect_in_terms_of_the_slo(tmp_path: Path) -> None:
    """The faster GPU serves a higher rate within the SLO, seed by seed."""
    done = call(
        "compare", tiny(tmp_path), "--vary", "hardware=a100,h100", "--seeds", 2, "-j", 1, "--json",
        "-m", "mean_tpot_ms", "--max-rate", 0.9, "-s", "workload.num_requests=150",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    slower, faster = json.loads(done.stdout)["metrics"]["max_rate_per_s"]
    assert faster["mean"] > 1.5 * slower["mean"] > 0
    assert faster["difference"] == pytest.approx(faster["mean"] - slower["mean"])


def test_mistakes_come_before_the_first_run(tmp_path: Path) -> None:
    wrong_value = call("compare", tiny(tmp_path), "--vary", "policies.router.use=random,rondom")
    assert wrong_value.exit_code == 2
    assert 'did you mean "random"?' in wrong_value.stderr
    assert call("compare", tiny(tmp_path), "--vary", "seed=1,2").exit_code == 2


def test_a_users_scheduler_is_compared_in_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_edf.py").write_text((DATA / "my_edf.py").read_text())
    tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    vary = "policies.batching.use=fcfs,./my_edf.py:EarliestDeadline"
    done = call("compare", "tiny.yaml", "--vary", vary, "--seeds", 2, "-j", 2, "--json")
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)["metrics"]["mean_ttft_ms"]) == 2


TELLS = '''\
"""A router that says when it is first asked."""

from pathlib import Path


def first(request, view):
    (Path(__file__).parent / "begun").touch()
    return 0
'''


def test_ctrl_c_ends_all_processes_at_once(tmp_path: Path) -> None:
    """Of runs that take minutes, once the first has begun."""
    file = tiny(tmp_path, ("num_requests: 40", "num_requests: 2000000"))
    (tmp_path / "tells.py").write_text(TELLS)
    command = [sys.executable, "-m", "simpod", "compare", str(file), "-j", "2"]
    with subprocess.Popen(
        [*command, "--vary", "policies.router.use=./tells.py:first,round_robin", "--seeds", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as running:
        while running.poll() is None and not (tmp_path / "begun").exists():
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=20)
    assert running.returncode == 130
    assert (stdout, stderr) == ("", "interrupted\n")
