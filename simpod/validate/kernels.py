"""Measured kernel tables beside the kernel model, device by device and operator by operator."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import KernelFits
from simpod.hardware.spec import HardwareProfile
from simpod.validate.fit import errors
from simpod.validate.names import hardware_of, measured_kernels
from simpod.validate.report import GroupErrors, Refusal, Report
from simpod.validate.tables.group import Group
from simpod.validate.tables.kinds import KINDS, Kind

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = {".parquet": "read_parquet", ".csv": "read_csv"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """One table: a file DEVICE.KIND.parquet or .csv, or a folder KIND/DEVICE of .csv files."""

    path: Path
    device: str
    kind: str

    def read(self) -> "pd.DataFrame":
        """Its rows, those of a folder with the column `name` of their file; ConfigError if it can't
        be read."""
        import pandas as pd

        if self.path.is_dir():
            files = sorted(self.path.glob("*.csv"))
            parts = [_read(path).assign(name=path.stem) for path in files]
            return pd.concat(parts, ignore_index=True)
        return _read(self.path)


def _read(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        frame: pd.DataFrame = getattr(pd, SUFFIXES[path.suffix])(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a table: {error}") from error
    return frame


def find_tables(folder: Path) -> list[TableFile]:
    """Tables in a folder whose kind is known or not; ConfigError if there is none.

    Files DEVICE.KIND.parquet (or .csv), and InferSim's folders KIND/DEVICE with .csv files, where
    KIND is an operator or an operator and a phase (`gemm`, `mla/decode`).
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: not a folder of kernel tables")
    found = [
        TableFile(path=path, device=path.stem.partition(".")[0], kind=path.stem.partition(".")[2])
        for path in sorted(folder.iterdir())
        if path.suffix in SUFFIXES and "." in path.stem
    ]
    holders = {path.parent for depth in ("*/*", "*/*/*") for path in folder.glob(f"{depth}/*.csv")}
    found += [
        TableFile(path=path, device=path.name, kind=path.parent.relative_to(folder).as_posix())
        for path in sorted(holders)
    ]
    if not found:
        raise ConfigError(
            f"{folder}: no kernel tables; they are called DEVICE.KIND.parquet (or .csv), or"
            f" KIND/DEVICE/*.csv, KIND one of {', '.join(KINDS)}"
        )
    return found


def validate_kernels(folder: Path, source: HardwareProfile | None = None) -> Report:
    """The tables of a folder; see `validate_tables`."""
    return validate_tables(find_tables(folder), source)


def validate_tables(tables: Sequence[TableFile], source: HardwareProfile | None = None) -> Report:
    """Price every row of every table; of each operator all rows together, then its variants.

    source: price them as if their devices had no constants but those of this profile, which
    `transfer` says; its own tables are left out.
    """
    report = Report()
    for table in tables:
        kind = KINDS.get(table.kind)
        group = f"kernels/{table.device}/{table.kind}"
        try:
            if kind is None:
                raise ConfigError(f"no kernel model for tables of kind {table.kind!r}")
            if source is None:
                report.add(_compare(group, kind, table))
            else:
                report.add(transferred(kind, table, source))
        except ConfigError as error:
            report.refusals.append(Refusal(group=group, reason=error.problems[0]))
    return report


def _compare(group: str, kind: Kind, table: TableFile) -> Report:
    needed, groups = read_groups(kind, table)
    hardware = hardware_of(table.device, needed)
    return _errors(group, kind, hardware, groups, measured_kernels())


def read_groups(kind: Kind, table: TableFile) -> tuple[int, list[Group[Any]]]:
    """Dies that its rows need, and its rows by variant; ConfigError if columns are missing."""
    frame = table.read()
    try:
        return kind.num_dies(frame), kind.read(frame)
    except KeyError as error:
        raise ConfigError(f"{table.path}: missing column {error}") from error


def _errors(
    group: str,
    kind: Kind,
    hardware: HardwareProfile,
    groups: Sequence[Group[Any]],
    libraries: Sequence[KernelFits],
) -> Report:
    """Errors of all rows, then by variant; ConfigError without constants."""
    pairs = []
    for part in groups:
        simulated_s = kind.seconds(hardware, part, libraries)
        if simulated_s is None:
            raise ConfigError(f"hardware {hardware.name} has no constants of {kind.operator}")
        pairs.append((simulated_s, part.measured_s))
    whole = [np.concatenate(side) for side in zip(*pairs, strict=True)]
    found = [GroupErrors(group=group, errors=errors(*whole), refused=0)]
    if len(groups) > 1:
        found += [
            GroupErrors(group=f"{group}/{part.variant}", errors=errors(*pair), refused=0)
            for part, pair in zip(groups, pairs, strict=True)
        ]
    return Report(tables=found)


def transferred(kind: Kind, table: TableFile, source: HardwareProfile) -> Report:
    """Errors of a table priced with the constants of another die, `source`, alone.

    Twice: as if no kernel had been timed on the table's own die (`as-NAME`), and with what belongs
    to a library known wherever it was timed (`as-NAME+library`): that is what an unfitted device
    has if its libraries were measured on others.
    """
    needed, groups = read_groups(kind, table)
    target = hardware_of(table.device, needed)
    if target.die.name == source.die.name:
        return Report()
    hardware = replace(target, kernels=without_die(source.kernels, target.die.name))
    others = [without_die(kernels, target.die.name) for kernels in measured_kernels()]
    report = Report()
    for label, libraries in (("", others), ("+library", (target.kernels, *others))):
        group = f"kernels/{table.device}/as-{source.name}{label}/{table.kind}"
        report.add(_errors(group, kind, hardware, groups, libraries))
    return report


def without_die(kernels: KernelFits, die: str) -> KernelFits:
    """The fits but those of measurements on `die`."""
    kept = {
        operator.name: {
            variant: fit
            for variant, fit in getattr(kernels, operator.name).items()
            if fit.device != die
        }
        for operator in fields(kernels)
    }
    return KernelFits(**kept)
