"""An experiment with nothing left open: what a run needs, and where each value came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from simpod.cluster.experts.routing import RoutingSpec
from simpod.cluster.pool_spec import PoolSpec
from simpod.config.network import ResolvedNetwork
from simpod.config.scaling import ResolvedScaling
from simpod.cost.frontend import Frontend
from simpod.cost.memory import MemoryPlan
from simpod.cost.semantics import Semantics
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec
from simpod.policies.roles import PolicyRef
from simpod.records.measure import Measure
from simpod.records.slo import Slo
from simpod.workload.spec import WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedExperiment:
    """Valid by construction: loading raises for everything that can be known before the run.

    pools: one, or the prefill pool and then the decode pool.
    hardware, memory: by pool name; memory is the plan of one rank's dies.
    policies: by key: `batching` and `router`, or `prefill_router` and `decode_router`.
    kv_plane: name of the plane that carries KV from prefill to decode; None with one pool.
    frontend: through which all tokens leave; None: each group sends its own.
    document: the whole experiment in plain dicts and lists (JSON), canonical keys, all numbers of
    model and hardware; loading it again gives the same experiment.
    origins: dotted key of each leaf of `document` -> `file:line`, `--set`, `default` or
    `derived: how`.
    """

    name: str
    seed: int
    model: ModelSpec
    pools: tuple[PoolSpec, ...]
    hardware: Mapping[str, HardwareProfile]
    workload: WorkloadSpec
    policies: Mapping[str, PolicyRef]
    expert_routing: RoutingSpec | None
    rebalance_every_s: float | None
    staging_slots: int | None
    starts_in_order: bool
    """Experts, whose balancer then decides on what it sees."""
    kv_plane: str | None
    first_token_from: Literal["prefill", "decode"]
    frontend: Frontend | None
    slo: Slo
    measure: Measure
    skip_ahead: bool
    samples_s: float | None
    semantics: Semantics
    network: ResolvedNetwork
    scaling: ResolvedScaling | None
    memory: Mapping[str, MemoryPlan]
    document: Mapping[str, Any]
    origins: Mapping[str, str]

    @property
    def is_disaggregated(self) -> bool:
        """Prefill and decode in pools of their own."""
        return len(self.pools) == 2
