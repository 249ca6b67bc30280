"""Sweeps: the plan, the identity of runs, and what is left after a death of driver or worker."""

import contextlib
import json
import random
import signal
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_runs import call, tiny
from sweep_runs import made, start, sweep_file

from simpod.cli.sweep import Lines
from simpod.config import load_experiment
from simpod.errors import ConfigError
from simpod.sweep.compact import compact
from simpod.sweep.driver import IN_FLIGHT_PER_WORKER, Driver, Tally, write_table
from simpod.sweep.engines import Engine
from simpod.sweep.identity import run_id, version, with_seed
from simpod.sweep.journal import JOURNAL, lines_of, open_journal, read_journal
from simpod.sweep.plan import Plan
from simpod.sweep.points import points_of, unit_sample
from simpod.sweep.spec import Axis, Sample, SweepSpec, load_sweep, sweep_names
from simpod.sweep.worker import Outcome, OutOfTimeError, execute, flat, time_limit

# --- points ------------------------------------------------------------------------------------


def test_grid_is_crossed_with_zip_and_the_first_key_is_the_slowest() -> None:
    spec = SweepSpec(
        base="x", grid={"a": (1, 2), "b": ("u", "v")}, zip={"c": (1, 2), "d": (10, 20)}
    )
    points = points_of(spec)
    assert len(points) == 8
    assert points.keys == ("a", "b", "c", "d")
    assert [points[n] for n in range(4)] == [
        {"a": 1, "b": "u", "c": 1, "d": 10},
        {"a": 1, "b": "u", "c": 2, "d": 20},
        {"a": 1, "b": "v", "c": 1, "d": 10},
        {"a": 1, "b": "v", "c": 2, "d": 20},
    ]
    assert points[7] == {"a": 2, "b": "v", "c": 2, "d": 20}
    assert len(points_of(SweepSpec(base="x"))) == 1
    with pytest.raises(IndexError):
        points[8]


def test_a_latin_hypercube_takes_every_slice_once() -> None:
    rng = np.random.default_rng(1)
    unit = unit_sample("latin_hypercube", 50, rng)
    assert sorted(np.floor(unit * 50).astype(int)) == list(range(50))
    assert sorted(np.floor(unit_sample("random", 50, rng) * 50).astype(int)) != list(range(50))


def test_sampled_values_keep_to_their_ranges() -> None:
    keys = {
        "log": Axis(min=1.0, max=1000.0, scale="log"),
        "whole": Axis(min=1, max=4, integer=True),
        "whole_log": Axis(min=2, max=64, scale="log", integer=True),
        "word": Axis(choices=("u", "v")),
    }
    points = points_of(SweepSpec(base="x", sample=Sample(count=400, keys=keys)))
    rows = [points[n] for n in range(400)]
    below = sum(row["log"] < 10 for row in rows)
    assert 130 <= below <= 136  # a third of three decades
    assert min(row["log"] for row in rows) >= 1.0
    counts = [sum(row["whole"] == value for row in rows) for value in (1, 2, 3, 4)]
    assert all(98 <= count <= 102 for count in counts)
    assert {type(row["whole_log"]) for row in rows} == {int}
    assert (min(r["whole_log"] for r in rows), max(r["whole_log"] for r in rows)) == (2, 64)
    assert sum(row["word"] == "u" for row in rows) == 200


def test_a_sample_is_the_same_every_time_and_another_with_another_seed() -> None:
    def rows(seed: int) -> list[dict[str, Any]]:
        sample = Sample(count=5, seed=seed, keys={"a": Axis(min=0.0, max=1.0)})
        points = points_of(SweepSpec(base="x", sample=sample))
        return [points[n] for n in range(5)]

    assert rows(0) == rows(0) != rows(1)


# --- the file ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gird": {"a": [1]}}, 'did you mean "grid"'),
        ({"grid": {"a": []}}, "at least one value"),
        ({"zip": {"a": [1], "b": [1, 2]}}, "different lengths"),
        ({"grid": {"a": [1]}, "zip": {"a": [1]}}, "given twice"),
        ({"grid": {"a": [1.0, float("nan")]}}, "finite"),
        ({"grid": {"seed": [1]}}, "under `seeds`"),
        ({"seeds": [1, 1]}, "twice"),
        ({"time_limit_s": -1}, "time_limit_s"),
        ({"sample": {"count": 3, "keys": {"a": {"min": 2, "max": 1}}}}, "min below max"),
        ({"sample": {"count": 3, "keys": {"a": {"min": 0, "max": 1, "scale": "log"}}}}, "above 0"),
        ({"sample": {"count": 3, "keys": {"a": {"min": 0, "choices": [1]}}}}, "either"),
        ({"base": "quickstat"}, 'did you mean "quickstart"'),
    ],
)
def test_mistakes_in_a_sweep_are_told(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_sweep(str(sweep_file(tmp_path, **content)))


@pytest.mark.parametrize("name", sweep_names())
def test_shipped_sweeps_are_valid_at_every_point(name: str) -> None:
    plan = Plan(load_sweep(name))
    assert plan.check() == []
    assert len(plan) > 10


def test_a_name_that_is_not_shipped() -> None:
    with pytest.raises(ConfigError, match="quickstart-rates"):
        load_sweep("quickstart-rate")
    assert {"quickstart-rates", "h100-batching"} <= set(sweep_names())


# --- identity ----------------------------------------------------------------------------------


def test_identity_is_of_what_is_run_not_of_how_it_was_written(tmp_path: Path) -> None:
    path = str(tiny(tmp_path))
    base = run_id(load_experiment(path))
    assert len(base) == 16
    assert run_id(load_experiment(path, ["deployment.server.tp=1"])) == base  # the default
    assert run_id(load_experiment(path, ["seed=0", "hardware=a100"])) == base
    assert run_id(load_experiment(path, ["seed=1"])) != base
    assert run_id(with_seed(load_experiment(path), 1)) == run_id(load_experiment(path, ["seed=1"]))
    assert run_id(load_experiment(path, ["workload.num_requests=41"])) != base


def test_a_policy_file_counts_by_its_content(tmp_path: Path) -> None:
    sweep_file(tmp_path)
    file = tmp_path / "misbehaving.py"
    change = ["policies.router.use=./misbehaving.py:fails"]
    first = run_id(load_experiment(str(tmp_path / "tiny.yaml"), change))
    other = ["policies.router.use=./misbehaving.py:loops"]
    assert run_id(load_experiment(str(tmp_path / "tiny.yaml"), other)) != first
    file.write_text(file.read_text() + "\n# edited\n")
    assert run_id(load_experiment(str(tmp_path / "tiny.yaml"), change)) != first


def test_points_of_a_plan_are_those_that_overrides_give(tmp_path: Path) -> None:
    plan = Plan(load_sweep(str(sweep_file(tmp_path))))
    runs = list(plan)
    assert [(run.index, run.seed) for run in runs] == [(0, 0), (1, 1), (2, 0), (3, 1)]
    changes = ["workload.arrivals.rate_per_s=4", "seed=1"]
    assert runs[3].run_id == run_id(load_experiment(str(tmp_path / "tiny.yaml"), changes))
    assert version().startswith("0.")


# --- runs --------------------------------------------------------------------------------------


def test_a_sweep_gives_what_single_runs_give(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, metrics=["mean_ttft_ms", "utilization.server.busy_frac"])
    tally, table = made(path, tmp_path / "out")
    assert (tally.ok, tally.failed, tally.total) == (4, 0, 4)
    assert list(table.columns) == [
        "run_id", "seed", "workload.arrivals.rate_per_s", "status", "error", "mean_ttft_ms",
        "utilization.server.busy_frac",
    ]  # fmt: skip
    changes = ["workload.arrivals.rate_per_s=4", "seed=1"]
    alone = execute(load_experiment(str(tmp_path / "tiny.yaml"), changes), None, ())
    assert alone.summary is not None
    assert table["mean_ttft_ms"].iloc[3] == alone.summary["mean_ttft_ms"]
    assert alone.wall_s >= alone.cpu_s * 0.5 > 0


def test_flat_summaries_have_dotted_keys() -> None:
    assert flat({"a": 1, "b": {"c": {"d": None}}, "e": [1, 2]}) == {
        "a": 1, "b.c.d": None, "e": "[1, 2]",
    }  # fmt: skip


def test_failed_runs_are_kept_and_made_again_only_on_request(tmp_path: Path) -> None:
    path = sweep_file(
        tmp_path, grid={"policies.router.use": ["random", "./misbehaving.py:fails"]}, seeds=1
    )
    tally, table = made(path, tmp_path / "out")
    assert (tally.ok, tally.failed) == (1, 1)
    assert tally.errors == {"PolicyError": 1}
    assert table["status"].tolist() == ["ok", "failed"]
    assert "no idea" in table["error"].iloc[1]
    tally, _ = made(path, tmp_path / "out")
    assert (tally.found, tally.ok, tally.failed) == (2, 0, 0)
    tally, table = made(path, tmp_path / "out", retry_failed=True)
    assert (tally.found, tally.failed) == (1, 1)
    assert len(table) == 2
    assert len(list(lines_of(tmp_path / "out" / JOURNAL))) == 3


def test_points_that_are_no_experiment(tmp_path: Path) -> None:
    grid = {"deployment.server.tp": [1, 3]}
    stopped = sweep_file(tmp_path, grid=grid, seeds=2)
    done = call("sweep", stopped, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "at deployment.server.tp=3" in done.stderr
    assert "invalid: keep" in done.stderr
    assert not (tmp_path / "out").exists()
    _, table = made(sweep_file(tmp_path, grid=grid, seeds=2, invalid="keep"), tmp_path / "out")
    assert table["status"].tolist() == ["ok", "ok", "failed", "failed"]
    assert table["error"].iloc[2].startswith("ConfigError")


def test_equal_points_are_run_once_and_listed_twice(tmp_path: Path) -> None:
    grid = {"deployment.server.max_num_seqs": [8, 8, 9]}
    tally, table = made(sweep_file(tmp_path, grid=grid, seeds=1), tmp_path / "out")
    assert (tally.found, tally.ok) == (1, 2)
    assert len(table) == 3
    assert table["run_id"].iloc[0] == table["run_id"].iloc[1] != table["run_id"].iloc[2]


# --- time limits and deaths --------------------------------------------------------------------


def test_a_time_limit_ends_a_run_that_swallows_exceptions() -> None:
    start_s = time.perf_counter()
    with pytest.raises(OutOfTimeError), time_limit(0.2):
        _swallow_everything()
    assert time.perf_counter() - start_s < 2
    with time_limit(0.05):
        pass
    time.sleep(0.1)  # nothing comes after the end


def _swallow_everything() -> None:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.001)


def test_a_run_out_of_time_fails_and_the_others_go_on(tmp_path: Path) -> None:
    path = sweep_file(
        tmp_path,
        grid={"policies.router.use": ["./misbehaving.py:loops", "random"]},
        seeds=1,
        time_limit_s=1.0,
        retries=1,
    )
    tally, table = made(path, tmp_path / "out", ("local", 1))
    assert table["status"].tolist() == ["failed", "ok"]
    assert "its limit of 1 s" in table["error"].iloc[0]
    lines = [record for _, record in lines_of(tmp_path / "out" / JOURNAL)]
    assert sorted(line["attempts"] for line in lines) == [1, 2]
    assert tally.lost_workers == 0


def test_a_killed_worker_costs_no_run(tmp_path: Path) -> None:
    killer = {"use": "./misbehaving.py:KillsOnce", "marker": str(tmp_path / "marker")}
    path = sweep_file(
        tmp_path,
        grid={"policies.router": ["random", killer, "round_robin", "least_requests"]},
        seeds=2,
        retries=0,
    )
    tally, table = made(path, tmp_path / "out", ("local", 2))
    assert (tally.ok, tally.failed, tally.lost_workers) == (8, 0, 1)
    assert len(table) == 8


def test_a_run_that_kills_its_worker_is_found_out_and_given_up(tmp_path: Path) -> None:
    path = sweep_file(
        tmp_path,
        grid={"policies.router.use": ["random", "./misbehaving.py:kills", "round_robin"]},
        seeds=1,
        retries=1,
    )
    tally, table = made(path, tmp_path / "out", ("local", 1))
    assert table["status"].tolist() == ["ok", "failed", "ok"]
    assert tally.errors == {"WorkerDiedError": 1}
    assert tally.lost_workers == 3  # once among others, then twice alone


@pytest.mark.slow
def test_a_killed_driver_loses_no_finished_run(tmp_path: Path) -> None:
    """Killed at random moments and resumed: no run twice, the bytes of an uninterrupted sweep."""
    path = sweep_file(tmp_path, grid={"workload.arrivals.rate_per_s": list(range(1, 13))}, seeds=2)
    whole = tmp_path / "whole"
    made(path, whole)
    out, rng = tmp_path / "out", random.Random(3)
    for _ in range(2):
        with start(path.name, "--out", out, "-j", 1, "-q", cwd=tmp_path) as running:
            _wait_for_lines(out / JOURNAL, rng.randrange(3, 9))
            time.sleep(rng.random() / 20)
            running.send_signal(signal.SIGKILL)
    assert call("sweep", path, "--out", out, "-q", "-j", 1).exit_code == 0
    ids = [record["run_id"] for _, record in lines_of(out / JOURNAL)]
    assert len(ids) == len(set(ids)) == 24
    assert (out / "runs.parquet").read_bytes() == (whole / "runs.parquet").read_bytes()


def _wait_for_lines(path: Path, more: int) -> None:
    there = path.read_bytes().count(b"\n") if path.exists() else 0
    deadline_s = time.perf_counter() + 30
    while time.perf_counter() < deadline_s:
        time.sleep(0.01)
        if path.exists() and path.read_bytes().count(b"\n") >= there + more:
            return


def test_ctrl_c_keeps_a_partial_sweep(tmp_path: Path) -> None:
    """The last run would take minutes."""
    requests = {"workload.num_requests": [40, 50, 2_000_000]}
    path = sweep_file(tmp_path, grid=requests, seeds=1)
    with start(path.name, "--out", "out", "-j", 1, cwd=tmp_path) as running:
        _wait_for_lines(tmp_path / "out" / JOURNAL, 2)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=30)
    assert running.returncode == 130
    assert stderr.endswith("interrupted\n")
    assert len(pd.read_parquet(tmp_path / "out" / "runs.parquet")) == 2


# --- the journal -------------------------------------------------------------------------------


def _line(number: int, status: str = "ok") -> dict[str, Any]:
    return {
        "run_id": f"{number:016x}", "seed": 0, "status": status, "values": {"a": number},
        "summary": {"x": number / 2} if status == "ok" else None, "error": None,
    }  # fmt: skip


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    with open_journal(tmp_path) as writer:
        writer.write(_line(1))
        writer.write(_line(2, "failed"))
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"run_id": "00')
    with open_journal(tmp_path) as writer:
        assert (len(writer.journal.ok), len(writer.journal.failed)) == (1, 1)
        writer.write(_line(2))
    journal = read_journal(tmp_path)
    assert (len(journal.ok), len(journal.failed)) == (2, 0)
    assert (tmp_path / JOURNAL).read_bytes().count(b"\n") == 3


def test_two_drivers_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with (
        open_journal(tmp_path),
        pytest.raises(ConfigError, match="another sweep"),
        open_journal(tmp_path),
    ):
        pass


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"run_id": "zz", "status": "ok"}\n')
    with pytest.raises(ConfigError, match=r"runs.jsonl:1"):
        read_journal(tmp_path)


def test_the_table_is_in_the_order_of_the_plan_and_of_one_type_a_column(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with open_journal(tmp_path) as writer:
        offsets = [writer.write(_line(number)) for number in (3, 1, 2)]
        mixed = {**_line(4), "values": {"a": "x"}, "summary": {"y": True}}
        offsets.append(writer.write(mixed))
    order = [offsets[1], offsets[2], -1, offsets[0], offsets[3]]
    assert compact(tmp_path / JOURNAL, order, ["a"], tmp_path / "t.parquet") == 4
    table = pq.read_table(tmp_path / "t.parquet").to_pydict()
    assert table["a"] == ["1", "2", "3", "x"]
    assert table["x"] == [0.5, 1.0, 1.5, None]
    assert table["y"] == [None, None, None, True]


# --- the command -------------------------------------------------------------------------------


def test_dry_run_status_and_json(tmp_path: Path) -> None:
    path, out = sweep_file(tmp_path), tmp_path / "out"
    planned = json.loads(call("sweep", path, "--out", out, "--dry-run", "--json").stdout)
    assert (planned["runs"], planned["points"], planned["seeds"]) == (4, 2, 2)
    assert not out.exists()
    assert call("sweep", path, "--out", out, "--status").exit_code == 2
    found = json.loads(call("sweep", path, "--out", out, "-j", 1, "--json").stdout)
    assert (found["ok"], found["failed"], found["already_there"]) == (4, 0, 0)
    status = json.loads(call("sweep", path, "--out", out, "--status", "--json").stdout)
    assert (status["runs"], status["ok"], status["failed"], status["left"]) == (4, 4, 0, 0)
    again = call("sweep", path, "--out", out)
    assert "already there" in again.stdout


def test_set_changes_every_run(tmp_path: Path) -> None:
    path, out = sweep_file(tmp_path, seeds=1), tmp_path / "out"
    assert (
        call("sweep", path, "--out", out, "-s", "workload.num_requests=20", "-q", "-j", 1).exit_code
        == 0
    )
    summaries = [record["summary"] for _, record in lines_of(out / JOURNAL)]
    assert {summary["num_prompts"] for summary in summaries} == {20}
    assert call("sweep", path, "-s", "workload.arrivals.rate_per_s=3").exit_code == 2


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").touch()
    assert call("sweep", sweep_file(tmp_path), "--out", out).exit_code == 2


def test_engines_that_are_not_there(tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    assert call("sweep", path, "--out", tmp_path / "o", "--engine", "slurm").exit_code == 2
    local = call("sweep", path, "--out", tmp_path / "o", "--address", "tcp://x:1")
    assert local.exit_code == 2
    assert "--address" in local.stderr


# --- many runs ---------------------------------------------------------------------------------


class _AtOnce(Executor):
    """Every run is done when asked for; remembers how many were asked for and not yet looked at."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome, self.submitted = outcome, 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(self.outcome)
        self.submitted += 1
        return future


def test_submissions_are_bounded_and_the_plan_is_walked_as_runs_finish(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, grid={"workload.arrivals.rate_per_s": list(range(1, 201))}, seeds=4)
    outcome = Outcome(summary={"x": 1.5}, wall_s=0.0, cpu_s=0.0)
    executor = _AtOnce(outcome)
    engine = Engine(
        name="test", workers=2, make=lambda: executor, end=lambda _: None, lost=(),
        breaks_whole=False,
    )  # fmt: skip
    ahead: list[int] = []
    with open_journal(tmp_path) as writer:
        driver = Driver(
            Plan(load_sweep(str(path))), writer, engine,
            on_done=lambda tally: ahead.append(executor.submitted - tally.done),
        )  # fmt: skip
        tally = driver.run()
        assert write_table(driver, tmp_path) == 800
    assert (tally.ok, executor.submitted) == (800, 800)
    assert max(ahead) < IN_FLIGHT_PER_WORKER * 2


def test_progress_in_a_file_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("mine")
    tally = Tally(total=100, found=20, ok=10)
    lines(tally)  # too soon
    lines.start_s -= 40.0
    lines.last_s -= 40.0
    lines(tally)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1
    assert printed[0].startswith("mine: 30 of 100 runs, 0 failed, 0.2 runs/s, 28")  # 70 / 0.25
