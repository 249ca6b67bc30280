"""Steps that are held up while they go on: a group's progress against the clock.

Progress is the time that steps would have taken with links of their own. While flows are in the
way of a group's exchanges, it takes 1 + stretch seconds to make progress of one. So a run of steps
keeps its closed form, in progress, and is slept through while the stretch changes: its end moves.
"""

from bisect import bisect_left
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simpod.cost import StepPrices
from simpod.engine.steps import StepRun, TokenClock

Floats = NDArray[np.float64]

SAME = 1.0 - 1e-14
"""Rounding: progress so close beyond a change is on it, and belongs to what was before."""


class Warp:
    """When a group has made how much progress; the stretch is constant between changes."""

    def __init__(self) -> None:
        self.progress_s = [0.0]  # at each change
        self.times_s = [0.0]
        self.stretches = [0.0]  # from there on

    @property
    def stretch(self) -> float:
        """At present."""
        return self.stretches[-1]

    def set(self, now_s: float, stretch: float) -> None:
        """From now on."""
        if stretch == self.stretches[-1]:
            return
        if now_s == self.times_s[-1]:
            self.stretches[-1] = stretch
            return
        self.progress_s.append(self.progress(now_s))
        self.times_s.append(now_s)
        self.stretches.append(stretch)

    def progress(self, now_s: float) -> float:
        """Up to now, which is no earlier than the last change."""
        return self.progress_s[-1] + (now_s - self.times_s[-1]) / (1.0 + self.stretches[-1])

    def when(self, progress_s: float) -> float:
        """The time at which it is made, as things stand."""
        place = -1
        if progress_s * SAME <= self.progress_s[-1]:
            place = max(bisect_left(self.progress_s, progress_s * SAME) - 1, 0)
        before = self.progress_s[place]
        late_s = self.times_s[place] - before
        return progress_s + late_s + (progress_s - before) * self.stretches[place]

    def whens(self, progress_s: Floats) -> Floats:
        """The same for many [n], bit by bit."""
        before, times_s = np.array(self.progress_s), np.array(self.times_s)
        place = np.maximum(np.searchsorted(before, progress_s * SAME) - 1, 0)
        late_s = times_s[place] - before[place]
        ahead_s = progress_s - before[place]
        return np.asarray(progress_s + late_s + ahead_s * np.array(self.stretches)[place])


UNHINDERED = Warp()
"""Progress is time: of groups whose exchanges meet nothing. Nobody sets it."""


class WarpedRun(StepRun):
    """A run that follows a group's progress, and whose first n steps pause for `held_s(n)`."""

    __slots__ = ("_held_s", "_warp", "start_progress_s")

    def __init__(
        self,
        start_s: float,
        prices: StepPrices,
        first: int,
        steps: int,
        clock: TokenClock,
        course: tuple[Warp, Callable[[int], float] | None],
    ) -> None:
        """course: the group's progress, and `held_s`; None: nothing pauses."""
        self._warp, self._held_s = course
        self.start_progress_s = self._warp.progress(start_s)
        super().__init__(start_s, prices, first, steps, clock)
        if steps == 1:
            self.end_s = self.end_of(1)

    def end_of(self, step: int) -> float:
        """End of step 1, 2, ..., as things stand."""
        prices, clock = self.prices, self._clock
        gained = step * (step - 1) // 2 if clock.is_plain else clock.gained_sum(self.first, step)
        done_s = self.start_progress_s + (step * prices.base_s + prices.slope_s * gained)
        if self._held_s is not None:
            done_s += self._held_s(step)
        return self._warp.when(done_s)

    def _guess(self, elapsed_s: float) -> int:
        """The step under way."""
        end_s = self.start_s + elapsed_s
        if self._held_s is None and end_s >= self._warp.times_s[-1]:
            return super()._guess(self._warp.progress(end_s) - self.start_progress_s)
        return 1 + bisect_left(range(1, self.steps), end_s, key=self.end_of)
