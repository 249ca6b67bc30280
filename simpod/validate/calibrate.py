"""Fitting a device's kernel constants on its measured tables, and writing them into its profile."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simpod.config.kernel_section import split_kernels, with_kernels
from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import Fit
from simpod.hardware.spec import HardwareProfile
from simpod.validate.fit import errors, split
from simpod.validate.kernels import TableFile, find_tables
from simpod.validate.names import hardware_of
from simpod.validate.tables.group import Group
from simpod.validate.tables.kinds import KINDS

MIN_ROWS: Final = 30
"""Fewer rows than this say nothing about a dozen constants."""

Mask = NDArray[np.bool_]
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
        kind, frame = KINDS[table.kind], table.read()
        priced_on = hardware
        if (needed := kind.num_dies(frame)) > hardware.num_dies:
            priced_on = hardware_of(hardware.name, needed)
        for group in kind.read(frame):
            if len(group.measured_s) < MIN_ROWS:
                continue
            on_fit(f"{kind.operator} {group.variant}")
            fitted, kept = (rows(group, mask) for mask in split(len(group.measured_s)))
            constants = kind.fit(priced_on, fitted)
            left = errors(
                kind.price(priced_on, group.variant, constants, kept.shape), kept.measured_s
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


def rows(group: Group[Any], mask: Mask) -> Group[Any]:
    """The rows of a group where `mask` [n] is true."""
    return Group(
        operator=group.operator,
        variant=group.variant,
        shape=_shape_rows(group.shape, mask),
        measured_s=group.measured_s[mask],
    )


def _shape_rows(shape: Any, mask: Mask) -> Any:
    """A shape's columns, and those of a shape inside it; what is no column [n] stays."""
    kind = type(shape)
    columns = {each.name: getattr(shape, each.name) for each in fields(kind)}

    def chosen(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.shape == mask.shape:
            return value[mask]
        return _shape_rows(value, mask) if is_dataclass(value) else value

    return kind(**{name: chosen(value) for name, value in columns.items()})


def write_fits(path: Path, fitted: Fitted) -> None:
    """Put fits into the `kernels:` section of a profile, which stands last; nothing else changes.

    Fits of other operators and variants stay. The file is replaced in one step.
    """
    head, kernels = split_kernels(path.read_text(encoding="utf-8"), str(path))
    for operator, variants in fitted.items():
        kernels.setdefault(operator, {}).update(
            {variant: dict(_plain(fit)) for variant, fit in variants.items()}
        )
    draft = path.with_suffix(".draft")
    draft.write_text(with_kernels(head, kernels), encoding="utf-8")
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
