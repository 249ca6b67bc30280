"""Transfers over the fabric, driven by the clock.

A link whose transfers could all run at their caps together slows nobody. So a transfer that meets
no other link is not entered into the `FlowTable`: it ends at a time that is known when it starts.
When a newcomer could fill a link up, those on that link move to the table with what they have
left, and share there by max-min fairness; nobody else can notice. This is exact, and costs a
transfer that meets no other little more than one alarm.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.fabric import Fabric, Flow, FlowTable
from simpod.engine.clock import DELIVER, PLAN, Alarm, Clock
from simpod.hardware import TransferLaw

if TYPE_CHECKING:
    from simpod.engine.exchange_flows import ExchangeFlows

Floats = NDArray[np.float64]

SETTLE = PLAN + 1
"""After the plans of an instant: rates are worked out once for all that starts and ends then."""

LEAST_FRAC = 0.01
"""Exchanges leave flows at least this share of a link's rate."""

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
    end_s: float = inf  # while it is not in the table: as foreseen
    since_s: float = 0.0  # from when on `left_bytes` are to move, if it is not in the table
    left_bytes: float = 0.0
    is_in_table: bool = False
    flow_id: int = -1  # in the table, once it has begun


@dataclass(slots=True, eq=False)
class Operation:
    """Parts that start together; it is done with the last of them."""

    parts: Sequence[Part]
    start_s: float
    alone_s: float
    on_done: Callable[["Operation"], None]
    num_open: int
    end_s: float = inf
    alarm: Alarm | None = None  # its end, while no part is in the table


class Network:
    """All transfers of a run on one fabric."""

    def __init__(self, clock: Clock, fabric: Fabric, sample_s: float | None = None) -> None:
        self.fabric = fabric
        self._clock = clock
        self._table = FlowTable(fabric)
        self._capacity: list[float] = fabric.link_bytes_per_s.tolist()
        self._most: list[float] = [rate * FULL for rate in self._capacity]
        self._promised = [0.0] * fabric.num_links
        self._users: list[dict[Part, Operation]] = [{} for _ in self._promised]
        self._carried_bytes = [0.0] * fabric.num_links  # by parts while outside the table
        self._in_table: dict[int, tuple[Operation, Part]] = {}
        self._next_alarm: Alarm | None = None
        self._next_s = inf
        self._is_settling = False
        self._sampler = _Sampler(self, sample_s) if sample_s else None
        self.exchanges: ExchangeFlows | None = None  # of steps, where they use the same links

    @property
    def now_s(self) -> float:
        """Of its clock."""
        return self._clock.now

    @property
    def samples(self) -> "LinkSamples":
        """What the links carried over time; empty if that was not asked for."""
        return LinkSamples([]) if self._sampler is None else self._sampler.samples

    def part(
        self, source: int, destination: int, plane: str, size_bytes: float, most: float
    ) -> Part:
        """A flow to be sent, at most as fast as `most` and as its path can carry."""
        used, path, rate = self.fabric.way(source, destination, plane)
        capacity = self._capacity
        most = min(most, rate, *[capacity[link] for link in path])
        return Part(source, destination, size_bytes, used, path, most)

    def parts_under(
        self, law: TransferLaw, moves: Iterable[tuple[int, int, float]]
    ) -> tuple[list[Part], float]:
        """Flows of (source, destination, bytes), as fast as a law lets each; and their start-up."""
        parts, start_up_s = [], 0.0
        for source, destination, size_bytes in moves:
            same_node = self.fabric.node_of[source] == self.fabric.node_of[destination]
            most = law.bytes_per_s(same_node=same_node)
            start_up_s = max(start_up_s, law.start_s(same_node=same_node))
            parts.append(self.part(source, destination, law.plane, size_bytes, most))
        return parts, start_up_s

    def send(
        self, parts: Sequence[Part], start_up_s: float, on_done: Callable[[Operation], None]
    ) -> Operation:
        """Move bytes from `start_up_s` from now on; `on_done` is called when all have arrived."""
        now_s = self._clock.now
        if self._sampler is not None:
            self._sampler.catch_up(now_s)
        begin_s = end_s = now_s + start_up_s
        operation = Operation(parts, now_s, 0.0, on_done, len(parts))
        is_free = True
        for part in parts:
            part.since_s, part.left_bytes = begin_s, part.size_bytes
            part.end_s = begin_s + part.size_bytes / part.cap_bytes_per_s
            end_s = max(end_s, part.end_s)
            is_free = self._promise(operation, part) and is_free
        operation.alone_s = end_s - now_s
        if is_free:
            operation.end_s = end_s
            operation.alarm = self._clock.alarm_at(end_s, DELIVER)
            operation.alarm.callbacks = (lambda _: self._end_foreseen(operation),)
        else:
            self._relieve(operation)
        if self.exchanges is not None:
            self.exchanges.begin_flows(parts, begin_s)
        return operation

    def carried_bytes(self, now_s: float) -> Floats:
        """Bytes that each link has carried so far, [L]."""
        carried: Floats = self._table.carried_bytes(now_s) + np.array(self._carried_bytes)
        for link, users in enumerate(self._users):
            for part in users:
                if not part.is_in_table:
                    carried[link] += _moved_bytes(part, now_s)
        return carried

    # --- links that exchanges of steps use as well -----------------------------------------------

    def take(self, links: Sequence[int], bytes_per_s: float) -> None:
        """From now on flows have so much less than all of each of these links, of one plane."""
        self.catch_up_samples()
        capacity, promised, most = self._capacity, self._promised, self._most
        left = [max(capacity[n] - bytes_per_s, LEAST_FRAC * capacity[n]) for n in links]
        full = []
        for link, rate in zip(links, left, strict=True):
            most[link] = rate * FULL
            if promised[link] > most[link]:
                full.append(link)
        self._table.set_capacities(self._clock.now, links, left)
        if full:
            self._crowd(full, {})

    def capacity(self, link: int) -> float:
        """Bytes/s of a link, for exchanges and flows together."""
        return self._capacity[link]

    def has_users(self, link: int) -> bool:
        """Something is on its way over a link, or is about to be."""
        return bool(self._users[link])

    def rates_on(self, link: int) -> list[float]:
        """Bytes/s of each flow on a link."""
        now_s = self._clock.now
        rates = []
        for part in self._users[link]:
            if part.flow_id >= 0:
                rates.append(self._table.rate(part.flow_id))
            elif not part.is_in_table and part.since_s <= now_s:
                rates.append(part.cap_bytes_per_s)
        return rates

    @property
    def num_changes(self) -> int:
        """Of the flows that share links: `FlowTable.num_changes`."""
        return self._table.num_changes

    def table_rates(self) -> Floats | None:
        """[L] bytes/s of the flows that share links; None: there are none."""
        return self._table.link_rates() if len(self._table) else None

    def catch_up_samples(self) -> None:
        """Take the samples that are due by now."""
        if self._sampler is not None:
            self._sampler.catch_up(self._clock.now)

    # --- links with room ------------------------------------------------------------------------

    def _promise(self, operation: Operation, part: Part) -> bool:
        """Set a part's cap aside on its links; False if one of them could fill up."""
        has_room, rate = True, part.cap_bytes_per_s
        users, promised, most = self._users, self._promised, self._most
        for link in part.path:
            users[link][part] = operation
            promised[link] = wanted = promised[link] + rate
            if wanted > most[link]:
                has_room = False
        return has_room

    def _forget(self, part: Part) -> None:
        """Take back what was set aside for a part that has ended."""
        if self.exchanges is not None:
            self.exchanges.end_flow(part)
        for link in part.path:
            users = self._users[link]
            del users[part]
            if users:
                self._promised[link] -= part.cap_bytes_per_s
            else:
                self._promised[link] = 0.0  # no rounding stays

    def _end_foreseen(self, operation: Operation) -> None:
        """All parts have ended as foreseen."""
        if self._sampler is not None:
            self._sampler.catch_up(self._clock.now)
        for part in operation.parts:
            self._forget(part)
            for link in part.path:
                self._carried_bytes[link] += part.left_bytes
        operation.on_done(operation)

    def _relieve(self, newcomer: Operation) -> None:
        """Move every operation on a link that could fill up to the table, the newcomer's first."""
        full = {
            link
            for part in newcomer.parts
            for link in part.path
            if self._promised[link] > self._most[link]
        }
        self._crowd(full, {id(newcomer): newcomer})

    def _crowd(self, full: Iterable[int], moved: dict[int, Operation]) -> None:
        """Move these operations to the table, and those on links that could fill up."""
        for link in sorted(full):
            for part, operation in self._users[link].items():
                if not part.is_in_table:
                    moved[id(operation)] = operation
        for operation in moved.values():
            if operation.alarm is not None:
                operation.alarm.disarm()
                operation.alarm = None
            for part in operation.parts:
                self._to_table(operation, part)

    def _to_table(self, operation: Operation, part: Part) -> None:
        """Let a part go on in the table with what it has left, once it has begun."""
        now_s = self._clock.now
        moved = _moved_bytes(part, now_s)
        for link in part.path:
            self._carried_bytes[link] += moved
        part.left_bytes -= moved
        part.is_in_table = True
        if part.since_s > now_s:
            self._clock.call_at(part.since_s, DELIVER, lambda: self._start(operation, part))
        else:
            self._start(operation, part)

    # --- the table ------------------------------------------------------------------------------

    def _start(self, operation: Operation, part: Part) -> None:
        self.catch_up_samples()
        flow = Flow(
            source=part.source,
            destination=part.destination,
            size_bytes=part.left_bytes,
            plane=part.plane,
            bytes_per_s=part.cap_bytes_per_s,
        )
        part.flow_id = self._table.start(self._clock.now, flow)
        self._in_table[part.flow_id] = (operation, part)
        self.settle_later()

    def settle_later(self) -> None:
        """Work out rates when all of this instant has happened."""
        if not self._is_settling:
            self._is_settling = True
            self._clock.call_at(self._clock.now, SETTLE, self._settle)

    def _settle(self) -> None:
        """Set the one alarm to the end that comes first."""
        self._is_settling = False
        if self.exchanges is not None:
            self.exchanges.settle()
        first = self._table.next_completion()
        next_s = inf
        if first is not None:
            next_s = max(first[0], self._clock.now)
        if next_s == self._next_s:
            return
        if self._next_alarm is not None:
            self._next_alarm.disarm()
        self._next_s, self._next_alarm = next_s, None
        if first is not None:
            self._next_alarm = self._clock.alarm_at(next_s, DELIVER)
            self._next_alarm.callbacks = (lambda _: self._end_due(),)

    def _end_due(self) -> None:
        """End what is due now."""
        self.catch_up_samples()
        now_s = self._clock.now
        self._next_alarm, self._next_s = None, inf
        done = []
        for end_s, flow_id in self._table.completions(now_s):
            self._table.finish(now_s, flow_id)
            operation, part = self._in_table.pop(flow_id)
            part.end_s = end_s
            self._forget(part)
            operation.num_open -= 1
            if not operation.num_open:
                done.append(operation)
        self.settle_later()
        for operation in done:
            operation.end_s = now_s
            operation.on_done(operation)


def _moved_bytes(part: Part, now_s: float) -> float:
    """What a part outside the table has moved since `since_s`."""
    if now_s >= part.end_s:
        return part.left_bytes
    return min(max(now_s - part.since_s, 0.0) * part.cap_bytes_per_s, part.left_bytes)


@dataclass(slots=True, eq=False)
class LinkSamples:
    """Use of the links, one row a plane and interval."""

    time_s: list[float]  # end of the interval
    busy: list[tuple[NDArray[np.intp], Floats]] = field(default_factory=list)
    """Links that carried something, and their bytes/s."""
    carried_bytes: Floats | None = None  # [L] up to the end of the last interval


class _Sampler:
    """Reads the links' counters at fixed times, whenever the next thing happens after them."""

    def __init__(self, network: Network, every_s: float) -> None:
        self.samples = LinkSamples([])
        self._network = network
        self._every_s = every_s
        self._before = np.zeros(network.fabric.num_links)

    def catch_up(self, now_s: float) -> None:
        """Take the samples that are due; nothing has changed since the last of them."""
        while (time_s := (len(self.samples.time_s) + 1) * self._every_s) <= now_s:
            carried = self._network.carried_bytes(time_s)
            rates = (carried - self._before) / self._every_s
            self._before = carried
            self.samples.time_s.append(time_s)
            busy = np.flatnonzero(rates > 0.0)
            self.samples.busy.append((busy, rates[busy]))
            self.samples.carried_bytes = carried
