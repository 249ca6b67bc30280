"""SSD that nodes write to over a plane: one more link each, into what lies behind the plane."""

from dataclasses import replace

import numpy as np

from simpod.cluster.fabric.arrays import LINK_KINDS, Fabric, PlaneArrays
from simpod.errors import ConfigError


def with_ssd(fabric: Fabric, plane: str, bytes_per_s: float) -> Fabric:
    """The same fabric with an endpoint more for each node: the SSD that its hosts write to.

    A write leaves the node over `plane`, and goes into the node's SSD at no more than `bytes_per_s`
    together with others. Links of a plane stay side by side, so those of later ones move up.
    """
    if plane not in fabric.planes:
        raise ConfigError(f"{fabric.name} has no plane {plane!r} to reach SSD over")
    position, num = fabric.plane_names.index(plane), fabric.num_nodes
    first = int(np.flatnonzero(fabric.link_plane <= position)[-1]) + 1

    def put_in(old: np.ndarray, value: float) -> np.ndarray:
        return np.insert(old, first, [value] * num)

    names = list(fabric.link_names)
    names[first:first] = [f"{plane}/ssd/{node}" for node in range(num)]
    return replace(
        fabric,
        link_bytes_per_s=put_in(fabric.link_bytes_per_s, bytes_per_s),
        link_plane=put_in(fabric.link_plane, position),
        link_kind=put_in(fabric.link_kind, LINK_KINDS.index("down")),
        link_names=tuple(names),
        planes={name: _moved_up(each, first, num) for name, each in fabric.planes.items()},
        ssd_links=tuple(range(first, first + num)),
    )


def _moved_up(arrays: PlaneArrays, first: int, num: int) -> PlaneArrays:
    """The links from `first` on have numbers that are `num` higher."""

    def moved(links: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(link + num if link >= first else link for link in links)

    return replace(
        arrays,
        up_links=moved(arrays.up_links),
        down_links=moved(arrays.down_links),
        domain_up_links=moved(arrays.domain_up_links),
        domain_down_links=moved(arrays.domain_down_links),
    )
