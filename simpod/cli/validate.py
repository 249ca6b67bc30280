"""`simpod validate`: measured beside simulated, with the error, point by point."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from simpod.cli.options import JsonOption, QuietOption
from simpod.cli.output import add_rows, count_progress, plain_table, print_json, show

if TYPE_CHECKING:
    from simpod.validate.report import Report
    from simpod.validate.sources import Sources

EPILOG: Final = """Examples:

simpod validate

simpod validate --group points

simpod validate --kernels my_tables/ --json

simpod validate --kernels my_tables/ --kernels-of h100

simpod validate --collectives my_collectives.csv

simpod validate --requests my_log/ --points my_points.yaml

Without sources it takes the points and kernels that ship with simpod, and all measurements in the
data folder: kernels/*.parquet, measured/e2e_gpu.csv, measured/requests_vllm/,
measured/ascend_forward_times.csv, measured/collectives.csv, measured/deepep_*.csv,
measured/alltoall_*.csv.
With sources it takes those alone."""

Paths = list[Path]


def _source(flag: str, meaning: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        flag, metavar="PATH", help=f"{meaning}; may be repeated.", show_default=False
    )
    return option


def validate_command(
    kernels: Annotated[
        Paths | None, _source("--kernels", "Folder of kernel tables, DEVICE.OPERATOR.parquet")
    ] = None,
    kernels_of: Annotated[
        str | None,
        typer.Option(
            "--kernels-of",
            metavar="DEVICE",
            help="Price kernel tables as if their devices had no constants but this one's.",
            show_default=False,
        ),
    ] = None,
    deployments: Annotated[
        Paths | None, _source("--deployments", "CSV of closed-loop runs of whole deployments")
    ] = None,
    requests: Annotated[
        Paths | None, _source("--requests", "Folder of request logs (meta.json, requests.jsonl)")
    ] = None,
    forwards: Annotated[
        Paths | None, _source("--forwards", "CSV of forward times of whole models")
    ] = None,
    collectives: Annotated[
        Paths | None, _source("--collectives", "CSV of dispatch, combine, transfers, collectives")
    ] = None,
    points: Annotated[
        Paths | None, _source("--points", "YAML of experiments with one published figure each")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            metavar="PREFIX",
            help="Only groups whose names begin so, e.g. kernels/h100; may be repeated.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder of measurements.",
            show_default="$SIMPOD_SHARED, else ../shared",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", metavar="FILE.md", help="Write the accuracy page too.", show_default=False
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", metavar="N", min=1, help="Processes.", show_default="one a core"
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare with measurements: measured, simulated, signed error; median and worst per group."""
    from simpod.config import load_hardware
    from simpod.errors import ConfigError
    from simpod.validate.page import write_page
    from simpod.validate.sources import Sources, data_folder, sources_in, validate_all

    given = {
        "kernels": tuple(kernels or ()),
        "deployments": tuple(deployments or ()),
        "requests": tuple(requests or ()),
        "forwards": tuple(forwards or ()),
        "collectives": tuple(collectives or ()),
        "points": tuple(points or ()),
    }
    named = any(given.values())
    if kernels_of is not None and not kernels:
        raise ConfigError("--kernels-of: is about kernel tables; name a folder with --kernels")
    transfer = None if kernels_of is None else load_hardware(kernels_of)
    sources = (
        Sources(**given, with_shipped_points=False, with_shipped_kernels=False)
        if named
        else sources_in(data_folder(data))
    )
    with ExitStack() as stack:
        stage = _stages(stack, quiet=quiet or as_json)
        whole = validate_all(sources.only(group or ()), jobs, stage, transfer)
    report = whole.chosen(group or ())
    if group and not report.groups():
        there = ", ".join(found.group for found in whole.groups()) or "nothing of such a kind"
        raise ConfigError(f"--group {', '.join(group)}: no group begins so; found {there}")
    if page is not None:
        write_page(page, report)
    if as_json:
        print_json(report.as_json())
    elif not quiet:
        _print(report, sources)


def _stages(stack: ExitStack, *, quiet: bool) -> Callable[[str, int], Callable[[], None]]:
    def stage(name: str, total: int) -> Callable[[], None]:
        return stack.enter_context(count_progress(name, total, quiet=quiet))

    return stage


def _print(report: "Report", sources: "Sources") -> None:
    groups = plain_table(
        "Group", "rows", "median", "p90", "worst", "signed", "refused", right=NUMBERS
    )
    show(add_rows(groups, _group_rows(report)))
    if report.points and len(report.points) <= MOST_POINTS:
        typer.echo()
        columns = ("Point", "metric", "measured", "simulated", "error")
        show(add_rows(plain_table(*columns, right=columns[2:]), _point_rows(report)))
    for (group, reason), rows in report.reasons().items():
        typer.echo(f"refused, {rows} of {group}: {reason}")
    if sources.is_bare:
        typer.echo("No measurements found, only what ships with it: name a folder with --data")


NUMBERS: Final = ("rows", "median", "p90", "worst", "signed", "refused")
MOST_POINTS: Final = 60


def _group_rows(report: "Report") -> Iterator[Sequence[object]]:
    for group in report.groups():
        found = group.errors
        if found is None:
            yield group.group, 0, "-", "-", "-", "-", group.refused
        else:
            yield (
                group.group,
                f"{found.rows:,}",
                f"{found.median_abs_error_frac:.1%}",
                f"{found.p90_abs_error_frac:.1%}",
                f"{found.worst_abs_error_frac:.1%}",
                f"{found.median_signed_error_frac:+.1%}",
                group.refused or "",
            )


def _point_rows(report: "Report") -> Iterator[Sequence[object]]:
    for point in report.points:
        missed = point.tolerance_frac is not None and abs(point.error_frac) > point.tolerance_frac
        yield (
            point.id,
            point.metric,
            f"{point.measured:.4g}",
            f"{point.simulated:.4g}",
            f"{point.error_frac:+.1%}{' !' if missed else ''}",
        )
