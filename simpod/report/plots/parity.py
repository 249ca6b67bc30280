"""Simulated against measured, point by point."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from simpod.errors import ConfigError
from simpod.report.sources import need, read_json
from simpod.report.style import MARKERS, MUTED, axes_or_new, colour_of, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MOST_GROUPS: Final = 8
BAND_FRAC: Final = 0.2


@styled
def plot_parity(source: Any, *, axes: "Axes | None" = None) -> "Axes":
    """Simulated over measured for every point, both axes logarithmic; the band is +-20 %.

    Beside the name of a group: the median of its absolute errors.

    source: the file that `simpod validate --json` printed, its value, or its points as a table.
    """
    points = _points(source)
    need(points, "group", "measured", "simulated", for_what="parity")
    points = points[(points["measured"] > 0) & (points["simulated"] > 0)]
    if points.empty:
        raise ConfigError("parity: the validation has no points (kernel tables have errors only)")
    axes = axes_or_new(axes)
    _band(axes, points)
    for index, (name, rows) in enumerate(_groups(points).items()):
        error = np.median(np.abs(rows["simulated"] / rows["measured"] - 1))
        axes.plot(
            rows["measured"],
            rows["simulated"],
            linestyle="none",
            marker=MARKERS[index % len(MARKERS)],
            color=colour_of(index),
            markersize=3.5,
            alpha=0.8,
            label=f"{name.removeprefix('points/')} ({error:.0%})",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("measured (unit of each metric)")
    axes.set_ylabel("simulated")
    axes.legend(loc="lower right", fontsize=5)  # points are near the diagonal
    return axes


def _points(source: Any) -> "pd.DataFrame":
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source
    value = read_json(Path(source)) if isinstance(source, str | Path) else source
    points = value.get("points") if isinstance(value, dict) else None
    if points is None:
        raise ConfigError("parity: needs what `simpod validate --json` prints")
    columns = ["id", "group", "metric", "measured", "simulated"]
    return pd.DataFrame(points, columns=columns)


def _band(axes: "Axes", points: "pd.DataFrame") -> None:
    both = points[["measured", "simulated"]].to_numpy(float)
    ends = np.array([both.min() / 2, both.max() * 2])
    axes.plot(ends, ends, color=MUTED, linewidth=0.8)
    axes.fill_between(
        ends, (1 - BAND_FRAC) * ends, (1 + BAND_FRAC) * ends, color=MUTED, alpha=0.15, linewidth=0
    )
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)


def _groups(points: "pd.DataFrame") -> "dict[str, pd.DataFrame]":
    """The groups with most points by name, the rest as one."""
    counts = points["group"].value_counts()
    kept = set(counts.index[: MOST_GROUPS if len(counts) <= MOST_GROUPS else MOST_GROUPS - 1])
    names = points["group"].where(points["group"].isin(kept), "others")
    return {str(name): points[names == name] for name in dict.fromkeys(names)}
