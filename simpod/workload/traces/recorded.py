"""From the rows of a trace, whatever its format, to requests: sort, select, spread, scale."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simpod.errors import ConfigError
from simpod.workload.requests import Floats, Ints, Requests, make_requests
from simpod.workload.traces.bad_rows import LISTED
from simpod.workload.traces.spec import TimedTrace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """Good rows in the order of the file, [n]."""

    path: str
    lines: Ints
    time_s: Floats  # trace time; NaN where the row follows another one of its session
    prompt_tokens: Ints
    output_tokens: Ints
    session_id: Ints  # numbered in order of appearance; -1: none
    think_s: Floats  # after the answer to the row before in the session; 0 where time_s is known
    hash_counts: Ints  # ids of each row
    hash_ids: Ints
    hash_block_tokens: int = 0
    skipped_rows: int = 0
    tenant: Ints | None = None  # [n]; None: not recorded
    priority: Ints | None = None

    def take(self, rows: Ints) -> "Recorded":
        """Return these rows, in this order."""
        classes = [name for name in ("tenant", "priority") if getattr(self, name) is not None]
        columns = (
            *classes,
            "lines",
            "time_s",
            "prompt_tokens",
            "output_tokens",
            "session_id",
            "think_s",
        )
        counts = self.hash_counts[rows]
        starts = (np.cumsum(self.hash_counts) - self.hash_counts)[rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in columns},
            hash_counts=counts,
            hash_ids=self.hash_ids[np.repeat(starts, counts) + within],
        )


def number_sessions(names: list[Any]) -> Ints:
    """Number names in order of appearance, [n]; None is -1."""
    numbers: dict[Any, int] = {None: -1}
    return np.array([numbers.setdefault(name, len(numbers) - 1) for name in names], dtype=np.int64)


def _renumber(session_id: Ints) -> Ints:
    """Close the gaps that left-out rows made."""
    if np.all(session_id < 0):
        return session_id
    return number_sessions([number if number >= 0 else None for number in session_id.tolist()])


def to_requests(
    recorded: Recorded, spec: TimedTrace, limit: int | None, rng: np.random.Generator
) -> Requests:
    """Sort if asked, cut out the window, take the first `limit`, spread by the jitter, scale."""
    if not len(recorded.lines):
        raise ConfigError(
            f"{spec.path}: no usable row ({recorded.skipped_rows} bad ones skipped); allowed: >= 1"
        )
    after = _predecessors(recorded)
    start_s = _start_times(recorded.time_s, after)
    rows = np.argsort(start_s, kind="stable") if spec.sort else np.arange(len(start_s))
    if not spec.sort:
        _check_order(recorded)
    rows = rows[_in_window(start_s[rows], spec)][:limit]
    kept = recorded.take(rows)
    arrival_s = kept.time_s - spec.window.start_s
    if spec.jitter_s > 0:
        arrival_s = _spread(arrival_s, spec.jitter_s, rng)
    return make_requests(
        arrival_s / spec.rate_scale,
        kept.prompt_tokens,
        kept.output_tokens,
        after=_predecessors(kept),
        think_s=kept.think_s,
        session_id=_renumber(kept.session_id),
        hash_offsets=np.concatenate(([0], np.cumsum(kept.hash_counts))),
        hash_ids=kept.hash_ids,
        hash_block_tokens=kept.hash_block_tokens,
        skipped_rows=kept.skipped_rows,
        **dict(_classes(kept)),
        notes={"path": spec.path, "trace_rows": len(recorded.lines) + recorded.skipped_rows},
    )


def _classes(recorded: Recorded) -> list[tuple[str, Ints]]:
    """Tenants and priorities, where they are recorded."""
    both = (("tenant", recorded.tenant), ("priority", recorded.priority))
    return [(name, values) for name, values in both if values is not None]


def _predecessors(recorded: Recorded) -> Ints:
    """Row that each row without a time follows: the one before it in its session; -1 for others."""
    after = np.full(len(recorded.lines), -1, dtype=np.int64)
    follows = np.isnan(recorded.time_s)
    if not follows.any():
        return after
    last_of_session: dict[int, int] = {}
    problems = []
    for row, session in enumerate(recorded.session_id.tolist()):
        if follows[row]:
            after[row] = last_of_session.get(session, -1)
            if after[row] < 0:
                problems.append(
                    f"{recorded.path}:{recorded.lines[row]}: no timestamp, and no usable row of "
                    "its session before it; allowed: `delay` after a row of the same session_id"
                )
        if session >= 0:
            last_of_session[session] = row
    if problems:
        raise ConfigError(problems[:LISTED])
    return after


def _start_times(time_s: Floats, after: Ints) -> Floats:
    """Time of each row, or of the row with a time that it follows (at once or through others)."""
    start_s = time_s.copy()
    for row in np.flatnonzero(after >= 0):
        start_s[row] = start_s[after[row]]
    return start_s


def _check_order(recorded: Recorded) -> None:
    timed = np.flatnonzero(~np.isnan(recorded.time_s))
    time_s, lines = recorded.time_s[timed], recorded.lines[timed]
    wrong = np.flatnonzero(np.diff(time_s) < 0) + 1
    if not len(wrong):
        return
    problems = [
        f"{recorded.path}:{lines[row]}: trace time {time_s[row]:.9g} s is before"
        f" {time_s[row - 1]:.9g} s of line {lines[row - 1]}; allowed: ascending times"
        for row in wrong[:LISTED]
    ]
    problems.append(
        f"{recorded.path}: {len(wrong)} row{'s' * (len(wrong) > 1)} out of order; "
        "`sort: true` sorts the trace by time"
    )
    raise ConfigError(problems)


def _in_window(start_s: Floats, spec: TimedTrace) -> NDArray[np.bool_]:
    window = spec.window
    end_s = np.inf if window.end_s is None else window.end_s
    inside = (start_s >= window.start_s) & (start_s < end_s)
    if not inside.any():
        raise ConfigError(
            f"{spec.path}: window {window.start_s:g} s to {end_s:g} s holds none of {len(start_s)} "
            f"requests; allowed: a part of {start_s.min():g} s to {start_s.max():g} s"
        )
    return np.asarray(inside)


def _spread(arrival_s: Floats, jitter_s: float, rng: np.random.Generator) -> Floats:
    """Uniform in [t, t + jitter_s); the k-th row gets the k-th time, so that the order stays."""
    timed = ~np.isnan(arrival_s)
    spread = arrival_s.copy()
    spread[timed] = np.sort(arrival_s[timed] + jitter_s * rng.random(int(timed.sum())))
    return spread
