"""Prefixes that arrive layer by layer while the step that needs them computes.

A prompt joins when the first layer of its prefix is here; the others come while the step goes on.
With L equal layers, a step of T whose last layer arrives at A ends no sooner than A + T / L: the
last layer is computed when it is there (CachedAttention 3.2, figure 7, with L layers of one size).
What a prompt adds to the pool goes out the same way, behind the layers as they are computed.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from math import inf, isinf
from typing import TYPE_CHECKING

import simpy

from simpod.engine.clock import DELIVER, STEP_END, Alarm
from simpod.records.columns import STEP_PARTS

if TYPE_CHECKING:
    from simpod.engine.context_cache import ContextCache
    from simpod.engine.group import Group
    from simpod.engine.steps import StepRun

STALL = STEP_PARTS.index("host_gap")
"""The part of a step that a stall counts as."""


@dataclass(slots=True, eq=False)
class Stream:
    """The layers of one prompt's prefix after the first."""

    end_s: float = inf


class LayerStreams:
    """Holds steps up until the layers that they need are here, and sends out what they add."""

    def __init__(self, cache: "ContextCache", num_layers: int) -> None:
        self._cache = cache
        self._num_layers = num_layers
        self._waiting: dict[int, Alarm] = {}  # group -> what wakes it

    @property
    def first_frac(self) -> float:
        """Share of a prefix that must be there before its prompt can begin."""
        return 1.0 / self._num_layers

    def begin(self, group: "Group", run: "StepRun") -> None:
        """A step begins: what it completes is written while it is computed, and a layer later."""
        pace_s = (run.end_s - run.start_s) * (1.0 + self.first_frac)
        for rank in group.ranks:
            for seq, chunk in rank.chunks.values():
                if seq.resident_tokens + chunk == seq.goal_tokens:
                    self._cache.write_back(seq, rank, seq.goal_tokens, pace_s)

    def end(self, group: "Group", run: "StepRun") -> Generator[simpy.Event, object, None]:
        """A step is computed, but for layers that are not here yet: wait, and make it longer."""
        streams = list(self._needed(group))
        while any(isinf(stream.end_s) for stream in streams):
            alarm = self._waiting[group.index] = Alarm()
            yield alarm
        last_s = max((stream.end_s for stream in streams), default=-inf)
        end_s = last_s + (run.end_s - run.start_s) * self.first_frac
        if end_s <= run.end_s:
            return
        yield group.clock.alarm_at(end_s, STEP_END - group.index)
        fixed_s = run.prices.fixed_s.copy()
        fixed_s[STALL] += end_s - run.end_s
        base_s = run.prices.base_s + (end_s - run.end_s)
        run.prices = replace(run.prices, base_s=base_s, fixed_s=fixed_s)
        run.end_s = end_s

    def done(self, group: "Group", stream: Stream) -> None:
        """All layers of a prefix are here."""
        stream.end_s = group.clock.now
        alarm = self._waiting.pop(group.index, None)
        if alarm is not None:
            group.clock.arm(alarm, group.clock.now, DELIVER)

    def _needed(self, group: "Group") -> Iterator[Stream]:
        """Of the prompts in this step; a later chunk finds its prefix here."""
        for rank in group.ranks:
            if rank.reads is not None and rank.reads.streams:
                for seq_id in rank.chunks:
                    stream = rank.reads.streams.pop(seq_id, None)
                    if stream is not None:
                        yield stream
