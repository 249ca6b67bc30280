"""`simpod`: one function a command, each in a module of its own."""

from typing import Annotated, Final

import typer

import simpod
from simpod.cli import (
    bench,
    calibrate,
    check,
    compare,
    explain,
    listing,
    plot,
    run,
    schema,
    search,
    sweep,
    trace,
    validate,
)
from simpod.cli.failures import Commands

_HELP: Final = """Simulate LLM serving on SuperPods: what an experiment file says, what it costs.

First look: `simpod run quickstart`. Then copy an experiment, change it, and run your file.

Exit codes: 0 done; 1 a bug of simpod; 2 the input is wrong, nothing was written;
3 a policy broke its contract; 4 a gate of `simpod compare --fail-if` failed; 130 interrupted."""

app = typer.Typer(
    name="simpod",
    cls=Commands,
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"simpod {simpod.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


app.command(name="run", epilog=run.EPILOG)(run.run_command)
app.command(name="compare", epilog=compare.EPILOG)(compare.compare_command)
app.command(name="sweep", epilog=sweep.EPILOG)(sweep.sweep_command)
app.command(name="search", epilog=search.EPILOG)(search.search_command)
app.command(name="explain", epilog=explain.EPILOG)(explain.explain_command)
app.command(name="list", epilog=listing.EPILOG)(listing.list_command)
app.command(name="check", epilog=check.EPILOG)(check.check_command)
app.add_typer(trace.app, name="trace")
app.add_typer(plot.app, name="plot")
app.command(name="schema", epilog=schema.EPILOG)(schema.schema_command)
app.command(name="validate", epilog=validate.EPILOG)(validate.validate_command)
app.command(name="calibrate", epilog=calibrate.EPILOG)(calibrate.calibrate_command)
app.command(name="bench", epilog=bench.EPILOG)(bench.bench_command)
