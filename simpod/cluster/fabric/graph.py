"""The pod as a directed graph, generated from its hardware profile.

Vertices: `die/17`, `cpu/3`, and switches `PLANE/leaf/SUB_PLANE/DOMAIN`, `PLANE/spine/SUB_PLANE/I`.
An edge is a bundle of parallel links in one direction, with `bytes_per_s` and `num_links`.
networkx is imported here, and only when a graph is built: nothing here runs per transfer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from simpod.errors import ConfigError
from simpod.hardware.spec import HardwareProfile
from simpod.hardware.topology import WiringSpec

Graph = Any
"""A networkx.DiGraph; networkx has no types."""

PEER = "peer"
"""The plane of the links between the dies of an NPU."""

BOTH_WAYS = "--"
"""`A--B` names the two edges between A and B, `A->B` one of them."""


def build_graph(profile: HardwareProfile) -> Graph:
    """Every die, CPU, switch and link of the pod."""
    import networkx

    graph = networkx.DiGraph(
        name=profile.name,
        num_dies=profile.num_dies,
        num_cpus=profile.host.num_cpus * profile.num_nodes,
        num_nodes=profile.num_nodes,
        planes=tuple(profile.planes),
    )
    for node in range(profile.num_nodes):
        dies, cpus = _dies_of(profile, node), _cpus_of(profile, node)
        for kind, ids in (("die", dies), ("cpu", cpus)):
            graph.add_nodes_from((f"{kind}/{i}", {"kind": kind, "node": node}) for i in ids)
    for name in profile.planes:
        PlaneWiring(profile, name).add_to(graph)
    _add_peer_links(graph, profile)
    return graph


def degraded(graph: Graph, remaining_frac: Mapping[str, float]) -> Graph:
    """A copy in which links and switches keep only a share of their rate; 0 removes them.

    Keys are names of switches or endpoints (every edge there counts), of edges as `A->B`, or of
    both directions as `A--B`; `*` and `?` match anything: `scale_up/*/3/*` is a whole sub-plane.
    """
    wrong = [f"{key}: {frac}" for key, frac in remaining_frac.items() if not 0 <= frac <= 1]
    if wrong:
        raise ConfigError(f"remaining share of a link or switch must be 0 to 1: {', '.join(wrong)}")
    changed = graph.copy()
    for pattern, frac in remaining_frac.items():
        edges = list(_edges_of(changed, pattern))
        if not edges:
            raise ConfigError(f"{graph.name}: no link or switch is called {pattern!r}")
        for edge in edges:
            changed.edges[edge]["bytes_per_s"] *= frac
    dead = [edge for *edge, rate in changed.edges.data("bytes_per_s") if rate == 0]
    changed.remove_edges_from(dead)
    return changed


def _edges_of(graph: Graph, pattern: str) -> Iterator[tuple[str, str]]:
    for mark in (BOTH_WAYS, "->"):
        if mark in pattern:
            one, _, other = pattern.partition(mark)
            ends = [(one, other), (other, one)] if mark == BOTH_WAYS else [(one, other)]
            for a, b in graph.edges:
                if any(fnmatchcase(a, x) and fnmatchcase(b, y) for x, y in ends):
                    yield a, b
            return
    chosen = {name for name in graph if fnmatchcase(name, pattern)}
    yield from ((a, b) for a, b in graph.edges if a in chosen or b in chosen)


def _dies_of(profile: HardwareProfile, node: int) -> range:
    return range(node * profile.dies_per_node, (node + 1) * profile.dies_per_node)


def _cpus_of(profile: HardwareProfile, node: int) -> range:
    return range(node * profile.host.num_cpus, (node + 1) * profile.host.num_cpus)


def _add_peer_links(graph: Graph, profile: HardwareProfile) -> None:
    rate = profile.topology.peer_bytes_per_s
    if rate == 0:
        return
    per_npu = profile.dies_per_npu
    for die in range(profile.num_dies):
        first = die - die % per_npu
        for other in range(first, first + per_npu):
            if other != die:
                graph.add_edge(
                    f"die/{die}", f"die/{other}", plane=PEER, bytes_per_s=rate, num_links=1
                )


@dataclass(frozen=True, slots=True)
class PlaneWiring:
    """The switches and links of one plane."""

    profile: HardwareProfile
    name: str

    @property
    def wiring(self) -> WiringSpec:
        """What the profile says; one ideal switch where it says nothing."""
        return self.profile.topology.planes.get(self.name, WiringSpec())

    @property
    def leaf_nodes(self) -> int:
        """Nodes of a leaf's domain."""
        whole = self.profile.planes[self.name].scope == "pod"
        return self.wiring.leaf_nodes or (self.profile.num_nodes if whole else 1)

    @property
    def num_domains(self) -> int:
        """Groups of nodes that share leaves."""
        return -(-self.profile.num_nodes // self.leaf_nodes)

    @property
    def is_rail(self) -> bool:
        """A die has one port, in the sub-plane of its place."""
        return self.wiring.style == "rail"

    @property
    def link_bytes_per_s(self) -> float:
        """Of one port of a die: with stripes, all its ports together are the plane's rate."""
        ports = 1 if self.is_rail else self.wiring.sub_planes
        return self.wiring.link_bytes_per_s or self.profile.planes[self.name].bytes_per_s / ports

    def add_to(self, graph: Graph) -> None:
        """Add the plane; ConfigError if it takes more ports than there are."""
        self.check()
        self._add_leaves(graph)
        for node in range(self.profile.num_nodes):
            self._join_node(graph, node)
        if self.wiring.spines:
            self._add_spines(graph)
        self._check_ports(graph)

    def check(self) -> None:
        """Leaves that should be joined have spines to join them."""
        alone = self.num_domains * (self.wiring.sub_planes if self.is_rail else 1)
        joined = self.profile.planes[self.name].scope == "pod" or self.is_rail
        if joined and alone > 1 and not self.wiring.spines:
            raise ConfigError(
                f"hardware {self.profile.name}: topology.planes.{self.name} has {alone} leaf"
                " domains and no spines to join them"
            )

    def _leaf(self, sub_plane: int, domain: int) -> str:
        return f"{self.name}/leaf/{sub_plane}/{domain}"

    def _add_leaves(self, graph: Graph) -> None:
        for sub_plane in range(self.wiring.sub_planes):
            for domain in range(self.num_domains):
                rail = self.is_rail
                graph.add_node(
                    self._leaf(sub_plane, domain),
                    kind="leaf",
                    plane=self.name,
                    group=sub_plane * self.num_domains + domain if rail else domain,
                    lane=0 if rail else sub_plane,
                )

    def _join_node(self, graph: Graph, node: int) -> None:
        dies, cpus = _dies_of(self.profile, node), _cpus_of(self.profile, node)
        for die in dies:
            self._join(graph, f"die/{die}", node, die - dies.start, len(dies))
        for cpu in cpus if self.wiring.cpu_bytes_per_s else ():
            self._join(graph, f"cpu/{cpu}", node, cpu - cpus.start, len(cpus))

    def _join(self, graph: Graph, end: str, node: int, position: int, num_here: int) -> None:
        """The links of one die or CPU to its leaves, both ways; a CPU's rate is split evenly."""
        count = self.wiring.sub_planes
        mine = [position * count // num_here] if self.is_rail else range(count)
        rate = self.link_bytes_per_s
        if end.startswith("cpu/"):
            rate = self.wiring.cpu_bytes_per_s / len(mine)
        for sub_plane in mine:
            self._link(graph, end, self._leaf(sub_plane, node // self.leaf_nodes), rate, 1)

    def _add_spines(self, graph: Graph) -> None:
        wiring, count = self.wiring, self.wiring.uplinks_per_spine
        rate = count * (wiring.uplink_bytes_per_s or self.link_bytes_per_s)
        for plane in range(1 if self.is_rail else wiring.sub_planes):
            below = range(wiring.sub_planes) if self.is_rail else (plane,)
            for index in range(wiring.spines):
                spine = f"{self.name}/spine/{plane}/{index}"
                graph.add_node(spine, kind="spine", plane=self.name, lane=plane, index=index)
                for sub_plane in below:
                    for domain in range(self.num_domains):
                        self._link(graph, self._leaf(sub_plane, domain), spine, rate, count)

    def _link(self, graph: Graph, a: str, b: str, rate: float, num_links: int) -> None:
        for edge in ((a, b), (b, a)):
            graph.add_edge(*edge, plane=self.name, bytes_per_s=rate, num_links=num_links)

    def _check_ports(self, graph: Graph) -> None:
        limits = {"leaf": self.wiring.leaf_ports, "spine": self.wiring.spine_ports}
        for name, data in graph.nodes.data():
            limit = limits.get(data["kind"]) if data.get("plane") == self.name else None
            used = graph.out_degree(name, weight="num_links") if limit else 0
            if limit is not None and used > limit:
                raise ConfigError(
                    f"hardware {self.profile.name}: {name} would need {used} ports,"
                    f" a {data['kind']} of {self.name} has {limit}"
                )
