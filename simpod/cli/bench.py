"""`simpod bench`: the speed of the simulator itself."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from simpod.cli.options import JsonOption, QuietOption
from simpod.cli.output import add_rows, count_progress, plain_table, print_json, show
from simpod.units import MIB

if TYPE_CHECKING:
    from simpod.sweep.bench import Timing
    from simpod.sweep.bench_cases import Case

EPILOG: Final = """Examples:

simpod bench

simpod bench --case dense_replica --case dense_replica_stepwise --json

simpod bench --growth

A figure with a ! is over its budget; timeouts are bare SimPy ones, of the same process."""

_COLUMNS: Final = (
    "requests",
    "wall s",
    "CPU s",
    "requests/s",
    "timeouts/request",
    "steps",
    "timeouts/step",
    "peak MiB",
)


def bench_command(
    cases: Annotated[
        list[str] | None,
        typer.Option(
            "--case", "-c", metavar="NAME", help="One case; may be repeated.", show_default="all"
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            "--requests",
            "-n",
            metavar="N",
            min=1,
            help="Requests of every case instead of its own number.",
            show_default=False,
        ),
    ] = None,
    growth: Annotated[
        bool,
        typer.Option("--growth", help="pod_lockstep_288 at 1e4, 1e5 and 1e6 requests instead."),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure the simulator's own speed, each case in a process of its own."""
    from simpod.sweep.bench import time_case
    from simpod.sweep.bench_cases import CASES, GROWTH_REQUESTS, case_named

    if growth:
        pod = case_named("pod_lockstep_288")
        chosen = [replace(pod, requests=number, limits={}) for number in GROWTH_REQUESTS]
    else:
        chosen = [case_named(name) for name in cases or ()] or list(CASES)
    if requests is not None and not growth:
        chosen = [replace(case, requests=requests, limits={}) for case in chosen]
    timings = []
    with count_progress("bench", len(chosen), quiet=quiet) as on_done:
        for case in chosen:
            timings.append(time_case(case))
            on_done()
    if as_json:
        print_json([timing.as_json() for timing in timings])
    elif not quiet:
        rows = [_row(case, timing) for case, timing in zip(chosen, timings, strict=True)]
        show(add_rows(plain_table("Case", *_COLUMNS, right=_COLUMNS), rows))
        for note in _notes(timings, growth=growth):
            typer.echo(note)


def _row(case: "Case", timing: "Timing") -> tuple[str, ...]:
    from simpod.sweep.bench import over_budget

    over = over_budget(case, timing)

    def figure(name: str, text: str) -> str:
        return f"{text} !" if name in over else text

    return (
        timing.name,
        f"{timing.requests:,}",
        figure("wall_s", f"{timing.wall_s:.2f}"),
        f"{timing.cpu_s:.2f}",
        f"{timing.requests_per_s:,.0f}",
        figure("timeouts_per_request", f"{timing.timeouts_per_request:.1f}"),
        f"{timing.steps:,}",
        figure("timeouts_per_step", f"{timing.timeouts_per_step:.1f}"),
        figure("peak_memory_bytes", f"{timing.peak_memory_bytes / MIB:,.0f}"),
    )


def _notes(timings: Sequence["Timing"], *, growth: bool) -> list[str]:
    """Ratios that have a budget, where the cases for them ran."""
    from simpod.sweep.bench import cost_ratio
    from simpod.sweep.bench_cases import GROWTH_LIMIT, REPLICAS_LIMIT

    mean_s = sum(timing.bare_timeout_s for timing in timings) / len(timings)
    notes = ["", f"One bare SimPy timeout: {mean_s * 1e6:.3f} us of CPU"]
    if growth:
        ratio = cost_ratio(timings)
        notes.append(f"Cost per request, most to least: {ratio:.2f} (budget {GROWTH_LIMIT})")
    by_name = {timing.name: timing for timing in timings}
    if {"replicas_1", "replicas_1024"} <= by_name.keys():
        one, many = by_name["replicas_1"], by_name["replicas_1024"]
        ratio = many.timeouts_per_request / one.timeouts_per_request
        notes.append(f"1,024 replicas to one, per request: {ratio:.2f} (budget {REPLICAS_LIMIT})")
    return notes
