"""The token clock and the run: successive like steps of a group, in closed form.

A run starts at `start_s`; its step i (0, 1, ...) lasts base_s + slope_s * g(i), where g(i) is the
number of tokens that each decoding sequence has gained since the run's start. So step j ends at

    start_s + (j * base_s + slope_s * G(j)),    G(j) = g(0) + ... + g(j - 1).
"""

from functools import lru_cache
from math import gcd, sqrt

import numpy as np
from numpy.typing import NDArray

from simpod.cost import Layout, StepPrices

Ints = NDArray[np.int64]


class TokenClock:
    """Tokens that a decoding sequence has after s steps: V(s) = floor(s * tokens / per_steps).

    One a step; with draft tokens the accepted ones come in the same even pattern for all sequences
    of a group (the mean acceptance, not a random draw).
    """

    def __init__(self, tokens: int = 1, per_steps: int = 1) -> None:
        self.tokens = tokens
        self.per_steps = per_steps
        self.is_plain = tokens == per_steps
        period = np.arange(per_steps) * tokens // per_steps
        self._sums_in_period = np.append(0, period.cumsum())

    def at(self, step: int) -> int:
        """V(step)."""
        return step if self.is_plain else step * self.tokens // self.per_steps

    def step_of(self, clock: int) -> int:
        """The first step at which the clock has reached `clock`."""
        return clock if self.is_plain else -(-clock * self.per_steps // self.tokens)

    def gained_sum(self, first: int, steps: int) -> int:
        """G(steps) after step `first`."""
        if self.is_plain or steps <= 1:
            return steps * (steps - 1) // 2
        later = (first + np.arange(steps)) * self.tokens // self.per_steps
        return int(later.sum()) - steps * self.at(first)

    def gained_sums(self, firsts: Ints, steps: Ints) -> Ints:
        """[m] G(steps) after step `firsts`."""
        if self.is_plain:
            return steps * (steps - 1) // 2
        before = firsts * self.tokens // self.per_steps
        return self._sums(firsts + steps) - self._sums(firsts) - steps * before

    def _sums(self, steps: Ints) -> Ints:
        """V(0) + ... + V(steps - 1): whole periods of `per_steps` steps, and the rest."""
        part = self._sums_in_period
        whole, rest = np.divmod(steps, self.per_steps)
        grown = self.tokens * (self.per_steps * (whole * (whole - 1) // 2) + whole * rest)
        sums: Ints = whole * part[-1] + grown + part[rest]
        return sums


@lru_cache(64)  # groups that are alike share one
def token_clock(layout: Layout) -> TokenClock:
    """Mean tokens per decode step as a fraction, in thousandths."""
    thousandths = round(1000 * layout.mean_decode_tokens)
    divisor = gcd(thousandths, 1000)
    return TokenClock(thousandths // divisor, 1000 // divisor)


class StepRun:
    """A run that is planned, under way or done; `cut` makes it shorter when something comes."""

    __slots__ = ("_clock", "end_s", "first", "prices", "start_s", "steps")

    def __init__(
        self, start_s: float, prices: StepPrices, first: int, steps: int, clock: TokenClock
    ) -> None:
        self.start_s = start_s
        self.prices = prices
        self.first = first  # decode steps of the group before the run
        self.steps = steps
        self._clock = clock
        self.end_s = start_s + prices.base_s if steps == 1 else self.end_of(steps)

    def end_of(self, step: int) -> float:
        """End of step 1, 2, ..."""
        clock = self._clock  # the plain one is not asked: this is called most often
        gained = step * (step - 1) // 2 if clock.is_plain else clock.gained_sum(self.first, step)
        return self.start_s + (step * self.prices.base_s + self.prices.slope_s * gained)

    def cut(self, steps: int) -> bool:
        """End after so many steps; False if it does not go on so long."""
        if steps >= self.steps:
            return False
        self.steps, self.end_s = steps, self.end_of(steps)
        return True

    def step_at(self, now_s: float) -> int:
        """The step (1, 2, ...) under way at `now_s`, or ending then."""
        if self.steps == 1:
            return 1
        step = min(self._guess(now_s - self.start_s), self.steps)
        while step < self.steps and self.end_of(step) < now_s:
            step += 1
        while step > 1 and self.end_of(step - 1) >= now_s:
            step -= 1
        return step

    def steps_by(self, now_s: float) -> int:
        """Steps that are over at `now_s`."""
        steps = min(self._guess(now_s - self.start_s), self.steps)
        while steps < self.steps and self.end_of(steps + 1) <= now_s:
            steps += 1
        while steps > 0 and self.end_of(steps) > now_s:
            steps -= 1
        return steps

    def _guess(self, elapsed_s: float) -> int:
        """About the step under way: solves j * base + slope * rate * j (j - 1) / 2 = elapsed."""
        half = self.prices.slope_s * self._clock.tokens / self._clock.per_steps / 2
        linear = self.prices.base_s - half
        if half * elapsed_s < 1e-9 * linear * linear:  # nearly equal steps
            return 1 + int(elapsed_s / self.prices.base_s)
        return 1 + int((sqrt(linear * linear + 4 * half * elapsed_s) - linear) / (2 * half))
