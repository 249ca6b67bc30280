"""The result folder: written whole or not at all, the same bytes for the same run."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simpod.errors import ConfigError
from simpod.metrics import e2e_s, tpot_s, ttft_parts_s, ttft_s
from simpod.records.columns import (
    STATUS_NAMES,
    STEP_PARTS,
    TRANSFER_KINDS,
    ExpertRecords,
    Ints,
    LinkRecords,
    PlaneRecords,
    RequestRecords,
    RunRecords,
    TimeSeriesRecords,
    TransferRecords,
)

if TYPE_CHECKING:
    import pandas as pd

_Rows = (
    RequestRecords
    | TransferRecords
    | ExpertRecords
    | LinkRecords
    | PlaneRecords
    | TimeSeriesRecords
)

PROVENANCE, SUMMARY = "provenance.json", "summary.json"
TABLES = ("requests", "steps", "transfers")
FILES = (PROVENANCE, SUMMARY, *(f"{table}.parquet" for table in TABLES))
OPTIONAL = ("experts", "links", "planes", "timeseries")
"""Tables of runs whose experts have loads, with a fabric, with samples of it; of load over time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResultFiles:
    """A result folder, read back; times that a request did not come to are NaN."""

    folder: Path
    summary: dict[str, Any]
    provenance: dict[str, Any]
    requests: "pd.DataFrame"
    steps: "pd.DataFrame"
    transfers: "pd.DataFrame"
    experts: "pd.DataFrame | None" = None
    links: "pd.DataFrame | None" = None
    planes: "pd.DataFrame | None" = None
    timeseries: "pd.DataFrame | None" = None


def write_results(
    folder: Path,
    records: RunRecords,
    summary: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the folder and return it; nothing is left behind if that fails in the middle.

    An existing folder is refused; `overwrite` replaces an earlier *result* and nothing else. A
    symbolic link stays, what it points to is written.
    """
    check_target(folder, overwrite=overwrite)
    with _replacing(resolved(folder)) as draft:
        _write_json(draft / PROVENANCE, provenance)
        _write_json(draft / SUMMARY, summary)
        _write_table(draft / "requests.parquet", request_columns(records))
        _write_table(draft / "steps.parquet", step_columns(records))
        _write_table(draft / "transfers.parquet", transfer_columns(records))
        for name, columns in optional_columns(records):
            _write_table(draft / f"{name}.parquet", columns)
    return folder


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse a target that may not be written; call it before a long run."""
    try:
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else None
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read: {error.strerror}") from error
    if not found and (found is not None or not folder.exists()):
        return
    if found is None or not is_result(folder):
        raise ConfigError(f"{folder}: exists and is no result of simpod; choose another folder")
    if not overwrite:
        raise ConfigError(f"{folder}: holds a result already; choose another, or overwrite it")
    own = (*FILES, *(f"{table}.parquet" for table in OPTIONAL))
    foreign = [name for name in found if name not in own]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise ConfigError(
            f"{folder}: holds {foreign[0]}{more}, which simpod has not written and an overwrite"
            " would delete; move it, or choose another folder"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{folder}: holds a result that may not be deleted; choose another folder"
        )


def resolved(folder: Path) -> Path:
    """The folder that a path leads to, links followed."""
    try:
        return folder.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, until Python 3.12
        raise ConfigError(f"{folder}: leads nowhere: {error}") from None


def is_result(folder: Path) -> bool:
    """The folder is a complete result."""
    return all((folder / name).is_file() for name in FILES)


def read_results(folder: Path) -> ResultFiles:
    """Read a result folder whole, tables as DataFrames."""
    import pandas as pd

    summary, provenance = read_summary(folder), _read_json(folder / PROVENANCE)
    tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in TABLES}
    more = (name for name in OPTIONAL if (folder / f"{name}.parquet").is_file())
    tables.update({name: pd.read_parquet(folder / f"{name}.parquet") for name in more})
    return ResultFiles(folder=folder, summary=summary, provenance=provenance, **tables)


def read_summary(folder: Path) -> dict[str, Any]:
    """Read only the summary of a result folder."""
    if not is_result(folder):
        what = "is no result of simpod" if folder.is_dir() else "there is no such folder"
        raise ConfigError(
            f"{folder}: {what}; a result holds {', '.join(FILES[:-1])} and {FILES[-1]}"
        )
    return _read_json(folder / SUMMARY)


def request_columns(records: RunRecords) -> dict[str, Any]:
    """Columns of requests.parquet: the records, then what follows from them (`ttft_s`, ...)."""
    import pyarrow as pa

    requests = records.requests
    names = pa.array(STATUS_NAMES)
    codes = pa.array(requests.status.astype(np.int8))
    derived = {"ttft_s": ttft_s(requests), "tpot_s": tpot_s(requests), "e2e_s": e2e_s(requests)}
    parts = {f"{part}_s": seconds for part, seconds in ttft_parts_s(requests).items()}
    return {
        **_columns(requests),
        "status": pa.DictionaryArray.from_arrays(codes, names),
        **derived,
        **parts,
    }


def step_columns(records: RunRecords) -> dict[str, Any]:
    """Columns of steps.parquet: one row a run of like steps, parts summed over the run."""
    import pyarrow as pa

    steps = records.steps
    pools = pa.array([pool.name for pool in records.pools], pa.string())
    names = [pool.name for pool in records.pools]
    pool_of_group = np.array([names.index(group.pool) for group in records.groups], dtype=np.int32)
    instance = np.array([group.instance for group in records.groups], dtype=np.int64)
    return {
        "pool": pa.DictionaryArray.from_arrays(pa.array(pool_of_group[steps.group]), pools),
        "instance": instance[steps.group],
        "first_step": steps.first_step,
        "num_steps": steps.num_steps,
        "start_s": steps.start_s,
        "end_s": steps.end_s,
        "decode_seqs": steps.decode_seqs,
        "context_tokens": steps.context_tokens,
        "prefill_tokens": steps.prefill_tokens,
        "slot_seqs": steps.slot_seqs,
        **{f"{part}_s": steps.parts_s[:, column] for column, part in enumerate(STEP_PARTS)},
    }


def steps_table(records: RunRecords) -> "pd.DataFrame":
    """What `ResultFiles.steps` is of a run whose files were not written."""
    frame: pd.DataFrame = _table(step_columns(records)).to_pandas()
    return frame


def transfer_columns(records: RunRecords) -> dict[str, Any]:
    """Columns of transfers.parquet: one row a pair of endpoints."""
    rows = records.transfers
    return {
        **_columns(rows),
        "kind": _named(rows.kind, TRANSFER_KINDS),
        "plane": _named(rows.plane, rows.plane_names),
    }


def optional_columns(records: RunRecords) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and columns of each table of `OPTIONAL` that the run has."""
    experts, links, planes = records.experts, records.links, records.planes
    if experts is not None:
        yield "experts", {**_columns(experts), "pool": _named(experts.pool, experts.pool_names)}
    if links is not None:
        names = {
            "plane": _named(links.plane, links.plane_names),
            "link": _named(links.link, links.link_names),
        }
        yield "links", {**_columns(links), **names}
    if planes is not None:
        yield "planes", {**_columns(planes), "plane": _named(planes.plane, planes.plane_names)}
    if (rows := records.timeseries) is not None:
        yield "timeseries", {**_columns(rows), "pool": _named(rows.pool, rows.pool_names)}


def _named(codes: Ints, names: Sequence[str]) -> Any:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(np.int32)), pa.array(names, pa.string())
    )


def _columns(rows: _Rows) -> dict[str, Any]:
    names = (field.name for field in fields(rows) if not field.name.endswith("_names"))
    return {name: getattr(rows, name) for name in names}


def _write_table(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(_table(columns), path, compression="zstd")


def _table(columns: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    arrays = {
        name: pa.array(values, from_pandas=True) if isinstance(values, np.ndarray) else values
        for name, values in columns.items()  # from_pandas: NaN is written as null
    }
    return pa.table(arrays)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: damaged: {error}") from error
    return value


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Give a draft folder beside `folder`, and rename it to `folder` if all went well."""
    draft = _sibling(folder, "draft")
    try:
        draft.mkdir(parents=True)
        yield draft
        _swap(draft, folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # gone already if it was renamed


def _swap(draft: Path, folder: Path) -> None:
    """Rename `draft` to `folder`; an old result is put back if that fails."""
    if not folder.exists():
        draft.rename(folder)
        return
    old = _sibling(folder, "old")
    folder.rename(old)
    try:
        draft.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sibling(folder: Path, purpose: str) -> Path:
    return folder.with_name(f".{folder.name}.{purpose}-{secrets.token_hex(4)}")
