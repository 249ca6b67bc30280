"""The graph frozen into arrays of bundles: what the engine routes and shares bandwidth with.

A transfer is spread over all sub-planes and spines that its two ends can use, as the hardware
does, in proportion to what each carries. So all members of a bundle fill up alike, and a bundle is
one link with the sum of their rates: a die into a plane (7 x 28 GB/s), a leaf domain into its
spines (7 x 16 x 28 GB/s). A path is at most four bundles: up, domain up, domain down, down.

With all links whole this is exact. After losses it is exact for a single transfer, whose limit is
the maximum flow between its ends (`path_bytes_per_s`), and for what a bundle carries in all; only
two transfers that can use different members of one bundle may share it more freely than in fact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.fabric.graph import PEER, Graph
from simpod.errors import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LINK_KINDS = ("up", "down", "domain_up", "domain_down")
"""What a bundle is: of an endpoint out and in; of a leaf domain to and from its spines."""


@dataclass(frozen=True, slots=True)
class PlaneArrays:
    """One plane. E endpoints, G leaf domains, S lanes (sub-planes), X spines of a lane."""

    group: tuple[int, ...]  # [E] leaf domain, -1 off the plane
    up: Floats  # [E, S] rate of each port
    down: Floats  # [E, S]
    domain_up: Floats  # [G, S, X]
    domain_down: Floats  # [G, S, X]
    is_whole: bool  # every path carries what its endpoints can
    up_links: tuple[int, ...]  # [E] link ids, -1 if there is none
    down_links: tuple[int, ...]
    domain_up_links: tuple[int, ...]  # [G]
    domain_down_links: tuple[int, ...]

    def path_bytes_per_s(self, source: int, destination: int) -> float:
        """Maximum flow between two endpoints: lane by lane, the narrowest of its stages."""
        ends = np.minimum(self.up[source], self.down[destination])
        here, there = self.group[source], self.group[destination]
        if here != there:
            across = np.minimum(self.domain_up[here], self.domain_down[there]).sum(axis=1)
            ends = np.minimum(ends, across)
        return float(ends.sum())


@dataclass(frozen=True)
class Fabric:
    """Links as numbers. Endpoints are dies, then CPUs, then the SSD of each node, if it has one.

    CPU j is endpoint `num_dies + j` (`cpu`), see `with_ssd` for SSD.
    """

    name: str
    num_dies: int
    num_cpus: int
    num_nodes: int
    link_bytes_per_s: Floats  # [L]
    link_plane: Ints  # [L] place in `plane_names`
    link_kind: Ints  # [L] place in LINK_KINDS
    link_names: tuple[str, ...]
    plane_names: tuple[str, ...]
    planes: Mapping[str, PlaneArrays] = field(repr=False)
    ssd_links: tuple[int, ...] = ()  # [nodes] into the SSD of each

    @property
    def num_links(self) -> int:
        """Bundles, each in one direction."""
        return len(self.link_bytes_per_s)

    @cached_property
    def node_of(self) -> tuple[int, ...]:
        """Node of every endpoint."""
        dies, cpus = self.num_dies // self.num_nodes, self.num_cpus // self.num_nodes
        return (
            *(i // dies for i in range(self.num_dies)),
            *(i // cpus for i in range(self.num_cpus)),
        )

    @cached_property
    def _peers(self) -> frozenset[tuple[int, int]]:
        peer = self.planes.get(PEER)
        if peer is None:
            return frozenset()
        groups: dict[int, list[int]] = {}
        for end, group in enumerate(peer.group):
            if group >= 0:
                groups.setdefault(group, []).append(end)
        pairs = ((a, b) for ends in groups.values() for a in ends for b in ends if a != b)
        return frozenset((a, b) for a, b in pairs if peer.path_bytes_per_s(a, b) > 0)

    def cpu(self, index: int) -> int:
        """The endpoint of a CPU."""
        return self.num_dies + index

    def ssd(self, node: int) -> int:
        """The endpoint of a node's SSD, which is only written to."""
        return self.num_dies + self.num_cpus + node

    def plane_of(self, source: int, destination: int, plane: str) -> str:
        """Dies of one NPU use the link between them instead of scale_up; else the plane itself."""
        if plane == "scale_up" and (source, destination) in self._peers:
            return PEER
        return plane

    def route(self, source: int, destination: int, plane: str) -> tuple[int, ...]:
        """Links of a transfer: the way out, the way in, then the domains' if it leaves its own."""
        return self._route(self._arrays(source, destination, plane), source, destination, plane)

    def _route(
        self, arrays: PlaneArrays, source: int, destination: int, plane: str
    ) -> tuple[int, ...]:
        node = destination - self.num_dies - self.num_cpus
        if node >= 0:
            return self._route_to_ssd(arrays, source, node)
        up, down = arrays.up_links[source], arrays.down_links[destination]
        here, there = arrays.group[source], arrays.group[destination]
        if up < 0 or down < 0:
            raise ConfigError(self._no_path(source, destination, plane))
        if here == there:
            return up, down
        across = arrays.domain_up_links[here], arrays.domain_down_links[there]
        if min(across) < 0:
            raise ConfigError(self._no_path(source, destination, plane))
        return up, down, *across

    def path_bytes_per_s(self, source: int, destination: int, plane: str) -> float:
        """Most that one transfer can carry, if it is alone; infinite where its links say it all."""
        arrays = self._arrays(source, destination, plane)
        if arrays.is_whole or destination >= self.ssd(0):
            return inf
        rate = arrays.path_bytes_per_s(source, destination)
        if rate == 0:
            raise ConfigError(self._no_path(source, destination, plane))
        return rate

    def way(self, source: int, destination: int, plane: str) -> tuple[str, tuple[int, ...], float]:
        """The plane that a transfer takes, its links, and the most that these carry for it."""
        used = self.plane_of(source, destination, plane)
        arrays = self._arrays(source, destination, used)
        path = self._route(arrays, source, destination, used)
        if arrays.is_whole:
            return used, path, inf
        return used, path, self.path_bytes_per_s(source, destination, used)

    def routes(self, sources: Sequence[int], destinations: Sequence[int], plane: str) -> Ints:
        """Links of many transfers, [4, n]; `num_links` stands for none."""
        table = np.full((4, len(sources)), self.num_links, dtype=np.int64)
        for i, (source, destination) in enumerate(zip(sources, destinations, strict=True)):
            path = self.route(source, destination, plane)
            table[: len(path), i] = path
        return table

    def _route_to_ssd(self, arrays: PlaneArrays, source: int, node: int) -> tuple[int, ...]:
        """The way out, into the SSD, and out of the domain where there are several."""
        up, ssd = arrays.up_links[source], self.ssd_links[node]
        across = arrays.domain_up_links[arrays.group[source]]
        if up < 0 or (across < 0 and len(arrays.domain_up_links) > 1):
            raise ConfigError(f"{self.name}: no path from {self._end(source)} to its SSD")
        return (up, ssd) if across < 0 else (up, ssd, across)

    def _arrays(self, source: int, destination: int, plane: str) -> PlaneArrays:
        if source == destination:
            raise ConfigError(f"a transfer from {self._end(source)} to itself has no path")
        try:
            return self.planes[self.plane_of(source, destination, plane)]
        except KeyError:
            known = ", ".join(name for name in self.plane_names if name != PEER)
            raise ConfigError(f"{self.name} has no plane {plane!r}; it has {known}") from None

    def _end(self, end: int) -> str:
        return f"die/{end}" if end < self.num_dies else f"cpu/{end - self.num_dies}"

    def _no_path(self, source: int, destination: int, plane: str) -> str:
        ends = f"{self._end(source)} to {self._end(destination)}"
        return f"{self.name}: no path from {ends} over {plane}"


def freeze(graph: Graph) -> Fabric:
    """Bundles, routes and their limits, as the graph says (also one with degraded links)."""
    num_ends = graph.graph["num_dies"] + graph.graph["num_cpus"]
    used = {data["plane"] for *_, data in graph.edges(data=True)}
    names = (*graph.graph["planes"], *((PEER,) if PEER in used else ()))
    links = Links()
    planes = {}
    for position, name in enumerate(names):
        rates = _peer_rates(graph) if name == PEER else _plane_rates(graph, name)
        planes[name] = links.add(position, name, rates, num_ends)
    return Fabric(
        name=graph.name,
        num_dies=graph.graph["num_dies"],
        num_cpus=graph.graph["num_cpus"],
        num_nodes=graph.graph["num_nodes"],
        link_bytes_per_s=np.array(links.rates),
        link_plane=np.array(links.planes, dtype=np.int64),
        link_kind=np.array(links.kinds, dtype=np.int64),
        link_names=tuple(links.names),
        plane_names=names,
        planes=planes,
    )


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of PlaneArrays, before links are numbered."""

    group: Ints
    up: Floats
    down: Floats
    domain_up: Floats
    domain_down: Floats


def _ends(graph: Graph) -> dict[str, int]:
    """Endpoint number of every die and CPU."""
    dies, cpus = graph.graph["num_dies"], graph.graph["num_cpus"]
    return {
        **{f"die/{i}": i for i in range(dies)},
        **{f"cpu/{i}": dies + i for i in range(cpus)},
    }


def _plane_rates(graph: Graph, plane: str) -> Rates:
    ends = _ends(graph)
    mine: dict[str, Any] = {n: d for n, d in graph.nodes.data() if d.get("plane") == plane}
    leaves = {n: (d["group"], d["lane"]) for n, d in mine.items() if d["kind"] == "leaf"}
    spines = {n: d["index"] for n, d in mine.items() if d["kind"] == "spine"}
    num_groups, num_lanes = (1 + max(column) for column in zip(*leaves.values(), strict=True))
    num_spines = 1 + max(spines.values(), default=-1)
    group = np.full(len(ends), -1, dtype=np.int64)
    up, down = (np.zeros((len(ends), num_lanes)) for _ in range(2))
    domain_up, domain_down = (np.zeros((num_groups, num_lanes, num_spines)) for _ in range(2))
    for a, b, data in graph.edges(data=True):
        if data["plane"] != plane:
            continue
        rate = data["bytes_per_s"]
        if a in ends:
            group[ends[a]], lane = leaves[b]
            up[ends[a], lane] += rate
        elif b in ends:
            group[ends[b]], lane = leaves[a]
            down[ends[b], lane] += rate
        elif a in leaves:
            domain_up[(*leaves[a], spines[b])] += rate
        else:
            domain_down[(*leaves[b], spines[a])] += rate
    return Rates(group, up, down, domain_up, domain_down)


def _peer_rates(graph: Graph) -> Rates:
    """An NPU is a domain of its own, and its dies' links are its only stage."""
    ends = _ends(graph)
    group = np.full(len(ends), -1, dtype=np.int64)
    up, down = (np.zeros((len(ends), 1)) for _ in range(2))
    for a, b, data in graph.edges(data=True):
        if data["plane"] == PEER:
            up[ends[a], 0] += data["bytes_per_s"]
            down[ends[b], 0] += data["bytes_per_s"]
            first = min(ends[a], ends[b])
            for end in (ends[a], ends[b]):
                group[end] = first if group[end] < 0 else min(group[end], first)
    return Rates(group, up, down, np.zeros((0, 1, 0)), np.zeros((0, 1, 0)))


def _is_whole(rates: Rates) -> bool:
    """All ports of all endpoints alike, and every lane between domains wide enough for any."""
    on = rates.group >= 0
    up, down = rates.up[on], rates.down[on]
    even = all(np.ptp(side, axis=1).max(initial=0) == 0 and side.all() for side in (up, down))
    if not even or not rates.domain_up.size:
        return even
    lanes = np.minimum(rates.domain_up, rates.domain_down.min(axis=0)).sum(axis=2)
    return bool(lanes.min() >= max(up.max(initial=0), down.max(initial=0)))


class Links:
    """Numbers the bundles of one plane after the other."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.planes: list[int] = []
        self.kinds: list[int] = []
        self.names: list[str] = []

    def add(self, position: int, plane: str, rates: Rates, num_ends: int) -> PlaneArrays:
        """Number the bundles of a plane."""
        sides = (rates.up, rates.down, rates.domain_up, rates.domain_down)
        ids = [
            self._number(position, f"{plane}/{kind}", place, side)
            for place, (kind, side) in enumerate(zip(LINK_KINDS, sides, strict=True))
        ]
        return PlaneArrays(
            tuple(rates.group.tolist()),
            *sides,
            _is_whole(rates),
            *(tuple(column) for column in ids),
        )

    def _number(self, position: int, prefix: str, kind: int, side: Floats) -> list[int]:
        """Link ids of every row of `side`; a row without any rate has none."""
        totals = side.reshape(len(side), -1).sum(axis=1) if len(side) else np.zeros(0)
        found = []
        for row, total in enumerate(totals.tolist()):
            found.append(len(self.rates) if total > 0 else -1)
            if total > 0:
                self.rates.append(total)
                self.planes.append(position)
                self.kinds.append(kind)
                self.names.append(f"{prefix}/{row}")
        return found
