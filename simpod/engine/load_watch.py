"""Samples of the load of every pool at a fixed interval, where no scaling policy takes them."""

from typing import TYPE_CHECKING

from simpod.engine.load_samples import Finishes, LoadSamples

if TYPE_CHECKING:
    from simpod.engine.simulation import Simulation


class LoadWatch:
    """Takes a sample every `sample_s` as long as anything happens."""

    def __init__(self, sim: "Simulation", sample_s: float) -> None:
        self.samples = LoadSamples(sim, sample_s)
        self._sim = sim
        self._finishes = Finishes(sim, 0.0, self.samples.ended)
        self._states = [(pool.spec.instances, 0, 0) for pool in sim.pools]
        self._ticks = 0
        self._call_next()

    def _call_next(self) -> None:
        self._ticks += 1
        self._sim.clock.tick_at(self._ticks * self.samples.sample_s, self._tick)

    def _tick(self) -> None:
        self._finishes.catch_up()
        self.samples.take(self._states, 0)
        if self._sim.clock.is_busy and not self._sim.is_over:
            self._call_next()
