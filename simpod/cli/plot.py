"""`simpod plot`: pictures."""

from pathlib import Path
from typing import Annotated, Final

import typer

from simpod.cli.options import OverwriteOption
from simpod.errors import ConfigError

TOPOLOGY_EPILOG: Final = """Examples:

simpod plot topology cloudmatrix384 -o cm384.png

simpod plot topology cloudmatrix384 --degrade 'scale_up/spine/3/*=0' -o lost.svg

simpod plot topology h100-pod --degrade 'die/0--scale_out/leaf/0/0=0.5' -o half.png"""

app = typer.Typer(help="Draw pictures; needs the extra `plot`.", no_args_is_help=True)


@app.callback()
def plot() -> None:
    """Take a word after `plot`, though there is only one so far."""


@app.command(epilog=TOPOLOGY_EPILOG)
def topology(
    hardware: Annotated[
        str,
        typer.Argument(
            metavar="HARDWARE",
            help="A shipped profile's name (see `simpod list hardware`) or a YAML file.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="A .png, .svg or .pdf file.", show_default=False
        ),
    ],
    losses: Annotated[
        list[str] | None,
        typer.Option(
            "--degrade",
            metavar="NAME=SHARE",
            help="A switch, die or link (A--B, A->B) that keeps this share of its rate, 0 to 1;"
            " * matches anything; may be repeated.",
            show_default=False,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw the planes of a pod: nodes, switches, links, ports, bisection."""
    from simpod.cluster.fabric import build_graph, degraded
    from simpod.config import load_hardware
    from simpod.report import plot_topology

    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists: choose another name or add --overwrite")
    graph = build_graph(load_hardware(hardware))
    plot_topology(degraded(graph, dict(map(_loss, losses or ()))), out)
    typer.echo(f"wrote {out}")


def _loss(text: str) -> tuple[str, float]:
    name, _, share = text.rpartition("=")
    try:
        return name, float(share)
    except ValueError:
        raise ConfigError(f"--degrade {text}: NAME=SHARE is needed, as in die/0=0.5") from None
