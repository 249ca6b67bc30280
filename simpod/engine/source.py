"""Where requests come from: clients that send on time, after an answer, or when one is free."""

from collections.abc import Callable, Generator
from itertools import count

import numpy as np
import simpy

from simpod.engine.clock import DELIVER, Clock
from simpod.engine.sequence import Sequence
from simpod.workload import Requests

PREFIX_CHUNK = 65536
"""Rows turned into Python numbers at a time: element access to NumPy arrays is slow."""


class Source:
    """Sends every request once: at its time, after another, or when a client is free."""

    def __init__(self, requests: Requests, clock: Clock, prefix_unit_tokens: int) -> None:
        self._requests = requests
        self._clock = clock
        self._prompts: list[int] = requests.prompt_tokens.tolist()
        self._sessions: list[int] = requests.session_id.tolist()
        has_classes = requests.tenant.any() or requests.priority.any()
        self._tenants: list[int] = requests.tenant.tolist() if has_classes else []
        self._priorities: list[int] = requests.priority.tolist()
        self._limits: list[int] = requests.max_tokens.tolist() if requests.max_tokens.any() else []
        self._unit_tokens = prefix_unit_tokens
        self._submit: Callable[[Sequence], None] = lambda _: None
        self._turn = count()
        self._free: list[int] = []
        self._followers: dict[int, list[int]] = {}
        self._closed = requests.concurrency is not None
        self.num_sent = 0

    def start(self, submit: Callable[[Sequence], None]) -> None:
        """Begin to call `submit` with each request as it arrives."""
        self._submit = submit
        requests = self._requests
        for child in np.flatnonzero(requests.after >= 0).tolist():
            self._followers.setdefault(int(requests.after[child]), []).append(child)
        if self._closed:
            for _ in range(min(requests.concurrency or 0, len(requests))):
                self._send_next()
        else:
            self._clock.spawn(self._send_on_time())

    def on_end(self, seq_id: int) -> None:
        """A request has ended: its followers and the next waiting client may send."""
        if self._closed:
            self._send_next()
        for child in self._followers.pop(seq_id, ()):
            think_s = float(self._requests.think_s[child])
            self._send_at(self._clock.now + think_s, child)

    def _send_next(self) -> None:
        row = next(self._turn)
        if row < len(self._requests):
            self._free.append(row)
            if len(self._free) == 1:
                self._clock.call_at(self._clock.now, DELIVER, self._send_free)

    def _send_free(self) -> None:
        """Send what became free at this instant, once all that ends now has ended."""
        rows, self._free = self._free, []
        for row in rows:
            self._send(row)

    def _send_at(self, time_s: float, row: int) -> None:
        self._clock.call_at(time_s, DELIVER, lambda: self._send(row))

    def _send_on_time(self) -> Generator[simpy.Event, object, None]:
        arrivals = self._requests.arrival_s
        rows = np.flatnonzero(~np.isnan(arrivals))
        clock = self._clock
        for first in range(0, len(rows), PREFIX_CHUNK):
            chunk = rows[first : first + PREFIX_CHUNK]
            for row, time_s in zip(chunk.tolist(), arrivals[chunk].tolist(), strict=True):
                if time_s > clock.now or not self.num_sent:
                    yield clock.alarm_at(time_s, DELIVER)
                self._send(row)

    def _send(self, row: int) -> None:
        self.num_sent += 1
        seq = Sequence(
            row,
            self._clock.now,
            self._prompts[row],
            self._sessions[row],
            self._requests.prefix_units(row, self._unit_tokens) if self._unit_tokens else (),
            self._prompts[row],
        )
        if self._tenants:
            seq.tenant, seq.priority = self._tenants[row], self._priorities[row]
        if self._limits:
            seq.max_tokens, seq.ignores_eos = self._limits[row], self._requests.ignores_eos
        self._submit(seq)
