"""`simpod trace-view`: a result as a trace for Perfetto."""

from pathlib import Path
from typing import Annotated, Final

import typer

from simpod.cli.files import new_file
from simpod.cli.options import OverwriteOption
from simpod.errors import ConfigError

EPILOG: Final = """Examples:

simpod trace-view results/chat -o chat.json.gz

simpod trace-view results/chat -o slow.json.gz --request 4711

simpod trace-view results/chat -o minute.json.gz --from 600 --to 660

A .pftrace (Perfetto's own format, opens faster) needs the extra `perfetto`.

Open the file at https://ui.perfetto.dev (nothing is uploaded) or in chrome://tracing."""

_ALL = float("inf")


def trace_view_command(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="A result folder.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="A .json.gz, .json, .pftrace file.",
            show_default=False,
        ),
    ],
    request: Annotated[
        int | None,
        typer.Option(
            "--request", metavar="ID", help="Only this request, where it was.", show_default=False
        ),
    ] = None,
    from_s: Annotated[
        float | None,
        typer.Option("--from", metavar="SECONDS", help="Start of the window.", show_default=False),
    ] = None,
    to_s: Annotated[
        float | None,
        typer.Option("--to", metavar="SECONDS", help="End of the window.", show_default=False),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write steps, requests, KV transfers and counters as a trace that Perfetto opens."""
    from simpod.report.trace_events import Window, write_trace

    if request is not None and (from_s is not None or to_s is not None):
        raise ConfigError("--request and --from/--to exclude each other")
    window = Window(
        from_s=-_ALL if from_s is None else from_s,
        to_s=_ALL if to_s is None else to_s,
        request_id=request,
    )
    with new_file(out, overwrite=overwrite) as draft:
        counts = write_trace(result, draft, window)
    typer.echo(
        f"wrote {out}: {counts.slices:,} slices, {counts.flows:,} KV transfers,"
        f" {out.stat().st_size / 1e6:.1f} MB; open it at https://ui.perfetto.dev"
    )
