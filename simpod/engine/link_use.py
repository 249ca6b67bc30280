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
    flows = list(_flow_intervals(network))
    if network.exchanges is None:
        yield from flows
        return
    times_s = np.array([0.0, *(end_s for _, end_s, _, _ in flows)])
    exchanged = np.diff(network.exchanges.moved_bytes(times_s), axis=0)
    for (start_s, end_s, links, rates), more in zip(flows, exchanged, strict=True):
        both = more / max(end_s - start_s, np.finfo(float).tiny)
        both[links] += rates
        busy = np.flatnonzero(both > 0.0)
        yield start_s, end_s, busy, both[busy]


def _flow_intervals(network: Network) -> Iterator[tuple[float, float, NDArray[np.intp], Floats]]:
    """The same of flows alone: each interval that was sampled, and what is left up to now."""
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
    fabric = network.fabric
    planes = len(fabric.plane_names)
    is_up = fabric.link_kind == LINK_KINDS.index("up")
    most = np.bincount(fabric.link_plane[is_up], fabric.link_bytes_per_s[is_up], planes)
    time_s, sent, busiest = [], [], []
    for _, end_s, links, rates in list(_intervals(network))[:-1]:
        plane, out = fabric.link_plane[links], is_up[links]
        time_s.append(end_s)
        sent.append(np.bincount(plane[out], rates[out], planes).astype(np.float64))
        used = np.zeros(planes)
        np.maximum.at(used, plane, rates / fabric.link_bytes_per_s[links])
        busiest.append(used)
    sent_bytes_per_s = np.array(sent, dtype=np.float64).reshape(-1, planes)
    return PlaneRecords(
        time_s=np.repeat(np.array(time_s, dtype=np.float64), planes),
        plane=np.tile(np.arange(planes), len(time_s)),
        bytes_per_s=sent_bytes_per_s.ravel(),
        share_frac=(sent_bytes_per_s / most).ravel(),
        busiest_frac=np.array(busiest).reshape(-1, planes).ravel(),
        plane_names=fabric.plane_names,
    )
