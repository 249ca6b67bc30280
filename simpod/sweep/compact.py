"""From the journal to one table, `runs.parquet`: a row a run, in the order of the plan.

The table holds nothing that differs between two makings (no times of day, no wall times), so a
sweep that was killed and resumed gives the bytes of one that was not. Memory does not grow with the
number of runs: lines are read twice, by their offsets, once for the columns and once for the rows.
"""

import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from simpod.sweep.journal import Record, record_at

TABLE: Final = "runs.parquet"
ROWS_PER_GROUP: Final = 1000
_FIRST: Final = ("run_id", "seed")
_LAST: Final = ("status", "error")

Row = dict[str, Any]
Offsets = Sequence[int]
"""By place in the plan: where the run's line starts in the journal, -1 for none yet."""


def compact(journal: Path, offsets: Offsets, keys: Sequence[str], target: Path) -> int:
    """Write the table of the runs at `offsets`; return the number of its rows.

    keys: what was varied, one column each.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with journal.open("rb") as file:
        schema = _schema(file, offsets, keys)
        draft = target.with_name(f".{target.name}.draft-{secrets.token_hex(4)}")
        rows_written = 0
        try:
            with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
                for rows in _chunks(_rows(file, offsets, keys)):
                    columns = {
                        column.name: [_fitting(row.get(column.name), column.type) for row in rows]
                        for column in schema
                    }
                    writer.write_table(pa.table(columns, schema=schema))
                    rows_written += len(rows)
            draft.rename(target)
        finally:
            draft.unlink(missing_ok=True)
    return rows_written


def row_of(record: Record, keys: Sequence[str]) -> Row:
    """A line of the journal as columns; what was assigned counts more than the summary's echo."""
    values = record["values"]
    row = {"run_id": record["run_id"], "seed": record["seed"]}
    row |= {key: _scalar(values.get(key)) for key in keys}
    row |= {"status": record["status"], "error": record.get("error")}
    return row | {k: v for k, v in (record.get("summary") or {}).items() if k not in row}


def _scalar(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


def _rows(file: BinaryIO, offsets: Offsets, keys: Sequence[str]) -> Iterator[Row]:
    for offset in offsets:
        if offset >= 0:
            yield row_of(record_at(file, offset), keys)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == ROWS_PER_GROUP:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _schema(file: BinaryIO, offsets: Offsets, keys: Sequence[str]) -> Any:
    """Columns in order of appearance; one that holds more than one type holds text or floats."""
    import pyarrow as pa

    kinds: dict[str, set[str]] = {name: set() for name in (*_FIRST, *keys, *_LAST)}
    for row in _rows(file, offsets, keys):
        for name, value in row.items():
            kinds.setdefault(name, set())
            if value is not None:
                kinds[name].add(type(value).__name__)
    return pa.schema([(name, _type(found, pa)) for name, found in kinds.items()])


def _type(kinds: set[str], pa: Any) -> Any:
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds == {"int"}:
        return pa.int64()
    return pa.float64() if kinds <= {"int", "float"} and kinds else pa.string()


def _fitting(value: Any, kind: Any) -> Any:
    """The value in the column's type."""
    if value is None:
        return None
    if str(kind) == "double":
        return float(value)
    if str(kind) == "string" and not isinstance(value, str):
        return json.dumps(value)
    return value
