"""Heat maps: load of experts by layer, use of links by plane."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from simpod.errors import ConfigError
from simpod.records.columns import Floats
from simpod.report.loads import By, each_load, imbalance_of, link_use, relative
from simpod.report.sources import need, result_of, table_of
from simpod.report.style import WIDE_IN, new_figure, styled
from simpod.run.results import ResultFiles
from simpod.run.simulate import Result

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_BALANCED: Final = "RdBu_r"

COLUMNS: Final = 2
"""Panels side by side: before and after."""


@styled
def plot_experts(*loads: Any, names: Sequence[str] = (), by: By = "die") -> Any:
    """Load of each die (slot, expert) by sparse layer over the layer's mean, a panel a load: [n].

    loads: a result, which gives its pools before and after balancing; or arrays [num_layers, n] of
    tokens, or files of them (.npy, .csv, .parquet). White is the mean, red twice as much; the title
    says max / mean.
    """
    panels = dict(_panels(loads, names, by))
    if not panels:
        raise ConfigError("expert load: no load is given")
    rows = max(len(load) for load in panels.values())
    columns = min(len(panels), COLUMNS)
    lines = -(-len(panels) // columns)
    height_in = lines * min(1.4 + 0.05 * rows, 4.0 if lines == 1 else 3.0)
    figure, grid = new_figure(lines, columns, width_in=WIDE_IN, height_in=height_in)
    axes = grid.ravel()[: len(panels)]
    for spare in grid.ravel()[len(panels) :]:
        spare.remove()
    for each, (name, load) in zip(axes, panels.items(), strict=True):
        image = each.imshow(
            relative(load), aspect="auto", cmap=_BALANCED, vmin=0, vmax=2, interpolation="nearest"
        )
        each.grid(visible=False)
        each.set_title(f"{name}: max / mean {imbalance_of(load):.2f}", loc="left")
        each.set_xlabel(by if any(map(_is_result, loads)) else "expert")
        each.xaxis.get_major_locator().set_params(integer=True)
        each.yaxis.get_major_locator().set_params(integer=True)
    for first in axes[::columns]:
        first.set_ylabel("sparse layer")
    figure.colorbar(image, ax=axes, label="load / mean of the layer", extend="max")
    return axes


def _panels(loads: Sequence[Any], names: Sequence[str], by: By) -> Iterator[tuple[str, Floats]]:
    """Titles and loads; a title that comes again gets a number."""
    seen: Counter[str] = Counter()
    for index, load in enumerate(loads):
        found = {_title(load, index): load}
        if _is_result(load):
            found = dict(each_load(result_of(load), by))
        for own, array in found.items():
            name = names[seen.total()] if seen.total() < len(names) else own
            seen[name] += 1
            again = f" ({seen[name]})" if seen[name] > 1 else ""
            yield name + again, load_array(array)


def _is_result(load: Any) -> bool:
    is_folder = isinstance(load, str | Path) and Path(load).is_dir()
    return is_folder or isinstance(load, Result | ResultFiles)


def load_array(load: Any) -> Floats:
    """An array [num_layers, num_experts], or a file of one; one layer may be a vector."""
    if isinstance(load, str | Path):
        path = Path(load)
        if path.suffix == ".npy":
            if not path.is_file():
                raise ConfigError(f"{path}: there is no such file")
            load = np.load(path, allow_pickle=False)
        else:
            load = table_of(path).to_numpy()
    try:
        array = np.atleast_2d(np.asarray(load, dtype=np.float64))
    except ValueError:
        raise ConfigError("expert load: numbers are needed, a row a layer") from None
    if array.ndim != 2 or not array.size or not np.all(array >= 0):
        raise ConfigError(
            f"expert load: needs counts >= 0, [num_layers, num_experts]; got shape {array.shape}"
        )
    return array


def _title(load: Any, index: int) -> str:
    return Path(load).stem if isinstance(load, str | Path) else f"load {index + 1}"


@styled
def plot_links(links: Any, *, peak: bool = False) -> Any:
    """Use of links, a panel a plane: [p] axes.

    links: a result, or a table (or file) with columns plane, link, used_frac. Of a link's name
    A/B/i (as `Fabric.link_names` has it) the kind B is a row and the number i a column. The darkest
    link is the fullest of all planes; planes that carried nothing are only named.
    peak: of a result, the interval in which a link was used most (`engine.link_samples_s`) instead
    of the mean over the run.
    """
    planes, idle_planes = links_by_kind(links, peak=peak)
    height_in = 0.9 * len(planes) + 0.22 * sum(map(len, planes.values()))
    figure, axes = new_figure(len(planes), 1, width_in=WIDE_IN, height_in=height_in + 0.3)
    most = 100 * max(float(np.nanmax(use)) for rows in planes.values() for use in rows.values())
    for each, (plane, rows) in zip(axes[:, 0], planes.items(), strict=True):
        image = _plane(each, plane, rows, most)
    idle = ", ".join(idle_planes)
    text = "number of the endpoint (dies, then CPUs), or of the switch domain"
    axes[-1, 0].set_xlabel(f"{text}; nothing carried: {idle}" if idle else text)
    what = "most used" if peak else "used"
    figure.colorbar(image, ax=axes, label=f"{what} (% of the link's rate)")
    return axes[:, 0]


def links_by_kind(
    links: Any, *, peak: bool = False
) -> tuple[dict[str, dict[str, Floats]], list[str]]:
    """Plane -> kind of link -> use by number; and the planes that carried nothing."""
    import pandas as pd

    table = links if isinstance(links, pd.DataFrame) else None
    if table is None:
        is_result = _is_result(links)
        table = link_use(result_of(links), peak=peak) if is_result else table_of(Path(links))
    need(table, "plane", "link", "used_frac", for_what="link heat map")
    parts = {str(plane): rows for plane, rows in table.groupby("plane", sort=False)}
    busy = {plane: rows for plane, rows in parts.items() if rows["used_frac"].max() > 0}
    if not busy:
        raise ConfigError("link heat map: no link carried anything")
    idle = [plane for plane in parts if plane not in busy]
    return {plane: _by_kind(rows) for plane, rows in busy.items()}, idle


def _by_kind(rows: "pd.DataFrame") -> dict[str, Floats]:
    """Kind of link -> use by number."""
    found: dict[str, Floats] = {}
    parts = rows["link"].str.rsplit("/", n=1, expand=True)
    for kind in dict.fromkeys(parts[0]):
        chosen = parts[0] == kind
        numbers = parts.loc[chosen, 1].astype(int).to_numpy()
        use = np.full(int(numbers.max()) + 1, np.nan)
        use[numbers] = rows.loc[chosen, "used_frac"].to_numpy(float)
        found[str(kind)] = use
    return found


def _plane(axes: "Axes", plane: str, rows: dict[str, Floats], most: float) -> Any:
    """Kinds with few links are stretched, so that what serves a die stands below it."""
    width = max(len(use) for use in rows.values())
    image = None
    for row, use in enumerate(rows.values()):
        image = axes.imshow(
            100 * use[np.newaxis, :],
            extent=(0, width, row + 0.95, row + 0.05),
            aspect="auto",
            cmap="OrRd",
            vmin=0,
            vmax=most,
            interpolation="nearest",
        )
    axes.set_xlim(0, width)
    axes.set_ylim(len(rows), 0)
    labels = [
        f"{kind.rpartition('/')[2].replace('_', ' ')} ({len(use)})" for kind, use in rows.items()
    ]
    axes.set_yticks(np.arange(len(rows)) + 0.5, labels)
    axes.grid(visible=False)
    fullest = 100 * max(float(np.nanmax(use)) for use in rows.values())
    axes.set_title(f"{plane}: fullest link {fullest:.3g} %", loc="left")
    return image
