"""SLO attainment and goodput against the offered rate; tokens/s per NPU and per user."""

from typing import TYPE_CHECKING, Any, Final

from simpod.errors import ConfigError
from simpod.report.curves import ATTAINMENT, GOODPUT, by_rate, frontier, knee_rate_per_s
from simpod.report.sources import Source, need, runs_of
from simpod.report.style import (
    GOOD,
    MARKERS,
    MUTED,
    PAPER_WIDTH_IN,
    WIDE_IN,
    axes_or_new,
    colour_of,
    legend_below,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

TARGET_FRAC: Final = 0.9
_METRICS: Final = {
    ATTAINMENT: ("requests within the SLO (%)", 100.0),
    GOODPUT: ("goodput (requests/s)", 1.0),
}
_PER_NPU: Final = "output_throughput_per_npu"
_TPOT: Final = "mean_tpot_ms"


@styled
def plot_slo_curve(
    *sources: Source,
    metric: str = ATTAINMENT,
    target_frac: float = TARGET_FRAC,
    axes: "Axes | None" = None,
) -> "Axes":
    """Attainment (or goodput, or another figure) against the offered rate, a line a variant.

    Bands are 95 % t intervals over seeds. Of the attainment the knee is marked: the highest rate
    that keeps `target_frac`.
    """
    axes = axes_or_new(axes)
    runs = _with(runs_of(sources), metric)
    label, scale = _METRICS.get(metric, (metric.replace("_", " "), 1.0))
    table = by_rate(runs, metric)
    for index, variant in enumerate(dict.fromkeys(table["variant"])):
        rows = table[table["variant"] == variant]
        note = _mark_knee(axes, rows, index, target_frac) if metric == ATTAINMENT else ""
        _curve(axes, rows, index, scale, note)
    if metric == ATTAINMENT:
        axes.axhline(100 * target_frac, color=MUTED, linestyle="--", linewidth=0.8)
        axes.set_ylim(0, 104)
    elif metric == GOODPUT:
        _diagonal(axes, table)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("offered rate (requests/s)")
    axes.set_ylabel(label)
    legend_below(axes)
    return axes


@styled
def plot_slo_curves(*sources: Source, target_frac: float = TARGET_FRAC) -> Any:
    """Attainment and goodput side by side, [2] axes."""
    _, axes = new_figure(1, 2, width_in=WIDE_IN, height_in=3.0)
    runs = runs_of(sources)
    for each, metric in zip(axes[0], (ATTAINMENT, GOODPUT), strict=True):
        plot_slo_curve(runs, metric=metric, target_frac=target_frac, axes=each)
    return axes[0]


def _with(runs: "pd.DataFrame", metric: str) -> "pd.DataFrame":
    need(runs, metric, "rate_per_s", for_what="SLO curve")
    if runs[metric].isna().all():
        raise ConfigError(f"SLO curve: no run has a {metric}; give the experiments an slo")
    if runs["rate_per_s"].isna().all():
        raise ConfigError("SLO curve: no run was offered a rate (closed loops have none)")
    return runs


def _curve(axes: "Axes", rows: "pd.DataFrame", index: int, scale: float, note: str) -> None:
    x, colour = rows["rate_per_s"], colour_of(index)
    seeds = int(rows["seeds"].min())
    name = f"{rows['variant'].iloc[0]}" + (f" ({seeds} seeds)" if seeds > 1 else "")
    name = f"{name}{note}"
    marker = MARKERS[index % len(MARKERS)]
    axes.plot(x, scale * rows["mean"], color=colour, marker=marker, label=name)
    if seeds > 1:
        axes.fill_between(
            x, scale * rows["low"], scale * rows["high"], color=colour, alpha=0.18, linewidth=0
        )


def _mark_knee(axes: "Axes", rows: "pd.DataFrame", index: int, target_frac: float) -> str:
    """A line down from the knee, if it is among the rates; its rate for the legend."""
    rates, means = rows["rate_per_s"].tolist(), rows["mean"].tolist()
    knee = knee_rate_per_s(rates, means, target_frac)
    if knee is None:
        return f", below {target_frac:.0%}"
    if min(means) >= target_frac:
        return f", {target_frac:.0%} up to more than {knee:.3g}/s"
    colour, height = colour_of(index), 100 * target_frac
    axes.plot([knee, knee], [0, height], color=colour, linestyle=":")
    axes.plot([knee], [height], color=colour, marker="o", markersize=7, markerfacecolor="none")
    return f", {target_frac:.0%} up to {knee:.3g}/s"


def _diagonal(axes: "Axes", table: "pd.DataFrame") -> None:
    """What a deployment without limits would do."""
    most = float(table["rate_per_s"].max())
    axes.plot([0, most], [0, most], color=MUTED, linestyle="--", linewidth=0.8, label="offered")


@styled
def plot_pareto(
    *sources: Source,
    min_tokens_per_s_per_user: float | None = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """Output tokens/s per NPU against output tokens/s per user (1000 / mean TPOT in ms).

    The frontier of each variant is a line; the region where the TPOT target holds is shaded.
    Hollow points miss the target of any metric for more than a tenth of their requests.
    """
    runs = runs_of(sources)
    need(runs, _PER_NPU, _TPOT, for_what="Pareto")
    axes = axes_or_new(axes, width_in=PAPER_WIDTH_IN)
    runs = runs[runs[_TPOT] > 0].assign(per_user=lambda rows: 1000 / rows[_TPOT])
    for index, variant in enumerate(dict.fromkeys(runs["variant"])):
        _points(axes, runs[runs["variant"] == variant], index)
    least = min_tokens_per_s_per_user or _least_of(runs)
    axes.set_xlim(left=0, right=1.12 * max(float(runs["per_user"].max()), least or 0))
    axes.set_ylim(bottom=0, top=1.1 * float(runs[_PER_NPU].max()))
    if least:
        axes.axvspan(least, axes.get_xlim()[1], color=GOOD, alpha=0.1, linewidth=0)
        axes.axvline(least, color=GOOD, linewidth=0.8, linestyle="--")
        axes.annotate(
            f"TPOT ≤ {1000 / least:.3g} ms",
            (least, 0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 4),
            textcoords="offset points",
            color=GOOD,
            fontsize=7,
        )
    axes.set_xlabel("output tokens/s per user (1 / mean TPOT)")
    axes.set_ylabel("output tokens/s per NPU")
    legend_below(axes)
    return axes


def _points(axes: "Axes", rows: "pd.DataFrame", index: int) -> None:
    colour, marker = colour_of(index), MARKERS[index % len(MARKERS)]
    x, y = rows["per_user"].tolist(), rows[_PER_NPU].tolist()
    attained = rows[ATTAINMENT].fillna(1.0) if ATTAINMENT in rows else [1.0] * len(x)
    faces = [colour if share >= TARGET_FRAC else "white" for share in attained]
    axes.scatter(x, y, c=faces, edgecolors=colour, marker=marker, s=18, linewidths=1, zorder=3)
    kept = frontier(x, y)
    name = rows["variant"].iloc[0]
    if "white" in faces:
        name = f"{name} (hollow: < {TARGET_FRAC:.0%} in SLO)"
    axes.plot([x[i] for i in kept], [y[i] for i in kept], color=colour)
    axes.plot([], [], color=colour, marker=marker, label=name)


def _least_of(runs: "pd.DataFrame") -> float | None:
    """Tokens/s per user that the TPOT target asks for."""
    if "slo.tpot_s" not in runs or runs["slo.tpot_s"].isna().all():
        return None
    return 1 / float(runs["slo.tpot_s"].dropna().iloc[0])
