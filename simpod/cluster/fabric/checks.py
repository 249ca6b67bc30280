"""What a graph is worth: ports in use, bisection; for pictures."""

from collections.abc import Iterable
from typing import Any

from simpod.cluster.fabric.graph import Graph


def ports_of(graph: Graph, name: str) -> int:
    """Ports of a switch or endpoint that have a link."""
    return int(graph.out_degree(name, weight="num_links"))


def switches(graph: Graph, plane: str, kind: str) -> list[str]:
    """Leaves or spines of a plane."""
    data = graph.nodes.data()
    return [n for n, d in data if d["kind"] == kind and d.get("plane") == plane]


def max_flow_bytes_per_s(
    graph: Graph, plane: str, sources: Iterable[str], destinations: Iterable[str]
) -> float:
    """Most that some endpoints can send to some others over a plane, over all paths together.

    Sub-planes meet only in endpoints, which any share of their ports can leave from: one after the
    other, which is much quicker.
    """
    import networkx

    whole = _plane_graph(graph, plane)
    sources, destinations = list(sources), list(destinations)
    total = 0.0
    for lane in sorted({d["lane"] for _, d in whole.nodes.data() if "lane" in d}):
        names = [n for n, d in whole.nodes.data() if d.get("lane", lane) == lane]
        part = networkx.DiGraph(whole.subgraph(names))
        part.add_edges_from(("source", name) for name in sources)  # without a capacity: infinite
        part.add_edges_from((name, "sink") for name in destinations)
        total += networkx.maximum_flow_value(part, "source", "sink", capacity="bytes_per_s")
    return total


def bisection_bytes_per_s(graph: Graph, plane: str) -> float:
    """From the dies of the first half of the nodes to those of the second half."""
    half = graph.graph["num_nodes"] // 2
    dies = [(n, d["node"]) for n, d in graph.nodes.data() if d["kind"] == "die"]
    first = [name for name, node in dies if node < half]
    second = [name for name, node in dies if node >= half]
    return max_flow_bytes_per_s(graph, plane, first, second)


def _plane_graph(graph: Graph, plane: str) -> Any:
    edges = [(a, b) for a, b, of in graph.edges.data("plane") if of == plane]
    return graph.edge_subgraph(edges)
