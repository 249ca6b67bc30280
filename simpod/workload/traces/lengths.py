"""Lengths without times: CSV of Etalon and Vidur, columns by name, single columns."""

from simpod.errors import ConfigError
from simpod.workload.requests import Ints
from simpod.workload.traces import columns
from simpod.workload.traces.bad_rows import BadRows, check_tokens
from simpod.workload.traces.recorded import Recorded
from simpod.workload.traces.spec import ColumnsTrace, LengthsTrace
from simpod.workload.traces.table import read_table

_PROMPT, _OUTPUT = "num_prefill_tokens", "num_decode_tokens"


def read(spec: LengthsTrace | ColumnsTrace) -> Recorded:
    """Read the rows of a file; their times are 0 and mean nothing."""
    if isinstance(spec, LengthsTrace):
        spec = ColumnsTrace(
            path=spec.path, bad_rows=spec.bad_rows, prompt_tokens=_PROMPT, output_tokens=_OUTPUT
        )
    recorded = columns.read(spec)
    if not len(recorded.lines):
        raise ConfigError(f"{spec.path}: every row is bad; allowed: >= 1 good one")
    return recorded


def read_column(path: str, column: str) -> Ints:
    """Return the token counts of one column, [n]; any bad row is an error."""
    bad = BadRows(path)
    table = read_table(path, [column], bad)
    values = table.numbers(column, bad)
    check_tokens(values, table.lines, column, bad)
    bad.settle("error")
    return values.astype("int64")
