"""`--fail-if "p99_ttft_ms>+5%"`: conditions under which a comparison fails a CI job."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from simpod.errors import ConfigError
from simpod.sweep.compare import Comparison

_GATE: Final = re.compile(
    r"^\s*(?P<metric>[A-Za-z_][\w.-]*?)\s*(?P<sign>>=|<=|>|<)\s*"
    r"(?P<value>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<percent>%?)\s*$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A metric, a sign and a threshold.

    kind: absolute (`>200`: the mean itself), change (`>+5`: the difference to the first variant) or
    relative (`>+5%`: that difference in per cent of the first variant's mean).
    """

    text: str
    metric: str
    sign: str
    threshold: float
    kind: str


def parse_gate(text: str) -> Gate:
    """Read one condition."""
    match = _GATE.match(text)
    if match is None:
        raise ConfigError(
            f"--fail-if {text}: not a condition; allowed: METRIC>+5% or METRIC<-5% (change against"
            " the first variant in per cent), METRIC>+5 (change), METRIC>200 (the value itself)"
        )
    value = match["value"]
    kind = "relative" if match["percent"] else "change" if value[0] in "+-" else "absolute"
    return Gate(
        text=text.strip(),
        metric=match["metric"],
        sign=match["sign"],
        threshold=float(value),
        kind=kind,
    )


def broken_gates(comparison: Comparison, gates: Sequence[Gate]) -> list[str]:
    """One sentence for each variant that meets a condition; means over seeds decide.

    A change is that of a variant against the first one; an absolute value is asked of all.
    """
    return [
        f"{gate.text}: {label} has {figure}"
        for gate in gates
        for label, figure in _figures(comparison, gate)
    ]


def _figures(comparison: Comparison, gate: Gate) -> list[tuple[str, str]]:
    cells = comparison.cells[gate.metric]
    first = cells[0].mean
    found = []
    for label, cell in zip(comparison.labels, cells, strict=True):
        if cell.mean is None:
            found.append((label, "no such figure"))
            continue
        if gate.kind == "absolute":
            if _meets(cell.mean, gate):
                found.append((label, f"{cell.mean:.6g}"))
        elif cell.difference is not None and first is not None:
            value = cell.difference
            unit = ""
            if gate.kind == "relative":
                value = 100 * value / abs(first) if first else _ratio_to_nothing(value)
                unit = " %"
            if _meets(value, gate):
                found.append((label, f"{value:+.4g}{unit} against {comparison.labels[0]}"))
    return found


def _ratio_to_nothing(difference: float) -> float:
    return 0.0 if difference == 0 else float("inf") if difference > 0 else float("-inf")


def _meets(value: float, gate: Gate) -> bool:
    match gate.sign:
        case ">":
            return value > gate.threshold
        case "<":
            return value < gate.threshold
        case ">=":
            return value >= gate.threshold
        case _:
            return value <= gate.threshold
