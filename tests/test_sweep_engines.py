"""Ray and Dask, for real: a cluster on this machine, a worker killed in the middle, the same table.

Minutes, and libraries of hundreds of megabytes: `make slow` installs and demands them. Elsewhere a
missing one is a skip that says so.
"""

import importlib.util
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from cli_runs import call
from sweep_runs import made, start, sweep_file

from simpod.sweep.journal import JOURNAL, lines_of

pytestmark = pytest.mark.slow

DEMANDED = os.environ.get("SIMPOD_REQUIRE_ENGINES") == "1"
LIBRARIES = {"ray": "ray", "dask": "distributed"}


def needed(engine: str) -> None:
    if importlib.util.find_spec(LIBRARIES[engine]) is None:
        reason = f"needs pip install 'simpod[{engine}]'"
        if DEMANDED:
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.parametrize("engine", list(LIBRARIES))
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_gives_the_same_table_also_when_a_worker_is_killed(
    engine: str, tmp_path: Path
) -> None:
    needed(engine)
    killer = {"use": "./misbehaving.py:KillsOnce", "marker": str(tmp_path / "marker")}
    grid = {"policies.router": ["random", killer, "round_robin", "least_requests"]}
    path = sweep_file(tmp_path, grid=grid, seeds=4, retries=2)
    tally, _ = made(path, tmp_path / engine, (engine, 2))
    assert (tally.ok, tally.failed) == (16, 0)
    assert (tmp_path / "marker").exists()  # a process did die
    local, _ = made(path, tmp_path / "local", ("local", 1))
    assert local.ok == 16
    tables = [(tmp_path / each / "runs.parquet").read_bytes() for each in (engine, "local")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("engine", list(LIBRARIES))
@pytest.mark.filterwarnings("ignore")
def test_a_run_without_end_and_a_run_that_fails_on_a_cluster(engine: str, tmp_path: Path) -> None:
    needed(engine)
    uses = ["random", *(f"./misbehaving.py:{name}" for name in ("loops", "fails", "kills"))]
    path = sweep_file(
        tmp_path, grid={"policies.router.use": uses}, seeds=1, time_limit_s=3, retries=0
    )
    tally, table = made(path, tmp_path / "out", (engine, 2))
    assert table["status"].tolist() == ["ok", "failed", "failed", "failed"]
    kinds = [error.partition(":")[0] for error in table["error"].iloc[1:]]
    assert kinds == ["OutOfTimeError", "PolicyError", "WorkerDiedError"]
    assert tally.lost_workers == 1


def test_a_driver_killed_ten_times_gives_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, grid={"workload.arrivals.rate_per_s": list(range(1, 101))}, seeds=3)
    made(path, tmp_path / "whole")
    out, rng = tmp_path / "out", random.Random(11)
    for _ in range(10):
        with start(path.name, "--out", out, "-j", 2, "-q", cwd=tmp_path) as running:
            time.sleep(rng.uniform(0.5, 4.0))
            running.send_signal(signal.SIGKILL)
    made(path, out)
    ids = [record["run_id"] for _, record in lines_of(out / JOURNAL)]
    assert len(ids) == len(set(ids)) == 300
    assert (out / "runs.parquet").read_bytes() == (tmp_path / "whole" / "runs.parquet").read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_a_running_dask_cluster_is_joined_and_left_running(tmp_path: Path) -> None:
    needed("dask")
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        options = ("--engine", "dask", "--address", address, "--json")
        done = call("sweep", sweep_file(tmp_path), "--out", tmp_path / "out", *options)
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["ok"] == 4
        with Client(address) as client:
            assert len(client.nthreads()) == 1
