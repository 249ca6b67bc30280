"""BurstGPT CSV (github.com/HPMLL/BurstGPT): seconds from the start of the trace."""

from simpod.workload.traces.bad_rows import BadRows
from simpod.workload.traces.recorded import Recorded
from simpod.workload.traces.spec import BurstGptTrace
from simpod.workload.traces.table import read_table
from simpod.workload.traces.tabular import seconds_of, to_recorded

_TIME = "Timestamp"
_TOKENS = ("Request tokens", "Response tokens")
_SESSION = "Session ID"


def read(spec: BurstGptTrace) -> Recorded:
    """Read the rows of a file."""
    bad = BadRows(spec.path)
    table = read_table(spec.path, (_TIME, *_TOKENS), bad, optional=(_SESSION,))
    time_s = seconds_of(table, _TIME, spec.time_unit, bad)
    return to_recorded(spec, table, time_s, _TOKENS, _SESSION, bad)
