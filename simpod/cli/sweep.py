"""`simpod sweep`: many runs, resumed after any death without repeating or losing one."""

import errno
import json
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from simpod.cli.options import JsonOption, QuietOption, SetOption
from simpod.cli.output import add_rows, plain_table, print_json, show
from simpod.errors import ConfigError

if TYPE_CHECKING:
    from simpod.sweep.driver import Driver, Tally
    from simpod.sweep.plan import Plan
    from simpod.sweep.spec import SweepFile

EPILOG: Final = """Examples:

simpod sweep quickstart-rates

simpod sweep my_sweep.yaml --out results/my --dry-run

simpod sweep my_sweep.yaml --out results/my --engine dask --address tcp://head:8786

simpod sweep my_sweep.yaml --out results/my --status

The same command again goes on where it stopped. DIR/runs.parquet has a row a run."""

SPEC_FILE: Final = "sweep.json"
_SECONDS_BETWEEN_LINES: Final = 30.0
_SHOWN: Final = 5


def sweep_command(
    sweep: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP", help="A shipped sweep's name or a YAML file.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder of the runs.", show_default="results/NAME"
        ),
    ] = None,
    overrides: SetOption = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="local, ray or dask.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="URL",
            help="Of a running Ray or Dask cluster.",
            show_default="one is started here",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", metavar="N", min=1, help="Processes.", show_default="one a core"
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Make the runs that failed once more.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say how far the sweep is, and run nothing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and count the runs, and write nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run every point of a sweep with every seed, on all cores or on a cluster."""
    from simpod.sweep.plan import Plan
    from simpod.sweep.spec import load_sweep

    file = _with_changes(load_sweep(sweep), overrides or ())
    folder = out or Path("results") / file.name
    if status:
        answer = _status(file, folder)
    elif dry_run:
        answer = _dry_run(Plan(file), folder)
    else:
        answer = _sweep(
            Plan(file), folder, (engine, jobs, address), retry_failed=retry_failed, quiet=quiet
        )
    if as_json:
        print_json(answer)
    elif not quiet:
        show(add_rows(plain_table(file.name, ""), _rows(answer)))


def _with_changes(file: "SweepFile", overrides: Sequence[str]) -> "SweepFile":
    """`--set` adds to the sweep's `set:`."""
    from simpod.config.strict_yaml import parse_yaml

    changes: dict[str, Any] = {}
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set {text}: not an override; allowed: --set key.below=value")
        changes[key.strip()] = parse_yaml(value, f"--set {text}").plain()
    try:
        return replace(file, spec=replace(file.spec, set={**file.spec.set, **changes}))
    except ValueError as error:
        raise ConfigError(f"--set: {error}") from None


def _sweep(
    plan: "Plan",
    folder: Path,
    engine: tuple[str, int | None, str | None],
    *,
    retry_failed: bool,
    quiet: bool,
) -> dict[str, Any]:
    from simpod.sweep.driver import Driver, write_table
    from simpod.sweep.engines import open_engine
    from simpod.sweep.journal import open_journal

    if plan.file.spec.invalid == "stop":
        _stop_if_invalid(plan)
    _prepare(folder, plan)
    start_s = time.perf_counter()
    with (
        _writable(folder),
        open_journal(folder) as writer,
        open_engine(*engine) as opened,
        _progress(plan.file.name, quiet=quiet) as on_done,
    ):
        driver = Driver(plan, writer, opened, retry_failed=retry_failed, on_done=on_done)
        try:
            tally = driver.run()
        finally:  # also after Ctrl-C: the table of what there is
            write_table(driver, folder)
    return _answer(driver, folder, tally, time.perf_counter() - start_s)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """A disk that is full, or may not be written to, is no bug; what the journal holds is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO):
            raise
        reason = os.strerror(error.errno)
        raise ConfigError(
            f"--out {folder}: cannot be written: {reason}; the same command goes on from there"
        ) from None


def _answer(driver: "Driver", folder: Path, tally: "Tally", wall_s: float) -> dict[str, Any]:
    made = tally.ok + tally.failed
    return {
        "runs": tally.total,
        "already_there": tally.found,
        "ok": tally.ok,
        "failed": tally.failed,
        "failed_in_all": len(driver.writer.journal.failed),
        "errors": dict(tally.errors.most_common(_SHOWN)),
        "lost_workers": tally.lost_workers,
        "wall_s": round(wall_s, 3),
        "runs_per_s": round(made / wall_s, 3),
        "mean_run_wall_s": round(tally.run_wall_s / made, 6) if made else None,
        "mean_run_cpu_s": round(tally.run_cpu_s / made, 6) if made else None,
        "table": str(folder / "runs.parquet"),
    }


def _stop_if_invalid(plan: "Plan") -> None:
    from simpod.sweep.plan import in_one_line

    found = plan.check()
    if found:
        more = f"and {len(found) - _SHOWN} more points" if len(found) > _SHOWN else ""
        hint = "`invalid: keep` in the sweep file makes such points failed runs"
        shown = [f"at {in_one_line(values)}:\n{why}" for values, why in found[:_SHOWN]]
        raise ConfigError([*shown, *([more] if more else []), hint])


def _prepare(folder: Path, plan: "Plan") -> None:
    """Make the folder and say in it which sweep it holds; the draft is renamed when whole."""
    from simpod.sweep.identity import version

    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = not (folder / SPEC_FILE).exists() and any(folder.iterdir())
        if foreign:
            raise ConfigError(f"--out {folder}: holds something that is no sweep; choose another")
        content = {
            "name": plan.file.name,
            "version": version(),
            "runs": len(plan),
            "base": str(plan.file.base),
            "sweep": asdict(plan.file.spec),
        }
        draft = folder / f".{SPEC_FILE}.{secrets.token_hex(4)}"
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        draft.rename(folder / SPEC_FILE)
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written: {error.strerror}") from None


def _status(file: "SweepFile", folder: Path) -> dict[str, Any]:
    """From the folder alone: nothing is resolved, a running sweep is not disturbed."""
    from simpod.sweep.identity import version
    from simpod.sweep.journal import FAILED, JOURNAL, lines_of

    if not (folder / SPEC_FILE).is_file():
        raise ConfigError(f"{folder}: holds no sweep; run `simpod sweep {file.name}` first")
    total = json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))["runs"]
    latest: dict[int, tuple[bool, str]] = {}
    others = 0
    for _, record in lines_of(folder / JOURNAL):
        if record["version"] != version():
            others += 1
            continue
        kind = str(record.get("error") or "").partition(":")[0]
        latest[int(record["run_id"], 16)] = (record["status"] == FAILED, kind)
    errors = Counter(kind for is_failed, kind in latest.values() if is_failed)
    return {
        "runs": total,
        "ok": sum(not is_failed for is_failed, _ in latest.values()),
        "failed": errors.total(),
        "left": max(0, total - len(latest)),
        "errors": dict(errors.most_common(_SHOWN)),
        "lines_of_other_versions": others,
    }


def _dry_run(plan: "Plan", folder: Path) -> dict[str, Any]:
    from simpod.sweep.journal import read_journal
    from simpod.sweep.plan import CHECKED_POINTS, in_one_line

    invalid = plan.check()
    journal = read_journal(folder)
    there = len(journal.ok) + len(journal.failed)
    return {
        "runs": len(plan),
        "points": len(plan.points),
        "seeds": len(plan.seeds),
        "checked_points": min(len(plan.points), CHECKED_POINTS),
        "invalid_points": len(invalid),
        "first_invalid": {in_one_line(values): why for values, why in invalid[:_SHOWN]},
        "first_points": [in_one_line(plan.points[n]) for n in range(min(3, len(plan.points)))],
        "lines_in_folder": there,
    }


def _rows(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in answer.items():
        if isinstance(value, dict):
            for name, count in value.items():
                yield f"{key.replace('_', ' ')}: {name}", str(count)
        elif isinstance(value, list):
            for item in value:
                yield key.replace("_", " "), str(item)
        elif value is not None:
            yield key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)


@contextmanager
def _progress(name: str, *, quiet: bool) -> Iterator[Callable[["Tally"], None]]:
    """A bar on a terminal; into a file a line every half minute; both with speed and time left."""
    if quiet:
        yield lambda tally: None
        return
    if not sys.stderr.isatty():
        yield Lines(name)
        return
    from simpod.cli.output import bar

    with bar("{task.fields[speed]}", "{task.fields[failed]}") as progress:
        task = progress.add_task(name, total=None, speed="", failed="")
        start_s = time.perf_counter()

        def update(tally: "Tally") -> None:
            made = tally.ok + tally.failed
            progress.update(
                task,
                completed=tally.done,
                total=tally.total,
                speed=f"{made / max(time.perf_counter() - start_s, 1e-9):,.1f} runs/s",
                failed=f"{tally.failed:,} failed" if tally.failed else "",
            )

        yield update


class Lines:
    """Now and then one line on stderr."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.start_s = self.last_s = time.perf_counter()

    def __call__(self, tally: "Tally") -> None:
        """Print it if the last one is long enough ago."""
        now_s = time.perf_counter()
        if now_s - self.last_s < _SECONDS_BETWEEN_LINES:
            return
        self.last_s = now_s
        per_s = (tally.ok + tally.failed) / (now_s - self.start_s)
        left_s = (tally.total - tally.done) / per_s if per_s else float("inf")
        typer.echo(
            f"{self.name}: {tally.done:,} of {tally.total:,} runs, {tally.failed:,} failed,"
            f" {per_s:,.1f} runs/s, {left_s:,.0f} s left",
            err=True,
        )
