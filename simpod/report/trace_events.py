"""A run as Chrome trace events: opens in Perfetto (ui.perfetto.dev) and in chrome://tracing.

A process is a pool, a thread an instance; its slices are runs of like steps. Requests are
asynchronous spans with their phases nested in them; an arrow goes from the prefill step that ended
a prompt to the decode step that took its KV. Counters: waiting and running requests, KV, transfers.

Two traps: Perfetto drops slices of a thread that overlap, and takes a thread whose number equals
some process's for that process' main thread, so that threads must be numbered apart from processes
and from each other. Times are multiples of 1/8 us: exact as binary fractions, so that a slice never
seems to begin before the one ahead of it has ended.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

import numpy as np

from simpod.errors import ConfigError
from simpod.records.columns import STEP_PARTS
from simpod.report.series import count_between
from simpod.report.sources import Source, result_of
from simpod.report.trace_proto import write_proto
from simpod.run.results import ResultFiles

if TYPE_CHECKING:
    import pandas as pd

Event = dict[str, Any]

TICKS_PER_S: Final = 8e6
THREADS_PER_PROCESS: Final = 100_000
REQUESTS_PID: Final = 1
"""Process of the request spans; pools follow."""

PHASES: Final = (
    ("queue", "arrival_s", "scheduled_s"),
    ("prefill", "scheduled_s", "prefill_end_s"),
    ("back pressure", "prefill_end_s", "transfer_start_s"),
    ("KV transfer", "transfer_start_s", "transfer_end_s"),
    ("first decode step", "transfer_end_s", "engine_first_token_s"),
    ("decode", "engine_first_token_s", "engine_finish_s"),
    ("frontend", "engine_finish_s", "finish_s"),
)
"""Name, begin, end; a phase that a request did not have (or that took no time) is left out."""

_COUNTER_POINTS: Final = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What part of a run is shown: everything that touches [from_s, to_s]."""

    from_s: float = -np.inf
    to_s: float = np.inf
    request_id: int | None = None
    """Only this request, and steps of the instances that it visited while it was there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceCounts:
    """What a trace holds."""

    slices: int  # of steps, spans and phases: as many as Perfetto must show
    flows: int
    events: int


def write_trace(source: Source, path: Path, window: Window | None = None) -> TraceCounts:
    """Write a result as `.json`, `.json.gz` or `.pftrace`; the same bytes for the same run."""
    if not path.name.endswith((".json", ".json.gz", ".pftrace")):
        raise ConfigError(f"{path}: a trace is called .json, .json.gz or .pftrace")
    trace = _trace_of(result_of(source), window or Window())
    phases: Counter[str] = Counter()

    def counted() -> Iterator[Event]:
        for event in trace.events():
            phases[event["ph"]] += 1
            yield event

    if path.suffix == ".pftrace":
        write_proto(path, counted())
    else:
        with _opened(path) as file:
            _write_json(file, counted())
    return TraceCounts(slices=phases["X"] + phases["b"], flows=phases["s"], events=phases.total())


def _write_json(file: IO[bytes], events: Iterable[Event]) -> None:
    separator = b"\n"
    file.write(b'{"displayTimeUnit":"ms","traceEvents":[')
    for event in events:
        file.write(separator + json.dumps(event, separators=(",", ":")).encode())
        separator = b",\n"
    file.write(b"\n]}\n")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, compressed if it is called so; no name and no time go into it."""
    with path.open("wb") as file:
        if not path.name.endswith(".gz"):
            yield file
            return
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as compressed:
            yield cast("IO[bytes]", compressed)


def trace_events(result: ResultFiles, window: Window) -> list[Event]:
    """All events of the window."""
    return list(_trace_of(result, window).events())


def _trace_of(result: ResultFiles, window: Window) -> "_Trace":
    if window.to_s <= window.from_s:
        raise ConfigError(f"trace: {window.from_s:g} to {window.to_s:g} s is no time at all")
    return _Trace(result, window)


def _tick(seconds: float) -> float:
    """Microseconds, in eighths."""
    return round(seconds * TICKS_PER_S) / 8


class _Trace:
    """One result's tables, cut to the window, and the numbers of its tracks."""

    def __init__(self, result: ResultFiles, window: Window) -> None:
        self.pools: Mapping[str, Any] = result.provenance["experiment"]["deployment"]
        self.pids = {name: REQUESTS_PID + 1 + i for i, name in enumerate(self.pools)}
        by_role = {pool["role"]: name for name, pool in self.pools.items()}
        self.entry = by_role.get("prefill", by_role.get("mixed", ""))
        self.decode = by_role.get("decode", self.entry)
        self._known_spans: dict[tuple[str, int], Any] = {}
        self.requests = self._chosen_requests(result.requests, window)
        low_s, high_s = window.from_s, window.to_s
        if window.request_id is not None:
            low_s, high_s = self._life_of(result)
        self.steps = self._chosen_steps(result.steps, low_s, high_s, window)
        self.transfers = result.transfers[
            result.transfers["request_id"].isin(self.requests["request_id"])
        ]
        self.low_s, self.high_s = low_s, high_s

    def _chosen_requests(self, rows: "pd.DataFrame", window: Window) -> "pd.DataFrame":
        rows = rows[rows["status"] != "refused"]
        if window.request_id is not None:
            rows = rows[rows["request_id"] == window.request_id]
            if rows.empty:
                raise ConfigError(f"trace: no request {window.request_id} was served")
            return rows
        is_over = rows["finish_s"] < window.from_s
        return rows.loc[~is_over & (rows["arrival_s"] <= window.to_s)]

    def _life_of(self, result: ResultFiles) -> tuple[float, float]:
        row = self.requests.iloc[0]
        end_s = row["finish_s"] if row["finish_s"] > 0 else result.summary["simulated_s"]
        return float(row["arrival_s"]), float(end_s)

    def _chosen_steps(
        self, rows: "pd.DataFrame", low_s: float, high_s: float, window: Window
    ) -> "pd.DataFrame":
        rows = rows[(rows["end_s"] > low_s) & (rows["start_s"] < high_s)]
        if window.request_id is None:
            return rows
        request = self.requests.iloc[0]
        entry = rows["pool"] == self.entry
        keep = entry & (rows["instance"] == self._instance(self.entry, request["prefill_target"]))
        keep |= (rows["pool"] == self.decode) & (
            rows["instance"] == self._instance(self.decode, request["decode_target"])
        )
        visited: pd.DataFrame = rows.loc[keep]
        return visited

    def _instance(self, pool: str, target: Any) -> Any:
        return target // self.pools[pool]["dp"]

    def _tid(self, pool: str, instance: int) -> int:
        return THREADS_PER_PROCESS * self.pids[pool] + instance

    def events(self) -> Iterator[Event]:
        """Names first, then what happened."""
        yield from self._names()
        yield from self._step_slices()
        yield from self._request_spans()
        yield from self._flows()
        yield from self._step_counters()
        yield from self._request_counters()

    def _names(self) -> Iterator[Event]:
        yield _name("process_name", REQUESTS_PID, "requests")
        for pool, pid in self.pids.items():
            yield _name("process_name", pid, f"{pool} pool")
            shown = self.steps.loc[self.steps["pool"] == pool, "instance"].unique()
            for instance in sorted(int(i) for i in shown):
                tid = self._tid(pool, instance)
                yield _name("thread_name", pid, f"{pool} {instance}", tid)

    def _step_slices(self) -> Iterator[Event]:
        parts = [part for part in STEP_PARTS if (self.steps[f"{part}_s"] > 0).any()]
        for row in self.steps.to_dict("records"):
            start, end = _tick(row["start_s"]), _tick(row["end_s"])
            args = {f"{p} (ms)": round(1e3 * row[f"{p}_s"], 4) for p in parts if row[f"{p}_s"] > 0}
            counts = ("first_step", "num_steps", "decode_seqs", "context_tokens", "prefill_tokens")
            yield {
                "ph": "X",
                "cat": "step",
                "name": _kind(row),
                "pid": self.pids[row["pool"]],
                "tid": self._tid(row["pool"], row["instance"]),
                "ts": start,
                "dur": end - start,
                "args": {**{name: row[name] for name in counts}, **args},
            }

    def _request_spans(self) -> Iterator[Event]:
        for row in self.requests.to_dict("records"):
            place = {
                "cat": "request",
                "pid": REQUESTS_PID,
                "tid": THREADS_PER_PROCESS * REQUESTS_PID,
                "id2": {"local": hex(int(row["request_id"]))},
            }
            start, stop = self._cut(row["arrival_s"]), self._cut(_last_of(row))
            names = ("request_id", "prompt_tokens", "output_tokens", "cached_tokens")
            args = {name: int(row[name]) for name in names}
            args["arrival_s"] = row["arrival_s"]
            yield {"ph": "b", "name": "request", **place, "ts": start, "args": args}
            for name, begin, end in PHASES:
                if self._cut(row[end]) > self._cut(row[begin]):
                    yield {"ph": "b", "name": name, **place, "ts": self._cut(row[begin])}
                    yield {"ph": "e", "name": name, **place, "ts": self._cut(row[end])}
            yield {"ph": "e", "name": "request", **place, "ts": stop}

    def _cut(self, seconds: float) -> float:
        """A moment as it is written: those outside the window at its ends; NaN stays."""
        if np.isnan(seconds):
            return seconds
        return _tick(min(max(seconds, self.low_s), self.high_s))

    def _flows(self) -> Iterator[Event]:
        """From the step that ended the prompt to the first that starts with its KV there."""
        for row in self.transfers.to_dict("records"):
            source = self._instance(self.entry, row["source"])
            target = self._instance(self.decode, row["destination"])
            left = self._step_before(self.entry, source, row["start_s"])
            right = self._step_after(self.decode, target, row["end_s"])
            if left is None or right is None:
                continue
            shared = {"cat": "kv", "name": "KV transfer", "id": int(row["request_id"]) + 1}
            for phase, pool, instance, step in (
                ("s", self.entry, source, left),
                ("f", self.decode, target, right),
            ):
                yield {
                    "ph": phase,
                    **shared,
                    **({"bp": "e"} if phase == "f" else {}),
                    "pid": self.pids[pool],
                    "tid": self._tid(pool, int(instance)),
                    "ts": _tick((step[0] + step[1]) / 2),
                }

    def _spans_of(self, pool: str, instance: int) -> Any:
        """[k, 2] starts and ends of a group's steps."""
        rows = self.steps
        chosen = rows[(rows["pool"] == pool) & (rows["instance"] == instance)]
        return chosen[["start_s", "end_s"]].to_numpy()

    def _step_before(self, pool: str, instance: int, moment_s: float) -> Any:
        spans = self._spans(pool, instance)
        place = np.searchsorted(spans[:, 1], moment_s, "right") - 1
        return spans[place] if place >= 0 else None

    def _step_after(self, pool: str, instance: int, moment_s: float) -> Any:
        spans = self._spans(pool, instance)
        place = np.searchsorted(spans[:, 0], moment_s, "left")
        return spans[place] if place < len(spans) else None

    def _spans(self, pool: str, instance: int) -> Any:
        key = (pool, int(instance))
        if key not in self._known_spans:
            self._known_spans[key] = self._spans_of(*key)
        return self._known_spans[key]

    def _counter(self, name: str, pid: int, time_s: float, value: float) -> Event:
        return {"ph": "C", "name": name, "pid": pid, "ts": _tick(time_s), "args": {"value": value}}

    def _inside(self, moments: Any) -> Any:
        return moments[(moments >= self.low_s) & (moments <= self.high_s)]

    def _step_counters(self) -> Iterator[Event]:
        """By instance, at the start of each run of steps: the instance is in the counter's name."""
        for row in self.steps.to_dict("records"):
            pool, instance = row["pool"], row["instance"]
            spec, pid = self.pools[pool], self.pids[pool]
            if spec["role"] != "prefill":
                tokens = spec["kv_blocks"] * spec["block_tokens"] * spec["dp"]
                share = round(100 * row["context_tokens"] / tokens, 3)
                at_s = row["start_s"]
                name = f"{pool} {instance}"
                yield self._counter(f"{name} KV of decodes (%)", pid, at_s, share)
                yield self._counter(f"{name} decoding", pid, at_s, row["decode_seqs"])

    def _request_counters(self) -> Iterator[Event]:
        """Waiting requests of the window, and bytes of KV on their way."""
        rows = self.requests
        arrivals, starts = rows["arrival_s"].to_numpy(), rows["scheduled_s"].to_numpy()
        moments = self._inside(_moments(arrivals, starts))
        waiting = count_between(arrivals, starts, moments)
        for at_s, value in zip(moments.tolist(), waiting.tolist(), strict=True):
            yield self._counter("waiting for a first step", REQUESTS_PID, at_s, value)
        begin, end = self.transfers["start_s"].to_numpy(), self.transfers["end_s"].to_numpy()
        moments = self._inside(_moments(begin, end))
        moving = count_between(begin, end, moments)
        for at_s, value in zip(moments.tolist(), moving.tolist(), strict=True):
            yield self._counter("KV transfers under way", REQUESTS_PID, at_s, value)


def _name(what: str, pid: int, text: str, tid: int = 0) -> Event:
    place = {"pid": pid, "tid": tid} if tid else {"pid": pid}
    return {"ph": "M", "name": what, **place, "args": {"name": text}}


def _moments(starts: Any, ends: Any) -> Any:
    """When a count changes; at most `_COUNTER_POINTS` of these moments."""
    times = np.unique(np.concatenate([starts[~np.isnan(starts)], ends[~np.isnan(ends)]]))
    return times[:: max(1, -(-len(times) // _COUNTER_POINTS))]


def _last_of(row: Mapping[Any, Any]) -> float:
    """The last thing that is known of a request."""
    return float(np.nanmax([row["arrival_s"], *(row[end] for _, _, end in PHASES)]))


def _kind(row: Mapping[Any, Any]) -> str:
    if row["prefill_tokens"] and row["decode_seqs"]:
        return "prefill and decode"
    return "prefill" if row["prefill_tokens"] else "decode"
