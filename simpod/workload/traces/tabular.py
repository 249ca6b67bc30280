"""What the CSV formats have in common: columns of numbers, to recorded rows."""

import numpy as np

from simpod.units import SECONDS_PER_UNIT
from simpod.workload.requests import Floats, Ints
from simpod.workload.traces.bad_rows import BadRows, check_not_negative, check_tokens, whole_tokens
from simpod.workload.traces.recorded import Recorded
from simpod.workload.traces.spec import TimedTrace, TimeUnit
from simpod.workload.traces.table import Table


def to_recorded(
    spec: TimedTrace,
    table: Table,
    time_s: Floats,
    token_columns: tuple[str, str],
    session: str | None,
    bad: BadRows,
) -> Recorded:
    """Check the two columns of tokens, settle bad rows (those of `time_s` are reported already)."""
    prompt_tokens, output_tokens = tokens_of(table, token_columns, bad)
    skipped = bad.settle(spec.bad_rows)
    good = np.flatnonzero(~np.isin(table.lines, skipped))
    return Recorded(
        path=spec.path,
        lines=table.lines[good],
        time_s=time_s[good],
        prompt_tokens=prompt_tokens[good],
        output_tokens=output_tokens[good],
        session_id=sessions_of(table, session)[good],
        think_s=np.zeros(len(good)),
        hash_counts=np.zeros(len(good), dtype=np.int64),
        hash_ids=np.empty(0, dtype=np.int64),
        skipped_rows=len(skipped),
    )


def tokens_of(table: Table, columns: tuple[str, str], bad: BadRows) -> tuple[Ints, Ints]:
    """Prompt and output tokens, [n] each; 0 where reported."""
    both = []
    for column in columns:
        values = table.numbers(column, bad)
        check_tokens(values, table.lines, column, bad)
        both.append(whole_tokens(values))
    return both[0], both[1]


def seconds_of(table: Table, column: str, unit: TimeUnit, bad: BadRows) -> Floats:
    """Return a column of times, [n]; NaN where reported."""
    times = table.numbers(column, bad)
    check_not_negative(times, table.lines, column, bad)
    return times / round(1 / SECONDS_PER_UNIT[unit])


def since_earliest(time_s: Floats) -> Floats:
    """Shift times so that the earliest that is known is 0."""
    known = time_s[~np.isnan(time_s)]
    return time_s - known.min() if len(known) else time_s


def sessions_of(table: Table, column: str | None) -> Ints:
    """Number the names of a column; -1 without a column and where it is blank."""
    if column is None or column not in table.columns:
        return np.full(len(table.lines), -1, dtype=np.int64)
    import pyarrow.compute as arrow

    names = table.columns[column]
    numbers = names.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    blank = arrow.equal(names, "").to_numpy(zero_copy_only=False)
    return np.where(blank, -1, numbers)
