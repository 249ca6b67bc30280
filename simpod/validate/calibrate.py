"""Fitting a device's kernel constants on its measured tables."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import Fit
from simpod.hardware.spec import HardwareProfile
from simpod.validate.fit import errors, split
from simpod.validate.kernels import TableFile, find_tables, read_groups
from simpod.validate.names import hardware_of
from simpod.validate.tables.group import Group
from simpod.validate.tables.kinds import KINDS

MIN_ROWS: Final = 30
"""Fewer rows than this say nothing about a dozen constants."""

Mask = NDArray[np.bool_]
Fitted = dict[str, dict[str, Fit[Any]]]
"""Operator class -> variant -> fit."""


def tables_of(device: str, folder: Path, kinds: Sequence[str] = ()) -> list[TableFile]:
    """The tables in a folder that belong to the device `device`, of these kinds, or of all.

    ConfigError if there is none, or if a kind is not known.
    """
    strange = [kind for kind in kinds if kind not in KINDS]
    if strange:
        raise ConfigError(f"no tables of kind {', '.join(strange)}; allowed: {', '.join(KINDS)}")
    wanted = kinds or tuple(KINDS)
    found = [t for t in find_tables(folder) if t.kind in wanted and _is_of(t.device, device)]
    if not found:
        raise ConfigError(
            f"{folder}: no table of {device}; they are called {device}.KIND.parquet (or .csv),"
            f" KIND one of {', '.join(wanted)}"
        )
    return found


def _is_of(table_device: str, device: str) -> bool:
    """The table's name is the profile's, or means it."""
    if table_device == device:
        return True
    try:
        return hardware_of(table_device).name == device
    except ConfigError:
        return False


def calibrate(
    hardware: HardwareProfile, tables: list[TableFile], on_fit: Callable[[str], None]
) -> Fitted:
    """Fit every variant of every table on 70 % of its rows; errors are of the other 30 %.

    on_fit is called with what is being fitted. ConfigError if a table lacks columns, or if no
    variant of any has MIN_ROWS rows.
    """
    found: Fitted = {}
    for table in tables:
        kind = KINDS[table.kind]
        needed, groups = read_groups(kind, table)
        priced_on = hardware
        if needed > hardware.num_dies:
            priced_on = hardware_of(hardware.name, needed)
        for group in groups:
            if kind.fit is None or len(group.measured_s) < MIN_ROWS:
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
    if not found:
        raise ConfigError(f"no table has {MIN_ROWS} rows of a variant: too few to fit constants on")
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
        if isinstance(value, np.ndarray) and value.shape[:1] == mask.shape:
            return value[mask]
        return _shape_rows(value, mask) if is_dataclass(value) else value

    return kind(**{name: chosen(value) for name, value in columns.items()})
