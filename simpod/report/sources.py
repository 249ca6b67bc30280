"""What pictures are made of: tidy tables, read from result folders and sweeps, or given.

A *source* is a result folder (or what `run` or `read_results` gave), a sweep (`runs.parquet`,
one row a run), a table file (CSV, Parquet, JSON), or a DataFrame that has the columns wanted.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from simpod.config.key_names import short_names
from simpod.errors import ConfigError
from simpod.run.results import (
    ResultFiles,
    is_result,
    optional_columns,
    read_results,
    request_columns,
    step_columns,
    transfer_columns,
)
from simpod.run.simulate import Result

if TYPE_CHECKING:
    import pandas as pd

Source = Any
"""A path, a `Result`, `ResultFiles`, or a DataFrame."""

RUNS: Final = "runs.parquet"
"""Table of a sweep folder: `run_id`, `seed`, what was varied, `status`, the summary's figures."""

SWEEP: Final = "sweep.json"
"""What a sweep folder says of the sweep."""

OK: Final = "ok"
_ECHOED: Final = {"request_rate", "seed"}
_ABOUT_RUNS: Final = ("run_id", "seed", "status", "error")


def result_of(source: Source) -> ResultFiles:
    """One result, whole; a folder is read once and kept for the next picture."""
    if isinstance(source, ResultFiles):
        return source
    if isinstance(source, Result):
        return _in_memory(source)
    if not isinstance(source, str | Path):
        raise ConfigError(f"a result folder is needed here, not a {type(source).__name__}")
    return _read(Path(source).resolve())


def _in_memory(result: Result) -> ResultFiles:
    """The tables that the files of this result would hold."""
    records = result.records
    return ResultFiles(
        folder=Path(str(result.summary["label"])),
        summary=result.summary,
        provenance=result.provenance,
        requests=_frame(request_columns(records)),
        steps=_frame(step_columns(records)),
        transfers=_frame(transfer_columns(records)),
        **{name: _frame(columns) for name, columns in optional_columns(records)},
    )


def _frame(columns: dict[str, Any]) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow as pa

    arrays = (pa.array(v) if isinstance(v, np.ndarray) else v for v in columns.values())
    return pd.DataFrame(
        {name: array.to_pandas() for name, array in zip(columns, arrays, strict=True)}
    )


@lru_cache(maxsize=4)
def _read(folder: Path) -> ResultFiles:
    return read_results(folder)


def name_of(source: Source) -> str:
    """What a legend calls it: the folder's name, or the experiment's."""
    if isinstance(source, ResultFiles):
        return source.folder.name
    if isinstance(source, Result):
        return str(source.summary["label"])
    return Path(source).name if isinstance(source, str | Path) else "requests"


def names_of(sources: Sequence[Source], names: Sequence[str]) -> list[str]:
    """The names given, or those of the sources."""
    if names and len(names) != len(sources):
        raise ConfigError(f"{len(sources)} sources, but {len(names)} names")
    return list(names) or [name_of(source) for source in sources]


def requests_of(source: Source) -> "pd.DataFrame":
    """Requests of a result that count for latencies: measured and finished; a table as is."""
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source
    rows = measured(result_of(source))
    return rows.loc[rows["status"] == "finished"]


def measured(result: ResultFiles) -> "pd.DataFrame":
    """Requests that arrived in the measured window."""
    first_s, last_s = result.summary["window"]["arrivals_s"]
    rows = result.requests
    if first_s is None:
        return rows.iloc[:0]
    return rows.loc[rows["arrival_s"].between(first_s, last_s)]


def is_sweep(source: Source) -> bool:
    """The folder holds the table of a sweep."""
    return isinstance(source, str | Path) and (Path(source) / RUNS).is_file()


def table_of(path: Path) -> "pd.DataFrame":
    """A table file by its suffix."""
    import pandas as pd

    readers: dict[str, Any] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".json": pd.read_json,
    }
    reader = readers.get(path.suffix)
    if reader is None or not path.is_file():
        raise ConfigError(f"{path}: a table file is needed: {', '.join(readers)}")
    try:
        found: pd.DataFrame = reader(path)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return found


def runs_of(sources: Sequence[Source]) -> "pd.DataFrame":
    """One row a run: the summary's figures by dotted name, `variant`, `rate_per_s`, `seed`.

    Runs of a result folder are variants by the name of their experiment; those of a sweep by what
    was varied beside the load.
    """
    import pandas as pd

    frames = [_runs(source) for source in sources]
    if not frames:
        raise ConfigError("no result is given")
    return pd.concat(frames, ignore_index=True)


def _runs(source: Source) -> "pd.DataFrame":
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return _tidy(source)
    if is_sweep(source):
        rows = pd.read_parquet(Path(source) / RUNS)
        return _tidy(rows[rows["status"] == OK].reset_index(drop=True))
    if isinstance(source, str | Path) and not is_result(Path(source)) and Path(source).is_file():
        return _tidy(table_of(Path(source)))
    summary = source.summary if isinstance(source, Result) else result_of(source).summary
    row = pd.json_normalize(summary)
    row["status"] = OK
    return _tidy(row, variant=str(summary["label"]))


def _tidy(rows: "pd.DataFrame", variant: str | None = None) -> "pd.DataFrame":
    import pandas as pd

    rows = rows.copy()
    if "rate_per_s" not in rows:
        rate = rows.get("request_rate", pd.Series(index=rows.index, dtype=float))
        rows["rate_per_s"] = pd.to_numeric(rate, errors="coerce")  # "inf" stays infinite
    if "seed" not in rows:
        rows["seed"] = 0
    if "variant" not in rows:
        rows["variant"] = variant if variant is not None else _variants(rows)
    return rows


def varied_keys(rows: "pd.DataFrame") -> list[str]:
    """Columns of a sweep's table that were varied: those between `seed` and `status`."""
    names = list(rows.columns)
    if "run_id" not in names or "status" not in names:
        return []
    keys = names[: names.index("status")]
    return [key for key in keys if key not in _ABOUT_RUNS]


def _variants(rows: "pd.DataFrame") -> "pd.Series[str]":
    """Values of every varied key but the load, joined; keys shortened to their last words."""
    keys = [key for key in varied_keys(rows) if not _is_load(key) and rows[key].nunique() > 1]
    text = rows.get("label", "run")
    if keys:
        names = short_names(keys)
        parts = [f"{names[key]}=" + rows[key].astype(str) for key in keys]
        text = parts[0]
        for part in parts[1:]:
            text = text + ", " + part
    import pandas as pd

    return pd.Series(text, index=rows.index, dtype=str)


def _is_load(key: str) -> bool:
    return key.endswith(("rate_per_s", "rate_scale", "concurrency")) or key in _ECHOED


def need(table: "pd.DataFrame", *columns: str, for_what: str) -> None:
    """Refuse a table without the columns of a picture."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ConfigError(f"{for_what}: the table has no column {', '.join(missing)}")


def read_json(path: Path) -> Any:
    """A JSON file, or an error that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
