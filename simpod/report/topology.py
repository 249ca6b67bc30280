"""A picture of a pod's planes: a few of its nodes with their switches, and what all add up to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simpod.cluster.fabric.checks import bisection_bytes_per_s, ports_of, switches
from simpod.cluster.fabric.graph import PEER, Graph
from simpod.errors import ConfigError
from simpod.units import GB, TB

Point = tuple[float, float]

_NODES_SHOWN: Final = 3
_WIDTH_IN: Final = 15.0
_PANEL_IN: Final = 3.7
_DIE_Y, _CPU_Y, _LEAF_Y, _SPINE_Y = 0.0, -0.45, 1.0, 2.1
_COLOURS: Final = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#8c564b", "#9467bd"),
    *("#17becf", "#bcbd22", "#e377c2", "#386641"),
)
_DARK: Final = "#555555"
_WEAK: Final = "#e00000"
_TITLES: Final = {"leaf": "first-level switch", "spine": "second-level switch"}


def plot_topology(graph: Graph, path: Path) -> None:
    """Draw every plane of a pod into a file; its suffix is the format (png, svg, pdf).

    The first nodes and the last stand for all. A link that has lost a part of its rate is red and
    dashed, one that is lost is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "plots need matplotlib: pip install 'simpod[plot]' (or matplotlib itself)"
        ) from None

    planes = graph.graph["planes"]
    figure = Figure(figsize=(_WIDTH_IN, _PANEL_IN * len(planes) + 0.5), layout="constrained")
    figure.suptitle(_title(graph), fontsize=14)
    for axes, plane in zip(figure.subplots(len(planes), squeeze=False)[:, 0], planes, strict=True):
        _Panel(graph, plane, axes).draw()
    try:
        figure.savefig(path, dpi=130)
    except ValueError as error:  # a suffix that matplotlib does not know
        raise ConfigError(f"{path}: {error}") from None


def _title(graph: Graph) -> str:
    counts = graph.graph
    parts = ", ".join(f"{counts[f'num_{kind}']:,} {kind}" for kind in ("nodes", "dies", "cpus"))
    return f"{graph.name}: {parts.replace('cpus', 'CPUs')}"


def _rate(bytes_per_s: float) -> str:
    """In the unit that suits it."""
    if bytes_per_s >= 10 * TB:
        return f"{bytes_per_s / TB:,.1f} TB/s"
    return f"{bytes_per_s / GB:,.4g} GB/s"


def _spread(start: float, end: float, count: int) -> list[float]:
    """The middles of `count` equal parts."""
    step = (end - start) / max(count, 1)
    return [start + (i + 0.5) * step for i in range(count)]


@dataclass(slots=True)
class _Panel:
    """One plane in one set of axes. A node is 1 wide."""

    graph: Graph
    plane: str
    axes: Any
    place: dict[str, Point] = field(default_factory=dict)

    def draw(self) -> None:
        """Links first, then what they join, then words."""
        for name, point in self._places():
            self.place[name] = point
        self._draw_nodes()
        self._draw_links()
        self._draw_parts()
        for y, text in self._captions():
            self.axes.text(self._right + 0.12, y, text, va="center", fontsize=9.5, linespacing=1.5)
        self.axes.set_title(f"{self.plane}", loc="left", fontsize=12, fontweight="bold")
        self.axes.set_xlim(-0.05, self._right + 0.95)
        self.axes.set_ylim(_CPU_Y - 0.5, (_SPINE_Y if self._has_spines else _LEAF_Y) + 0.35)
        self.axes.set_axis_off()

    @property
    def _shown(self) -> list[int]:
        """Nodes that are drawn."""
        count = self.graph.graph["num_nodes"]
        if count <= _NODES_SHOWN + 1:
            return list(range(count))
        return [*range(_NODES_SHOWN - 1), count - 1]

    @property
    def _right(self) -> float:
        return max(len(self._shown), 2) * 1.12 + 0.2 * self._skips

    @property
    def _skips(self) -> bool:
        return bool(len(self._shown) < self.graph.graph["num_nodes"])

    @property
    def _has_spines(self) -> bool:
        return bool(switches(self.graph, self.plane, "spine"))

    def _node_x(self, node: int) -> tuple[float, float]:
        width = self._right / len(self._shown) - 0.12
        position = self._shown.index(node)
        is_after_gap = self._skips and position == len(self._shown) - 1
        width -= 0.2 * self._skips / len(self._shown)
        start = position * (width + 0.12) + 0.2 * is_after_gap
        return start, start + width

    def _of_node(self, kind: str, node: int) -> list[str]:
        data = self.graph.nodes.data()
        return [n for n, d in data if d["kind"] == kind and d.get("node") == node]

    def _on_plane(self, name: str) -> bool:
        edges = self.graph.out_edges(name, data="plane")
        return any(plane == self.plane for *_, plane in edges)

    def _places(self) -> Iterator[tuple[str, Point]]:
        for node in self._shown:
            start, end = self._node_x(node)
            for kind, y in (("die", _DIE_Y), ("cpu", _CPU_Y)):
                names = [n for n in self._of_node(kind, node) if kind == "die" or self._on_plane(n)]
                for name, x in zip(names, _spread(start, end, len(names)), strict=True):
                    yield name, (x, y)
        yield from self._leaf_places()
        yield from self._spine_places()

    def _leaf_places(self) -> Iterator[tuple[str, Point]]:
        """Over the nodes that they serve; those that serve none of the shown nodes are left out."""
        over: dict[tuple[int, ...], list[str]] = {}
        for name in switches(self.graph, self.plane, "leaf"):
            below = self._served(name)
            nodes = tuple(node for node in self._shown if node in below)
            if nodes:
                over.setdefault(nodes, []).append(name)
        for nodes, names in over.items():
            xs = _spread(self._node_x(nodes[0])[0], self._node_x(nodes[-1])[1], len(names))
            yield from zip(names, ((x, _LEAF_Y) for x in xs), strict=True)

    def _spine_places(self) -> Iterator[tuple[str, Point]]:
        """A cluster for each sub-plane."""
        lanes: dict[int, list[str]] = {}
        for name in switches(self.graph, self.plane, "spine"):
            lanes.setdefault(self.graph.nodes[name]["lane"], []).append(name)
        for (_, names), middle in zip(
            sorted(lanes.items()), _spread(0.0, self._right, len(lanes)), strict=True
        ):
            half = 0.43 * self._right / len(lanes)
            xs = _spread(middle - half, middle + half, len(names))
            yield from zip(names, ((x, _SPINE_Y) for x in xs), strict=True)

    def _draw_nodes(self) -> None:
        from matplotlib.patches import FancyBboxPatch

        heights = [y for name, (_, y) in self.place.items() if self._is_inside(name)]
        low, high = min(heights) - 0.2, max(heights) + 0.2
        for node in self._shown:
            start, end = self._node_x(node)
            box = FancyBboxPatch(
                (start, low),
                end - start,
                high - low,
                boxstyle="round,pad=0.02",
                facecolor="#f4f4f4",
                edgecolor="#999999",
                linewidth=0.8,
                zorder=0,
            )
            self.axes.add_patch(box)
            self.axes.text((start + end) / 2, low - 0.18, f"node {node}", ha="center", fontsize=9.5)
        if self._skips:
            gap = (self._node_x(self._shown[-2])[1] + self._node_x(self._shown[-1])[0]) / 2
            more = self.graph.graph["num_nodes"] - len(self._shown)
            middle = min(low + high, 0.0) / 2
            self.axes.text(gap, middle, f"…\n{more}\nmore", ha="center", va="center", fontsize=9)

    def _is_inside(self, name: str) -> bool:
        """Dies and CPUs, and a leaf that serves one node only."""
        if self._is_switch(name):
            return len(self._served(name)) == 1 and self.graph.nodes[name]["kind"] == "leaf"
        return True

    def _served(self, switch: str) -> set[int]:
        """Nodes that have a link to a switch."""
        below = (self.graph.nodes[name].get("node") for name in self.graph.successors(switch))
        return {node for node in below if node is not None}

    def _colour(self, name: str) -> str:
        data = self.graph.nodes[name]
        if data["kind"] in {"die", "cpu"}:
            return _DARK
        lane = int(name.split("/")[2]) if data["kind"] == "leaf" else data["lane"]
        return _COLOURS[lane % len(_COLOURS)]

    def _draw_links(self) -> None:
        """Once for both directions, in the colour of the switch at the lower end."""
        usual = self._usual_rates()
        for a, b, data in self.graph.edges(data=True):
            drawn = a in self.place and b in self.place and data["plane"] in {self.plane, PEER}
            if not drawn or self.place[a] > self.place[b]:
                continue
            (x0, y0), (x1, y1) = self.place[a], self.place[b]
            is_weak = data["bytes_per_s"] < usual[self._kinds(a, b)] * (1 - 1e-9)
            switch = min((n for n in (a, b) if self._is_switch(n)), key=str, default=a)
            self.axes.plot(
                (x0, x1),
                (y0, y1),
                color=_WEAK if is_weak else self._colour(switch),
                linestyle="--" if is_weak else "-",
                linewidth=2.5 if data["plane"] == PEER else 0.6,
                alpha=0.9 if is_weak or data["plane"] == PEER else 0.35,
                zorder=1,
            )

    def _is_switch(self, name: str) -> bool:
        return self.graph.nodes[name]["kind"] in _TITLES

    def _kinds(self, a: str, b: str) -> frozenset[str]:
        return frozenset((self.graph.nodes[a]["kind"], self.graph.nodes[b]["kind"]))

    def _usual_rates(self) -> Mapping[frozenset[str], float]:
        """The highest rate between two kinds of thing."""
        found: dict[frozenset[str], float] = {}
        for a, b, data in self.graph.edges(data=True):
            if data["plane"] in {self.plane, PEER}:
                kinds = self._kinds(a, b)
                found[kinds] = max(found.get(kinds, 0.0), data["bytes_per_s"])
        return found

    def _draw_parts(self) -> None:
        for kind, marker, size in (
            ("die", "s", 26),
            ("cpu", "D", 26),
            ("leaf", "s", 90),
            ("spine", "s", 42),
        ):
            names = [n for n in self.place if self.graph.nodes[n]["kind"] == kind]
            self.axes.scatter(
                [self.place[n][0] for n in names],
                [self.place[n][1] for n in names],
                s=size,
                marker=marker,
                c=[self._colour(n) for n in names],
                edgecolors="white",
                linewidths=0.5,
                zorder=2,
            )

    def _captions(self) -> Iterator[tuple[float, str]]:
        """What stands at the right of each level."""
        for kind, y in (("spine", _SPINE_Y), ("leaf", _LEAF_Y)):
            names = switches(self.graph, self.plane, kind)
            if names:
                yield y - 0.05, "\n".join(self._switch_words(kind, names))
        yield -0.2, "\n".join(self._end_words())

    def _switch_words(self, kind: str, names: Sequence[str]) -> Iterator[str]:
        yield f"{len(names)} {_TITLES[kind]}{'' if len(names) == 1 else 'es'}"
        yield f"{_range(ports_of(self.graph, name) for name in names)} ports in use each"
        if kind == "leaf" and self._has_spines:
            yield f"{_rate(max(sum(self._rates(name, 'spine')) for name in names))} up from each"
        elif self.graph.graph["num_nodes"] > 1 and (kind == "spine" or self._is_one_domain(names)):
            yield f"bisection {_rate(bisection_bytes_per_s(self.graph, self.plane))}"

    def _is_one_domain(self, leaves: Sequence[str]) -> bool:
        return all(len(self._served(leaf)) == self.graph.graph["num_nodes"] for leaf in leaves)

    def _rates(self, name: str, kind: str) -> list[float]:
        """Of the links of this plane from `name` to things of a kind."""
        return [
            data["bytes_per_s"]
            for _, b, data in self.graph.out_edges(name, data=True)
            if data["plane"] == self.plane and self.graph.nodes[b]["kind"] == kind
        ]

    def _end_words(self) -> Iterator[str]:
        """Rates of the first node's endpoints."""
        dies = self._of_node("die", 0)
        links = max((self._rates(die, "leaf") for die in dies), key=sum)
        yield f"■ die: {len(links)} x {_rate(max(links))} = {_rate(sum(links))}"
        cpus = [cpu for cpu in self._of_node("cpu", 0) if self._on_plane(cpu)]
        if cpus:
            yield f"◆ CPU: {_rate(max(sum(self._rates(cpu, 'leaf')) for cpu in cpus))}"
        edges = self.graph.out_edges(dies, data=True)
        peers = [data["bytes_per_s"] for *_, data in edges if data["plane"] == PEER]
        if peers and self.plane == "scale_up":
            yield f"■━■ dies of an NPU: {_rate(max(peers))}"
        yield "each way"


def _range(numbers: Iterator[int]) -> str:
    values = sorted(set(numbers))
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
