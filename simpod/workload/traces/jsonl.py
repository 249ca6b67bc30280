"""JSON Lines traces: one object a line with timestamp, input_length, output_length, hash_ids."""

import difflib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simpod.errors import ConfigError
from simpod.units import SECONDS_PER_UNIT
from simpod.workload.traces.bad_rows import (
    BadRows,
    check_not_negative,
    check_tokens,
    whole_tokens,
)
from simpod.workload.traces.block_size import check_too_few, check_too_many
from simpod.workload.traces.recorded import Recorded, number_sessions
from simpod.workload.traces.spec import BailianTrace, MooncakeTrace
from simpod.workload.traces.table import read_error

_MAX_ID = 2**63
_KEYS = frozenset(
    [
        "timestamp",
        "delay",
        "input_length",
        "output_length",
        "hash_ids",
        "session_id",
        "chat_id",
        "parent_chat_id",
    ]
)
"""Keys that mean themselves: never offered as a misspelling of another."""


@dataclass(slots=True)
class JsonRows:
    """Rows read so far, bad ones with NaN or without ids."""

    lines: list[int] = field(default_factory=list)
    time: list[float] = field(default_factory=list)  # in the unit of the file; NaN: none
    delay: list[float] = field(default_factory=list)  # same unit; 0: has a time
    prompt_tokens: list[float] = field(default_factory=list)
    output_tokens: list[float] = field(default_factory=list)
    hash_counts: list[int] = field(default_factory=list)
    hash_ids: list[int] = field(default_factory=list)
    objects: list[dict[str, Any]] = field(default_factory=list)  # without hash_ids


def read_rows(spec: MooncakeTrace | BailianTrace, bad: BadRows) -> JsonRows:
    """Read a file; problems of types and missing keys are reported, ranges are checked later."""
    rows = JsonRows()
    may_delay = isinstance(spec, MooncakeTrace)
    for line, item in _objects(spec.path, bad):
        ids = _hash_ids(item, line, bad)
        has_delay = may_delay and "delay" in item and "timestamp" not in item
        rows.lines.append(line)
        rows.time.append(math.nan if has_delay else _number(item, "timestamp", line, bad))
        rows.delay.append(_number(item, "delay", line, bad) if has_delay else 0.0)
        rows.prompt_tokens.append(_number(item, "input_length", line, bad))
        rows.output_tokens.append(_number(item, "output_length", line, bad))
        rows.hash_counts.append(len(ids))
        rows.hash_ids += ids
        rows.objects.append(item)
    if not rows.lines and not len(bad.lines()):
        raise ConfigError(f"{spec.path}: the file is empty; allowed: one JSON object a line")
    return rows


def finish(
    spec: MooncakeTrace | BailianTrace,
    rows: JsonRows,
    bad: BadRows,
    session_names: Callable[[list[dict[str, Any]]], list[Any]],
) -> Recorded:
    """Check ranges, settle bad rows, convert to seconds.

    session_names: the session of each good row, by any name; None: none.
    """
    lines = np.array(rows.lines, dtype=np.int64)
    time, delay = np.array(rows.time), np.array(rows.delay)
    prompt, output = np.array(rows.prompt_tokens), np.array(rows.output_tokens)
    check_not_negative(time, lines, "timestamp", bad)
    check_not_negative(delay, lines, "delay", bad)
    check_tokens(prompt, lines, "input_length", bad)
    check_tokens(output, lines, "output_length", bad)
    counts = np.array(rows.hash_counts, dtype=np.int64)
    check_too_many(counts, prompt + output, lines, spec.hash_block_tokens, bad)
    skipped = bad.settle(spec.bad_rows)
    good = np.flatnonzero(~np.isin(lines, skipped))
    per_s = round(1 / SECONDS_PER_UNIT[spec.time_unit])
    everything = Recorded(
        path=spec.path,
        lines=lines,
        time_s=time / per_s,
        prompt_tokens=whole_tokens(prompt),
        output_tokens=whole_tokens(output),
        session_id=np.full(len(lines), -1, dtype=np.int64),
        think_s=delay / per_s,
        hash_counts=counts,
        hash_ids=np.array(rows.hash_ids, dtype=np.int64),
        hash_block_tokens=spec.hash_block_tokens if rows.hash_ids else 0,
        skipped_rows=len(skipped),
    )
    taken = everything.take(good)
    check_too_few(
        spec.path,
        taken.hash_counts,
        taken.prompt_tokens,
        taken.output_tokens,
        spec.hash_block_tokens,
    )
    taken.session_id[:] = number_sessions(session_names([rows.objects[row] for row in good]))
    return taken


def _objects(path: str, bad: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    item = json.loads(text)
                except (ValueError, RecursionError) as error:  # also thousands of digits
                    bad.report(line, f"not JSON ({error}); allowed: one JSON object a line")
                    continue
                if isinstance(item, dict):
                    yield line, item
                else:
                    bad.report(line, f"{text.strip()[:40]!r}; allowed: a JSON object")
    except (OSError, UnicodeDecodeError) as error:
        raise read_error(path, error) from None


def _number(item: dict[str, Any], key: str, line: int, bad: BadRows) -> float:
    """Return a finite number, or report and return NaN."""
    if key not in item:
        close = difflib.get_close_matches(key, item.keys() - _KEYS, n=1)
        hint = f"; did you mean {key!r} by {close[0]!r}?" if close else ""
        bad.report(line, f"missing key {key!r}; the row has {', '.join(item) or 'none'}{hint}")
        return math.nan
    value = item[key]
    if type(value) in (int, float) and abs(value) < 1e300:  # not bool, NaN, infinity
        return float(value)
    shown = json.dumps(value)
    bad.report(line, f"{key} is {shown[:40]}; allowed: a finite number")
    return math.nan


def _hash_ids(item: dict[str, Any], line: int, bad: BadRows) -> list[int]:
    """Return the ids, taken out of the object; [] if there are none or they were reported."""
    ids = item.pop("hash_ids", None)
    if ids is None:
        return []
    if isinstance(ids, list):
        is_number = set(map(type, ids)) <= {int}
        if is_number and (not ids or (min(ids) >= 0 and max(ids) < _MAX_ID)):
            return ids
    bad.report(line, f"hash_ids is {json.dumps(ids)[:40]}; allowed: a list of whole numbers >= 0")
    return []
