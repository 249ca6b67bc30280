"""`simpod search`: highest rate within an SLO, SLO curves, cheapest deployment, Pareto sets."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from simpod.cli.options import ExperimentArgument, JsonOption, QuietOption, SetOption
from simpod.cli.output import add_rows, markdown_lines, open_progress, plain_table, print_json, show
from simpod.cli.search_answers import (
    choice_notes,
    deployment_header,
    deployment_row,
    probe_json,
    rate_json,
    rate_warnings,
    scored_json,
)
from simpod.errors import ConfigError

if TYPE_CHECKING:
    from simpod.sweep.search.deploy import Choice
    from simpod.sweep.search.max_rate import MaxRate, RateTarget
    from simpod.sweep.search.measure import Measure

EPILOG: Final = """Examples:

simpod search quickstart --max-rate --attainment 0.99

simpod search quickstart --max-rate --along slo.tpot_s=0.03,0.05,0.1

simpod search quickstart --curve 8 --seeds 3

simpod search quickstart --cheapest --rate 30 --choose deployment.prefill.instances=1,2,3
--choose deployment.decode.dies=32,64

simpod search quickstart --pareto --choose workload.arrivals.rate_per_s=10,20,30
--choose deployment.decode.max_num_seqs=16,48"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The options that every kind of search has."""

    experiment: str
    overrides: tuple[str, ...]
    target: "RateTarget"
    jobs: int | None
    quiet: bool
    price_per_npu_hour: float | None = None


def search_command(
    experiment: ExperimentArgument,
    max_rate: Annotated[
        bool, typer.Option("--max-rate", help="Highest rate within the SLO (the default).")
    ] = False,
    along: Annotated[
        str | None,
        typer.Option(
            "--along",
            metavar="KEY=V1,V2,...",
            help="The highest rate for each value of a key, each search starting from the last.",
            show_default=False,
        ),
    ] = None,
    curve: Annotated[
        int | None,
        typer.Option(
            "--curve",
            metavar="N",
            min=2,
            help="SLO curve: attainment and latency at N rates around the highest one.",
            show_default=False,
        ),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            "--rates",
            metavar="R1,R2,...",
            help="SLO curve at these rates.",
            show_default=False,
        ),
    ] = None,
    cheapest: Annotated[
        bool, typer.Option("--cheapest", help="Fewest NPUs that serve the rate within the SLO.")
    ] = False,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Throughput per NPU against speed per user.")
    ] = False,
    choose: Annotated[
        list[str] | None,
        typer.Option(
            "--choose",
            metavar="KEY=V1,V2,...",
            help="A choice for --cheapest or --pareto; repeated: every combination.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="R",
            help="Rate for --cheapest and --pareto.",
            show_default="that of the experiment",
        ),
    ] = None,
    attainment: Annotated[
        float,
        typer.Option(
            "--attainment", metavar="SHARE", min=0.01, max=1.0, help="Of requests within the SLO."
        ),
    ] = 0.99,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", metavar="SHARE", min=1e-4, max=0.5, help="Of the rate."),
    ] = 0.02,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="Runs of each setting.")
    ] = 4,
    most_seeds: Annotated[
        int,
        typer.Option(
            "--most-seeds",
            metavar="N",
            min=1,
            help="Runs of each rate where the noise asks for more.",
        ),
    ] = 16,
    price_per_npu_hour: Annotated[
        float | None,
        typer.Option(
            "--npu-hour",
            metavar="PRICE",
            help="Of an NPU; --cheapest and --pareto then say what a million output tokens cost.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[
        int,
        typer.Option(
            "--trials",
            metavar="N",
            min=1,
            help="Deployments tried where there are more than 256; needs simpod\\[opt].",
        ),
    ] = 100,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Look at every combination, however many.")
    ] = False,
    overrides: SetOption = None,
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
    """Find the highest rate, the cheapest deployment or the Pareto set within an SLO."""
    from simpod.sweep.search.max_rate import RateTarget

    kinds = [
        max_rate or along is not None,
        curve is not None or rates is not None,
        cheapest,
        pareto,
    ]
    if sum(kinds) > 1:
        raise ConfigError(
            "--max-rate (--along), --curve (--rates), --cheapest, --pareto: one of them"
        )
    if price_per_npu_hour is not None and not (price_per_npu_hour > 0 and (cheapest or pareto)):
        raise ConfigError("--npu-hour: a price above 0, with --cheapest or --pareto")
    target = RateTarget(
        attainment_frac=attainment,
        tolerance_frac=tolerance,
        seeds=seeds,
        most_seeds=max(seeds, most_seeds),
    )
    asked = _Asked(
        experiment=experiment,
        overrides=tuple(overrides or ()),
        target=target,
        jobs=jobs,
        quiet=quiet,
        price_per_npu_hour=price_per_npu_hour,
    )
    if kinds[1]:
        answer = _curve(asked, curve, rates)
    elif cheapest or pareto:
        limit = None if exhaustive else trials
        answer = _deployments(asked, choose or (), rate, limit, is_pareto=pareto)
    else:
        answer = _max_rates(asked, along)
    if as_json:
        print_json(answer["json"])
    elif not quiet:
        header, rows, notes = answer["header"], answer["rows"], answer["notes"]
        if markdown:
            typer.echo("\n".join(markdown_lines(header, [[str(c) for c in r] for r in rows])))
        else:
            show(add_rows(plain_table(*header, right=header[1:], folds_first=True), rows))
        typer.echo("\n" + "\n".join(notes))


@contextmanager
def _measuring(asked: _Asked, first_seed: int) -> "Iterator[Measure]":
    from simpod.sweep.jobs import Runner
    from simpod.sweep.search.measure import Measure

    with (
        open_progress("search", quiet=asked.quiet) as on_run,
        Runner(asked.jobs) as runner,
    ):
        yield Measure(asked.experiment, runner, first_seed, on_run)


# --- highest rate ------------------------------------------------------------------------------


def _max_rates(asked: _Asked, along_text: str | None) -> dict[str, Any]:
    from simpod.config import load_experiment
    from simpod.sweep.search.max_rate import RateSearch, along
    from simpod.sweep.search.measure import rate_of, require_slo
    from simpod.sweep.variants import split_variation

    name, values = split_variation(along_text, 1, "--along") if along_text else ("", ("",))
    settings = [
        (*asked.overrides, f"{name}={value}") if name else asked.overrides for value in values
    ]
    for setting in settings:
        resolved = load_experiment(asked.experiment, setting)
        require_slo(resolved)
        key, start = rate_of(resolved)
    with _measuring(asked, resolved.seed) as measure:

        def search_at(setting: tuple[str, ...]) -> RateSearch:
            return RateSearch(measure, key, asked.target, setting)

        found = along(search_at, settings, start)
    header = [name or "", key.rpartition(".")[2], "low", "high", "error", "seeds", "runs", "status"]
    rows = [_rate_row(value, each) for value, each in zip(values, found, strict=True)]
    answers = [
        {**({name: value} if name else {}), **rate_json(each)}
        for value, each in zip(values, found, strict=True)
    ]
    return {
        "json": {
            "experiment": asked.experiment,
            "key": key,
            "attainment_frac": asked.target.attainment_frac,
            "tolerance_frac": asked.target.tolerance_frac,
            **({"along": name, "answers": answers} if name else answers[0]),
        },
        "header": header,
        "rows": rows,
        "notes": [
            f"Highest {key} at which {asked.target.attainment_frac:.4g} of the requests meet the"
            " SLO and no backlog grows; low and high are its bracket, error its standard error.",
            *rate_warnings(found),
        ],
    }


def _rate_row(value: str, found: "MaxRate") -> list[str]:
    error = "-" if math.isinf(found.error_frac) else f"{found.error_frac:.1%}"
    ends = [f"{end:.4g}" for end in (found.rate, found.low, found.high)]
    return [value, *ends, error, str(found.seeds), str(found.runs), found.status]


# --- SLO curves --------------------------------------------------------------------------------


def _curve(asked: _Asked, points: int | None, rates_text: str | None) -> dict[str, Any]:
    from simpod.config import load_experiment
    from simpod.sweep.search.curve import curve_rates, slo_curve
    from simpod.sweep.search.measure import rate_of, require_slo

    resolved = load_experiment(asked.experiment, asked.overrides)
    require_slo(resolved)
    key, start = rate_of(resolved)
    with _measuring(asked, resolved.seed) as measure:
        rates = (
            _parse_rates(rates_text)
            if rates_text is not None
            else curve_rates(measure, key, asked.target, (asked.overrides, start), points or 8)
        )
        probes = slo_curve(measure, key, asked.overrides, rates, asked.target.seeds)
    found = [probe_json(probe) for probe in probes]
    columns = ("attainment_frac", "p99_ttft_ms", "p99_tpot_ms", "request_throughput")
    return {
        "json": {"experiment": asked.experiment, "key": key, "points": found, "runs": measure.runs},
        "header": [key.rpartition(".")[2], *columns, "seeds", ""],
        "rows": [
            [
                f"{row['rate']:.4g}",
                *("-" if row[c] is None else f"{row[c]:.4g}" for c in columns),
                row["seeds"],
                "beyond saturation" if row["beyond_saturation"] else "",
            ]
            for row in found
        ],
        "notes": ["Means over seeds, the same arrivals at every rate but for their speed."],
    }


def _parse_rates(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--rates {text}: not numbers; allowed: --rates 2,4,8") from None
    if any(not (math.isfinite(rate) and rate > 0) for rate in rates):
        raise ConfigError(f"--rates {text}: rates are above 0")
    return rates


# --- deployments -------------------------------------------------------------------------------


def _deployments(
    asked: _Asked, choose: Sequence[str], rate: float | None, trials: int | None, *, is_pareto: bool
) -> dict[str, Any]:
    from simpod.sweep.search.choices import space_of
    from simpod.sweep.search.deploy import Question, pareto_set
    from simpod.sweep.search.measure import rate_of, require_slo
    from simpod.sweep.variants import split_variation

    if not choose:
        raise ConfigError("--choose: at least one, e.g. --choose deployment.decode.instances=1,2,4")
    fixed, price = asked.overrides, asked.price_per_npu_hour
    axes = [split_variation(text, 1, "--choose") for text in choose]
    space = space_of(asked.experiment, fixed, axes)
    resolved = space.example()
    if not is_pareto:
        require_slo(resolved)
    if rate is not None:
        fixed = (*fixed, f"{rate_of(resolved)[0]}={rate!r}")
        space = space_of(asked.experiment, fixed, axes)
    with _measuring(asked, resolved.seed) as measure:
        question = Question(
            measure=measure,
            fixed=fixed,
            attainment_frac=asked.target.attainment_frac,
            seeds=asked.target.seeds,
        )
        choice = _choose(question, space, trials, is_pareto=is_pareto)
    listed = pareto_set(choice.measured) if is_pareto else list(choice.measured)
    return {
        "json": {
            "experiment": asked.experiment,
            "attainment_frac": asked.target.attainment_frac,
            "method": choice.method,
            "space": choice.space,
            "skipped": choice.skipped,
            "invalid": choice.invalid,
            "runs": choice.runs,
            **(
                {}
                if is_pareto
                else {"best": scored_json(choice.best, price) if choice.best else None}
            ),
            "pareto" if is_pareto else "measured": [scored_json(each, price) for each in listed],
        },
        "header": deployment_header(price),
        "rows": [deployment_row(each, price) for each in listed],
        "notes": choice_notes(choice, price, is_pareto=is_pareto),
    }


def _choose(question: Any, space: Any, trials: int | None, *, is_pareto: bool) -> "Choice":
    from simpod.sweep.search import deploy, opt

    if trials is None or len(space) <= deploy.SMALL_SPACE:
        return (deploy.pareto if is_pareto else deploy.cheapest)(question, space)
    return (opt.pareto if is_pareto else opt.cheapest)(question, space, trials)
