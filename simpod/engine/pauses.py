"""Pauses of hosts before launches: in each step the dies wait for the longest of all.

The n-th step of a group is held up by the n-th draw of its stream, whatever it computes: so steps
that are skipped and steps that are walked through take the same time.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from simpod.cost.pipeline.jitter import HostPause, sample_max_s

Floats = NDArray[np.float64]

DRAWN_AT_ONCE = 4096


class StepPauses:
    """The longest pause of `num_dies` dies in every step of a group."""

    def __init__(
        self, causes: Sequence[HostPause], num_dies: int, rng: np.random.Generator
    ) -> None:
        self._causes = causes
        self._num_dies = num_dies
        self._rng = rng
        self._sums = [0.0]  # of all steps before

    def before(self, step: int) -> float:
        """Seconds of the pauses of all steps before `step`, counted from 0."""
        while step >= len(self._sums):
            drawn = sample_max_s(self._causes, self._num_dies, DRAWN_AT_ONCE, self._rng)
            self._sums += (self._sums[-1] + np.cumsum(drawn)).tolist()
        return self._sums[step]

    def since(self, first: int) -> Callable[[int], float]:
        """Seconds of the pauses of so many steps from step `first` on."""
        before, base_s = self.before, self.before(first)
        return lambda steps: before(first + steps) - base_s

    def sums(self, num_steps: int) -> Floats:
        """[num_steps + 1] `before` for all steps up to the end."""
        self.before(num_steps)
        return np.array(self._sums[: num_steps + 1])
