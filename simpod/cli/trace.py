"""`simpod trace`: statistics of recorded requests, and their way into the common format."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from simpod.cli.options import ExperimentArgument, JsonOption, OverwriteOption, SetOption
from simpod.cli.output import add_rows, in_yaml, leaves, plain_table, print_json, show
from simpod.errors import ConfigError

if TYPE_CHECKING:
    from simpod.workload import Requests

STATS_EPILOG: Final = """Examples:

simpod trace stats conversation_trace.jsonl --format mooncake

simpod trace stats log.csv -f columns -s arrival=t -s prompt_tokens=in -s output_tokens=out"""
CONVERT_EPILOG: Final = """Examples:

simpod trace convert AzureLLMInferenceTrace_conv.csv --format azure -o azure.jsonl

simpod trace convert trace.jsonl -f mooncake --rate-scale 2 -s window.end_s=600 -o busy.jsonl"""
GENERATE_EPILOG: Final = """Example:

simpod trace generate quickstart -s workload.num_requests=500 -o quickstart.jsonl"""

app = typer.Typer(
    help="Print statistics of request traces; write them as Mooncake JSONL.", no_args_is_help=True
)


class TraceFormat(StrEnum):
    """Formats that have a reader."""

    MOONCAKE = "mooncake"
    AZURE = "azure"
    BURSTGPT = "burstgpt"
    BAILIAN = "bailian"
    COLUMNS = "columns"
    LENGTHS = "lengths"


FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="The trace.", show_default=False)]
FormatOption = Annotated[
    TraceFormat, typer.Option("--format", "-f", help="How to read it.", show_default=False)
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="A key of `workload.trace`, e.g. time_unit=s, bad_rows=skip, window.end_s=600.",
        show_default=False,
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--rate-scale",
        metavar="X",
        help="2 sends the requests at twice the rate.",
        show_default=False,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--requests", "-n", metavar="N", min=1, help="The first N only.", show_default=False
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the jitter.")]
TargetOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="OUT.jsonl", help="The new file.", show_default=False)
]


@app.command(epilog=STATS_EPILOG)
def stats(
    file: FileArgument,
    trace_format: FormatOption,
    keys: KeyOption = None,
    rate_scale: RateOption = None,
    requests: LimitOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Print counts, rates, lengths, sessions and prefix reuse of a trace."""
    from simpod import workload

    settings = _settings(file, trace_format, keys or (), rate_scale)
    values = workload.stats(_read(settings, requests, seed), has_times=_has_times(settings))
    if as_json:
        print_json(values)
        return
    rows = [(key, _rounded(value)) for key, value in leaves(values)]
    show(add_rows(plain_table("Figure", "Value", right=("Value",)), rows))


@app.command(epilog=CONVERT_EPILOG)
def convert(
    file: FileArgument,
    trace_format: FormatOption,
    out: TargetOption,
    keys: KeyOption = None,
    rate_scale: RateOption = None,
    requests: LimitOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a trace as Mooncake JSONL, its window cut out and its rate scaled."""
    settings = _settings(file, trace_format, keys or (), rate_scale)
    _check_new(out, [settings["path"]], overwrite=overwrite)
    found = _read(settings, requests, seed, needs_times=True)
    _write(found, out)


@app.command(epilog=GENERATE_EPILOG)
def generate(
    experiment: ExperimentArgument,
    out: TargetOption,
    overrides: SetOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the requests that an experiment would send as Mooncake JSONL."""
    from simpod.config import load_experiment
    from simpod.workload import build, streams

    resolved = load_experiment(experiment, overrides or ())
    trace = resolved.workload.trace
    _check_new(out, [trace.path] if trace else [], overwrite=overwrite)
    _write(build(resolved.workload, streams(resolved.seed)), out)


def _settings(
    file: str, trace_format: TraceFormat, keys: Sequence[str], rate_scale: float | None
) -> dict[str, Any]:
    """The `trace:` section that the options amount to."""
    from simpod.config import library
    from simpod.config.strict_yaml import parse_yaml

    path = library.find_path(file, None, "trace")
    settings: dict[str, Any] = {"format": trace_format.value, "path": str(path)}
    if rate_scale is not None:
        settings["rate_scale"] = rate_scale
    for text in keys:
        key, sign, value = text.partition("=")
        *above, last = key.strip().split(".")
        if not sign or not last:
            raise ConfigError(f"--set {text}: not a setting; allowed: --set key=value")
        section = settings
        for segment in above:
            section = section.setdefault(segment, {})
            if not isinstance(section, dict):
                raise ConfigError(f"--set {text}: {segment} has no keys below it")
        section[last] = parse_yaml(value, f"--set {key}").plain()
    return settings


def _read(
    settings: dict[str, Any], limit: int | None, seed: int, *, needs_times: bool = False
) -> "Requests":
    """The requests; a trace without times is read as if all came at once."""
    from simpod.config import workload_of
    from simpod.workload import build, streams

    is_timed = _has_times(settings)
    if needs_times and not is_timed:
        raise ConfigError(
            f"{settings['path']}: has lengths but no times, so it is no trace of requests yet;"
            " give an experiment this trace and arrivals, then use `simpod trace generate`"
        )
    section: dict[str, Any] = {"trace": settings}
    if not is_timed:
        section["arrivals"] = {"process": "burst"}
    if limit is not None:
        section["num_requests"] = limit
    return build(workload_of(section, source="trace"), streams(seed))


def _has_times(settings: dict[str, Any]) -> bool:
    return settings["format"] != "lengths" and (
        settings["format"] != "columns" or "arrival" in settings
    )


def _check_new(out: Path, sources: Sequence[str], *, overwrite: bool) -> None:
    """Refuse to write over a file that is read, or over one that is no trace as simpod writes."""
    from simpod.workload import is_written_here

    if not out.exists():
        return
    reason = ""
    if out.is_dir():
        reason = "is a folder"
    elif any(Path(source).exists() and out.samefile(source) for source in sources):
        reason = "is the trace that is read; choose another file"
    elif not overwrite:
        reason = "exists; choose another, or add --overwrite"
    elif not out.is_file() or not is_written_here(out):
        reason = "is no trace that simpod has written, so it is not replaced; choose another file"
    if reason:
        raise ConfigError(f"--out {out}: {reason}")


def _write(requests: "Requests", out: Path) -> None:
    from simpod.workload import write_mooncake

    write_mooncake(requests, out)
    block = requests.hash_block_tokens
    hint = f"; read it with hash_block_tokens: {block}" if block else ""
    skipped = f", {requests.skipped_rows:,} bad rows left out" if requests.skipped_rows else ""
    typer.echo(f"{out}: {len(requests):,} requests{skipped}{hint}")


def _rounded(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else in_yaml(value)
