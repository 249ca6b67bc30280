"""Comparisons: the statistics by hand, and paired runs end to end."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_runs import DATA, ROOT, call, real, tiny

from simpod.errors import ConfigError, PolicyError
from simpod.sweep import Job, compare, plan_jobs, run_jobs, split_variation, t_quantile


def summaries_of(*rows: list[float | None], verdict: str = "STABLE") -> list[list[dict[str, Any]]]:
    return [
        [{"figure": value, "stationarity": {"verdict": verdict}} for value in row] for row in rows
    ]


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


# --- statistics --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degrees", "quantile"),  # printed tables of Student's t, two-sided 95 %
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (30, 2.0423),
     (120, 1.9799)],
)  # fmt: skip
def test_t_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=5e-5)


def test_t_quantile_tends_to_the_normal_one() -> None:
    assert t_quantile(0.975, 5000) == pytest.approx(1.95996, abs=5e-4)
    assert t_quantile(0.5, 7) == pytest.approx(0.0, abs=1e-12)


def test_a_paired_difference_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, s = 1, half width 4.3027 / sqrt(3) = 2.4842: 0 is inside."""
    rows = summaries_of([10.0, 20.0, 30.0], [11.0, 22.0, 33.0])
    found = compare("x", ("k", ("a", "b")), range(3), rows, ["figure"])
    first, second = found.cells["figure"]
    assert (first.mean, first.difference, first.low) == (20.0, None, None)
    assert (second.mean, second.difference) == (22.0, 2.0)
    assert second.low is not None
    assert second.high is not None
    assert second.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)
    assert second.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)
    assert not second.is_shown


def test_pairing_shows_what_the_spread_between_seeds_would_hide() -> None:
    base = [100.0, 200.0, 300.0, 400.0]
    rows = summaries_of(
        base, [value + step for value, step in zip(base, (9, 10, 11, 10), strict=True)]
    )
    _, second = compare("x", ("k", ("a", "b")), range(4), rows, ["figure"]).cells["figure"]
    assert second.is_shown
    assert second.difference == 10.0


def test_one_seed_has_a_difference_but_shows_nothing() -> None:
    rows = summaries_of([1.0], [5.0])
    _, second = compare("x", ("k", ("a", "b")), [0], rows, ["figure"]).cells["figure"]
    assert (second.difference, second.low, second.is_shown) == (4.0, None, False)


def test_equal_runs_show_no_difference_and_are_said_to_be_not_random() -> None:
    rows = summaries_of([3.0, 3.0], [3.0, 3.0])
    found = compare("x", ("k", ("a", "b")), range(2), rows, ["figure"])
    assert not found.cells["figure"][1].is_shown
    assert not found.is_random


def test_figures_that_a_run_does_not_have() -> None:
    rows = summaries_of([1.0, None], [2.0, 3.0])
    first, second = compare("x", ("k", ("a", "b")), range(2), rows, ["figure"]).cells["figure"]
    assert first.mean is None
    assert (second.mean, second.difference) == (2.5, None)
    with pytest.raises(ConfigError, match="no such figure"):
        compare("x", ("k", ("a", "b")), range(2), rows, ["figures"])
    with pytest.raises(ConfigError, match="not a number"):
        compare("x", ("k", ("a", "b")), range(2), rows, ["stationarity.verdict"])


@pytest.mark.parametrize(("verdict", "warns"), [("STABLE", 0), ("BACKLOGGED", 2), ("BURST", 0)])
def test_runs_that_were_no_steady_state_are_named(verdict: str, warns: int) -> None:
    rows = summaries_of([1.0, 2.0], [3.0, 4.0], verdict=verdict)
    found = compare("x", ("k", ("a", "b")), (7, 8), rows, ["figure"])
    assert sum(len(seeds) for seeds in found.not_stationary.values()) == 2 * warns


# --- runs --------------------------------------------------------------------------------------


def test_jobs_pair_seeds_across_variants() -> None:
    jobs = plan_jobs("exp", ["a=1"], ("k", ("x", "y")), 4, 2)
    assert [job.overrides for job in jobs] == [
        ("a=1", "k=x", "seed=4"),
        ("a=1", "k=x", "seed=5"),
        ("a=1", "k=y", "seed=4"),
        ("a=1", "k=y", "seed=5"),
    ]


def test_summaries_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    file = str(tiny(tmp_path))
    jobs = [Job(experiment=file, overrides=(f"seed={seed}",)) for seed in (2, 1)]
    done: list[int] = []
    in_two = run_jobs(jobs, processes=2, on_done=lambda: done.append(1))
    assert in_two == run_jobs(jobs, processes=1)
    assert [summary["seed"] for summary in in_two] == [2, 1]
    assert len(done) == 2


def test_a_policy_error_crosses_the_border_of_a_process(tmp_path: Path) -> None:
    use = f"policies.batching.use={DATA / 'bad_policies.py'}:over_budget"
    job = Job(experiment=str(tiny(tmp_path)), overrides=(use,))
    with pytest.raises(PolicyError, match="over_budget") as caught:
        run_jobs([job, job], processes=2)
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
    assert "WARNING: 1000 was not stationary" in done.stdout
    assert "WARNING: 1 " not in done.stdout
    assert "One seed" in done.stdout


def test_mistakes_come_before_the_first_run(tmp_path: Path) -> None:
    wrong_value = call("compare", tiny(tmp_path), "--vary", "policies.router.use=random,rondom")
    assert wrong_value.exit_code == 2
    assert 'did you mean "random"?' in wrong_value.stderr
    assert call("compare", tiny(tmp_path), "--vary", "seed=1,2").exit_code == 2


def test_a_users_scheduler_is_compared_in_processes(tmp_path: Path) -> None:
    (tmp_path / "my_edf.py").write_text((DATA / "my_edf.py").read_text())
    tiny(tmp_path)
    vary = "policies.batching.use=fcfs,./my_edf.py:EarliestDeadline"
    done = real(
        "compare", "tiny.yaml", "--vary", vary, "--seeds", 2, "-j", 2, "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["metrics"]["mean_ttft_ms"]) == 2


def test_ctrl_c_ends_all_processes_at_once(tmp_path: Path) -> None:
    file = tiny(tmp_path, ("num_requests: 40", "num_requests: 2000000"))
    command = [sys.executable, "-m", "simpod", "compare", str(file), "-j", "2"]
    with subprocess.Popen(
        [*command, "--vary", "policies.router.use=random,round_robin", "--seeds", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as running:
        time.sleep(2.5)
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=20)  # the runs take minutes
    assert running.returncode == 130
    assert (stdout, stderr) == ("", "interrupted\n")
