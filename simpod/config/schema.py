"""The experiment file: what may stand in it, and what it means.

Every key has a default where vLLM has one. Values are checked strictly: `"8"` is not a number. What
takes more than one field to check (dies, memory, links) is in `checks`.
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt, MinLen
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from simpod.cluster.experts.routing import RoutingSpec
from simpod.config.libraries import Library
from simpod.cost.layout import AttentionParallelism
from simpod.cost.pipeline.jitter import UNMITIGATED, HostPause
from simpod.fields import Count, Frac, Index, NonNegative, Positive
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec
from simpod.records.measure import Measure
from simpod.records.slo import Slo
from simpod.workload.spec import WorkloadSpec

PoolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
OpenFrac = Annotated[float, Ge(0.01), Le(1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Mtp(_Section):
    """Multi-token prediction: draft tokens that a decode step verifies."""

    layers: Index = 1
    """Draft tokens per decode step, a chain: one counts only if all before it do; 0: none."""
    acceptance: Frac | tuple[Frac, ...] = 0.9
    """Share of drafts that are right where all before them were, mean over requests: one for all
    places, so that a step gives 1 + a + a^2 + ... tokens; or a list, one for each layer."""
    acceptance_std: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    """Standard deviation of that share between requests, each of which draws its own (beta law);
    not with a list of several."""
    pipelined: bool = True
    """Drafts are sampled on the die and a step is launched in one go; false: the host launches each
    layer apart, and the die waits `step_gap_s` for each (CloudMatrix-Infer 4.2.4: k + 1 dispatches
    of graphs)."""
    balanced: bool = True
    """`policies.experts` places the experts of MTP layers, too; false: they stay in order."""


class LaunchJitter(_Section):
    """Pauses of the dies' hosts before a launch; the longest of all dies holds up a step."""

    mitigations: tuple[str, ...] = ()
    """What is done about it, of the names that `causes` give in mitigated_by; those of the default
    (xDeepServe 4.4): gc, pinning, graph_cache: garbage is collected by hand, hosts are pinned to
    cores, graphs are reused without guards."""
    causes: tuple[HostPause, ...] = UNMITIGATED
    """Rate, length and remedy of each kind of pause; default: orders of magnitude, not measured."""


class Pool(_Section):
    """Instances of one role, all alike. Limits are per data-parallel rank, as in vLLM."""

    role: Literal["mixed", "prefill", "decode"] = "mixed"
    """mixed: both phases; a decode pool alone gets prompts with their KV, a prefill pool alone ends
    requests with the first token. attention and expert: two pools that are one decode instance, the
    second with dies and shared_expert_dies alone; the same as one with expert_dies."""
    instances: Count = 1
    """Replicas that are scheduled independently."""
    dies: Count | None = None
    """Dies (GPUs) of one instance; derived as dp x tp when left out."""
    dp: Count | None = None
    """Data-parallel ranks of one instance, in lock step; derived as dies / tp when left out."""
    tp: Count | None = None
    """Tensor-parallel dies of one rank; derived as dies / dp when left out."""
    attention_parallelism: AttentionParallelism = "tensor"
    """How tp dies share their prompts. tensor: all tokens on each, heads and feed-forward cut,
    all-reduces. sp_tp_sp (MLA): tokens apart but for attention itself, which is cut by head;
    down-projections, output projection and feed-forward whole on each."""
    ep: Count | Literal["all"] = 1
    """Dies that share the routed experts, all: every die of an instance; 1: every rank cuts each
    expert over its dies."""
    max_num_seqs: Count = 256
    """Sequences in one step of one rank."""
    max_step_tokens: Count = 8192
    """Tokens in one step of one rank."""
    max_model_len: Count | None = None
    """Longest prompt + output, longer ones are refused; default: what model and memory allow."""
    block_tokens: Count = 16
    """Tokens of one KV block."""
    memory_frac: OpenFrac = 0.9
    """Share of a die's memory that weights, buffers and KV may fill; with trtllm, share that KV may
    fill of what weights and buffers leave."""
    kv_blocks: Count | None = None
    """KV blocks of one rank; derived from memory when left out."""
    host_bytes_per_s: Positive | None = None
    """Link of a die to host memory, one way, for KV that a scheduler swaps out; null: none can."""
    prefix_caching: bool = True
    """Reuse KV blocks of equal prompt prefixes."""
    reserve_full_prompt: bool = True
    """Start a waiting prompt only where all of it would fit, not just its first chunk."""
    weight_dtype: Literal["auto", "bf16", "fp8", "int8", "fp4", "int4", "w4a8"] = "auto"
    """Data type of linear layers; auto: as published, int8 where a die has int8 but no fp8."""
    kv_dtype: Literal["auto", "bf16", "fp8", "int8"] = "auto"
    """Data type of the KV cache; auto: bf16. int8: the rotated key of mla stays bf16."""
    shared_expert_dies: Index = 0
    """Dies that hold a copy of the shared expert, reached by dispatch; 0: every die has one."""
    expert_dies: Index = 0
    """Dies of their own for the routed experts, beside `dies`, which then hold attention alone
    (MoE-attention disaggregation); 0: the experts are on `dies`."""
    domains: Count = 1
    """Of attention dies that take turns at the expert dies, with expert_dies."""
    micro_batches: Count = 1
    """Parts of a rank's batch, one with the experts while another is in attention; without
    expert_dies on two streams that split the cores of each die."""
    attention_cores: Count | None = None
    """Cores of each die (its `num_cores`) for the stream of attention, with micro_batches on one
    die; the stream of experts has the others. Default: two thirds, 16 of 24 (CloudMatrix-Infer
    4.2.3)."""
    micro_batch_tokens: Index = 32
    """A step of at most so many tokens of the fullest rank goes as one batch."""
    mtp: Mtp = Mtp(layers=0, acceptance=0.0)
    """Multi-token prediction in decode steps."""
    launch_jitter: LaunchJitter | None = None
    """Pauses of hosts that hold up steps; null: all of them are mitigated."""
    hardware: HardwareProfile | None = None
    """Hardware of this pool where it is not the experiment's: heterogeneous prefill and decode."""


class PolicyEntry(BaseModel):
    """A policy and, beside `use`, its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str
    """A built-in's name, package.module:Name, or ./file.py:Name."""

    @property
    def settings(self) -> dict[str, Any]:
        """Keys that are not the policy's."""
        return {}

    @property
    def params(self) -> dict[str, Any]:
        """The keys beside `use`."""
        return dict(self.model_extra or {})


class KvTransfer(_Section):
    """How KV gets from a prefill pool to a decode pool."""

    plane: Literal["scale_up", "scale_out", "vpc"] | None = None
    """Network plane; default: the fastest that joins both pools."""
    first_token_from: Literal["prefill", "decode"] = "decode"
    """Who streams the first token; the transfer falls into TTFT with decode, else into a gap."""
    contention: Literal["fabric", "none"] | None = None
    """fabric: transfers share the links of the pod; none: each has links of its own. Default:
    fabric where the pools share a pod whose profile has a topology."""
    layerwise: bool = False
    """Send layers while the prompt is computed; only the last layer remains after it."""


class Output(_Section):
    """Where tokens leave for their clients."""

    path: Literal["shortcut", "central"] = "shortcut"
    """shortcut: every data-parallel group detokenises and streams its own (xDeepServe), which takes
    no time; central: the tokens of all groups queue at one frontend."""
    s_per_token: NonNegative | None = None
    """central: time of one process for a token; default 26 us, assumed."""
    s_per_message: NonNegative | None = None
    """central: its time for a step that gives tokens, beside these; default 0."""
    processes: Count | None = None
    """central: processes that share the tokens of every step evenly; default 1."""


class FabricOptions(_Section):
    """The links of the pod in this run."""

    degrade: dict[str, Annotated[float, Ge(0), Le(1)]] = {}
    """Link or switch (pattern) -> share of its rate that is left; 0: it is lost."""
    exchanges: Literal["apart", "shared"] = "apart"
    """Dispatch, combine, A2E, E2A and all-reduce of steps: on links of their own, or shared with
    the transfers on the same plane. Shared takes up to half as much time again to simulate."""


class SharedMemory(_Section):
    """DRAM of hosts and an SSD tier as one pool of KV blocks that every prefill rank can read."""

    hosts: Count | None = None
    """Nodes whose DRAM is in the pool, from the first on; default: all."""
    dram_bytes_per_host: Positive
    """Share of a node's DRAM that is given to the pool."""
    local_bytes_per_host: NonNegative = 0.0
    """DRAM of every node that caches for its own dies alone, beside the pool; 0: none."""
    ssd_bytes: NonNegative = 0.0
    """SSD behind the pool, all of it; what DRAM evicts goes there. 0: none."""
    ssd_write_bytes_per_s: Positive | None = None
    """Most that all sockets of a host write to SSD together; default: what one socket sends over
    vpc."""
    block_tokens: Annotated[int, Ge(1)] = 128
    """Tokens of one block of the pool; 128 to 512 in CloudMatrix-Infer."""
    plane: Literal["scale_up", "vpc"] = "scale_up"
    """Network plane between dies and the pool's DRAM; SSD is behind vpc."""
    eviction: PolicyEntry = PolicyEntry(use="lru")
    """Which block goes first; a plain name stands for {use: name}."""
    replication: Count = 1
    """Copies of each block, on as many nodes."""
    virtual_nodes: Count = 64
    """Points of each memory on the ring of consistent hashing."""
    reads: Literal["before_step", "async", "layerwise"] | None = None
    """before_step: a group's next step waits until the prefixes that are being read are there;
    async: it goes on without those prompts; layerwise: their first layer is enough, the others come
    while the step is computed. Default: before_step, in a mixed pool async; layerwise waits for the
    first layer where these would for all."""
    write_back: bool = True
    """Write blocks of computed prompts into the pool."""


class ExpertPolicyEntry(PolicyEntry):
    """A balancer of experts, its parameters, and what there is to balance with."""

    redundant_slots: Index = 0
    """Expert slots beyond one an expert, in each instance of a pool with ep above 1."""

    every_s: Positive = 60.0
    """Time between decisions, each on the load since the one before."""

    staging_slots: Index | None = None
    """Weights of so many experts (of one layer each) are set aside on each die for those that a
    change brings; null: what memory_frac leaves. Where a change needs more, slots are out of
    service while the fabric brings their weights, and a ring of single copies stops the pool."""

    initial_placement: Literal["balanced", "in_order"] = "balanced"
    """balanced: at the start the balancer knows who is popular; in_order: nothing is known, experts
    lie in order (SGLang: trivial) until it decides on what it has seen after `every_s`."""

    @property
    def settings(self) -> dict[str, Any]:
        """Keys that are not the policy's."""
        return {
            "redundant_slots": self.redundant_slots,
            "every_s": self.every_s,
            "staging_slots": self.staging_slots,
            "initial_placement": self.initial_placement,
        }


class ScalingPolicyEntry(PolicyEntry):
    """A scaling policy, its parameters, what it sees, and what a change takes."""

    every_s: Positive = 10.0
    """Time between decisions; a multiple of sample_s."""
    sample_s: Positive = 1.0
    """Time between samples of the load, which timeseries.parquet holds."""
    window_s: Positive = 60.0
    """Samples and finished requests that the policy sees; a multiple of sample_s."""
    spare_dies: Index = 0
    """Dies beside those of the deployment, for instances that are added."""
    drain: Literal["wait", "recompute"] = "wait"
    """What runs on an instance that drains: ends there, or is computed again on others."""
    weights_from: Literal["pool", "host", "store"] = "pool"
    """Whence an instance loads its weights: memory of all hosts, over the fabric where the run has
    one; its own hosts' DRAM; or the object store."""
    start_s: NonNegative = 0.0
    """Start of an engine, before its weights are loaded."""

    @property
    def settings(self) -> dict[str, Any]:
        """Keys that are not the policy's."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "use"}


class Policies(_Section):
    """Who decides; a plain name stands for {use: name}."""

    router: PolicyEntry | None = None
    """Chooses the rank of a request, where there is one pool; default least_requests."""
    prefill_router: PolicyEntry | None = None
    """Chooses the prefill rank; default least_tokens."""
    prefill_leader: PolicyEntry | None = None
    """Gives waiting prompts to the ranks of a prefill instance before each step; default: none, a
    prompt stays at the rank to which the router sent it."""
    decode_router: PolicyEntry | None = None
    """Chooses the decode rank; default least_kv."""
    batching: PolicyEntry | None = None
    """Chooses the prompts of a step; default fcfs."""
    admission: PolicyEntry | None = None
    """Lets requests in or refuses them; default always."""
    length_predictor: PolicyEntry | None = None
    """Predicts output lengths for policies that use them; default none."""
    prefix_eviction: PolicyEntry | None = None
    """Which idle block of a rank's prefix cache goes first; default lru."""
    migration: PolicyEntry | None = None
    """Moves running requests between the ranks that decode; default none."""
    experts: ExpertPolicyEntry | None = None
    """Chooses the expert of each slot from the load seen; default: in order, none redundant."""
    scaling: ScalingPolicyEntry | None = None
    """Adds, removes and switches instances of the pools; default none."""


class Engine(_Section):
    """How the simulator works, and which engine it imitates."""

    skip_ahead: bool = True
    """Take steps in which nothing joins or leaves in one go; the records are the same without."""
    semantics: (
        Literal[
            "vllm-v1",
            "sglang",
            "trtllm",
            "flowserve",
            "cloudmatrix-infer",
            "cann-recipes",
            "vllm-ascend",
        ]
        | None
    ) = None
    """Whose rules a step follows; default: flowserve on Ascend, vllm-v1 elsewhere."""
    samples_s: Positive | None = None
    """Record the load of every pool at this interval, in timeseries.parquet; default: never, with
    policies.scaling at its sample_s."""
    max_graph_tokens: Annotated[int, Ge(0), Le(1_000_000)] | None = None
    """Largest batch that is captured as a graph, 0: none is; of requests with trtllm, sglang and on
    Ascend, where every batch up to it is a graph of its own, of tokens with vllm-v1; default: that
    of the semantics. Not with micro_batches or expert_dies."""
    graph_batch_sizes: (
        Literal["any"]
        | Annotated[tuple[Annotated[int, Ge(1), Le(1_000_000)], ...], MinLen(1)]
        | None
    ) = None
    """Batches that are captured as graphs, of requests or tokens as max_graph_tokens; any: all,
    none is padded; default: those of the semantics, with flowserve one of max_num_seqs for pools
    that decode alone, and one of micro_batch_tokens for their small batches."""
    max_piece_tokens: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    """Largest step with prompts that runs as pieces of graphs, cut at each attention; default:
    none, with vllm-v1 up to the largest batch."""
    step_gap_s: NonNegative | None = None
    """Between two steps a die waits so long for its host; default: that of the semantics."""
    launch_skew_s: NonNegative | None = None
    """Hosts of a group launch a step so much apart: a usual die waits so long for the last one at
    the first dispatch; default: that of the semantics. Not with expert_dies, where the gap has
    it."""
    eager_launch_s: NonNegative | None = None
    """Host time of one kernel that no graph covers; default: that of the semantics."""
    experts_library: Library | None = None
    """Whose kernels run the experts, where the hardware profile has several of their format:
    TensorRT-LLM's moe_config.backend (generated: TRTLLM); default: the usual."""
    link_samples_s: Positive | None = None
    """Record the use of links and planes at this interval; default: of links, over the run."""


class Experiment(_Section):
    """One question: this model, on this hardware, deployed so, under this load."""

    name: str = Field(default="experiment", min_length=1)
    """How reports call it; the file's name when left out."""
    seed: Index = 0
    """Of every random stream; the same seed gives the same bytes."""
    model: ModelSpec
    """A name of models/, a path to a YAML file or a HuggingFace config.json, or the numbers."""
    hardware: HardwareProfile
    """A name of hardware_profiles/, a path, or the numbers."""
    workload: WorkloadSpec
    """The requests: a trace, or arrivals and lengths; or a name of workloads/, or a path."""
    deployment: dict[PoolName, Pool] = Field(min_length=1)
    """Pools by name: one mixed, one prefill and one decode, or one of these alone."""
    kv_transfer: KvTransfer = KvTransfer()
    """From the prefill pool to the decode pool."""
    output: Output = Output()
    """From the groups to the clients."""
    fabric: FabricOptions = FabricOptions()
    """Lost and slow links."""
    shared_memory: SharedMemory | None = None
    """Memory of many hosts as one cache of prompt prefixes."""
    policies: Policies = Policies()
    """Routing and batching."""
    expert_routing: RoutingSpec | None = None
    """Which experts are popular: balanced, zipf, correlated, power_law_<alpha>, or a mapping; null:
    all alike, and no die gets more than another even by chance."""
    slo: Slo = Slo()
    """What a request is promised, or a preset's name such as mlperf/deepseek-r1-interactive."""
    measure: Measure = Measure()
    """Which requests count."""
    engine: Engine = Engine()
    """Speed of the simulator, and what it records."""
