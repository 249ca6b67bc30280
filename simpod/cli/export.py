"""`simpod export`: a result in another tool's format."""

import json
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from simpod.cli.files import new_file
from simpod.cli.options import OverwriteOption
from simpod.cli.output import print_json

EPILOG: Final = """Examples:

simpod export results/chat --format llmd -o chat.llmd.json

simpod export results/chat --format sglang >> sglang.jsonl

sglang: one JSON line, as `sglang.bench_serving` appends. llmd: benchmark report v0.2.1.
summary.json of a result has the names of `vllm bench serve` as it is."""


def export_command(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT", help="A result folder.", show_default=False)
    ],
    to_format: Annotated[
        Literal["sglang", "llmd"],
        typer.Option("--format", help="Whose format.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="A file instead of stdout.", show_default=False
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a result as SGLang's JSON line or as an llm-d benchmark report."""
    from simpod.report.export import llmd_report, sglang_line

    value = sglang_line(result) if to_format == "sglang" else llmd_report(result)
    indent = None if to_format == "sglang" else 2
    if out is not None:
        text = json.dumps(value, indent=indent, allow_nan=False)
        with new_file(out, overwrite=overwrite) as draft:
            draft.write_text(f"{text}\n", encoding="utf-8")
        typer.echo(f"wrote {out}")
    elif indent is None:
        typer.echo(json.dumps(value, allow_nan=False))
    else:
        print_json(value)
