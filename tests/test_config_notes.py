"""A guarantee that needs `workload.max_tokens` says so where it is not given."""

from pathlib import Path

import pytest
from cli_runs import call, tiny

from simpod.config import load_experiment, notes_of

IN_FLIGHT = "policies.batching=in_flight"
NOTE = "Note: policies.batching in_flight keeps room for the longest answers"
SHORT = ("-s", "deployment.server.kv_blocks=130", "-s", "workload.arrivals={process: burst}")


@pytest.mark.parametrize(
    ("changes", "is_told"),
    [
        ([IN_FLIGHT], True),
        (["engine.semantics=trtllm"], True),
        ([IN_FLIGHT, "workload.max_tokens=output_tokens"], False),
        ([IN_FLIGHT, "policies.batching.capacity=max_utilization"], False),
        (["policies.batching=fcfs"], False),
    ],
)
def test_who_is_told(tmp_path: Path, changes: list[str], is_told: bool) -> None:
    notes = list(notes_of(load_experiment(str(tiny(tmp_path)), changes)))
    assert bool(notes) == is_told
    assert all("-s workload.max_tokens=output_tokens" in note for note in notes)


def test_a_run_with_preemptions_tells(tmp_path: Path) -> None:
    file = tiny(tmp_path)
    told = call("run", file, "-s", IN_FLIGHT, *SHORT).stdout
    assert "preemptions" in told
    assert NOTE in told
    limits = call("run", file, "-s", IN_FLIGHT, *SHORT, "-s", "workload.max_tokens=output_tokens")
    assert "preemptions" not in limits.stdout
    assert NOTE not in limits.stdout
    assert NOTE not in call("run", file, "-s", IN_FLIGHT).stdout


def test_explain_tells_before_the_run(tmp_path: Path) -> None:
    told = call("explain", tiny(tmp_path), "-s", IN_FLIGHT).stdout
    assert NOTE in " ".join(told.split())


def test_one_graph_for_all_batches_is_told() -> None:
    """With the share of it that a run used, where that is less than a tenth."""
    few = ("-s", "workload.num_requests=40", "-s", "workload.arrivals.rate_per_s=2")
    graph = "Note: pool decode runs any batch of decodes as one graph of 48 sequences a rank"
    assert f"{graph} (other" in " ".join(call("explain", "quickstart").stdout.split())
    told = call("run", "quickstart", *few).stdout
    assert f"{graph}, as long as a full one, and had" in told
    assert graph not in call("run", "quickstart", *few, "-s", "engine.graph_batch_sizes=any").stdout
    slots = ("-s", "workload.arrivals={process: burst}", "-s", "deployment.decode.max_num_seqs=1")
    full = call("run", "quickstart", "-s", "workload.num_requests=640", *slots)
    assert "Note" not in full.stdout


def test_clients_without_a_second_request_are_told(tmp_path: Path) -> None:
    file = tiny(tmp_path)
    closed = ("-s", "workload.arrivals={process: closed_loop, concurrency: 30}")
    told = call("run", file, *closed).stdout
    assert "Note: workload.num_requests 40 for 30 clients" in told
    assert "-s workload.num_requests=120" in told
    few = call("run", file, *closed, "-s", "workload.num_requests=29").stdout
    assert "29 for 30 clients: the others send none" in few
    for enough in ("workload.num_requests=60", "measure={warmup_frac: 0, drain_frac: 0}"):
        assert "Note" not in call("run", file, *closed, "-s", enough).stdout


def test_a_closed_loop_has_so_many_requests_for_each_client() -> None:
    def of(*changes: str) -> tuple[int | None, object]:
        found = load_experiment("mtp", changes)
        return found.workload.num_requests, found.document["workload"]["num_requests"]

    assert of() == (2 * 288 * 60,) * 2
    assert of("deployment.decode.max_seqs_per_rank=10") == (2 * 288 * 10,) * 2
    assert of("workload.arrivals={process: closed_loop, concurrency: 7}") == (28, 28)
    assert of("workload.num_requests=99") == (99, 99)
