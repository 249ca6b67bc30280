"""Latencies of requests: which of them miss the SLO, and their distributions with the tails."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from simpod.errors import ConfigError
from simpod.report.sources import Source, name_of, names_of, need, requests_of, result_of
from simpod.report.style import (
    GOOD,
    WIDE_IN,
    axes_or_new,
    colour_of,
    new_figure,
    plain_log,
    styled,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MOST_POINTS: Final = 5000
LATENCIES: Final = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E latency"}
_TAILS: Final = (0.5, 0.9, 0.99, 0.999)


@styled
def plot_scatter(
    source: Source,
    *,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """TTFT against TPOT of each request, coloured by prompt length, with the box of the SLO.

    Without limits given, those of the result count. Of more than 5,000 requests every n-th is
    drawn; the share in the box is of all.
    """
    rows = requests_of(source)
    need(rows, "ttft_s", "tpot_s", "prompt_tokens", for_what="scatter")
    rows = rows[rows["output_tokens"] > 1] if "output_tokens" in rows else rows
    if rows.empty:
        raise ConfigError("scatter: no request finished with more than one token")
    from matplotlib.colors import LogNorm

    axes = axes_or_new(axes)
    ttft_s, tpot_s = _limits(source, ttft_s, tpot_s)
    some = rows.iloc[:: max(1, -(-len(rows) // MOST_POINTS))]
    shown = axes.scatter(
        1e3 * some["tpot_s"],
        some["ttft_s"],
        c=some["prompt_tokens"],
        s=5,
        alpha=0.7,
        cmap="viridis",
        norm=LogNorm(max(1, some["prompt_tokens"].min()), some["prompt_tokens"].max() + 1),
        linewidths=0,
        rasterized=True,
    )
    plain_log(axes.figure.colorbar(shown, ax=axes, label="prompt tokens").ax.yaxis)
    axes.set_yscale("log")
    plain_log(axes.yaxis)
    _draw_box(axes, rows, ttft_s, tpot_s)
    axes.set_xlabel("TPOT (ms)")
    axes.set_ylabel("TTFT (s)")
    return axes


def _limits(
    source: Source, ttft_s: float | None, tpot_s: float | None
) -> tuple[float | None, float | None]:
    import pandas as pd

    if isinstance(source, pd.DataFrame) or ttft_s is not None or tpot_s is not None:
        return ttft_s, tpot_s
    slo = result_of(source).summary["slo"]
    return slo["ttft_s"], slo["tpot_s"]


def _draw_box(
    axes: "Axes", rows: "pd.DataFrame", ttft_s: float | None, tpot_s: float | None
) -> None:
    if ttft_s is None and tpot_s is None:
        return
    top, right = ttft_s or np.inf, tpot_s or np.inf
    low_x, high_x = axes.get_xlim()
    low_y, high_y = axes.get_ylim()
    high_x, high_y = max(high_x, 1.05e3 * (tpot_s or 0)), max(high_y, 1.3 * (ttft_s or 0))
    low_x, low_y = min(low_x, 0.9e3 * right), min(low_y, 0.7 * top)
    x, y = min(1e3 * right, high_x), min(top, high_y)
    axes.fill_between([low_x, x], low_y, y, color=GOOD, alpha=0.1, linewidth=0, zorder=0)
    axes.plot([low_x, x, x], [y, y, low_y], color=GOOD, linestyle="--", linewidth=1)
    share = float(np.mean((rows["ttft_s"] <= top) & (rows["tpot_s"] <= right)))
    axes.set_title(f"{share:.1%} of {len(rows):,} within the SLO", loc="left")
    axes.set_xlim(low_x, high_x)
    axes.set_ylim(low_y, high_y)


@styled
def plot_cdf(
    *sources: Source,
    metric: str = "ttft_s",
    names: Sequence[str] = (),
    axes: "Axes | None" = None,
) -> "Axes":
    """Distribution of a latency, a line a result; p50, p90, p99 and p99.9 are marked."""
    axes = axes_or_new(axes)
    for index, (source, name) in enumerate(zip(sources, names_of(sources, names), strict=True)):
        x, share = _cdf(source, metric)
        label = f"{name}: p99 {np.quantile(x, 0.99):.3g} s"
        axes.plot(x, share, color=colour_of(index), label=label, drawstyle="steps-post")
        marks = [q for q in _TAILS if q < 1 - 1 / len(x)]
        axes.plot(np.quantile(x, marks), marks, "o", color=colour_of(index), markersize=3)
    _axis_of_time(axes, metric)
    axes.set_ylabel("share of requests")
    axes.set_title("dots: p50, p90, p99, p99.9", loc="left")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="best")
    return axes


@styled
def plot_tail(
    *sources: Source,
    metric: str = "ttft_s",
    names: Sequence[str] = (),
    axes: "Axes | None" = None,
) -> "Axes":
    """The same as share of requests that took longer, both axes logarithmic: the tail enlarged."""
    axes = axes_or_new(axes)
    for index, (source, name) in enumerate(zip(sources, names_of(sources, names), strict=True)):
        x, share = _cdf(source, metric)
        axes.plot(x, np.maximum(1 - share, 1e-12), color=colour_of(index), label=name)
        axes.set_ylim(bottom=min(axes.get_ylim()[0], 0.8 / len(x)))
    axes.set_yscale("log")
    most = max(len(_cdf(source, metric)[0]) for source in sources)
    axes.set_ylim(0.8 / most, 1.3)
    _axis_of_time(axes, metric)
    axes.set_ylabel("share that took longer")
    return axes


@styled
def plot_cdfs(*sources: Source, metric: str = "ttft_s", names: Sequence[str] = ()) -> Any:
    """Distribution and tail side by side, [2] axes."""
    _, axes = new_figure(1, 2, width_in=WIDE_IN, height_in=2.6)
    plot_cdf(*sources, metric=metric, names=names, axes=axes[0, 0])
    plot_tail(*sources, metric=metric, names=names, axes=axes[0, 1])
    return axes[0]


def _cdf(source: Source, metric: str) -> tuple[Any, Any]:
    """Sorted values and the share of requests up to each."""
    if metric not in LATENCIES:
        raise ConfigError(f"cdf: unknown latency {metric}; allowed: {', '.join(LATENCIES)}")
    rows = requests_of(source)
    need(rows, metric, for_what="cdf")
    if metric == "tpot_s" and "output_tokens" in rows:
        rows = rows[rows["output_tokens"] > 1]
    values = np.sort(rows[metric].dropna().to_numpy(float))
    if not len(values):
        raise ConfigError(f"cdf: no request of {name_of(source)} has a {metric}")
    return values, np.arange(1, len(values) + 1) / len(values)


def _axis_of_time(axes: "Axes", metric: str) -> None:
    axes.set_xscale("log")
    plain_log(axes.xaxis)
    axes.set_xlabel(f"{LATENCIES[metric]} (s)")
