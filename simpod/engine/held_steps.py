"""The steps of a group whose exchanges share links with flows: runs that follow its progress."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simpod.cost import StepPrices, StepTraffic
from simpod.engine.steps import StepRun, TokenClock
from simpod.engine.warp import Warp, WarpedRun
from simpod.errors import InvariantError
from simpod.records.columns import STEP_PARTS

if TYPE_CHECKING:
    from simpod.engine.group import Group

Floats = NDArray[np.float64]

GROWTH_FRAC = 0.01
"""A run ends before its steps have grown by more than this share: what a step moves is stated
anew, and the share of it in a step's time."""


class HeldSteps:
    """Begins the runs of a group, and remembers what each of them moves."""

    def __init__(self, group: "Group", on_begin: Callable[[], None]) -> None:
        self._group = group
        self._on_begin = on_begin
        self.warp = Warp()
        self.run: WarpedRun | None = None  # the last that has begun
        self.traffic: StepTraffic | None = None  # of its steps; None: the group is idle
        self.base_s = 0.0  # of the first of them, on idle links
        self.slow = 0.0
        """Time that moving takes longer at present, of what it takes on idle links."""
        self._starts_s: list[float] = []  # progress at the start of every run
        self.traffics: list[StepTraffic] = []  # of a step of every run

    def begin(
        self, start_s: float, prices: StepPrices, first: int, steps: int, clock: TokenClock
    ) -> StepRun:
        """A run that begins now."""
        traffic = prices.traffic
        if traffic is None:
            raise InvariantError("prices that don't say what a step moves")
        self.traffic, self.base_s = traffic, prices.base_s
        self.restate(start_s, prices)
        self._on_begin()
        ledger = self._group.ledger
        held_s = ledger.pauses.since(ledger.num_steps) if ledger.pauses is not None else None
        self.run = run = WarpedRun(start_s, prices, first, steps, clock, (self.warp, held_s))
        if prices.slope_s * clock.at(steps) > GROWTH_FRAC * prices.base_s:
            tokens = int(GROWTH_FRAC * prices.base_s / prices.slope_s)
            run.cut(max(1, clock.step_of(clock.at(first) + tokens) - first))
        self._starts_s.append(run.start_progress_s)
        self.traffics.append(traffic)
        return run

    @property
    def num_runs(self) -> int:
        """That have begun."""
        return len(self.traffics)

    def restate(self, now_s: float, prices: StepPrices) -> None:
        """Progress from now on, with steps of these prices."""
        traffic = self.traffic
        exposed_s = traffic.exposed_s if traffic is not None else 0.0
        self.warp.set(now_s, exposed_s * self.slow / prices.base_s)

    def restate_run(self, now_s: float, *, walks: bool) -> None:
        """The same for the run under way, whose end moves."""
        run = self.run
        if run is None or self.traffic is None:
            return
        before = self.warp.stretch
        self.restate(now_s, run.prices)
        if self.warp.stretch != before:
            run.end_s = run.end_of(run.steps)
            due = min(run.steps_by(now_s) + 1, run.steps) if walks else run.steps
            self._group.set_end(run.end_of(due))

    def rest(self, now_s: float) -> None:
        """The group falls idle."""
        self.traffic = None
        self.warp.set(now_s, 0.0)

    # --- after the run --------------------------------------------------------------------------

    def starts(self, num_runs: int) -> Floats:
        """[num_runs] progress at the start of each run."""
        return np.array(self._starts_s[:num_runs])

    def whens(self, progress_s: Floats, end_s: Floats) -> Floats:
        """[n] ends of steps by the progress at which they come; no later than their runs' [n]."""
        return np.asarray(np.minimum(self.warp.whens(progress_s), end_s))

    def moved_bytes(self, times_s: Floats, column: int, first: int, last: int) -> Floats:
        """[n] bytes that a die of a kind has moved in runs first to last - 1 up to times [n].

        Evenly over each run.
        """
        start_s, end_s, steps = (each[first:last] for each in self._group.ledger.spans())
        if not len(steps):
            return np.zeros(len(times_s))
        moved = [traffic.die_bytes[column] for traffic in self.traffics[first:][: len(steps)]]
        after = np.cumsum(steps * np.array(moved))
        knots = np.stack([np.append(0.0, after[:-1]), after], axis=1)
        knots_s = np.stack([start_s, end_s], axis=1)
        return np.asarray(np.interp(times_s, knots_s.ravel(), knots.ravel()))

    def parts_s(self, late_s: Floats) -> Floats:
        """[num_runs, NUM_PARTS] what runs took longer, `late_s` in all, by where it was moving."""
        found = np.zeros((len(late_s), len(STEP_PARTS)))
        for run in (late_s > 0.0).nonzero()[0].tolist():
            for part, share in self.traffics[run].shares:
                found[run, part] = share * late_s[run]
        return found
