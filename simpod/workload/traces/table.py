"""CSV files, column by column, with the line of each row, so that errors can point at it."""

import csv
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simpod.errors import ConfigError
from simpod.workload.requests import Floats, Ints
from simpod.workload.traces.bad_rows import BadRows

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Some columns of a CSV file, as text; blank lines are left out, malformed ones reported."""

    path: str
    lines: Ints  # [n], from 1
    columns: Mapping[str, Any]  # name -> Arrow array of trimmed strings, [n]

    def numbers(self, column: str, bad: BadRows) -> Floats:
        """Return one column as numbers, [n]; what is none is reported and NaN."""
        import pyarrow.compute as arrow

        texts = self.columns[column]
        is_number = arrow.match_substring_regex(texts, _NUMBER)
        numbers = arrow.cast(arrow.if_else(is_number, texts, None), "double")
        values: Floats = numbers.to_numpy(zero_copy_only=False)
        values = np.where(np.isfinite(values), values, np.nan)  # 1e999 reads as infinite
        bad.report_where(
            np.isnan(values),
            self.lines,
            lambda row: f"{column} is {texts[row].as_py()!r}; allowed: a finite number",
        )
        return values


def read_table(
    path: str, required: Sequence[str], bad: BadRows, optional: Sequence[str] = ()
) -> Table:
    """Read columns by name; ConfigError for a missing or empty file and for a wrong header."""
    header = _read_header(path)
    _check_header(path, header, required)
    names = [*required, *(name for name in optional if name in header)]
    columns, lines = _read_columns(path, header, names, bad)
    blank = _blank_rows(path, columns, lines)
    if blank.any():
        kept = np.flatnonzero(~blank)
        lines, columns = lines[kept], {name: texts.take(kept) for name, texts in columns.items()}
    if not len(lines) and not len(bad.lines()):
        raise ConfigError(f"{path}: no row after the header; allowed: >= 1")
    return Table(path=path, lines=lines, columns=columns)


def read_error(path: str, error: OSError | UnicodeDecodeError) -> ConfigError:
    """Say why a trace file cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return ConfigError(f"{path}: not a text file in UTF-8 (byte {error.start})")
    return ConfigError(f"{path}: cannot be read: {error.strerror or error}")


def _read_header(path: str) -> list[str]:
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise read_error(path, error) from None
    if not first:
        raise ConfigError(f"{path}: the file is empty; allowed: a CSV file with a header")
    return [name.strip() for name in next(csv.reader([first]), [])]


def _check_header(path: str, header: list[str], required: Sequence[str]) -> None:
    problems = []
    for name in required:
        if name in header:
            if header.count(name) > 1:
                problems.append(f"{path}:1: column {name!r} appears {header.count(name)} times")
            continue
        folded = {known.casefold(): known for known in header if known not in required}
        close = difflib.get_close_matches(name.casefold(), folded, n=1)
        hint = f"; did you mean {folded[close[0]]!r}?" if close else ""
        problems.append(f"{path}:1: no column {name!r}; the header has {', '.join(header)}{hint}")
    if problems:
        raise ConfigError(problems)


def _read_columns(
    path: str, header: list[str], names: list[str], bad: BadRows
) -> tuple[dict[str, Any], Ints]:
    """Each physical line is a row; those with too few or too many fields are reported."""
    import pyarrow as pa
    import pyarrow.compute as arrow
    from pyarrow import csv as arrow_csv

    malformed: list[int] = []

    def report(row: Any) -> str:
        malformed.append(row.number)
        bad.report(
            row.number,
            f"{row.actual_columns} fields; allowed: {row.expected_columns} as the header",
        )
        return "skip"

    positions = [f"f{header.index(name)}" for name in names]
    try:
        table = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                use_threads=False,
                skip_rows=1,
                column_names=[f"f{position}" for position in range(len(header))],
            ),
            parse_options=arrow_csv.ParseOptions(
                ignore_empty_lines=False, invalid_row_handler=report
            ),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=positions,
                column_types=dict.fromkeys(positions, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        if not str(error).startswith(("Empty CSV", "Could not skip")):  # both: a header alone
            raise ConfigError(f"{path}: not readable as CSV: {error}") from None
        return {name: pa.array([], pa.string()) for name in names}, np.empty(0, dtype=np.int64)
    columns = {
        name: arrow.utf8_trim_whitespace(table[position].combine_chunks())
        for name, position in zip(names, positions, strict=True)
    }
    all_lines = np.arange(2, 2 + table.num_rows + len(malformed))
    return columns, np.setdiff1d(all_lines, np.array(malformed, dtype=np.int64))


def _blank_rows(path: str, columns: Mapping[str, Any], lines: Ints) -> Any:
    """Which rows are blank lines, [n] booleans: no text in any column, nor in the line itself."""
    import pyarrow.compute as arrow

    blank = np.ones(len(lines), dtype=np.bool_)
    for texts in columns.values():
        blank &= arrow.equal(texts, "").to_numpy(zero_copy_only=False)
    if blank.any():
        wanted = set(lines[blank].tolist())
        with Path(path).open(encoding="utf-8-sig") as file:
            filled = [n for n, text in enumerate(file, start=1) if n in wanted and text.strip()]
        blank &= ~np.isin(lines, filled)
    return blank
