"""Mooncake JSONL, the common interchange format: read, and written without loss.

Fields as in github.com/kvcache-ai/Mooncake (FAST'25 traces); `session_id` and `delay` as AIPerf's
`mooncake_trace` has them for conversations of several turns.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simpod.errors import ConfigError
from simpod.workload.requests import Requests
from simpod.workload.traces.bad_rows import BadRows
from simpod.workload.traces.jsonl import finish, read_rows
from simpod.workload.traces.recorded import Recorded
from simpod.workload.traces.spec import MooncakeTrace

_ALWAYS_WRITTEN = {"input_length", "output_length"}
_WRITTEN = {*_ALWAYS_WRITTEN, "timestamp", "delay", "hash_ids", "session_id"}
_LONGEST_ROW = 100_000_000  # characters; more on a line is no row of a trace


def read(spec: MooncakeTrace) -> Recorded:
    """Read the rows of a file."""
    bad = BadRows(spec.path)
    rows = read_rows(spec, bad)
    for line, item in zip(rows.lines, rows.objects, strict=True):
        session = item.get("session_id")
        if not isinstance(session, str | int | None) or isinstance(session, bool):
            bad.report(
                line, f"session_id is {json.dumps(session)[:40]}; allowed: a string or whole number"
            )
    return finish(spec, rows, bad, lambda items: [item.get("session_id") for item in items])


def write_mooncake(requests: Requests, path: str | os.PathLike[str]) -> None:
    """Write requests so that `read` gives them back (with the same `hash_block_tokens`).

    Times are milliseconds with all their digits. Requests that wait for another one of their
    session get a `delay` instead of a `timestamp`; a closed loop has no times and is refused. The
    file appears complete or not at all; a symbolic link stays, what it points to is written.
    """
    _check_writable(requests)
    try:
        target = Path(path).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, until Python 3.12
        raise ConfigError(f"{path}: leads nowhere: {error}") from None
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in _rows(requests))
        partial.replace(target)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def is_written_here(path: Path) -> bool:
    """Whether a file may be one of `write_mooncake`: empty, or its first row has its keys only."""
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline(_LONGEST_ROW)
        row = json.loads(first or "null")
    except (OSError, ValueError):  # not text, not JSON
        return False
    if row is None:
        return not first
    return isinstance(row, dict) and row.keys() <= _WRITTEN and row.keys() >= _ALWAYS_WRITTEN


def _rows(requests: Requests) -> Iterator[dict[str, Any]]:
    arrival_ms = (requests.arrival_s * 1e3).tolist()
    think_ms = (requests.think_s * 1e3).tolist()
    prompt, output = requests.prompt_tokens.tolist(), requests.output_tokens.tolist()
    follows, session = (requests.after >= 0).tolist(), requests.session_id.tolist()
    for i in range(len(requests)):
        row: dict[str, Any] = (
            {"delay": _short(think_ms[i])} if follows[i] else {"timestamp": _short(arrival_ms[i])}
        )
        row |= {"input_length": prompt[i], "output_length": output[i]}
        if requests.hash_block_tokens:
            row["hash_ids"] = requests.prefix_ids(i).tolist()
        if session[i] >= 0:
            row["session_id"] = session[i]
        yield row


def _short(number: float) -> float | int:
    return int(number) if number.is_integer() else number


def _check_writable(requests: Requests) -> None:
    if requests.concurrency is not None:
        raise ConfigError(
            "closed_loop requests have no arrival times, so no trace can hold them; "
            "allowed: any other process"
        )
    last_of_session: dict[int, int] = {}
    session, after = requests.session_id.tolist(), requests.after.tolist()
    for i in range(len(requests)):
        if after[i] >= 0 and (session[i] < 0 or last_of_session.get(session[i]) != after[i]):
            raise ConfigError(
                f"request {i} waits for request {after[i]}, which is not the one before it in its "
                "session; allowed: conversations, turn by turn"
            )
        last_of_session[session[i]] = i
    if np.any(bad := np.isnan(requests.arrival_s) & (requests.after < 0)):
        raise ConfigError(f"request {np.flatnonzero(bad)[0]} has no arrival time")
