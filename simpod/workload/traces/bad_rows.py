"""Rows of a trace that cannot be requests: found all at once, then refused or skipped."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simpod.errors import ConfigError
from simpod.workload.requests import Floats, Ints

LISTED = 10  # an error names so many bad rows and counts the others

_MAX_TOKENS = 1_000_000_000


class BadRows:
    """Collects what is wrong with the rows of one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._messages: list[tuple[int, str]] = []
        self._lines: list[Ints] = []

    def report(self, line: int, what: str) -> None:
        """One row, by its line in the file (from 1)."""
        self._lines.append(np.array([line], dtype=np.int64))
        if len(self._messages) < 10 * LISTED:
            self._messages.append((line, what))

    def report_where(
        self, is_bad: NDArray[np.bool_], lines: Ints, describe: Callable[[int], str]
    ) -> None:
        """Every row of a column check; `describe(row)` is asked only for those to be listed."""
        rows = np.flatnonzero(is_bad)
        self._lines.append(lines[rows])
        self._messages += [(int(lines[row]), describe(int(row))) for row in rows[:LISTED]]

    def lines(self) -> Ints:
        """Lines of the bad rows, each once, ascending."""
        return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *self._lines]))

    def settle(self, policy: str) -> Ints:
        """Return the lines to leave out; with policy `error` any bad row is a ConfigError."""
        lines = self.lines()
        if len(lines) and policy == "error":
            listed = lines[:LISTED].tolist()
            messages = [
                f"{self.path}:{line}: {what}"
                for line, what in sorted(self._messages)
                if line in listed
            ]
            more = f"{len(lines) - LISTED} more, " if len(lines) > LISTED else ""
            messages.append(
                f"{self.path}: {len(lines)} bad rows ({more}see above); "
                "`bad_rows: skip` leaves them out and counts them"
                if len(lines) > 1
                else f"{self.path}: `bad_rows: skip` leaves the row out and counts it"
            )
            raise ConfigError(messages)
        return lines


def check_tokens(values: NDArray[np.float64], lines: Ints, name: str, bad: BadRows) -> None:
    """Report counts that are not whole numbers >= 1; NaN was reported by who read it."""
    with np.errstate(invalid="ignore"):
        is_bad = (values < 1) | (values > _MAX_TOKENS) | (values != np.rint(values))
    is_bad &= ~np.isnan(values)

    def describe(row: int) -> str:
        failed = " (a failed request?)" if values[row] == 0 else ""
        return f"{name} is {values[row]:.15g}{failed}; allowed: a whole number >= 1 and <= 1e9"

    bad.report_where(is_bad, lines, describe)


def check_not_negative(values: NDArray[np.float64], lines: Ints, name: str, bad: BadRows) -> None:
    """Report negative times; NaN was reported by who read it."""
    bad.report_where(
        values < 0, lines, lambda row: f"{name} is {values[row]:.15g}; allowed: a number >= 0"
    )


def whole_tokens(values: Floats) -> Ints:
    """Tokens as whole numbers, [n]; 0 where `check_tokens` has reported one too large, or NaN."""
    return np.where(np.abs(values) <= _MAX_TOKENS, values, 0).astype(np.int64)
