"""Arguments and options that more than one command has: named, worded and typed once."""

from typing import Annotated

import typer

ExperimentArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="A shipped experiment's name (see `simpod list experiments`) or a YAML file.",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Change one value, e.g. workload.arrivals.rate_per_s=20; may be repeated.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what an earlier command has written there.")
]
