"""Transfers over the fabric, driven by the clock.

A link whose transfers could all run at their caps together slows nobody. So a transfer that meets
no other link is not entered into the `FlowTable`: it ends at a time that is known when it starts.
When a newcomer could fill a link up, those on that link move to the table with what they have
left, and share there by max-min fairness; nobody else can notice. This is exact, and costs a
transfer that meets no other little more than one alarm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.fabric import Fabric, Flow, FlowTable
from simpod.engine.clock import DELIVER, PLAN, Alarm, Clock

Floats = NDArray[np.float64]

SETTLE = PLAN + 1
"""After the plans of an instant: rates are worked out once for all that starts and ends then."""

STRIPES = 8
"""An operation of more parts than this is striped: only the last of them matters."""

GRAIN_FRAC = 0.01
"""Ends of stripes are seen with a delay of this share of their time: ends close together count as
one. Until then they keep the bandwidth that they do not need any more."""

FULL = 1.0 + 1e-9
"""A link may be promised this share of its rate: rounding."""


@dataclass(slots=True, eq=False)
class Part:
    """Bytes from one endpoint to another, as one flow."""

    source: int
    destination: int
    size_bytes: float
    plane: str
    path: tuple[int, ...]
    cap_bytes_per_s: float
    end_s: float = inf
    since_s: float = 0.0  # from when on `left_bytes` are to move, if it is not in the table
    left_bytes: float = 0.0


@dataclass(slots=True, eq=False)
class Operation:
    """Parts that start together; it is done with the last of them."""

    parts: list[Part]
    start_s: float
    alone_s: float
    on_done: Callable[["Operation"], None]
    num_open: int = 0
    end_s: float = inf
    alarm: Alarm | None = None  # its end, while no part is in the table


class Network:
    """All transfers of a run on one fabric."""

    def __init__(self, clock: Clock, fabric: Fabric, sample_s: float | None = None) -> None:
        self.fabric = fabric
        self._clock = clock
        self._table = FlowTable(fabric)
        self._capacity: list[float] = fabric.link_bytes_per_s.tolist()
        self._promised = [0.0] * fabric.num_links
        self._light: list[dict[int, tuple[Operation, Part]]] = [{} for _ in self._promised]
        self._users = [0] * fabric.num_links
        self._carried_bytes = np.zeros(fabric.num_links)  # by parts outside the table, ended
        self._paths: dict[tuple[int, int, str], tuple[tuple[int, ...], float]] = {}
        self._in_table: dict[int, tuple[Operation, Part]] = {}
        self._next_alarm: Alarm | None = None
        self._next_s = inf
        self._is_settling = False
        self._sampler = _Sampler(self, sample_s) if sample_s else None

    @property
    def samples(self) -> "LinkSamples":
        """What the links carried over time; empty if that was not asked for."""
        return LinkSamples([], [], []) if self._sampler is None else self._sampler.samples

    def part(
        self, source: int, destination: int, plane: str, size_bytes: float, most: float
    ) -> Part:
        """A flow to be sent, at most as fast as `most` and as its path can carry."""
        key = (source, destination, plane)
        found = self._paths.get(key)
        if found is None:
            path = self.fabric.route(*key)
            found = path, self.fabric.path_bytes_per_s(*key)
            found = self._paths[key] = (path, min(found[1], *(self._capacity[i] for i in path)))
        path, limit = found
        return Part(source, destination, size_bytes, plane, path, min(limit, most))

    def send(
        self, parts: Sequence[Part], start_up_s: float, on_done: Callable[[Operation], None]
    ) -> Operation:
        """Move bytes from `start_up_s` from now on; `on_done` is called when all have arrived."""
        now_s = self._clock.now
        self._sample()
        begin_s = now_s + start_up_s
        alone_s = start_up_s + max(part.size_bytes / part.cap_bytes_per_s for part in parts)
        operation = Operation(list(parts), now_s, alone_s, on_done, len(parts))
        is_free = True
        for part in parts:
            part.since_s, part.left_bytes = begin_s, part.size_bytes
            part.end_s = begin_s + part.size_bytes / part.cap_bytes_per_s
            is_free = self._promise(operation, part) and is_free
        if is_free:
            operation.end_s = max(part.end_s for part in parts)
            operation.alarm = self._alarm(operation.end_s, lambda: self._end_light(operation))
        else:
            operation.end_s = now_s
            self._relieve(operation)
        return operation

    def carried_bytes(self, now_s: float) -> Floats:
        """Bytes that each link has carried so far, [L]."""
        carried = self._table.carried_bytes(now_s) + self._carried_bytes
        for link, members in enumerate(self._light):
            for _, part in members.values():
                carried[link] += _moved_bytes(part, now_s)
        return carried

    def finish_samples(self) -> None:
        """The run is over: sample up to now."""
        self._sample()

    # --- links with room ------------------------------------------------------------------------

    def _promise(self, operation: Operation, part: Part) -> bool:
        """Set a part's cap aside on its links; False if one of them could fill up."""
        has_room = True
        key = id(part)
        for link in part.path:
            promised = self._promised[link] + part.cap_bytes_per_s
            self._promised[link] = promised
            self._users[link] += 1
            self._light[link][key] = (operation, part)
            if promised > self._capacity[link] * FULL:
                has_room = False
        return has_room

    def _forget(self, part: Part) -> None:
        """Take back what was set aside for a part that has ended."""
        for link in part.path:
            self._users[link] -= 1
            self._promised[link] -= part.cap_bytes_per_s
            if not self._users[link]:
                self._promised[link] = 0.0  # no rounding stays
            self._light[link].pop(id(part), None)

    def _end_light(self, operation: Operation) -> None:
        """All parts have ended as foreseen."""
        self._sample()
        for part in operation.parts:
            self._forget(part)
            self._carried_bytes[list(part.path)] += part.left_bytes
        operation.on_done(operation)

    def _relieve(self, newcomer: Operation) -> None:
        """Move every operation on a link that could fill up to the table, the newcomer's first."""
        full = {
            link
            for part in newcomer.parts
            for link in part.path
            if self._promised[link] > self._capacity[link] * FULL
        }
        moved: dict[int, Operation] = {id(newcomer): newcomer}
        for link in sorted(full):
            for operation, _ in self._light[link].values():
                moved[id(operation)] = operation
        for operation in moved.values():
            if operation.alarm is not None:
                operation.alarm.disarm()
                operation.alarm = None
            for part in operation.parts:
                self._to_table(operation, part)

    def _to_table(self, operation: Operation, part: Part) -> None:
        now_s = self._clock.now
        for link in part.path:
            del self._light[link][id(part)]
        moved = _moved_bytes(part, now_s)
        self._carried_bytes[list(part.path)] += moved
        part.left_bytes -= moved
        if part.since_s > now_s:
            self._alarm(part.since_s, lambda: self._start(operation, part))
        else:
            self._start(operation, part)

    # --- the table ------------------------------------------------------------------------------

    def _start(self, operation: Operation, part: Part) -> None:
        self._sample()
        flow = Flow(
            source=part.source,
            destination=part.destination,
            size_bytes=part.left_bytes,
            plane=part.plane,
            bytes_per_s=part.cap_bytes_per_s,
        )
        self._in_table[self._table.start(self._clock.now, flow)] = (operation, part)
        self._settle_later()

    def _settle_later(self) -> None:
        if not self._is_settling:
            self._is_settling = True
            self._clock.call_at(self._clock.now, SETTLE, self._settle)

    def _settle(self) -> None:
        """Set the one alarm to the end that comes first."""
        self._is_settling = False
        first = self._table.next_completion()
        next_s = inf
        if first is not None:
            operation = self._in_table[first[1]][0]
            next_s = max(first[0], self._clock.now)
            if len(operation.parts) > STRIPES:
                next_s += GRAIN_FRAC * (next_s - operation.start_s)
        if next_s == self._next_s:
            return
        if self._next_alarm is not None:
            self._next_alarm.disarm()
        self._next_s = next_s
        self._next_alarm = None if first is None else self._alarm(next_s, self._end_first)

    def _end_first(self) -> None:
        """End what is due now."""
        self._sample()
        now_s = self._clock.now
        self._next_alarm, self._next_s = None, inf
        due = []
        for end_s, flow_id in self._table.completions(now_s):
            self._table.finish(now_s, flow_id)
            operation, part = self._in_table.pop(flow_id)
            part.end_s = end_s
            self._forget(part)
            operation.num_open -= 1
            if not operation.num_open:
                due.append(operation)
        self._settle_later()
        for operation in due:
            operation.end_s = now_s
            operation.on_done(operation)

    def _alarm(self, time_s: float, call: Callable[[], None]) -> Alarm:
        alarm = self._clock.alarm_at(time_s, DELIVER)
        alarm.callbacks = [lambda _: call()]
        return alarm

    def _sample(self) -> None:
        if self._sampler is not None:
            self._sampler.catch_up(self._clock.now)


def _moved_bytes(part: Part, now_s: float) -> float:
    """What a part outside the table has moved since `since_s`."""
    if now_s >= part.end_s:
        return part.left_bytes
    return min(max(now_s - part.since_s, 0.0) * part.cap_bytes_per_s, part.left_bytes)


@dataclass(slots=True, eq=False)
class LinkSamples:
    """Use of the links, one row a plane and interval."""

    time_s: list[float]  # end of the interval
    sent_bytes_per_s: list[Floats]  # [planes] what endpoints sent into each
    busiest_frac: list[Floats]  # [planes] of the link that was used most


class _Sampler:
    """Reads the links' counters at fixed times, whenever the next thing happens after them."""

    def __init__(self, network: Network, every_s: float) -> None:
        self.samples = LinkSamples([], [], [])
        self._network = network
        self._every_s = every_s
        self._before = np.zeros(network.fabric.num_links)

    def catch_up(self, now_s: float) -> None:
        """Take the samples that are due; nothing has changed since the last of them."""
        while (time_s := (len(self.samples.time_s) + 1) * self._every_s) <= now_s:
            carried = self._network.carried_bytes(time_s)
            rates = (carried - self._before) / self._every_s
            self._before = carried
            fabric = self._network.fabric
            is_up = fabric.link_kind == 0
            planes = range(len(fabric.plane_names))
            share = rates / fabric.link_bytes_per_s
            mine = [fabric.link_plane == plane for plane in planes]
            self.samples.time_s.append(time_s)
            self.samples.sent_bytes_per_s.append(
                np.array([rates[is_up & here].sum() for here in mine])
            )
            self.samples.busiest_frac.append(np.array([share[here].max() for here in mine]))
