"""Azure LLM inference CSV (github.com/Azure/AzurePublicDataset): 2023, 2024 and multimodal 2025."""

import numpy as np

from simpod.workload.requests import Floats
from simpod.workload.traces.bad_rows import BadRows
from simpod.workload.traces.recorded import Recorded
from simpod.workload.traces.spec import AzureTrace
from simpod.workload.traces.table import Table, read_table
from simpod.workload.traces.tabular import to_recorded

_TIME = "TIMESTAMP"
_TOKENS = ("ContextTokens", "GeneratedTokens")
_ISO = r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?$"


def read(spec: AzureTrace) -> Recorded:
    """Read the rows of a file."""
    bad = BadRows(spec.path)
    table = read_table(spec.path, (_TIME, *_TOKENS), bad)
    return to_recorded(spec, table, _seconds(table, bad), _TOKENS, None, bad)


def _seconds(table: Table, bad: BadRows) -> Floats:
    """Seconds since the earliest timestamp, [n]; NaN where reported."""
    import pandas as pd
    import pyarrow.compute as arrow

    texts = table.columns[_TIME]
    is_iso = arrow.match_substring_regex(texts, _ISO)
    iso = arrow.if_else(is_iso, texts, None).to_pandas()
    times = pd.to_datetime(iso, format="ISO8601", utc=True, errors="coerce")
    stamps_ns = times.dt.tz_localize(None).to_numpy().astype("datetime64[ns]")
    missing = np.isnat(stamps_ns)
    bad.report_where(
        missing,
        table.lines,
        lambda row: (
            f"{_TIME} is {texts[row].as_py()!r}; allowed: a date and time such as "
            "2024-05-10 00:00:00.009930+00:00"
        ),
    )
    if missing.all():
        return np.full(len(missing), np.nan)
    since_ns = (
        stamps_ns - stamps_ns[~missing].min()
    )  # exact; seconds since 1970 lose 100 ns in a double
    return np.where(missing, np.nan, since_ns.astype(np.int64) / 1e9)
