"""`simpod plot`: pictures of results, and of pods."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from simpod.cli.files import new_file
from simpod.cli.options import OverwriteOption
from simpod.errors import ConfigError

EPILOG: Final = """Examples:

simpod plot slo results/rate-* -o slo.png

simpod plot attribution results/fcfs results/edf -o where.svg

simpod plot cdf results/fcfs results/edf --metric tpot_s -o tpot.pdf

A RESULT is a folder that `simpod run --out` wrote; where many runs are compared, also a sweep's
folder or a table of runs (CSV, Parquet, JSON)."""

TOPOLOGY_EPILOG: Final = """Examples:

simpod plot topology cloudmatrix384 -o cm384.png

simpod plot topology cloudmatrix384 --degrade 'scale_up/spine/3/*=0' -o lost.svg

simpod plot topology h100-pod --degrade 'die/0--scale_out/leaf/0/0=0.5' -o half.png"""

app = typer.Typer(
    help="Draw pictures (.png, .svg, .pdf); needs the extra `plot`.",
    no_args_is_help=True,
    epilog=EPILOG,
)

OutOption = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="FILE", help="A .png, .svg or .pdf file.", show_default=False
    ),
]


def _argument(metavar: str, meaning: str) -> typer.models.ArgumentInfo:
    argument: typer.models.ArgumentInfo = typer.Argument(
        metavar=metavar, help=meaning, show_default=False
    )
    return argument


Results = Annotated[list[Path], _argument("RESULT...", "Result folders, sweep folders or tables.")]
OneResult = Annotated[Path, _argument("RESULT", "A result folder.")]


@app.command()
def slo(
    results: Results,
    out: OutOption,
    target_frac: Annotated[
        float,
        typer.Option("--target", metavar="SHARE", help="Attainment at the knee.", min=0, max=1),
    ] = 0.9,
    overwrite: OverwriteOption = False,
) -> None:
    """Attainment and goodput against the rate, with the knee and bands over seeds."""
    from simpod.report import plot_slo_curves

    _draw(out, lambda: plot_slo_curves(*results, target_frac=target_frac), overwrite=overwrite)


@app.command()
def pareto(results: Results, out: OutOption, overwrite: OverwriteOption = False) -> None:
    """Tokens/s per NPU against tokens/s per user, with the region that meets the TPOT target."""
    from simpod.report import plot_pareto

    _draw(out, lambda: plot_pareto(*results), overwrite=overwrite)


@app.command()
def scatter(result: OneResult, out: OutOption, overwrite: OverwriteOption = False) -> None:
    """TTFT against TPOT of each request, with the box of the SLO."""
    from simpod.report import plot_scatter

    _draw(out, lambda: plot_scatter(result), overwrite=overwrite)


@app.command()
def cdf(
    results: Results,
    out: OutOption,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="ttft_s, tpot_s or e2e_s.")
    ] = "ttft_s",
    overwrite: OverwriteOption = False,
) -> None:
    """Distribution of a latency, and its tail."""
    from simpod.report import plot_cdfs

    _draw(out, lambda: plot_cdfs(*results, metric=metric), overwrite=overwrite)


@app.command()
def attribution(
    results: Results,
    out: OutOption,
    total: Annotated[str, typer.Option("--of", metavar="NAME", help="ttft_s or e2e_s.")] = "ttft_s",
    overwrite: OverwriteOption = False,
) -> None:
    """Where the time of requests went: the mean, and the slowest 1 %."""
    from simpod.report import plot_attribution

    _draw(out, lambda: plot_attribution(*results, total=total), overwrite=overwrite)


@app.command()
def steps(
    result: OneResult,
    out: OutOption,
    is_in_ms: Annotated[bool, typer.Option("--ms", help="Milliseconds instead of shares.")] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Of which parts the mean step of each pool consists."""
    from simpod.report import plot_steps

    _draw(out, lambda: plot_steps(result, share=not is_in_ms), overwrite=overwrite)


@app.command()
def timeline(result: OneResult, out: OutOption, overwrite: OverwriteOption = False) -> None:
    """Arrivals, waiting, running, KV and transfers over time."""
    from simpod.report import plot_timeline

    _draw(out, lambda: plot_timeline(result), overwrite=overwrite)


@app.command()
def experts(
    loads: Annotated[
        list[Path],
        _argument("RESULT|LOAD...", "A result; or files \\[layers, n] (.npy, .csv, .parquet)."),
    ],
    out: OutOption,
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="Of a result: die, slot or expert.")
    ] = "die",
    overwrite: OverwriteOption = False,
) -> None:
    """Load of experts by layer, over the layer's mean, before and after balancing."""
    from simpod.report import plot_experts

    _draw(out, lambda: plot_experts(*loads, by=cast(Any, by)), overwrite=overwrite)


@app.command()
def links(
    source: Annotated[
        Path,
        _argument("RESULT|TABLE", "A result; or columns plane, link, used_frac (.csv, .parquet)."),
    ],
    out: OutOption,
    peak: Annotated[
        bool, typer.Option("--peak", help="Of a result: in the interval of most use, not the mean.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """How much of each link was used, by plane."""
    from simpod.report import plot_links

    _draw(out, lambda: plot_links(source, peak=peak), overwrite=overwrite)


@app.command()
def parity(
    validation: Annotated[
        Path, _argument("VALIDATION", "What `simpod validate --json` printed, as a file.")
    ],
    out: OutOption,
    overwrite: OverwriteOption = False,
) -> None:
    """Simulated against measured."""
    from simpod.report import plot_parity

    _draw(out, lambda: plot_parity(validation), overwrite=overwrite)


def _draw(out: Path, plot: Callable[[], Any], *, overwrite: bool) -> None:
    """Draw and write; what a plot returns is Axes, or an array of them."""
    from simpod.report.style import save

    with new_file(out, overwrite=overwrite) as draft:
        axes = plot()
        save(axes.flat[0] if hasattr(axes, "flat") else axes, draft)
    typer.echo(f"wrote {out}")


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
    out: OutOption,
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

    with new_file(out, overwrite=overwrite) as draft:
        graph = build_graph(load_hardware(hardware))
        plot_topology(degraded(graph, dict(map(_loss, losses or ()))), draft)
    typer.echo(f"wrote {out}")


def _loss(text: str) -> tuple[str, float]:
    name, _, share = text.rpartition("=")
    try:
        return name, float(share)
    except ValueError:
        raise ConfigError(f"--degrade {text}: NAME=SHARE is needed, as in die/0=0.5") from None
