"""A deployment of more dies than the hardware has: where there are as many."""

from collections.abc import Sequence
from math import ceil
from typing import Final

from simpod.cluster.pool_spec import PoolSpec
from simpod.config import library
from simpod.config.nodes import Node, Path, dotted
from simpod.config.references import load_hardware
from simpod.hardware.spec import HardwareProfile

_WIDER: Final = ("-pod", "-nvl72")
"""Ends of names of shipped profiles: many nodes of the profile with the rest of the name."""


def ways_to_more_dies(
    users: Sequence[PoolSpec], pod: HardwareProfile, used: int, root: Node
) -> str:
    """What gives pools that use `used` dies of `pod` as many: keys and their values, in words."""
    own: Path = ("deployment", users[0].name, "hardware")
    where = own if root.find(own) is not None else ("hardware",)
    more = f"{dotted((*where, 'num_nodes'))}: {ceil(used / pod.dies_per_node)}"
    known = library.names("hardware_profiles")
    for wide in (f"{pod.name}{each}" for each in _WIDER if f"{pod.name}{each}" in known):
        enough = load_hardware(wide).num_dies >= used
        return f"{dotted(where)}: {wide}{'' if enough else f' and {more}'}, or fewer dies"
    if any(plane.scope == "pod" for plane in pod.planes.values()):
        return f"{more}, or fewer dies"
    return "fewer dies, or hardware whose nodes a plane joins"
