"""The SimPy processes: groups that step, a source that sends, transfers between them."""

from simpod.engine.simulation import PoolInputs, RunInputs, Simulation

__all__ = ["PoolInputs", "RunInputs", "Simulation"]
