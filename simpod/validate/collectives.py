"""Measured exchanges, transfers and collectives beside their prices; tables told by their columns.

Published points are priced row by row, each with its own reason if it can't be; the large tables
(DeepEP, all-to-all of an NVLink domain) come as errors of groups.
"""

from collections.abc import Iterator, Mapping
from math import inf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from simpod.cost.exchange.named import priced
from simpod.cost.exchange.requests import KERNELS, SPLITS, TRANSFERS, Request
from simpod.errors import ConfigError
from simpod.hardware.spec import HardwareProfile
from simpod.units import BYTES_PER_ELEMENT, GB, US
from simpod.validate.fit import errors
from simpod.validate.names import hardware_of, short_name
from simpod.validate.report import GroupErrors, Point, Refusal, Report
from simpod.validate.tables.exchange_kinds import TABLES, ExchangeTable
from simpod.validate.tables.kinds import KINDS, Floats, Kind

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED_COLUMNS: Final = ("system", "kernel", "operation", "metric", "measured")
METRICS: Final = ("latency_us", "bandwidth_gb_per_s")

KERNEL_NAMES: Final[Mapping[str, str]] = {
    "push": "fused_push",
    "fuseddispatch": "fused_push",
    "fusedcombine": "fused_push",
    "pull": "xccl_pull",
    "xccl": "xccl_pull",
    "deepepll": "deepep_low_latency",
    "deepep": "deepep_low_latency",
    "naivepull": "naive",
    "custom": "custom_graph",
}
"""Names in measured tables, in letters and digits, beside those of `KERNELS`."""
OPERATION_NAMES: Final[Mapping[str, str]] = {
    "p2p": "p2p_send",
    "send": "p2p_send",
    "p2psendrecv": "p2p_send",
    "sendrecv": "p2p_send",
    "read": "p2p_read",
    "write": "p2p_write",
}

Row = Mapping[str, Any]


def validate_collectives(path: Path) -> Report:
    """Compare one CSV; ConfigError if it is none of the known tables."""
    import pandas as pd

    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error
    if set(PUBLISHED_COLUMNS) <= set(frame):
        return _published(frame, path)
    for name, table in TABLES.items():
        if table.is_it(frame):
            return _table(frame, table, KINDS[name])
    known: dict[str, tuple[str, ...]] = {"published points": PUBLISHED_COLUMNS}
    known |= {name: table.columns for name, table in TABLES.items()}
    raise ConfigError(
        [
            f"{path}: not a table of collectives; the columns tell which it is:",
            *(f"  {name}: {', '.join(columns)}" for name, columns in known.items()),
        ]
    )


def _published(frame: "pd.DataFrame", path: Path) -> Report:
    report = Report()
    for number, record in enumerate(frame.to_dict("records"), start=2):
        row = {str(name): value for name, value in record.items()}
        group = f"collectives/{row['system']}/{row['kernel']}/{row['operation']}"
        try:
            metric, measured = _measured(row)
            simulated = _simulated(row, metric)
        except ConfigError as error:
            report.refusals.append(Refusal(group=group, reason=error.problems[0]))
            continue
        report.points.append(
            Point(
                id=_text(row, "id") or f"{path.name}:{number}",
                group=group,
                metric=metric,
                measured=measured,
                simulated=simulated,
                source=_text(row, "source") or path.name,
            )
        )
    return report


def _measured(row: Row) -> tuple[str, float]:
    metric = _text(row, "metric")
    if metric not in METRICS:
        raise ConfigError(f"unknown metric {metric!r}; allowed: {', '.join(METRICS)}")
    measured = _number(row, "measured")
    if not 0 < measured < inf:
        raise ConfigError("measured is empty, or not above 0")
    return metric, measured


def _simulated(row: Row, metric: str) -> float:
    request = request_of(row)
    dies = request.num_ranks
    if request.operation in SPLITS:
        dies += request.num_attention_dies
    elif request.operation in TRANSFERS:
        dies = 2
    found = priced(hardware_of(_text(row, "system"), dies), request)
    return found.total_s / US if metric == "latency_us" else found.bytes_per_s / GB


def request_of(row: Row) -> Request:
    """One row of published points; what it leaves empty stays at the model's defaults."""
    operation = _operation(_text(row, "operation"))
    kernel = _kernel(_text(row, "kernel"))
    if operation in TRANSFERS and kernel.startswith("xccl"):
        operation, kernel = "p2p_send", "xccl_point_to_point"  # one kernel on either side
    outbound = operation in ("dispatch", "a2e")
    given: dict[str, Any] = {
        "num_ranks": _count(row, "ep"),
        "tokens": _count(row, "tokens_per_rank"),
        "hidden_size": _count(row, "hidden"),
        "top_k": _count(row, "topk"),
        "num_experts": _count(row, "num_experts"),
        "num_cores": _count(row, "aiv_cores"),
        "num_attention_dies": _count(row, "attention_dies"),
        "size_bytes": _number(row, "message_bytes"),
        "dtype": _text(row, "dispatch_dtype" if outbound else "combine_dtype").lower(),
        "plane": _text(row, "plane").lower() if operation in TRANSFERS else "",
    }
    far = _number(row, "nodes")
    return Request(
        operation=operation,
        kernel=kernel,
        is_inter_node=isnan(far) or far > 1,
        **{name: value for name, value in given.items() if value and not _is_nan(value)},
    )


def _operation(name: str) -> str:
    plain = _letters(name)
    known = {_letters(each): each for each in KERNELS}
    for alias in (plain, plain.removeprefix("alltoall"), OPERATION_NAMES.get(plain, "")):
        if found := known.get(_letters(alias)):
            return found
    return name


def _kernel(name: str) -> str:
    """A kernel by one of its names."""
    plain = _letters(name)
    known = {_letters(each): each for names in KERNELS.values() for each in names}
    return known.get(plain) or KERNEL_NAMES.get(plain, name)


def _letters(name: str) -> str:
    return "".join(each for each in name.lower() if each.isalnum())


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return "" if value is None or _is_nan(value) else str(value).strip()


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and isnan(value)


def _number(row: Row, name: str) -> float:
    """A cell as a number; NaN if it is empty, ConfigError if it is none."""
    text = _text(row, name)
    try:
        return float(text) if text else float("nan")
    except ValueError:
        raise ConfigError(f"{name} is {text!r}, not a number") from None


def _count(row: Row, name: str) -> int:
    value = _number(row, name)
    if isnan(value):
        return 0
    if not 0 <= value < inf or value != int(value):
        raise ConfigError(f"{name} is {value:g}, not a whole number")
    return int(value)


def _table(frame: "pd.DataFrame", table: ExchangeTable, kind: Kind) -> Report:
    """Every device of a large table; of each kernel and operation all rows, then by data type."""
    report = Report()
    for device, of_device in frame.groupby(frame["device"].astype(str), sort=True):
        system = short_name(str(device))
        rows = _priceable(of_device, table, f"collectives/{system}", system, report)
        if len(rows):
            hardware = hardware_of(system, table.num_dies(rows))
            report.add(_compare(rows, kind, hardware, f"collectives/{system}"))
    return report


def _priceable(
    frame: "pd.DataFrame", table: ExchangeTable, group: str, system: str, report: Report
) -> "pd.DataFrame":
    """The rows that can be priced; the others are refused with their reason."""

    def refuse(reason: str, rows: int) -> None:
        if rows:
            report.refusals.append(Refusal(group=group, reason=reason, rows=rows))

    rows = table.usable(frame)
    refuse("a cell is empty, no number, or not above 0", len(frame) - len(rows))
    if "distribution" in rows:
        even = (rows["distribution"] == "balanced").to_numpy()
        refuse("how uneven the routing is, the table doesn't say", int((~even).sum()))
        rows = rows[even]
    ranks = table.ranks(rows)
    fits = np.ones(len(rows), dtype=bool)
    for count in np.unique(ranks):
        try:
            hardware_of(system, int(count))
        except ConfigError as error:
            fits &= ranks != count
            refuse(error.problems[0], int((ranks == count).sum()))
    return rows[fits]


def _compare(rows: "pd.DataFrame", kind: Kind, hardware: HardwareProfile, prefix: str) -> Report:
    report = Report()
    found: dict[str, dict[str, tuple[Floats, Floats]]] = {}
    for group in kind.read(rows):
        operation, _, dtype = group.variant.rpartition("/")
        name, refused = f"{prefix}/{operation}", len(group.measured_s)
        simulated_s = kind.seconds(hardware, group)
        if dtype not in (*BYTES_PER_ELEMENT, "none"):
            report.refusals.append(
                Refusal(group=name, reason=f"unknown data type {dtype!r}", rows=refused)
            )
        elif simulated_s is None:
            reason = f"hardware {hardware.name} has no constants of {group.variant}"
            report.refusals.append(Refusal(group=name, reason=reason, rows=refused))
        else:
            found.setdefault(name, {})[dtype] = (simulated_s, group.measured_s)
    report.tables += [table for name, by_type in found.items() for table in _lines(name, by_type)]
    return report


def _lines(name: str, by_type: Mapping[str, tuple[Floats, Floats]]) -> Iterator[GroupErrors]:
    whole = [np.concatenate(side) for side in zip(*by_type.values(), strict=True)]
    yield GroupErrors(group=name, errors=errors(*whole), refused=0)
    if len(by_type) > 1:
        for dtype, pair in by_type.items():
            yield GroupErrors(group=f"{name}/{dtype}", errors=errors(*pair), refused=0)
