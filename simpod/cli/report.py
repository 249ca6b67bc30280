"""`simpod report`: one HTML page of a run, or of many."""

from pathlib import Path
from typing import Annotated, Final

import typer

from simpod.cli.files import new_file
from simpod.cli.options import OverwriteOption

EPILOG: Final = """Examples:

simpod report results/chat -o chat.html

simpod report results/rate-* -o rates.html

simpod report sweeps/schedulers -o schedulers.html

The page is one file: it needs no server and no network."""


def report_command(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...",
            help="A result folder; or several, a sweep's folder, a table of runs.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE.html", help="The page.", show_default=False)
    ],
    experts: Annotated[
        list[Path] | None,
        typer.Option(
            "--experts",
            metavar="FILE",
            help="Expert load \\[layers, experts] (.npy, .csv, .parquet); may be repeated.",
            show_default=False,
        ),
    ] = None,
    links: Annotated[
        Path | None,
        typer.Option(
            "--links",
            metavar="TABLE",
            help="Use of links: columns plane, link, used_frac.",
            show_default=False,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write one self-contained HTML page: figures, interactive plots, tables, slowest requests."""
    from simpod.report.html import write_report

    with new_file(out, overwrite=overwrite) as draft:
        size_bytes = write_report(results, draft, experts=tuple(experts or ()), links=links)
    typer.echo(f"wrote {out}: {size_bytes / 1e6:.2f} MB; open it in a browser")
