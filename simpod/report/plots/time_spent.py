"""Where the time went: of requests, and of the steps of each pool."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from simpod.errors import ConfigError
from simpod.records.columns import STEP_PARTS
from simpod.report.shares import DECODE, mean_and_tail, step_shares
from simpod.report.sources import Source, names_of, need, requests_of, result_of
from simpod.report.style import (
    STEP_COLOURS,
    TTFT_COLOURS,
    WIDE_IN,
    axes_or_new,
    styled,
    words,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_COLOURS: Final = {**TTFT_COLOURS, DECODE: "#bfe5d8"}
_TOTALS: Final = {"ttft_s": "TTFT (s)", "e2e_s": "E2E latency (s)"}


@styled
def plot_attribution(
    *sources: Source,
    total: str = "ttft_s",
    names: Sequence[str] = (),
    axes: "Axes | None" = None,
) -> "Axes":
    """Stacked parts of the TTFT (or `e2e_s`): mean of all requests, and of the slowest 1 %."""
    if total not in _TOTALS:
        raise ConfigError(f"attribution: of {total}? allowed: {', '.join(_TOTALS)}")
    import pandas as pd

    columns: dict[str, Any] = {}
    for source, name in zip(sources, names_of(sources, names), strict=True):
        rows = requests_of(source)
        need(rows, total, "queue_s", "prefill_s", for_what="attribution")
        if rows.empty:
            raise ConfigError(f"attribution: no measured request of {name} finished")
        prefix = f"{name}: " if len(sources) > 1 else ""
        columns |= {f"{prefix}{k}": v for k, v in mean_and_tail(rows, total).items()}
    axes = axes_or_new(axes, width_in=WIDE_IN)
    _stack(axes, pd.DataFrame(columns), _COLOURS, is_share=False)
    axes.set_xlabel(f"{_TOTALS[total]}, by part")
    return axes


@styled
def plot_steps(source: Source, *, share: bool = True, axes: "Axes | None" = None) -> "Axes":
    """Parts of the mean step of each pool, as shares (with its length beside it) or in ms."""
    import pandas as pd

    steps = source if isinstance(source, pd.DataFrame) else result_of(source).steps
    need(steps, "pool", "num_steps", *(f"{p}_s" for p in STEP_PARTS), for_what="step breakdown")
    if steps.empty:
        raise ConfigError("step breakdown: there was no step")
    table = step_shares(steps)
    totals = table.sum()
    names = {
        pool: f"{pool}\n{_duration(total_s)}"
        for pool, total_s in zip(table, totals.tolist(), strict=True)
    }
    axes = axes_or_new(axes, width_in=WIDE_IN)
    shown = 100 * table / totals if share else 1e3 * table
    _stack(axes, shown.rename(columns=names), STEP_COLOURS, is_share=share)
    axes.set_xlabel("share of the mean step (%)" if share else "mean step (ms)")
    return axes


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _stack(
    axes: "Axes", table: "pd.DataFrame", colours: Mapping[str, str], *, is_share: bool
) -> None:
    """Horizontal stacked bars, a bar a column; parts below a thousandth of all bars left out."""
    names = list(table.columns)[::-1]
    left = dict.fromkeys(names, 0.0)
    totals = table.sum()
    for part in table.index:
        widths = [float(table.loc[part, name]) for name in names]
        if all(width <= 1e-3 * totals[name] for width, name in zip(widths, names, strict=True)):
            continue
        axes.barh(
            names,
            widths,
            left=[left[name] for name in names],
            color=colours[part],
            label=words(part),
            height=0.62,
        )
        for name, width in zip(names, widths, strict=True):
            left[name] += width
    axes.grid(visible=False, axis="y")
    if is_share:
        axes.set_xlim(0, 100)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02))
