"""Transfers under way: who gets which rate, when the next one ends. No clock of its own.

Rates are max-min fair and change only when a transfer starts or ends. A change is worked out once
for all starts and ends of one instant, and only where it can matter: transfers that are stopped
below the level at which the change is felt keep their rates (the filling is the same up to there),
and so do those that share no links, directly or through others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.fabric.arrays import Fabric
from simpod.cluster.fabric.plane import PlaneFlows
from simpod.errors import ConfigError, InvariantError

Floats = NDArray[np.float64]


PATHS_KEPT = 1 << 16
"""Pairs of endpoints whose path is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Bytes from one endpoint to another (CPU j is endpoint `fabric.cpu(j)`)."""

    source: int
    destination: int
    size_bytes: float
    plane: str = "scale_up"
    bytes_per_s: float = inf
    """Most that it takes, however idle its links are (see `TransferLaw`)."""


class FlowTable:
    """All transfers of a fabric; times must not go back."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self._planes = [PlaneFlows(fabric, name) for name in fabric.plane_names]
        self._position = {name: i for i, name in enumerate(fabric.plane_names)}
        self._where: dict[int, PlaneFlows] = {}
        self._num_started = 0
        self.num_changes = 0
        """Starts, ends and changes of capacities so far: rates change with nothing else."""
        self._now_s = 0.0
        self._path = lru_cache(maxsize=PATHS_KEPT)(self._find_path)

    def __len__(self) -> int:
        return len(self._where)

    def start(self, now_s: float, flow: Flow) -> int:
        """Begin to move bytes; returns the flow's id."""
        if not flow.size_bytes >= 0 or not flow.bytes_per_s > 0:
            raise ConfigError(
                f"a flow needs size_bytes >= 0 and bytes_per_s > 0,"
                f" got {flow.size_bytes:g} and {flow.bytes_per_s:g}"
            )
        self._move_to(now_s)
        plane, path, most = self._path(flow.source, flow.destination, flow.plane)
        flow_id = self._num_started
        plane.start(now_s, flow_id, path, flow.size_bytes, min(most, flow.bytes_per_s))
        self._where[flow_id] = plane
        self._num_started += 1
        self.num_changes += 1
        return flow_id

    def finish(self, now_s: float, flow_id: int) -> float:
        """End a flow, done or not; returns the bytes that it moved."""
        self._move_to(now_s)
        self.num_changes += 1
        return self._where.pop(flow_id).finish(now_s, flow_id)

    def set_capacities(
        self, now_s: float, links: Sequence[int], bytes_per_s: Sequence[float]
    ) -> None:
        """From now on these links, all of one plane, carry so much."""
        self._move_to(now_s)
        self.num_changes += 1
        if len(links):
            self._planes[int(self.fabric.link_plane[links[0]])].set_capacities(links, bytes_per_s)

    def next_completion(self) -> tuple[float, int] | None:
        """Time and id of the flow that is done first as things stand; of equals the oldest."""
        found = [first for plane in self._planes if (first := plane.next_completion(self._now_s))]
        return min(found) if found else None

    def completions(self, now_s: float) -> list[tuple[float, int]]:
        """Times and ids of the flows that are done by now, in order."""
        return sorted(found for plane in self._planes for found in plane.completions(now_s))

    def completion_s(self, flow_id: int) -> float:
        """When a flow will be done as things stand."""
        return self._where[flow_id].completion_s(self._now_s, flow_id)

    def rate(self, flow_id: int) -> float:
        """Bytes per second of a flow."""
        return self._where[flow_id].rate(self._now_s, flow_id)

    def carried_bytes(self, now_s: float) -> Floats:
        """Bytes that each link has carried so far, [L]."""
        self._move_to(now_s)
        return np.concatenate([plane.carried_bytes(now_s) for plane in self._planes])

    def busy_s(self, now_s: float) -> Floats:
        """Time that each link has carried something, [L]."""
        self._move_to(now_s)
        return np.concatenate([plane.busy_s(now_s) for plane in self._planes])

    def sent_bytes(self, now_s: float) -> dict[str, float]:
        """Bytes that endpoints have sent into each plane so far."""
        self._move_to(now_s)
        return {
            name: plane.sent_bytes(now_s)
            for name, plane in zip(self.fabric.plane_names, self._planes, strict=True)
        }

    def link_rates(self) -> Floats:
        """Bytes per second on each link at present, [L]."""
        return np.concatenate([plane.link_rates(self._now_s) for plane in self._planes])

    def _find_path(
        self, source: int, destination: int, plane: str
    ) -> tuple[PlaneFlows, tuple[int, ...], float]:
        """Whose links a transfer takes, which, and the most that they carry together."""
        used, path, most = self.fabric.way(source, destination, plane)
        return self._planes[self._position[used]], path, most

    def _move_to(self, now_s: float) -> None:
        if now_s < self._now_s:
            raise InvariantError(f"fabric: time goes back from {self._now_s} to {now_s}")
        if now_s > self._now_s:
            for plane in self._planes:
                plane.settle(self._now_s)
            self._now_s = now_s
