"""Printing: JSON for scripts, tables for people, a progress bar on a terminal only."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

RunProgress = Callable[[int, int, float], None]
"""Requests ended, requests in all, simulated seconds."""

_WIDTH_OF_A_PIPE = 120


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


def show(*renderables: "RenderableType") -> None:
    """Rich tables or text on stdout; as wide as the terminal, or 120 columns into a file."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE, highlight=False)
    with console.capture() as captured:
        for renderable in renderables:
            console.print(renderable)
    typer.echo(captured.get(), nl=False)  # the console itself would exit with 1 on a closed pipe


def plain_table(
    *columns: str, right: Sequence[str] = (), title: str | None = None, folds_first: bool = False
) -> "Table":
    """A table without a frame; those in `right` hold numbers.

    Where it is too wide the first column is kept whole; with folds_first all others are.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title=title, title_justify="left"
    )
    for position, name in enumerate(columns):
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(
            name, justify=justify, overflow="fold", no_wrap=(position == 0) != folds_first
        )
    return table


def add_rows(table: "Table", rows: Iterable[Sequence[object]]) -> "Table":
    """Append rows of plain text: a bracket in a value is a bracket, not markup."""
    from rich.text import Text

    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    return table


def markdown_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in GitHub's Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[cell.replace("|", "\\|").replace("\n", "<br>") for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in cells]


def csv_lines(rows: Iterable[Sequence[object]]) -> list[str]:
    """Rows as CSV (RFC 4180, without its carriage returns); None is empty."""
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().splitlines()


def in_yaml(value: object) -> str:
    """A value in one line, as it would stand in a YAML file."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings."""
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextmanager
def run_progress(name: str, *, quiet: bool) -> Iterator[RunProgress | None]:
    """A bar for one run on stderr: requests done, simulated time, requests/s, time left."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with bar("{task.fields[simulated]}", "{task.fields[speed]}") as progress:
        task = progress.add_task(name, total=None, simulated="", speed="")
        start_s = time.perf_counter()

        def update(ended: int, total: int, simulated_s: float) -> None:
            per_s = ended / max(time.perf_counter() - start_s, 1e-9)
            progress.update(
                task,
                completed=ended,
                total=total,
                simulated=f"{simulated_s:,.0f} s simulated",
                speed=f"{per_s:,.0f} requests/s",
            )

        yield update


@contextmanager
def count_progress(name: str, total: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar for many runs on stderr; call the function after each of them."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    with bar() as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def open_progress(name: str, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A count on stderr of runs whose number nobody knows yet."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    with bar() as progress:
        task = progress.add_task(name, total=None)
        yield lambda: progress.advance(task)


@contextmanager
def spinner(name: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """What is being done now, on stderr; call the function with it."""
    if quiet or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(name) as status:
        yield lambda text: status.update(f"{name}: {text}")


def bar(*fields: str) -> Any:
    """A progress bar on stderr with count and time left; `fields` are shown between them."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *(TextColumn(field) for field in fields),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
