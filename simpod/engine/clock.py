"""Simulated time: a SimPy environment, absolute alarms, the order of things at one instant."""

from collections.abc import Callable, Generator, Sequence
from heapq import heappop, heappush
from math import inf
from typing import Any

import simpy

STEP_END = 1 << 20
"""At equal times, first: steps end, their sequences finish; group g at STEP_END - g.

So the order of two groups is the same however long ago their alarms were set, and decode groups,
which come after prefill groups, have finished sequences when prompts are handed over then.
"""

DELIVER = STEP_END + 1
"""Then: arrivals, and what transfers bring."""

PLAN = DELIVER + 1
"""Last: groups plan their next step, having seen all of the above."""


class Alarm(simpy.Event):
    """An event at an absolute time, with its place in the order of that instant.

    Absolute, because `now + (t - now)` can differ from `t` by one ulp, and records are stamped with
    the times that were computed, not with what is left after a subtraction and an addition.
    """

    _ok = True  # it has happened as soon as it is due, with nothing to tell
    _value = None
    __init__ = object.__init__
    callbacks: Sequence[Callable[[simpy.Event], None]]  # type: ignore[assignment]
    """Who wakes: given by whoever made the alarm."""

    def disarm(self) -> Sequence[Callable[[simpy.Event], None]]:
        """Let the alarm pass unheard; return those who waited, for another alarm to wake."""
        waiting, self.callbacks = self.callbacks, ()
        return waiting


Entry = tuple[float, int, int, simpy.Event]


class Clock(simpy.Environment):
    """A SimPy environment that can be told absolute times and priorities."""

    __slots__ = ("now",)
    now: float  # asked for most often: a slot, not SimPy's property

    num_ticks = 0  # alarms of those who look every so often

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def alarm_at(self, time_s: float, order: int) -> Alarm:
        """Make an alarm that goes off at `time_s` (now or later), in its order among equals."""
        alarm: Alarm = Alarm()
        entry: Entry = (time_s, order, next(self._eid), alarm)
        heappush(self._queue, entry)  # type: ignore[misc]  # SimPy's own entries, with our orders
        return alarm

    def arm(self, alarm: Alarm, time_s: float, order: int) -> None:
        """Set off a waiting alarm at `time_s`."""
        entry: Entry = (time_s, order, next(self._eid), alarm)
        heappush(self._queue, entry)  # type: ignore[misc]

    def call_at(self, time_s: float, order: int, call: Callable[[], None]) -> None:
        """Call `call()` at `time_s`."""
        self.alarm_at(time_s, order).callbacks = (lambda _: call(),)

    def spawn(self, alarms: Generator[simpy.Event, object, None]) -> None:
        """Let a generator run from alarm to alarm, from now on: a SimPy process that nobody awaits.

        What it yields has not gone off yet, and brings nothing.
        """
        send = alarms.send

        def resume(_: simpy.Event | None) -> None:
            try:
                send(None).callbacks = waiting
            except StopIteration:
                return

        waiting: Any = (resume,)

        self.call_at(self.now, 0, lambda: resume(None))

    def run(self, until: float | None = None) -> None:  # type: ignore[override]
        """Let happen what is due before `until`, or everything.

        SimPy's own loop, without the calls and the handlers that no event here needs.
        """
        queue = self._queue
        end_s = inf if until is None else until
        while queue and queue[0][0] < end_s:
            self.now, _, _, event = heappop(queue)
            self._now = self.now
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(event)
        if until is not None:
            self.now = self._now = until

    def tick_at(self, time_s: float, call: Callable[[], None]) -> None:
        """Call `call()` at `time_s` for somebody who only looks: that keeps nothing going."""
        self.num_ticks += 1

        def due() -> None:
            self.num_ticks -= 1
            call()

        self.call_at(time_s, DELIVER, due)

    @property
    def is_busy(self) -> bool:
        """Something is still to happen, beside the ticks of those who only look."""
        return len(self._queue) > self.num_ticks

    def may_plan(self) -> bool:
        """Nothing that planning must wait for is due at this very time."""
        queue = self._queue
        return not queue or queue[0][0] > self.now or queue[0][1] >= PLAN
