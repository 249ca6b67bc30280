"""One look for all pictures: colours that colour-blind people tell apart, sizes for a paper."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from simpod.errors import ConfigError
from simpod.records.columns import STEP_PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

PALETTE: Final = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#444444"),
)
"""Okabe and Ito (2008) without yellow, which is too weak on white; for variants, in this order."""

GOOD: Final = "#009E73"
BAD: Final = "#D55E00"
MUTED: Final = "#8a8a8a"

MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")

PAPER_WIDTH_IN: Final = 3.5
"""One column of a two-column page; wide pictures take two."""

WIDE_IN: Final = 7.2

_COMPUTE: Final = ("#1f4e9e", "#2f79c2", "#5ba0d9", "#8cc0e6", "#b7d8ef")
_MOVE: Final = ("#8c3a06", "#d94801", "#f16913", "#fd8d3c", "#fdae6b")

TTFT_COLOURS: Final[Mapping[str, str]] = {
    "router": "#bdbdbd",
    "queue": "#E69F00",
    "cache_read": "#F0E442",
    "prefill": "#0072B2",
    "barrier": "#56B4E9",
    "back_pressure": "#CC79A7",
    "transfer": "#D55E00",
    "first_decode": "#009E73",
    "frontend": "#7f7f7f",
}

STEP_COLOURS: Final[Mapping[str, str]] = {
    **dict(zip(STEP_PARTS[:5], _COMPUTE, strict=True)),
    "all_reduce": _MOVE[0],
    "latent_gather": "#6b2c05",
    "head_exchange": "#b24a08",
    "dispatch": _MOVE[1],
    "dispatch_wait": "#e8c468",
    "combine": _MOVE[2],
    "combine_wait": "#f3e2a9",
    "a2e": _MOVE[3],
    "e2a": _MOVE[4],
    "head": "#006d2c",
    "mtp": "#41ab5d",
    "sampling": "#a1d99b",
    "host_gap": "#969696",
}
"""Blue computes, orange moves bytes, yellow waits for the slowest, green makes tokens."""

ROLE_COLOURS: Final[Mapping[str, str]] = {
    "prefill": "#0072B2",
    "decode": "#009E73",
    "mixed": "#7F3C8D",
}

LEGEND_BELOW_IN: Final = 0.45
"""Room for the ticks and the label of an axis."""

_RC: Final[Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.hashsalt": "simpod",
}


def words(name: str) -> str:
    """back_pressure -> back pressure."""
    return name.replace("_", " ")


def colour_of(index: int) -> str:
    """Of the variant with this number."""
    return PALETTE[index % len(PALETTE)]


def legend_below(axes: "Axes") -> None:
    """Under the label of the axis, however high the axes are."""
    from matplotlib.transforms import ScaledTranslation

    down = ScaledTranslation(0.0, -LEGEND_BELOW_IN, axes.figure.dpi_scale_trans)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, 0.0),
        bbox_transform=axes.transAxes + down,
        borderaxespad=0,
    )


def styled(plot: Callable[P, R]) -> Callable[P, R]:
    """Draw with the sizes of this module, whatever the notebook has set."""

    @functools.wraps(plot)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        _figure_type()  # an error that says what to install comes first
        from matplotlib import rc_context

        with rc_context(_RC):
            return plot(*args, **kwargs)

    return inside


def new_figure(
    rows: int = 1, columns: int = 1, *, width_in: float = PAPER_WIDTH_IN, height_in: float = 2.5
) -> "tuple[Figure, Any]":
    """A figure outside pyplot (no window, no global state) and its axes, [rows, columns]."""
    figure = _figure_type()(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def plain_log(axis: Any) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5 (over more than 3 decades: at 1)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0,) if high > 1e3 * low > 0.0 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def axes_or_new(axes: "Axes | None", *, width_in: float = PAPER_WIDTH_IN) -> "Axes":
    """The axes given, or those of a new figure of paper width."""
    if axes is not None:
        return axes
    made: Axes = new_figure(width_in=width_in, height_in=2.5)[1][0, 0]
    return made


def _figure_type() -> "type[Figure]":
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "plots need matplotlib: pip install 'simpod[plot]' (or matplotlib itself)"
        ) from None
    return Figure


def save(axes: Any, path: Any) -> None:
    """Write the figure of some axes; the suffix is the format (png, svg, pdf)."""
    from matplotlib import rc_context

    figure = axes.figure
    try:
        with rc_context({"svg.hashsalt": "simpod"}):
            figure.savefig(path, dpi=200, metadata=_without_date(str(path)))
    except ValueError as error:  # a suffix that matplotlib does not know
        raise ConfigError(f"{path}: {error}") from None


def _without_date(path: str) -> dict[str, Any]:
    """So that the same picture is the same bytes."""
    key = {"svg": "Date", "pdf": "CreationDate"}.get(path.rpartition(".")[2])
    return {key: None} if key else {}
