"""Fitting a device's kernel constants on its measured tables, and writing them into its profile."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import Fit
from simpod.hardware.spec import HardwareProfile
from simpod.validate.fit import errors, split
from simpod.validate.kernels import TableFile, find_tables
from simpod.validate.names import hardware_of
from simpod.validate.tables.group import Group
from simpod.validate.tables.kinds import KINDS

SECTION: Final = "kernels:"
MIN_ROWS: Final = 30
"""Fewer rows than this say nothing about a dozen constants."""

Fitted = dict[str, dict[str, Fit[Any]]]
"""Operator class -> variant -> fit."""


def tables_of(device: str, folder: Path) -> list[TableFile]:
    """The tables in a folder that belong to the device `device`; ConfigError if there is none."""

    def belongs(table: TableFile) -> bool:
        try:
            return table.kind in KINDS and hardware_of(table.device).name == device
        except ConfigError:
            return False

    found = [table for table in find_tables(folder) if belongs(table)]
    if not found:
        raise ConfigError(
            f"{folder}: no table of {device}; they are called {device}_*.KIND.parquet"
        )
    return found


def calibrate(
    hardware: HardwareProfile, tables: list[TableFile], on_fit: Callable[[str], None]
) -> Fitted:
    """Fit every variant of every table on 70 % of its rows; errors are of the other 30 %.

    on_fit is called with what is being fitted.
    """
    found: Fitted = {}
    for table in tables:
        kind = KINDS[table.kind]
        for group in kind.read(table.read()):
            if len(group.measured_s) < MIN_ROWS:
                continue
            on_fit(f"{kind.operator} {group.variant}")
            fitted, kept = (rows(group, mask) for mask in split(len(group.measured_s)))
            constants = kind.fit(hardware, fitted)
            left = errors(
                kind.price(hardware, group.variant, constants, kept.shape), kept.measured_s
            )
            found.setdefault(kind.operator, {})[group.variant] = Fit(
                device=hardware.die.name,
                family=hardware.family,
                source=f"{table.path.name}, 70 % of its rows",
                rows=len(fitted.measured_s),
                median_abs_error_frac=left.median_abs_error_frac,
                p90_abs_error_frac=left.p90_abs_error_frac,
                constants=constants,
            )
    return found


def rows(group: Group[Any], mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Group[Any]:
    """The rows of a group where `mask` [n] is true."""
    size = len(group.measured_s)
    kind = type(group.shape)
    columns = {each.name: getattr(group.shape, each.name) for each in fields(kind)}
    chosen = {
        name: value[mask] if isinstance(value, np.ndarray) and value.shape == (size,) else value
        for name, value in columns.items()
    }
    return Group(
        operator=group.operator,
        variant=group.variant,
        shape=kind(**chosen),
        measured_s=group.measured_s[mask],
    )


def write_fits(path: Path, fitted: Fitted) -> None:
    """Put fits into the `kernels:` section of a profile, which stands last; nothing else changes.

    Fits of other operators and variants stay. The file is replaced in one step.
    """
    text = path.read_text(encoding="utf-8")
    head, _, tail = text.partition(f"\n{SECTION}\n")
    section: dict[str, Any] = yaml.safe_load(tail and f"{SECTION}\n{tail}") or {}
    kernels: dict[str, Any] = section.pop("kernels", {})
    if section:
        raise ConfigError(f"{path}: kernels: must be the last section, after {', '.join(section)}")
    for operator, variants in fitted.items():
        kernels.setdefault(operator, {}).update(
            {variant: dict(_plain(fit)) for variant, fit in variants.items()}
        )
    body = yaml.safe_dump({"kernels": kernels}, sort_keys=False, default_flow_style=None, width=100)
    draft = path.with_suffix(".draft")
    draft.write_text(head.rstrip("\n") + "\n" + body, encoding="utf-8")
    draft.replace(path)


def _plain(fit: Fit[Any]) -> Iterator[tuple[str, Any]]:
    """Six digits: what a fit on noisy rows can tell."""
    whole: Mapping[str, Any] = asdict(fit)
    for name, value in whole.items():
        if name == "constants":
            yield name, {key: float(f"{number:.6g}") for key, number in value.items()}
        elif isinstance(value, float):
            yield name, round(value, 4)
        elif value is not None:
            yield name, value
