"""Graphs that hardware profiles describe: ports, hops, bisection; and what losses leave of them."""

from collections import Counter
from dataclasses import replace
from math import inf

import numpy as np
import pytest
from fabric_cases import GB, damaged, fabric, graph, profile
from networkx import shortest_path_length

from simpod.cluster.fabric import LINK_KINDS, PEER, Graph, build_graph, degraded, freeze
from simpod.cluster.fabric.checks import (
    bisection_bytes_per_s,
    max_flow_bytes_per_s,
    ports_of,
    switches,
)
from simpod.config import load_hardware, names
from simpod.errors import ConfigError
from simpod.hardware import TopologySpec, WiringSpec

CM = "cloudmatrix384"


def test_cloudmatrix_has_the_published_parts() -> None:
    kinds = Counter((d["kind"], d.get("plane")) for _, d in graph().nodes.data())
    assert kinds[("die", None)] == 768
    assert kinds[("cpu", None)] == 192
    assert kinds[("leaf", "scale_up")] == 48 * 7
    assert kinds[("spine", "scale_up")] == 7 * 16


def test_ports_of_the_ub_plane() -> None:
    g = graph()
    assert {ports_of(g, s) for s in switches(g, "scale_up", "spine")} == {48}
    assert {ports_of(g, s) for s in switches(g, "scale_up", "leaf")} == {16 + 4 + 16}
    up = [d for a, b, d in g.out_edges("scale_up/leaf/3/5", data=True) if "/spine/" in b]
    assert len(up) == 16
    assert {d["bytes_per_s"] for d in up} == {28 * GB}
    mine = [d["bytes_per_s"] for *_, d in g.out_edges("die/100", data=True)]
    assert sorted(mine) == [25 * GB, *[28 * GB] * 7, 50 * GB, 270 * GB]


def test_switches_join_only_their_own_sub_plane() -> None:
    g = graph()
    for spine in switches(g, "scale_up", "spine"):
        lane = spine.split("/")[2]
        assert {n.split("/")[2] for n in g.successors(spine)} == {lane}


def num_hops(graph: Graph, plane: str, source: str, destination: str) -> int:
    """Links on the shortest path over a plane."""
    edges = [(a, b) for a, b, of in graph.edges.data("plane") if of == plane]
    return shortest_path_length(graph.edge_subgraph(edges), source, destination)


def test_hops() -> None:
    g = graph()
    assert num_hops(g, PEER, "die/0", "die/1") == 1
    assert num_hops(g, "scale_up", "die/0", "die/2") == 2  # one L1 chip
    assert num_hops(g, "scale_up", "die/0", "die/16") == 4  # L1, L2, L1
    assert num_hops(g, "scale_up", "die/0", "cpu/3") == 2
    assert num_hops(g, "scale_up", "die/0", "cpu/191") == 4
    assert num_hops(g, "scale_out", "die/0", "die/17") == 2  # one rail
    assert num_hops(g, "scale_out", "die/0", "die/18") == 4
    assert num_hops(g, "vpc", "die/0", "die/767") == 4
    assert num_hops(graph("gb200-nvl72"), "scale_up", "die/0", "die/71") == 2


@pytest.mark.parametrize(
    ("name", "plane", "dies_of_a_half"),
    [
        (CM, "scale_up", 384),
        (CM, "scale_out", 384),
        ("gb200-nvl72", "scale_up", 36),
        ("gb200-nvl72", "scale_out", 36),
        ("h100-pod", "scale_out", 128),
        ("b200-pod", "scale_out", 128),
    ],
)
def test_planes_are_non_blocking(name: str, plane: str, dies_of_a_half: int) -> None:
    rate = profile(name).planes[plane].bytes_per_s
    got = bisection_bytes_per_s(graph(name), plane)
    assert got == pytest.approx(dies_of_a_half * rate, rel=1e-12)


def test_bisection_of_the_vpc_plane_is_that_of_its_cards() -> None:
    assert bisection_bytes_per_s(graph(), "vpc") == pytest.approx(24 * 50 * GB)


def test_an_nvlink_node_stands_alone() -> None:
    g = graph("h100-pod")
    assert len(switches(g, "scale_up", "leaf")) == 32 * 4
    assert switches(g, "scale_up", "spine") == []
    with pytest.raises(ConfigError, match="no path from die/0 to die/8 over scale_up"):
        fabric("h100-pod").route(0, 8, "scale_up")


def test_an_nvl72_rack_is_one_level() -> None:
    g = graph("gb200-nvl72")
    assert len(switches(g, "scale_up", "leaf")) == 18
    assert {ports_of(g, s) for s in switches(g, "scale_up", "leaf")} == {72}
    assert sum(d["bytes_per_s"] for *_, b, d in g.out_edges("die/0", data=True) if "up" in b) == (
        900 * GB
    )


def test_rails_hold_one_gpu_of_every_node() -> None:
    g = graph("h100-pod")
    below = [n for n in g.successors("scale_out/leaf/3/0") if n.startswith("die/")]
    assert below == [f"die/{8 * node + 3}" for node in range(32)]


@pytest.mark.parametrize("name", names("hardware_profiles"))
def test_every_profile_has_a_fabric_that_carries_its_planes(name: str) -> None:
    spec, frozen = profile(name), fabric(name)
    for plane, of in spec.planes.items():
        arrays = frozen.planes[plane]
        assert arrays.is_whole
        for links in (arrays.up_links, arrays.down_links):
            dies = list(links[: spec.num_dies])
            assert min(dies) >= 0
            rates = frozen.link_bytes_per_s[dies]
            assert (rates >= of.bytes_per_s * (1 - 1e-12)).all()
    last = spec.num_dies - 1
    for plane, of in spec.planes.items():
        if of.scope == "pod" or spec.num_nodes == 1:
            assert len(frozen.route(0, last, plane)) in {2, 4}


def test_a_profile_without_a_topology_has_ideal_switches() -> None:
    plain = replace(profile("h100-pod"), topology=TopologySpec())
    frozen = freeze(build_graph(plain))
    assert len(frozen.route(0, 255, "scale_out")) == 2
    assert frozen.link_bytes_per_s[frozen.planes["scale_up"].up_links[7]] == 450 * GB


def test_bundles_of_the_pod() -> None:
    f = fabric()
    path = f.route(0, 767, "scale_up")
    assert [f.link_names[i] for i in path] == [
        "scale_up/up/0",
        "scale_up/down/767",
        "scale_up/domain_up/0",
        "scale_up/domain_down/47",
    ]
    assert f.link_bytes_per_s[list(path)].tolist() == pytest.approx(
        [196 * GB, 196 * GB, 3136 * GB, 3136 * GB]
    )
    assert [LINK_KINDS[f.link_kind[i]] for i in path] == list(LINK_KINDS)
    assert len(f.route(0, 2, "scale_up")) == 2
    assert f.link_bytes_per_s[f.route(0, f.cpu(0), "scale_up")[1]] == pytest.approx(160 * GB)


def test_dies_of_an_npu_use_the_link_between_them() -> None:
    f = fabric()
    assert f.plane_of(0, 1, "scale_up") == PEER
    assert f.plane_of(1, 2, "scale_up") == "scale_up"
    assert f.plane_of(0, 1, "scale_out") == "scale_out"
    assert f.link_bytes_per_s[list(f.route(0, 1, "scale_up"))].tolist() == [270 * GB] * 2
    cut = damaged({"die/0--die/1": 0.0}, num_nodes=2)
    assert cut.plane_of(0, 1, "scale_up") == "scale_up"
    assert cut.plane_of(2, 3, "scale_up") == PEER


def test_routes_of_many() -> None:
    f = fabric()
    table = f.routes([0, 0, 5], [2, 20, f.cpu(191)], "scale_up")
    assert table.shape == (4, 3)
    assert tuple(table[:2, 0]) == f.route(0, 2, "scale_up")
    assert (table[2:, 0] == f.num_links).all()
    assert tuple(table[:, 2]) == f.route(5, f.cpu(191), "scale_up")
    assert f.node_of[5] == 0
    assert f.node_of[f.cpu(191)] == 47


LOSSES = {
    "nothing": {},
    "a port of a die": {"die/0--scale_up/leaf/2/0": 0.0},
    "different ports of both ends": {
        "die/0--scale_up/leaf/2/0": 0.0,
        "die/40--scale_up/leaf/5/2": 0.0,
    },
    "half of a port": {"die/40--scale_up/leaf/5/2": 0.5},
    "one direction": {"die/0->scale_up/leaf/2/0": 0.0},
    "an L1 chip": {"scale_up/leaf/4/2": 0.0},
    "an L2 chip": {"scale_up/spine/3/7": 0.0},
    "all but one L2 chip of a sub-plane": {"scale_up/spine/3/?": 0.0, "scale_up/spine/3/1[0-4]": 0},
    "a sub-plane": {"scale_up/*/3/*": 0.0},
    "the L2 of a sub-plane": {"scale_up/spine/3/*": 0.0},
    "uplinks of one L1 chip": {"scale_up/leaf/3/0->scale_up/spine/3/*": 0.01},
}


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("source", "destination"), [(0, 40), (40, 0), (0, 4), (17, 35)])
def test_paths_after_losses_carry_the_maximum_flow(
    losses: dict[str, float], source: int, destination: int
) -> None:
    g = degraded(graph(CM, 3), losses)
    f = freeze(g)
    ends = [f"die/{source}"], [f"die/{destination}"]
    links = f.link_bytes_per_s[list(f.route(source, destination, "scale_up"))]
    got = min(links.min(), f.path_bytes_per_s(source, destination, "scale_up"))
    assert got == pytest.approx(max_flow_bytes_per_s(g, "scale_up", *ends), rel=1e-12)


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
def test_a_node_after_losses_sends_the_maximum_flow(losses: dict[str, float]) -> None:
    """All dies of node 0 to all of node 2: the narrowest of the bundles on the way."""
    if losses == LOSSES["different ports of both ends"]:
        losses = LOSSES["a port of a die"]  # bundles may exchange: see the module's docstring
    g = degraded(graph(CM, 3), losses)
    f = freeze(g)
    here, there = range(16), range(32, 48)
    up = [f.planes["scale_up"].up_links[i] for i in here]
    down = [f.planes["scale_up"].down_links[i] for i in there]
    across = f.route(0, 32, "scale_up")[2:]
    rates = f.link_bytes_per_s
    got = min(rates[up].sum(), rates[down].sum(), rates[list(across)].min())
    ends = [f"die/{i}" for i in here], [f"die/{i}" for i in there]
    exact = max_flow_bytes_per_s(g, "scale_up", *ends)
    assert got >= exact * (1 - 1e-12)
    assert got == pytest.approx(exact, rel=0.02)


def test_losses_by_hand() -> None:
    """One L2 chip of 112 is 28 of a node's 3,136 GB/s; a sub-plane is a seventh; a port 28 GB/s."""
    chip = damaged({"scale_up/spine/3/7": 0.0})
    node = chip.route(0, 767, "scale_up")
    assert chip.link_bytes_per_s[list(node)].tolist() == pytest.approx(
        [196 * GB, 196 * GB, 3108 * GB, 3108 * GB]
    )
    assert chip.path_bytes_per_s(0, 767, "scale_up") == inf  # its links say it all
    plane = damaged({"scale_up/*/3/*": 0.0})
    assert plane.link_bytes_per_s[list(plane.route(0, 767, "scale_up"))].tolist() == pytest.approx(
        [168 * GB, 168 * GB, 2688 * GB, 2688 * GB]
    )
    port = damaged({"die/5--scale_up/leaf/0/0": 0.0})
    assert port.path_bytes_per_s(5, 700, "scale_up") == pytest.approx(168 * GB)
    assert port.path_bytes_per_s(6, 700, "scale_up") == pytest.approx(196 * GB)


def test_l2_of_a_sub_plane_is_missed_only_between_nodes() -> None:
    f = damaged({"scale_up/spine/3/*": 0.0}, num_nodes=3)
    assert f.path_bytes_per_s(0, 4, "scale_up") == pytest.approx(196 * GB)
    assert f.path_bytes_per_s(0, 40, "scale_up") == pytest.approx(168 * GB)


def test_bisection_after_the_loss_of_a_chip_and_of_a_sub_plane() -> None:
    chip = degraded(graph(), {"scale_up/spine/0/0": 0.0})
    assert bisection_bytes_per_s(chip, "scale_up") == pytest.approx(24 * 3108 * GB)
    plane = degraded(graph(), {"scale_up/*/0/*": 0.0})
    assert bisection_bytes_per_s(plane, "scale_up") == pytest.approx(384 * 168 * GB)


def test_no_path_is_left() -> None:
    alone = damaged({"die/0--scale_up/leaf/*": 0.0}, num_nodes=2)
    with pytest.raises(ConfigError, match="no path from die/0 to die/17 over scale_up"):
        alone.route(0, 17, "scale_up")
    split = damaged({"scale_up/spine/*": 0.0}, num_nodes=2)
    with pytest.raises(ConfigError, match="no path"):
        split.route(0, 17, "scale_up")
    assert len(split.route(0, 2, "scale_up")) == 2
    apart = damaged(
        {
            "die/0--scale_up/leaf/[0-2]/*": 0.0,
            "die/17--scale_up/leaf/[3-6]/*": 0.0,
        },
        num_nodes=2,
    )
    with pytest.raises(ConfigError, match="no path"):
        apart.path_bytes_per_s(0, 17, "scale_up")


def test_degrading_leaves_the_graph_as_it_was() -> None:
    before = sum(rate for *_, rate in graph(CM, 2).edges.data("bytes_per_s"))
    degraded(graph(CM, 2), {"scale_up/*": 0.5})
    assert sum(rate for *_, rate in graph(CM, 2).edges.data("bytes_per_s")) == before


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"scale_up/spine/9/0": 0.0}, "no link or switch is called 'scale_up/spine/9/0'"),
        ({"die/0--die/2": 0.0}, "no link or switch is called 'die/0--die/2'"),
        ({"die/0": 1.5}, "must be 0 to 1: die/0: 1.5"),
    ],
)
def test_losses_that_make_no_sense(losses: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        degraded(graph(CM, 2), losses)


@pytest.mark.parametrize(
    ("wiring", "message"),
    [
        (WiringSpec(leaf_nodes=1), "has 4 leaf domains and no spines"),
        (WiringSpec(style="rail", sub_planes=8), "has 8 leaf domains and no spines"),
        (WiringSpec(leaf_ports=30), "scale_out/leaf/0/0 would need 32 ports, a leaf of"),
        (WiringSpec(leaf_nodes=1, spines=2, spine_ports=3), "would need 4 ports, a spine of"),
    ],
)
def test_wirings_that_cannot_be(wiring: WiringSpec, message: str) -> None:
    spec = replace(
        profile("h100-pod"), num_nodes=4, topology=TopologySpec(planes={"scale_out": wiring})
    )
    with pytest.raises(ConfigError, match=message):
        build_graph(spec)


def test_topology_names_planes_that_there_are() -> None:
    with pytest.raises(ValueError, match="topology names ether, which is not among the planes"):
        replace(profile("h100"), topology=TopologySpec(planes={"ether": WiringSpec()}))


def test_questions_about_paths_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="from die/3 to itself"):
        fabric().route(3, 3, "scale_up")
    with pytest.raises(ConfigError, match="no plane 'ub'; it has scale_up, scale_out, vpc"):
        fabric().route(3, 4, "ub")


@pytest.mark.parametrize("nodes", [1, 2])
def test_links_are_numbered_plane_by_plane(nodes: int) -> None:
    f = fabric(CM, nodes)
    assert (np.diff(f.link_plane) >= 0).all()
    assert len(set(f.link_names)) == f.num_links == len(f.link_plane)


def test_networkx_is_imported_only_for_graphs_and_numba_only_for_large_tables() -> None:
    import subprocess
    import sys

    code = """
import sys
from simpod.cluster.fabric import Flow, FlowTable, whole_fabric
from simpod.config import load_hardware
table = FlowTable(whole_fabric(load_hardware("cloudmatrix384")))
for source in range(200):
    table.start(0.0, Flow(source=source, destination=767, size_bytes=1e9 + source))
while (first := table.next_completion()) is not None:
    table.finish(*first)
print([name for name in ("networkx", "numba") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gb200_is_a_72nd_of_its_rack() -> None:
    tray, rack = load_hardware("gb200"), load_hardware("gb200-nvl72")
    assert (tray.num_dies, rack.num_dies) == (4, 72)
    assert rack.num_dies * rack.die.hbm_bytes_per_s == pytest.approx(576e12)
    assert rack.num_dies * rack.die.peak_flops_per_s["bf16"] == pytest.approx(180e15)
    assert 2 * rack.num_dies * rack.planes["scale_up"].bytes_per_s == pytest.approx(
        130e12, rel=0.01
    )
