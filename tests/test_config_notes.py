"""A guarantee that needs `workload.max_tokens` says so where it is not given."""

from itertools import chain
from pathlib import Path

import pytest
from cli_runs import call, tiny

from simpod.config import load_experiment, notes_of
from simpod.errors import ConfigError

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
    assert f"{graph}, whose products take as long as full ones, and had" in told
    assert graph not in call("run", "quickstart", *few, "-s", "engine.graph_batch_sizes=any").stdout
    slots = ("-s", "workload.arrivals={process: burst}", "-s", "deployment.decode.max_num_seqs=1")
    full = call("run", "quickstart", "-s", "workload.num_requests=640", *slots)
    assert "Note" not in full.stdout


CLOSED = "workload.arrivals={process: closed_loop, concurrency: 30}"
ALIKE = [
    f"workload.{which}_tokens={{distribution: constant, value: {tokens}}}"
    for which, tokens in (("prompt", 300), ("output", 20))
]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["workload.num_requests=29"], "29 for 30 clients: the others send none"),
        (["workload.num_requests=31"], "31 for 30 clients: the last of each are measured, too"),
        (["workload.num_requests=299"], "(-s workload.num_requests=300)"),
        (["workload.num_requests=300"], ""),
        (["workload.num_requests=60", *ALIKE], ""),
        (["workload.num_requests=61", *ALIKE], "the last of each are measured, too"),
        (["workload.num_requests=40", "measure={warmup_frac: 0, drain_frac: 0}"], ""),
        (["workload.num_requests=null"], ""),
    ],
)
def test_clients_that_leave_are_told(tmp_path: Path, changes: list[str], told: str) -> None:
    notes = " ".join(notes_of(load_experiment(str(tiny(tmp_path)), [CLOSED, *changes])))
    assert told in notes
    assert bool(told) == ("clients" in notes)


def test_a_closed_loop_has_so_many_requests_for_each_client() -> None:
    def of(*changes: str) -> tuple[int | None, object]:
        found = load_experiment("mtp", changes)
        return found.workload.num_requests, found.document["workload"]["num_requests"]

    assert of() == (2 * 288 * 60,) * 2
    assert of("deployment.decode.max_seqs_per_rank=10") == (2 * 288 * 10,) * 2
    assert of("workload.arrivals={process: closed_loop, concurrency: 7}") == (70, 70)
    assert of("workload.num_requests=99") == (99, 99)


def test_a_closed_loop_without_bounds_is_refused() -> None:
    each = "workload.arrivals.requests_per_client"
    with pytest.raises(ConfigError, match="at most 1,000,000,000 in all"):
        load_experiment("mtp", [f"{each}=100000"])
    with pytest.raises(ConfigError, match="too large"):
        load_experiment("mtp", [f"{each}=2000000"])
    with pytest.raises(ConfigError, match="required with arrivals but closed_loop"):
        load_experiment("mtp", ["workload.arrivals={process: burst}"])


def test_all_rows_of_a_trace_are_sent_in_a_closed_loop(tmp_path: Path) -> None:
    rows = "prompt_tokens,output_tokens\n" + "100,5\n" * 7
    (tmp_path / "rows.csv").write_text(rows, encoding="utf-8")
    columns = "prompt_tokens: prompt_tokens, output_tokens: output_tokens"
    trace = f"{{format: columns, path: rows.csv, {columns}}}"
    changes = [
        "workload.arrivals={process: closed_loop, concurrency: 2}",
        f"workload.trace={trace}",
        "workload.prompt_tokens=null",
        "workload.output_tokens=null",
        "workload.num_requests=null",
    ]
    file = str(tiny(tmp_path))
    assert load_experiment(file, changes).workload.num_requests is None
    told = call("run", file, *chain.from_iterable(("-s", change) for change in changes)).stdout
    assert "7 for 2 clients: the last of each are measured, too" in told


def test_only_pools_that_decode_alone_have_one_graph() -> None:
    apart, mixed = load_experiment("quickstart").pools, load_experiment("llama70b-h100-colocated")
    assert [pool.layout.max_num_seqs for pool in apart] == [0, 48]
    assert [pool.layout.max_num_seqs for pool in mixed.pools] == [0]


def test_the_note_is_gone_with_its_remedy() -> None:
    for remedy in ("graph_batch_sizes=[12,24,48]", "graph_batch_sizes=any", "max_graph_tokens=64"):
        assert not list(notes_of(load_experiment("quickstart", [f"engine.{remedy}"])))
    assert not list(notes_of(load_experiment("xdeepserve-disaggregated-768")))  # it has two
    (note,) = notes_of(load_experiment("quickstart"))
    assert "engine.graph_batch_sizes=[12,24,48], or any" in note
