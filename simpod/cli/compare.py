"""`simpod compare`: the same arrivals for every variant, differences, ranks, gates."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from simpod.cli.options import ExperimentArgument, JsonOption, QuietOption, SetOption
from simpod.cli.output import (
    add_rows,
    count_progress,
    csv_lines,
    markdown_lines,
    plain_table,
    print_json,
    show,
)
from simpod.errors import ConfigError

if TYPE_CHECKING:
    from simpod.sweep.compare import Cell, Comparison
    from simpod.sweep.jobs import Runner
    from simpod.sweep.variants import Variant

EPILOG: Final = """Examples:

simpod compare quickstart --vary policies.decode_router.use=round_robin,least_kv

simpod compare quickstart --vary workload.arrivals.rate_per_s=20,30 --seeds 3 -m p99_ttft_ms

simpod compare mine.yaml --vary policies.batching.use=fcfs,./my_edf.py:EarliestDeadline

simpod compare mine.yaml --vary deployment.server.tp=1,2 --vary policies.router.use=random,least_kv

simpod compare mine.yaml --vary policies.router.use=random,least_kv --fail-if "p99_ttft_ms>+5%"

With --fail-if the exit code is 4 if a condition holds; the table is printed all the same."""

GATE_FAILED: Final = 4
"""Exit code when a condition of --fail-if holds."""

_MOST_COLUMNS: Final = 4
"""Variants that stand beside each other on a line of 120 characters."""

_NO_DIFFERENCE: Final = "no difference shown"


def compare_command(
    experiment: ExperimentArgument,
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary",
            metavar="KEY=V1,V2,...",
            help="A key and its values; repeated: every combination. The first variant is what the"
            " others are compared with.",
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
            help="A number of summary.json, dotted if nested; may be repeated; the first ranks.",
            show_default="TTFT, TPOT, E2E, throughput, attainment",
        ),
    ] = None,
    max_rate: Annotated[
        float | None,
        typer.Option(
            "--max-rate",
            metavar="ATTAINMENT",
            min=0.01,
            max=1.0,
            help="Find the highest rate with this attainment too, for every variant and seed.",
            show_default=False,
        ),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="CONDITION",
            help='Exit with 4 if it holds, e.g. "p99_ttft_ms>+5%"; may be repeated.',
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", metavar="N", min=1, help="Processes.", show_default="one a core"
        ),
    ] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one row a figure as CSV.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables in Markdown.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Run variants of an experiment with paired seeds and say which differences are shown."""
    from simpod.sweep.compare import DEFAULT_METRICS
    from simpod.sweep.gates import broken_gates, parse_gate
    from simpod.sweep.variants import split_variation, variants_of

    if as_json + as_csv + markdown > 1:
        raise ConfigError("--json, --csv and --markdown exclude each other")
    gates = [parse_gate(text) for text in fail_if or ()]
    variations = [split_variation(text) for text in vary]
    variants = variants_of(variations)
    wanted = list(dict.fromkeys([*(metrics or DEFAULT_METRICS), *(g.metric for g in gates)]))
    comparison = _compare(
        (experiment, overrides or [], seeds),
        ([key for key, _ in variations], variants),
        wanted,
        max_rate=max_rate,
        progress=(jobs, quiet),
    )
    broken = broken_gates(comparison, gates)
    if as_json:
        print_json({**comparison_json(comparison), "broken_gates": broken})
    elif as_csv:
        typer.echo("\n".join(csv_lines(_csv_rows(comparison))))
    elif not quiet:
        _print(comparison, markdown=markdown)
    for sentence in broken:
        typer.echo(f"FAILED {sentence}", err=True)
    if broken:
        raise typer.Exit(GATE_FAILED)


def _compare(
    experiment: tuple[str, Sequence[str], int],
    variation: "tuple[Sequence[str], Sequence[Variant]]",
    metrics: list[str],
    *,
    max_rate: float | None,
    progress: tuple[int | None, bool],
) -> "Comparison":
    from simpod.config import load_experiment
    from simpod.sweep.compare import MAX_RATE, compare
    from simpod.sweep.jobs import Job, Runner
    from simpod.sweep.variants import plan_jobs

    name, changes, count = experiment
    keys, variants = variation
    wants_rate = max_rate is not None or MAX_RATE in metrics
    first_seed = 0
    for variant in variants:  # all mistakes come out before the first run
        resolved = load_experiment(name, [*changes, *variant.overrides])
        first_seed = resolved.seed
        if wants_rate:
            from simpod.sweep.search.measure import rate_of, require_slo

            require_slo(resolved)
            rate_of(resolved)
    seeds = range(first_seed, first_seed + count)
    planned = plan_jobs(name, changes, variants, seeds)
    total = len(planned) * (2 if wants_rate else 1)
    with (
        Runner(progress[0]) as runner,
        count_progress("compare", total, quiet=progress[1]) as on_done,
    ):
        flat = runner.map(Job.summary, planned, on_done)
        if wants_rate:
            metrics = [*(each for each in metrics if each != MAX_RATE), MAX_RATE]
            _add_max_rates(runner, planned, flat, max_rate or 0.99, on_done)
    summaries = [flat[start : start + count] for start in range(0, len(flat), count)]
    return compare(name, (keys, [each.label for each in variants]), seeds, summaries, metrics)


def _add_max_rates(
    runner: "Runner",
    jobs: Sequence[Any],
    summaries: Sequence[dict[str, Any]],
    attainment_frac: float,
    on_done: Callable[[], None],
) -> None:
    """Put the highest rate within the SLO of each variant and seed into its summary."""
    from simpod.sweep.compare import MAX_RATE
    from simpod.sweep.search.single import SingleSearch

    searches = [SingleSearch(job=job, attainment_frac=attainment_frac) for job in jobs]
    rates = runner.map(SingleSearch.rate_per_s, searches, on_done)
    for summary, rate in zip(summaries, rates, strict=True):
        summary[MAX_RATE] = rate


def comparison_json(comparison: "Comparison") -> dict[str, Any]:
    """The comparison in plain data; of each metric one object a variant."""
    return {
        "experiment": comparison.experiment,
        "keys": list(comparison.keys),
        "values": list(comparison.labels),
        "seeds": list(comparison.seeds),
        "confidence": 0.95,
        "correction": "max-T bootstrap over the variants of a metric",
        "metrics": {
            metric: [
                {
                    "value": label,
                    **asdict(cell),
                    "difference_shown": cell.is_shown,
                    "differs_from": sorted(unlike),
                }
                for label, cell, unlike in zip(
                    comparison.labels, cells, comparison.unlike[metric], strict=True
                )
            ]
            for metric, cells in comparison.cells.items()
        },
        "ranking": {
            metric: [comparison.labels[index] for index in comparison.ranking(metric)]
            for metric in comparison.cells
        },
        "beyond_saturation": {k: list(seeds) for k, seeds in comparison.saturated.items()},
        "not_stationary": {
            label: sorted({*comparison.saturated.get(label, ()), *seeds})
            for label in comparison.labels
            if (
                seeds := (*comparison.saturated.get(label, ()), *comparison.unsteady.get(label, ()))
            )
        },
    }


def _csv_rows(comparison: "Comparison") -> list[list[object]]:
    fields = ("mean", "difference", "low", "high", "first_rank", "last_rank")
    rows: list[list[object]] = [["metric", "variant", *fields, "difference_shown"]]
    for metric, cells in comparison.cells.items():
        for label, cell in zip(comparison.labels, cells, strict=True):
            rows.append([metric, label, *(getattr(cell, f) for f in fields), cell.is_shown])
    return rows


def _print(comparison: "Comparison", *, markdown: bool) -> None:
    is_wide = len(comparison.labels) > _MOST_COLUMNS
    header, rows = _long_table(comparison) if is_wide else _wide_table(comparison)
    _print_table(header, rows, markdown=markdown)
    if len(comparison.seeds) > 1:
        typer.echo()
        _print_table(*_rank_table(comparison), markdown=markdown)
    typer.echo()
    for note in _notes(comparison):
        typer.echo(note)


def _wide_table(comparison: "Comparison") -> tuple[list[str], list[list[str]]]:
    """One row a metric, one column a variant."""
    rows = [
        [metric, *(_in_words(cell) for cell in cells)] for metric, cells in comparison.cells.items()
    ]
    return [", ".join(comparison.keys), *comparison.labels], rows


def _long_table(comparison: "Comparison") -> tuple[list[str], list[list[str]]]:
    """One row a metric and variant, where variants are too many for columns."""
    rows = []
    for metric, cells in comparison.cells.items():
        for label, cell in zip(comparison.labels, cells, strict=True):
            mean, _, difference = _in_words(cell).partition("\n")
            rows.append([metric, label, mean, difference])
    return ["metric", ", ".join(comparison.keys), "mean", f"to {comparison.labels[0]}"], rows


def _print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False
) -> None:
    if markdown:
        typer.echo("\n".join(markdown_lines(header, rows)))
    else:
        show(add_rows(plain_table(*header), rows))


def _rank_table(comparison: "Comparison") -> tuple[list[str], list[list[str]]]:
    """One row a variant, the best of the first metric first; ranks that may be are a range."""
    metrics = list(comparison.cells)
    leading = metrics[0]
    rows = []
    for index in comparison.ranking(leading):
        unlike = comparison.unlike[leading][index]
        alike = [
            label
            for label in comparison.labels
            if label not in unlike and label != comparison.labels[index]
        ]
        ranks = [_rank(comparison.cells[metric][index]) for metric in metrics]
        verdict = _verdict(sorted(unlike, key=comparison.labels.index), alike)
        rows.append([comparison.labels[index], *ranks, verdict])
    return ["Rank by", *metrics, f"by {leading}"], rows


def _verdict(unlike: Sequence[str], alike: Sequence[str]) -> str:
    """From whom a variant is shown to differ, by the shorter of the two lists."""
    if not alike:
        return "differs from all others"
    if not unlike:
        return f"{_NO_DIFFERENCE} to any other"
    if len(unlike) < len(alike):
        return f"differs from {'; '.join(unlike)} alone"
    return f"{_NO_DIFFERENCE} to {'; '.join(alike)}"


def _rank(cell: "Cell") -> str:
    if cell.first_rank is None or cell.last_rank is None:
        return "-"
    if cell.first_rank == cell.last_rank:
        return str(cell.first_rank)
    return f"{cell.first_rank}-{cell.last_rank}"


def _in_words(cell: "Cell") -> str:
    """`12.3`, and below it the difference with its interval, or that none is shown."""
    if cell.mean is None:
        return "-"
    if cell.difference is None:
        return _number(cell.mean)
    if cell.low is None or cell.high is None:
        return f"{_number(cell.mean)}\n{_signed(cell.difference)}"
    interval = f"[{_signed(cell.low)}, {_signed(cell.high)}]"
    if cell.low == cell.high == 0:
        return f"{_number(cell.mean)}\nthe same in every seed"
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
        f" difference to {comparison.labels[0]} with its 95 % interval: paired bootstrap, corrected"
        f" by max-T for the {len(comparison.labels) - 1} comparisons of a metric. Ranks: corrected"
        " for all pairs of a metric; a range where no difference is shown."
        if len(comparison.seeds) > 1
        else "One seed: differences without an interval, which may be chance; use --seeds 5."
    ]
    if not comparison.is_random:
        lines.append("Every seed gave the same figures: nothing is random, the intervals are void.")
    for label, seeds in comparison.saturated.items():
        lines.append(
            f"WARNING: {label} was not stationary: beyond saturation with {len(seeds)} of"
            f" {len(comparison.seeds)} seeds. More was offered than it serves, so its latencies"
            " depend on the length of the run; compare at a lower rate, or by --max-rate 0.99."
        )
    for label, seeds in comparison.unsteady.items():
        lines.append(
            f"WARNING: {label} was not stationary with {len(seeds)} of {len(comparison.seeds)}"
            " seeds: its batch was still growing, so its figures depend on the length of the run."
        )
    return lines
