"""Traces: well-formed, no overlap on a thread, numbers that no two things share, nothing lost."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from cli_runs import call
from measured_tables import SHARED
from report_cases import apart, together

from simpod.errors import ConfigError
from simpod.report.sources import result_of
from simpod.report.trace_events import Window, trace_events, write_trace


def events_of(folder, **window):
    return trace_events(result_of(folder), Window(**window))


def of_phase(events, *phases):
    return [event for event in events if event["ph"] in phases]


@pytest.mark.parametrize("folder", [apart, together])
def test_slices_of_a_thread_neither_overlap_nor_lose_time(folder) -> None:
    threads: dict[int, list[tuple[float, float]]] = {}
    slices = of_phase(events_of(folder()), "X")
    for event in slices:
        threads.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
    for spans in threads.values():
        spans.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    steps = result_of(folder()).steps
    assert len(slices) == len(steps)
    took_us = 1e6 * (steps["end_s"] - steps["start_s"]).sum()
    assert sum(event["dur"] for event in slices) == pytest.approx(took_us, abs=len(slices))


def test_times_are_eighths_of_a_microsecond() -> None:
    for event in events_of(apart()):
        if "ts" in event:
            assert (event["ts"] * 8).is_integer()


def test_numbers_are_unique() -> None:
    events = events_of(apart())
    names = of_phase(events, "M")
    pids = [e["pid"] for e in names if e["name"] == "process_name"]
    tids = [e["tid"] for e in names if e["name"] == "thread_name"]
    assert len(set(pids + tids)) == len(pids) + len(tids)
    assert {e["tid"] for e in of_phase(events, "X")} == set(tids)


def test_spans_nest_and_end() -> None:
    open_spans: dict[str, list[str]] = {}
    for event in of_phase(events_of(apart()), "b", "e"):
        stack = open_spans.setdefault(event["id2"]["local"], [])
        if event["ph"] == "b":
            assert bool(stack) == (event["name"] != "request")
            stack.append(event["name"])
        else:
            assert stack.pop() == event["name"]
    assert len(open_spans) == 300
    assert not any(open_spans.values())


def test_every_transfer_has_an_arrow_between_slices() -> None:
    events = events_of(apart())
    slices = of_phase(events, "X")
    begins, ends = of_phase(events, "s"), of_phase(events, "f")
    assert len(begins) == len(ends) == len(result_of(apart()).transfers)
    for begin, end in zip(begins, ends, strict=True):
        assert begin["id"] == end["id"]
        assert begin["ts"] < end["ts"]
    for arrow in (*begins[:20], *ends[:20]):
        inside = [s for s in slices if s["tid"] == arrow["tid"]]
        assert any(s["ts"] <= arrow["ts"] < s["ts"] + s["dur"] for s in inside)


def test_a_slice_has_its_breakdown() -> None:
    step = next(e for e in of_phase(events_of(apart()), "X") if e["name"] == "decode")
    parts = [value for name, value in step["args"].items() if name.endswith("(ms)")]
    assert sum(parts) == pytest.approx(step["dur"] / 1e3, abs=0.01)
    assert step["args"]["decode_seqs"] > 0


def test_one_request_with_the_steps_it_went_through() -> None:
    events = events_of(apart(), request_id=17)
    spans = of_phase(events, "b")
    assert {e["id2"]["local"] for e in spans} == {hex(17)}
    row = result_of(apart()).requests.iloc[17]
    for step in of_phase(events, "X"):
        assert step["ts"] + step["dur"] > 1e6 * row["arrival_s"] - 1
        assert step["ts"] < 1e6 * row["finish_s"] + 1
    assert len(of_phase(events, "s")) == 1
    assert len({e["tid"] for e in of_phase(events, "X")}) == 2
    with pytest.raises(ConfigError, match="no request 9999"):
        events_of(apart(), request_id=9999)


def test_spans_end_with_the_window() -> None:
    spans = of_phase(events_of(apart(), from_s=4.0, to_s=5.0), "b", "e")
    assert spans
    assert all(4e6 <= event["ts"] <= 5e6 for event in spans)
    with pytest.raises(ConfigError, match="no time at all"):
        events_of(apart(), from_s=5.0, to_s=5.0)


def test_counters_carry_their_instance() -> None:
    names = {event["name"] for event in of_phase(events_of(together()), "C")}
    assert names == {
        "server 0 KV of decodes (%)",
        "server 0 decoding",
        "server 1 KV of decodes (%)",
        "server 1 decoding",
        "waiting for a first step",
    }


def test_the_command_writes_the_same_bytes_each_time(tmp_path) -> None:
    for name in ("a.json.gz", "b.json.gz"):
        done = call("trace-view", apart(), "-o", tmp_path / name)
        assert done.exit_code == 0, done.output
        assert "slices" in done.output
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    value = json.loads(gzip.decompress((tmp_path / "a.json.gz").read_bytes()))
    assert Counter(e["ph"] for e in value["traceEvents"])["b"] > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{apart}", "-o", "t.txt"), ".json, .json.gz or .pftrace"),
        (("{apart}", "-o", "t.json", "--request", "1", "--from", "0"), "exclude each other"),
        (("nowhere", "-o", "t.json"), "there is no such folder"),
    ],
)
def test_mistakes(arguments, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("trace-view", *(a.format(apart=apart()) for a in arguments))
    assert done.exit_code == 2
    assert message in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_perfetto_loads_every_slice(tmp_path) -> None:
    """A production run of 5,000 requests in Perfetto's own trace processor."""
    checker = SHARED / "tools" / "perfetto_check.py"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if not checker.is_file():
        pytest.skip(f"needs {checker}: set SIMPOD_SHARED")
    for module in ("playwright", "viztracer"):
        if find_spec(module) is None:
            pytest.skip(f"needs {module}")
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium")
    result = tmp_path / "production"
    experiment = "cloudmatrix384-deepseek-r1-production"
    done = call("run", experiment, "-s", "workload.num_requests=5000", "-q", "--out", result)
    assert done.exit_code == 0, done.output
    counts = write_trace(result, tmp_path / "trace.json.gz")
    sql = (
        "select (select count(*) from slice), (select count(*) from flow),"
        " (select count(*) from stats where value > 0 and severity in ('error', 'data_loss'))"
    )
    command = [sys.executable, str(checker), str(tmp_path / "trace.json.gz"), sql]
    seen = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    (row,) = json.loads(seen.stdout)["rows"]
    assert row == [str(counts.slices), str(counts.flows), "0"]


def test_protobuf_has_the_same_slices_flows_and_counters(tmp_path) -> None:
    builder = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    counts = write_trace(apart(), tmp_path / "t.pftrace")
    trace = builder.Trace.FromString((tmp_path / "t.pftrace").read_bytes())
    tracked = [p.track_event for p in trace.packet if p.HasField("track_event")]
    kinds = Counter(event.type for event in tracked)
    types = builder.TrackEvent
    events = events_of(apart())
    assert kinds[types.TYPE_SLICE_BEGIN] == kinds[types.TYPE_SLICE_END] == counts.slices
    assert kinds[types.TYPE_COUNTER] == len(of_phase(events, "C"))
    assert sum(len(event.flow_ids) for event in tracked) == len(of_phase(events, "s"))
    assert sum(len(e.terminating_flow_ids) for e in tracked) == len(of_phase(events, "f"))
    known = [p.track_descriptor.uuid for p in trace.packet if p.HasField("track_descriptor")]
    assert len(set(known)) == len(known)
    assert {event.track_uuid for event in tracked} <= set(known)
    open_slices: Counter[int] = Counter()
    for event in tracked:
        open_slices[event.track_uuid] += event.type == types.TYPE_SLICE_BEGIN
        open_slices[event.track_uuid] -= event.type == types.TYPE_SLICE_END
        assert open_slices[event.track_uuid] >= 0
    assert set(open_slices.values()) == {0}


def test_protobuf_without_its_library_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "perfetto", None)
    with pytest.raises(ConfigError, match=r"pip install 'simpod\[perfetto\]'"):
        write_trace(apart(), tmp_path / "t.pftrace")
    assert list(tmp_path.iterdir()) == []
