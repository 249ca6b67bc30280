"""Heat maps: load of experts by layer, use of links by plane."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from simpod.errors import ConfigError
from simpod.records.columns import Floats
from simpod.report.sources import need, table_of
from simpod.report.style import WIDE_IN, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_BALANCED: Final = "RdBu_r"


@styled
def plot_experts(*loads: Any, names: Sequence[str] = ()) -> Any:
    """Load of each expert (or slot, or rank) by layer over the layer's mean, a panel a load.

    loads: arrays [num_layers, num_experts] of tokens, or files of them (.npy, .csv, .parquet), e.g.
    before and after balancing. White is the mean, red twice as much; the title says max / mean.
    """
    arrays = [load_array(load) for load in loads]
    if not arrays:
        raise ConfigError("expert load: no load is given")
    names = names or [_title(load, i) for i, load in enumerate(loads)]
    figure, axes = new_figure(
        1, len(arrays), width_in=WIDE_IN, height_in=min(1.2 + 0.05 * len(arrays[0]), 4.0)
    )
    for each, load, name in zip(axes[0], arrays, names, strict=True):
        means = load.mean(axis=1, keepdims=True)
        relative = np.divide(load, means, out=np.ones_like(load), where=means > 0)
        image = each.imshow(
            relative, aspect="auto", cmap=_BALANCED, vmin=0, vmax=2, interpolation="nearest"
        )
        each.grid(visible=False)
        imbalance = float(np.mean(relative.max(axis=1)))
        each.set_title(f"{name}: max / mean {imbalance:.2f}", loc="left")
        each.set_xlabel("expert")
    axes[0, 0].set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="load / mean of the layer", extend="max")
    return axes[0]


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
def plot_links(links: Any) -> Any:
    """Use of links, a panel a plane: [p] axes.

    links: a table (or file) with columns plane, link, used_frac; of a link's name A/B/i (as
    `Fabric.link_names` has it) the kind B is a row and the number i a column. A link that is full
    is dark; planes that carried nothing are only named.
    """
    planes, idle_planes = links_by_kind(links)
    height_in = 0.9 * len(planes) + 0.22 * sum(map(len, planes.values()))
    figure, axes = new_figure(len(planes), 1, width_in=WIDE_IN, height_in=height_in + 0.3)
    for each, (plane, rows) in zip(axes[:, 0], planes.items(), strict=True):
        image = _plane(each, plane, rows)
    idle = ", ".join(idle_planes)
    text = "number of the die, or of the switch domain"
    axes[-1, 0].set_xlabel(f"{text}; nothing carried: {idle}" if idle else text)
    figure.colorbar(image, ax=axes, label="used (% of the rate)")
    return axes[:, 0]


def links_by_kind(links: Any) -> tuple[dict[str, dict[str, Floats]], list[str]]:
    """Plane -> kind of link -> use by number; and the planes that carried nothing."""
    import pandas as pd

    table = links if isinstance(links, pd.DataFrame) else table_of(Path(links))
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


def _plane(axes: "Axes", plane: str, rows: dict[str, Floats]) -> Any:
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
            vmax=100,
            interpolation="nearest",
        )
    axes.set_xlim(0, width)
    axes.set_ylim(len(rows), 0)
    labels = [
        f"{kind.rpartition('/')[2].replace('_', ' ')} ({len(use)})" for kind, use in rows.items()
    ]
    axes.set_yticks(np.arange(len(rows)) + 0.5, labels)
    axes.grid(visible=False)
    most = max(float(np.nanmax(use)) for use in rows.values())
    axes.set_title(f"{plane}: fullest link {most:.0%}", loc="left")
    return image
