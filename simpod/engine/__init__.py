"""The SimPy processes: groups that step, a source that sends, transfers between them."""

from simpod.engine.context_cache import CacheInputs
from simpod.engine.exchange_flows import ExchangeSite
from simpod.engine.expert_moves import ExpertPath
from simpod.engine.inputs import PoolInputs, RunInputs
from simpod.engine.kv_mover import KvPath
from simpod.engine.scaling import ScalingInputs, WeightsOverFabric
from simpod.engine.simulation import Simulation

__all__ = [
    "CacheInputs",
    "ExchangeSite",
    "ExpertPath",
    "KvPath",
    "PoolInputs",
    "RunInputs",
    "ScalingInputs",
    "Simulation",
    "WeightsOverFabric",
]
