"""What the links of a network carried, as records."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.fabric import LINK_KINDS
from simpod.engine.network import Network
from simpod.records.columns import Floats, LinkRecords, PlaneRecords


def link_records(network: Network) -> LinkRecords:
    """Every interval that was sampled and what is left up to now; without samples the whole run.

    Bytes of all rows add up to what the links carried. A link that carried nothing has one row.
    """
    fabric = network.fabric
    rows = list(_intervals(network))
    is_idle = np.ones(fabric.num_links, dtype=bool)
    is_idle[np.concatenate([links for _, _, links, _ in rows])] = False
    idle = np.flatnonzero(is_idle)
    rows.append((0.0, network.now_s, idle, np.zeros(len(idle))))
    counts = [len(links) for _, _, links, _ in rows]
    link, rate = (np.concatenate([row[place] for row in rows]) for place in (2, 3))
    start_s, time_s = (np.repeat([row[place] for row in rows], counts) for place in (0, 1))
    return LinkRecords(
        start_s=start_s,
        time_s=time_s,
        plane=fabric.link_plane[link].astype(np.int64),
        link=link,
        bytes_per_s=rate,
        used_frac=rate / fabric.link_bytes_per_s[link],
        plane_names=fabric.plane_names,
        link_names=tuple(fabric.link_names),
    )


def _intervals(network: Network) -> Iterator[tuple[float, float, NDArray[np.intp], Floats]]:
    """Start, end, links that carried something in between, and their bytes/s."""
    samples, now_s = network.samples, network.now_s
    start_s = 0.0
    for time_s, (links, rates) in zip(samples.time_s, samples.busy, strict=True):
        yield start_s, time_s, links, rates
        start_s = time_s
    left = network.carried_bytes(now_s)
    if samples.carried_bytes is not None:
        left = left - samples.carried_bytes
    links = np.flatnonzero(left > 0.0) if now_s > start_s else np.empty(0, dtype=np.intp)
    yield start_s, now_s, links, left[links] / max(now_s - start_s, np.finfo(float).tiny)


def plane_records(network: Network) -> PlaneRecords:
    """Samples of the planes, one row a plane and interval."""
    fabric, samples = network.fabric, network.samples
    planes = len(fabric.plane_names)
    shape = len(samples.time_s), planes
    sent = np.array(samples.sent_bytes_per_s).reshape(shape)
    is_up = fabric.link_kind == LINK_KINDS.index("up")
    most = np.bincount(fabric.link_plane[is_up], fabric.link_bytes_per_s[is_up], planes)
    return PlaneRecords(
        time_s=np.repeat(np.array(samples.time_s, dtype=np.float64), planes),
        plane=np.tile(np.arange(planes), shape[0]),
        bytes_per_s=sent.ravel(),
        share_frac=(sent / most).ravel(),
        busiest_frac=np.array(samples.busiest_frac).reshape(shape).ravel(),
        plane_names=fabric.plane_names,
    )
