"""The fabric of a profile with all links whole, without the detour over a graph.

The same arrays as `freeze(build_graph(profile))` (tested), in a tenth of the time: a run that loses
no link needs no graph. Port counts are checked where the graph is built.
"""

import numpy as np

from simpod.cluster.fabric.arrays import Fabric, Links, Rates
from simpod.cluster.fabric.graph import PEER, PlaneWiring
from simpod.hardware.spec import HardwareProfile


def whole_fabric(profile: HardwareProfile) -> Fabric:
    """Bundles of the planes as the profile wires them."""
    num_cpus = profile.host.num_cpus * profile.num_nodes
    num_ends = profile.num_dies + num_cpus
    rates = {name: _plane_rates(PlaneWiring(profile, name), num_ends) for name in profile.planes}
    if profile.topology.peer_bytes_per_s > 0 and profile.dies_per_npu > 1:
        rates[PEER] = _peer_rates(profile, num_ends)
    links = Links()
    planes = {
        name: links.add(position, name, each, num_ends)
        for position, (name, each) in enumerate(rates.items())
    }
    return Fabric(
        name=profile.name,
        num_dies=profile.num_dies,
        num_cpus=num_cpus,
        num_nodes=profile.num_nodes,
        link_bytes_per_s=np.array(links.rates),
        link_plane=np.array(links.planes, dtype=np.int64),
        link_kind=np.array(links.kinds, dtype=np.int64),
        link_names=tuple(links.names),
        plane_names=tuple(rates),
        planes=planes,
    )


def _plane_rates(plane: PlaneWiring, num_ends: int) -> Rates:
    """Endpoints are dies, then CPUs, node by node."""
    profile, wiring = plane.profile, plane.wiring
    plane.check()
    sub_planes, rail = wiring.sub_planes, plane.is_rail
    lanes = 1 if rail else sub_planes
    num_groups = plane.num_domains * (sub_planes if rail else 1)
    group = np.full(num_ends, -1, dtype=np.int64)
    ports = np.zeros((num_ends, lanes))
    first = 0
    for per_node, whole in (
        (profile.dies_per_node, None),
        (profile.host.num_cpus, wiring.cpu_bytes_per_s),
    ):
        count = per_node * profile.num_nodes
        node, place = np.divmod(np.arange(count), max(per_node, 1))
        domain = node // plane.leaf_nodes
        if whole is None or whole > 0:
            mine = slice(first, first + count)
            rail_of = place * sub_planes // max(per_node, 1)
            group[mine] = rail_of * plane.num_domains + domain if rail else domain
            ports[mine] = plane.link_bytes_per_s if whole is None else whole / lanes
        first += count
    up_rate = wiring.uplinks_per_spine * (wiring.uplink_bytes_per_s or plane.link_bytes_per_s)
    uplinks = np.full((num_groups, lanes, wiring.spines), float(up_rate))
    return Rates(group, ports, ports.copy(), uplinks, uplinks.copy())


def _peer_rates(profile: HardwareProfile, num_ends: int) -> Rates:
    """An NPU is a domain of its own, and its dies' links are its only stage."""
    per_npu, num_dies = profile.dies_per_npu, profile.num_dies
    group = np.full(num_ends, -1, dtype=np.int64)
    group[:num_dies] = np.arange(num_dies) // per_npu * per_npu
    ports = np.zeros((num_ends, 1))
    ports[:num_dies] = profile.topology.peer_bytes_per_s * (per_npu - 1)
    none = np.zeros((0, 1, 0))
    return Rates(group, ports, ports.copy(), none, none)
