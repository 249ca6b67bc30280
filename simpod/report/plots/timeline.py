"""The cluster over time: arrivals, who waits, who runs, KV in use, KV transfers."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from simpod.records.columns import Floats
from simpod.report.series import Timeline, timeline_of
from simpod.report.sources import Source, result_of
from simpod.report.style import MUTED, PALETTE, ROLE_COLOURS, WIDE_IN, colour_of, new_figure, styled
from simpod.units import GB

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


_Panel = Callable[["Axes", Timeline, Mapping[str, str]], None]


@styled
def plot_timeline(source: Source) -> Any:
    """Panels one above the other with one time axis, [p] axes; the measured window is shaded.

    Links only of a run that sampled them (`engine.link_samples_s`).
    """
    result = result_of(source)
    series = timeline_of(result)
    pools = result.provenance["experiment"]["deployment"]
    colours = {name: ROLE_COLOURS[pool["role"]] for name, pool in pools.items()}
    has_transfers = bool(series.transfer_bytes_per_s.any())
    panels: list[_Panel] = [_arrivals, _waiting, _running, _kv]
    panels += [_transfers] if has_transfers else []
    panels += [partial(_planes, result.planes)] if result.planes is not None else []
    _, grid = new_figure(len(panels), 1, width_in=WIDE_IN, height_in=1.15 * len(panels) + 0.3)
    axes = grid[:, 0]
    window_s = result.summary["window"]["arrivals_s"]
    for each, draw in zip(axes, panels, strict=True):
        draw(each, series, colours)
        each.set_xlim(series.time_s[0], series.time_s[-1])
        each.set_ylim(bottom=0)
        if window_s[0] is not None:
            each.axvspan(*window_s, color="#000000", alpha=0.04, linewidth=0)
    for each in axes[:-1]:
        each.tick_params(labelbottom=False)
    axes[-1].set_xlabel("time (s); grey: arrivals that are measured")
    return axes


def _arrivals(axes: "Axes", series: Timeline, colours: Mapping[str, str]) -> None:
    axes.fill_between(series.time_s, series.arrivals_per_s, color=MUTED, step="mid", linewidth=0)
    axes.set_ylabel("arrivals/s")


def _waiting(axes: "Axes", series: Timeline, colours: Mapping[str, str]) -> None:
    for (name, values), colour in zip(
        series.waiting.items(), (PALETTE[4], PALETTE[3]), strict=False
    ):
        axes.plot(series.time_s, values, color=colour, label=name, linewidth=1)
    axes.set_ylabel("waiting\n(requests)")
    axes.legend(loc="upper right", ncols=2)


def _running(axes: "Axes", series: Timeline, colours: Mapping[str, str]) -> None:
    _lines(axes, series.time_s, series.running, colours)
    axes.set_ylabel("running\n(requests)")


def _kv(axes: "Axes", series: Timeline, colours: Mapping[str, str]) -> None:
    shares = {name: 100 * values for name, values in series.kv_frac.items()}
    _lines(axes, series.time_s, shares, colours)
    axes.set_ylabel("KV of decodes\n(% of pool)")


def _transfers(axes: "Axes", series: Timeline, colours: Mapping[str, str]) -> None:
    axes.fill_between(
        series.time_s, series.transfer_bytes_per_s / GB, color=PALETTE[1], step="mid", linewidth=0
    )
    axes.set_ylabel("KV transfers\n(GB/s)")


def _planes(
    rows: "pd.DataFrame", axes: "Axes", series: Timeline, colours: Mapping[str, str]
) -> None:
    for number, (plane, mine) in enumerate(rows.groupby("plane", observed=True, sort=False)):
        if mine["bytes_per_s"].any():
            share = 100 * mine["busiest_frac"]
            colour = colour_of(number)
            axes.plot(mine["time_s"], share, color=colour, label=plane, linewidth=1)
    axes.set_ylabel("busiest link\n(% of its rate)")
    axes.legend(loc="upper right", ncols=2)


def _lines(
    axes: "Axes", time_s: Floats, by_pool: Mapping[str, Floats], colours: Mapping[str, str]
) -> None:
    for name, values in by_pool.items():
        axes.plot(time_s, values, color=colours[name], label=name, linewidth=1)
    if by_pool:
        axes.legend(loc="upper right", ncols=2)
