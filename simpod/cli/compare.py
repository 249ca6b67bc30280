"""`simpod compare`: the same arrivals for every variant, differences with intervals."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from simpod.cli.options import ExperimentArgument, JsonOption, QuietOption, SetOption
from simpod.cli.output import add_rows, count_progress, plain_table, print_json, show

if TYPE_CHECKING:
    from simpod.sweep.compare import Cell, Comparison

EPILOG: Final = """Examples:

simpod compare quickstart --vary policies.decode_router.use=round_robin,least_kv

simpod compare quickstart --vary workload.arrivals.rate_per_s=20,30 --seeds 3 -m p99_ttft_ms

simpod compare mine.yaml --vary policies.batching.use=fcfs,./my_edf.py:EarliestDeadline"""

_NO_DIFFERENCE: Final = "no difference shown"


def compare_command(
    experiment: ExperimentArgument,
    vary: Annotated[
        str,
        typer.Option(
            "--vary",
            metavar="KEY=V1,V2,...",
            help="The key and its values; the first value is what the others are compared with.",
            show_default=False,
        ),
    ],
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="Runs of each variant.")
    ] = 5,
    overrides: SetOption = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            metavar="NAME",
            help="A number of summary.json, dotted if nested; may be repeated.",
            show_default="TTFT, TPOT, E2E, throughput, attainment",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", metavar="N", min=1, help="Processes.", show_default="one a core"
        ),
    ] = None,
    as_json: JsonOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table in Markdown.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Run variants of an experiment with paired seeds and say which differences are shown."""
    from simpod.config import load_experiment
    from simpod.sweep import DEFAULT_METRICS, compare, plan_jobs, run_jobs, split_variation

    variation = split_variation(vary)
    changes = overrides or []
    first_seed = 0
    for value in variation[1]:  # all mistakes come out before the first run
        first_seed = load_experiment(experiment, [*changes, f"{variation[0]}={value}"]).seed
    planned = plan_jobs(experiment, changes, variation, first_seed, seeds)
    with count_progress("compare", len(planned), quiet=quiet) as on_done:
        flat = run_jobs(planned, processes=jobs, on_done=on_done)
    summaries = [flat[start : start + seeds] for start in range(0, len(flat), seeds)]
    comparison = compare(
        experiment,
        variation,
        range(first_seed, first_seed + seeds),
        summaries,
        metrics or DEFAULT_METRICS,
    )
    if as_json:
        print_json(comparison_json(comparison))
    elif not quiet:
        _print(comparison, markdown=markdown)


def comparison_json(comparison: "Comparison") -> dict[str, Any]:
    """The comparison in plain data; of each metric one object a variant."""
    return {
        "experiment": comparison.experiment,
        "key": comparison.key,
        "values": list(comparison.values),
        "seeds": list(comparison.seeds),
        "confidence": 0.95,
        "metrics": {
            metric: [
                {"value": value, **asdict(cell), "difference_shown": cell.is_shown}
                for value, cell in zip(comparison.values, cells, strict=True)
            ]
            for metric, cells in comparison.cells.items()
        },
        "not_stationary": {
            value: list(seeds) for value, seeds in comparison.not_stationary.items()
        },
    }


def _print(comparison: "Comparison", *, markdown: bool) -> None:
    header = [comparison.key, *comparison.values]
    rows = [
        [metric, *(_in_words(cell) for cell in cells)] for metric, cells in comparison.cells.items()
    ]
    if markdown:
        typer.echo("\n".join(_markdown(header, rows)))
    else:
        show(add_rows(plain_table(*header), rows))
    typer.echo()
    for note in _notes(comparison):
        typer.echo(note)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    cells = [[cell.replace("|", "\\|").replace("\n", "<br>") for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in cells]


def _in_words(cell: "Cell") -> str:
    """`12.3`, and below it the difference with its interval, or that none is shown."""
    if cell.mean is None:
        return "-"
    if cell.difference is None:
        return _number(cell.mean)
    if cell.low is None or cell.high is None:
        return f"{_number(cell.mean)}\n{_signed(cell.difference)}"
    interval = f"[{_signed(cell.low)}, {_signed(cell.high)}]"
    verdict = _signed(cell.difference) if cell.is_shown else _NO_DIFFERENCE
    return f"{_number(cell.mean)}\n{verdict} {interval}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _signed(value: float) -> str:
    return f"{value:+,.0f}" if abs(value) >= 10_000 else f"{value:+.3g}"


def _notes(comparison: "Comparison") -> list[str]:
    first, last = comparison.seeds[0], comparison.seeds[-1]
    lines = [
        f"Means over seeds {first} to {last}, the same arrivals for every variant; below them the"
        f" difference to {comparison.values[0]} with its 95 % interval (paired t)."
        if len(comparison.seeds) > 1
        else "One seed: differences without an interval, which may be chance; use --seeds 5."
    ]
    if not comparison.is_random:
        lines.append("Every seed gave the same figures: nothing is random, the intervals are void.")
    for value, seeds in comparison.not_stationary.items():
        lines.append(
            f"WARNING: {value} was not stationary with {len(seeds)} of"
            f" {len(comparison.seeds)} seeds: its queue or its batch was still growing, so its"
            " figures depend on the length of the run."
        )
    return lines
