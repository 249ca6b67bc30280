"""Any CSV with a header: the user names its columns."""

import numpy as np

from simpod.workload.traces.bad_rows import BadRows
from simpod.workload.traces.recorded import Recorded
from simpod.workload.traces.spec import ColumnsTrace
from simpod.workload.traces.table import read_table
from simpod.workload.traces.tabular import seconds_of, since_earliest, to_recorded


def read(spec: ColumnsTrace) -> Recorded:
    """Read the rows of a file; all times are 0 without an `arrival` column."""
    bad = BadRows(spec.path)
    tokens = (spec.prompt_tokens, spec.output_tokens)
    others = [name for name in (spec.arrival, spec.session) if name is not None]
    table = read_table(spec.path, list(dict.fromkeys([*others, *tokens])), bad)
    time_s = np.zeros(len(table.lines))
    if spec.arrival is not None:
        time_s = since_earliest(seconds_of(table, spec.arrival, spec.time_unit, bad))
    return to_recorded(spec, table, time_s, tokens, spec.session, bad)
