"""All that a run depends on, made by `run` from an experiment."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from simpod.cluster import PoolSpec
from simpod.cluster.fabric import Fabric
from simpod.cost import KvTransfer, Pricer, PromptLaunches
from simpod.cost.frontend import Frontend
from simpod.engine.context_cache import CacheInputs
from simpod.engine.exchange_flows import ExchangeSite
from simpod.engine.expert_moves import ExpertPath
from simpod.engine.kv_mover import KvPath
from simpod.engine.scaling import ScalingInputs
from simpod.hardware import TransferLaw
from simpod.policies import (
    Admission,
    BatchScheduler,
    CachePolicy,
    Migration,
    Prediction,
    PrefillLeader,
    Router,
)
from simpod.records.columns import Floats
from simpod.workload import Requests

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolInputs:
    """A pool and all that its groups need; factories make one policy for each rank or router."""

    spec: PoolSpec
    pricer: Pricer
    renew_prices: Callable[[float], float] | None = None
    """Brings prices up to now; returns until when they hold. None: always."""
    dies_per_npu: int
    make_router: Callable[[], Router]
    router_name: str
    router_rng: np.random.Generator
    pause_rng: np.random.Generator
    expert_path: ExpertPath | None = None  # None: placements of experts stay
    exchange_sites: tuple[ExchangeSite, ...] = ()  # of instances whose exchanges meet flows
    host_link: KvTransfer | None = None  # of one rank to host memory; None: no swapping
    late_launches: PromptLaunches | None = None  # that first tokens wait for; None: for nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInputs:
    """All that a run depends on; `entry` gets the requests, `decode` takes over."""

    seed: int
    requests: Requests
    entry: PoolInputs
    decode: PoolInputs | None = None
    make_batching: Callable[[], BatchScheduler]
    batching_name: str
    orders_pulls: bool = True  # by the batch scheduler; False: it takes prompts as they come
    make_leader: Callable[[], PrefillLeader] | None = None  # None: prompts stay at their ranks
    leader_name: str = ""
    transfer: KvTransfer | None = None
    kv_path: KvPath | None = None
    fabric: Fabric | None = None
    link_samples_s: float | None = None
    cache: CacheInputs | None = None
    first_token_from_decode: bool = False
    ttft_target_s: float = float("inf")
    tpot_target_s: float = float("inf")
    prediction: Prediction | None = None
    decode_pace: Floats | None = None
    """[n] tokens of a decode step of each request over its group's mean; None: all alike."""
    make_admission: Callable[[], Admission] | None = None  # None: everybody is let in
    admission_name: str = ""
    make_eviction: Callable[[], CachePolicy] | None = None  # of prefix caches; None: LRU
    eviction_name: str = ""
    make_migration: Callable[[], Migration] | None = None  # in the pool that decodes
    migration_name: str = ""
    migration_law: KvTransfer | None = None  # on idle links
    migration_plane: str = "scale_up"
    migration_over: TransferLaw | None = None  # over the fabric; None: over links of its own
    scaling: ScalingInputs | None = None  # then a pool has the most instances that it can get
    samples_s: float | None = None  # of the load, where no scaling policy takes samples
    frontend: Frontend | None = None  # where all tokens leave; None: each group sends its own
    steps_ahead: int = 0
    """Steps that are planned when a prompt arrives at ranks at work."""
    skip_ahead: bool = True
    duration_s: float | None = None
    on_progress: Progress | None = field(default=None, compare=False)
