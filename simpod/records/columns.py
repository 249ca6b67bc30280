"""What a run leaves behind, in columns; every statistic is a pure function of these."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEP_PARTS = (
    "attention",
    "projections",
    "ffn",
    "experts",
    "elementwise",
    "all_reduce",
    "latent_gather",
    "head_exchange",
    "dispatch",
    "dispatch_wait",
    "combine",
    "combine_wait",
    "a2e",
    "e2a",
    "head",
    "mtp",
    "sampling",
    "host_gap",
)
"""Parts of a step's time, in the order of every breakdown; they add up to the step."""

LIVE, FINISHED, REFUSED = 0, 1, 2
STATUS_NAMES = ("live", "finished", "refused")

PACE_ROUNDING = 1e-9
"""Of a product of tokens and `decode_pace`, before it is rounded down."""

TRANSFER_KINDS = ("kv", "cache_read", "write_back", "expert_weights", "migration", "demotion")
"""Prefill to decode; shared memory to prefill and back; between dies of experts; of a sequence."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestRecords:
    """One row a request that arrived, [n], by id; seconds, NaN where it has not come to that."""

    request_id: Ints
    status: Ints  # LIVE, FINISHED, REFUSED
    session_id: Ints
    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    cached_tokens: Ints  # prompt tokens found in the prefix cache or in the shared memory
    dram_tokens: Ints  # of these, read from DRAM, of the shared memory or of the host alone
    ssd_tokens: Ints  # of these, read from its SSD
    prefill_target: Ints  # rank within the mixed or prefill pool, instance x dp + rank; -1
    decode_target: Ints  # rank within the decode pool (= prefill_target in a mixed pool); -1
    cache_read_s: Floats  # time of reading from the shared memory
    scheduled_s: Floats  # start of the first step that worked for it
    prefill_end_s: Floats  # prompt computed
    barrier_wait_s: Floats  # share of its prefill steps in which its rank waited for slower ranks
    transfer_start_s: Floats  # KV pull begins (after back-pressure)
    transfer_end_s: Floats
    first_token_s: Floats  # with the client: behind a central frontend, if there is one
    finish_s: Floats
    engine_first_token_s: Floats  # end of its step
    engine_finish_s: Floats
    num_preemptions: Ints
    ledger: Ints  # index of the group whose decode ledger holds its tokens; -1
    first_decode_step: Ints  # decode steps first_decode_step+1 ... last_decode_step gave its tokens
    last_decode_step: Ints  # (of the last segment, if it was preempted)
    decode_pace: Floats  # tokens of a decode step over the mean of its group


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepRecords:
    """One row a *run* of steps: successive steps of a group in which nothing joined or left,
    [m]."""

    group: Ints  # index into RunRecords.groups
    first_step: Ints
    num_steps: Ints
    start_s: Floats
    end_s: Floats
    decode_seqs: Ints  # sequences that decode in each of the steps, all ranks
    context_tokens: Ints  # their resident tokens before the first step
    prefill_tokens: Ints  # prompt tokens computed
    slot_seqs: Ints  # sequences that hold a slot, all ranks: those that decode, prompts begun
    parts_s: Floats  # [m, len(STEP_PARTS)], sums over the run's steps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupRecords:
    """One lock-step group after the run: its decode ledger and what it was busy with."""

    pool: str
    instance: int
    decode_end_s: Floats  # [d]: when the tokens of decode step 1 ... d were with their clients
    decode_seqs: NDArray[np.integer]  # [d]: sequences in that step
    tokens_per_decode_step: tuple[
        int, int
    ]  # numerator, denominator: after s steps floor(s * n / d)
    busy_s: float  # time in steps
    num_steps: int
    num_preemptions: int
    peak_kv_frac: float  # KV in use at the fullest moment, share of the group's capacity


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolRecords:
    """One pool: what it is made of and how full it was."""

    name: str
    role: str
    instances: int
    num_dies: int
    num_npus: float
    max_num_seqs: int
    ranks: int  # instances x dp
    kv_capacity_tokens: int  # of one rank
    mean_slots_frac: (
        float  # time average of sequences holding a slot / slots, from first arrival on
    )
    mean_kv_frac: float  # time average of KV in use / capacity (at scheduling changes)
    mean_waiting_seqs: float
    mean_instances: float | None = None  # that had dies, over the run; None: always `instances`

    @property
    def average_instances(self) -> float:
        """Over the run."""
        return self.instances if self.mean_instances is None else self.mean_instances

    @property
    def average_ranks(self) -> float:
        """Over the run."""
        if self.mean_instances is None:
            return self.ranks
        return self.ranks * self.mean_instances / self.instances


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransferRecords:
    """One row a pair of endpoints of a transfer that has ended, [k]; -1: there is none."""

    request_id: Ints  # -1: of no request
    kind: Ints  # place in TRANSFER_KINDS
    plane: Ints  # place in `plane_names`
    source: (
        Ints  # target index in the prefill or mixed pool; of a migration in the pool that decodes
    )
    destination: Ints  # target index in the decode pool, or where a cached prefix is read to
    source_die: Ints
    destination_die: Ints
    host: Ints  # node whose memory is read or written
    start_s: Floats
    end_s: Floats
    size_bytes: Floats
    wait_s: Floats  # ready to be moved, and nobody took it: back-pressure
    alone_s: Floats  # what it would have taken on idle links
    plane_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkRecords:
    """One row an interval and link that carried something in it, [k]; one a link that never did."""

    start_s: Floats
    time_s: Floats  # end of the interval
    plane: Ints  # place in `plane_names`
    link: Ints  # place in `link_names`
    bytes_per_s: Floats  # mean of the interval
    used_frac: Floats  # of the link's rate
    plane_names: tuple[str, ...] = ()
    link_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlaneRecords:
    """One row a plane and interval, [k]; only if samples were asked for."""

    time_s: Floats  # end of the interval
    plane: Ints  # place in `plane_names`
    bytes_per_s: Floats  # sent into the plane by all endpoints
    share_frac: Floats  # of what they could send
    busiest_frac: Floats  # of the rate of the link that carried most of its own
    plane_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertRecords:
    """One row a placement that served, sparse layer and slot, [k]; loads are expected values."""

    pool: Ints  # place in `pool_names`
    start_s: Floats  # from when on the placement served
    end_s: Floats
    layer: Ints  # of the model, dense ones counted
    slot: Ints  # -1: the copy of the shared expert of a die
    die: Ints  # of the group that shares the experts
    expert: Ints  # that the slot held; -1: none, or the shared one
    tokens: Floats  # that reached the slot, of all instances
    expert_before: Ints  # that it would have held without a balancer
    tokens_before: Floats  # and what would have reached it
    pool_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMemoryRecords:
    """The shared memory after a run."""

    block_bytes: float
    dram_capacity_blocks: int
    ssd_capacity_blocks: int
    dram_held_blocks: int
    ssd_held_blocks: int
    lost_blocks: int  # copies that the last tier evicted
    dram_read_bytes: float
    own_host_read_bytes: float  # of these, from the memory of the reader's own host
    ssd_read_bytes: float
    dram_written_bytes: float  # write-back, and blocks that came back from SSD
    ssd_written_bytes: float  # blocks that DRAM evicted
    local_capacity_blocks: int = 0  # of all hosts, in the DRAM that serves their own dies
    local_held_blocks: int = 0
    local_lost_blocks: int = 0
    local_read_bytes: float = 0.0
    local_written_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeSeriesRecords:
    """One row a sample and pool, [k]; rates are means since the sample before."""

    time_s: Floats
    pool: Ints  # place in `pool_names`
    serving: Ints  # instances
    draining: Ints
    loading: Ints
    waiting_seqs: Ints
    running_seqs: Ints
    kv_frac: Floats  # of the instances that have dies
    prompt_tokens_per_s: Floats  # computed
    output_tokens_per_s: Floats  # of running decodes
    arrivals_per_s: Floats  # of the deployment, the same for all pools
    arrived_tokens_per_s: Floats  # their prompt tokens
    spare_dies: Ints  # of the deployment
    pool_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRecords:
    """What scaling did and took, over the whole run."""

    die_s: dict[str, dict[str, float]]  # pool -> serving, draining, loading -> dies x seconds
    spare_die_s: float
    num_added: int
    num_removed: int
    num_switched: int
    drain_s: tuple[float, ...]  # of each drain that has ended
    load_s: tuple[float, ...]  # of each load of weights that has ended
    mean_instances: dict[str, float]  # pool -> that had dies


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrontendRecords:
    """One row a message of a step to the central frontend, [m], in order of time."""

    time_s: Floats  # its step ended
    tokens: Ints
    work_s: Floats  # time that it took
    left_s: Floats  # its tokens were with their clients; may be after the end of a run cut off
    s_per_token: float  # of a process
    s_per_message: float
    processes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunRecords:
    """Everything that one run leaves behind."""

    requests: RequestRecords
    steps: StepRecords
    transfers: TransferRecords
    groups: tuple[GroupRecords, ...]
    pools: tuple[PoolRecords, ...]
    end_s: float  # when the simulation stopped
    links: LinkRecords | None = None  # if there is a fabric
    planes: PlaneRecords | None = None  # if it was asked for
    experts: ExpertRecords | None = None  # if experts have loads of their own
    shared_memory: SharedMemoryRecords | None = None  # if there is one
    timeseries: TimeSeriesRecords | None = None  # with a scaling policy, or if asked for
    scaling: ScalingRecords | None = None
    frontend: FrontendRecords | None = None  # if all tokens leave through one
    segments: Ints = field(default_factory=lambda: np.empty((0, 4), dtype=np.int64))
    """[s, 4] spans of decode steps before a preemption: request id, ledger, first, last step."""
