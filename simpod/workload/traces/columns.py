"""Any CSV with a header: the user names its columns."""

from dataclasses import replace

import numpy as np

from simpod.workload.requests import Ints
from simpod.workload.traces.bad_rows import BadRows
from simpod.workload.traces.recorded import Recorded
from simpod.workload.traces.spec import ColumnsTrace
from simpod.workload.traces.table import Table, read_table
from simpod.workload.traces.tabular import (
    seconds_of,
    sessions_of,
    since_earliest,
    to_recorded,
)


def read(spec: ColumnsTrace) -> Recorded:
    """Read the rows of a file; all times are 0 without an `arrival` column."""
    bad = BadRows(spec.path)
    tokens = (spec.prompt_tokens, spec.output_tokens)
    named = (spec.arrival, spec.session, spec.tenant, spec.priority)
    others = [name for name in named if name is not None]
    table = read_table(spec.path, list(dict.fromkeys([*others, *tokens])), bad)
    time_s = np.zeros(len(table.lines))
    if spec.arrival is not None:
        time_s = since_earliest(seconds_of(table, spec.arrival, spec.time_unit, bad))
    tenant = None if spec.tenant is None else np.maximum(sessions_of(table, spec.tenant), 0)
    priority = None if spec.priority is None else _whole_numbers(table, spec.priority, bad)
    recorded = to_recorded(spec, table, time_s, tokens, spec.session, bad)
    good = np.isin(table.lines, recorded.lines)
    return replace(
        recorded,
        tenant=None if tenant is None else tenant[good],
        priority=None if priority is None else priority[good],
    )


def _whole_numbers(table: Table, column: str, bad: BadRows) -> Ints:
    """Return a column of whole numbers, [n]; 0 where reported."""
    values = table.numbers(column, bad)
    bad.report_where(
        (values != np.rint(values)) & ~np.isnan(values),  # those were reported
        table.lines,
        lambda row: f"{column} is {values[row]:.15g}; allowed: a whole number",
    )
    return np.nan_to_num(values).astype(np.int64)
