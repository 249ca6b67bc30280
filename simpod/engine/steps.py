"""The token clock and the run: successive like steps of a group, in closed form.

A run starts at `start_s`; its step i (0, 1, ...) lasts base_s + slope_s * g(i), where g(i) is the number
of tokens that each decoding sequence has gained since the run's start. So step j ends at

    start_s + (j * base_s + slope_s * G(j)),    G(j) = g(0) + ... + g(j - 1).
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenClock:
    """Tokens that a decoding sequence has after s decode steps: V(s) = floor(s * tokens / per_steps).

    One a step; with draft tokens the accepted ones come in the same even pattern for all sequences of
    a group (the mean acceptance, not a random draw).
    """

    tokens: int = 1
    per_steps: int = 1

    def at(self, step: int) -> int:
        """V(step)."""
        return step * self.tokens // self.per_steps

    def step_of(self, clock: int) -> int:
        """The first step at which the clock has reached `clock`."""
        return -(-clock * self.per_steps // self.tokens)

    def gained(self, first: int, steps: int) -> Ints:
        """[steps] g(i): tokens gained after i steps that follow step `first`."""
        later = (first + np.arange(steps)) * self.tokens // self.per_steps
        return later - self.at(first)

    def gained_sum(self, first: int, steps: int) -> int:
        """G(steps) after step `first`."""
        if self.tokens == self.per_steps:
            return steps * (steps - 1) // 2
        return int(self.gained(first, steps).sum()) if steps > 1 else 0


@dataclass(slots=True)
class StepRun:
    """A run that is planned, under way or done; `steps` shrinks when something comes in between."""

    start_s: float
    base_s: float
    slope_s: float
    steps: int
    first: int  # decode steps of the group before the run
    clock: TokenClock

    def end_s(self, steps: int) -> float:
        """End of the run's step number `steps` (1, 2, ...)."""
        gained = self.clock.gained_sum(self.first, steps) if steps > 1 else 0
        return self.start_s + (steps * self.base_s + self.slope_s * gained)

    def boundary(self, now_s: float) -> int:
        """The number of the step that is under way at `now_s`, or ends then."""
        return 1 + bisect_left(range(1, self.steps), now_s, key=self.end_s)
