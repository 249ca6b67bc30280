"""`simpod run`: one experiment, its table, and its files if they are wanted."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from simpod.cli.options import (
    ExperimentArgument,
    JsonOption,
    OverwriteOption,
    QuietOption,
    SetOption,
)
from simpod.cli.output import print_json, run_progress, show
from simpod.errors import ConfigError

EPILOG: Final = """Examples:

simpod run quickstart

simpod run quickstart -s workload.arrivals.rate_per_s=40 --out results/rate-40

simpod run my_experiment.yaml -s policies.batching.use=./my_edf.py:EarliestDeadline --json"""

OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Write the result files to this new folder.",
        show_default=False,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        help="Seed of all random streams; short for -s seed=N.",
        show_default=False,
    ),
]


def run_command(
    experiment: ExperimentArgument,
    overrides: SetOption = None,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Simulate one experiment and print its summary; --out keeps the results."""
    from simpod.config import load_experiment, notes_of
    from simpod.run import write_results
    from simpod.sweep.jobs import run_named

    if out is not None:
        check_out(out, overwrite=overwrite)
    changes = [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])]
    resolved = load_experiment(experiment, changes)
    with run_progress(resolved.name, quiet=quiet) as on_progress:
        result = run_named(resolved, on_progress)
    if out is not None:
        write_results(out, result.records, result.summary, result.provenance, overwrite=overwrite)
    if as_json:
        print_json(result.summary)
    elif not quiet:
        from simpod.cli.render import summary_table

        show(summary_table(result.summary))
        for note in notes_of(resolved, result.summary):
            typer.echo(f"Note: {note}")
        typer.echo(_last_line(out))


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, before the run and not after it."""
    from simpod.run.results import check_target, resolved

    check_target(out, overwrite=overwrite)
    parent = resolved(out)
    if parent.is_dir():
        parent = parent.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(f"--out {out}: {parent} is not a folder that can be written to")


def _last_line(out: Path | None) -> str:
    if out is None:
        return "\nNothing was written; to keep the results, add --out DIR"
    return f"\nResults in {out}: summary.json, provenance.json and .parquet tables"
