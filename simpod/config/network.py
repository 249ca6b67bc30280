"""Links and shared memory of an experiment: what runs over the fabric, and whether it can."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from simpod.cluster.experts.routing import may_change
from simpod.cluster.fabric import build_graph, degraded
from simpod.cluster.placement import num_kv_shards
from simpod.cluster.pool_spec import PoolSpec
from simpod.cluster.shared_memory import SharedMemorySpec
from simpod.config.layouts import Derived
from simpod.config.nodes import Path
from simpod.config.problems import Problems, listed
from simpod.config.schema import Experiment, SharedMemory
from simpod.cost.collectives import kv_bytes_per_token
from simpod.errors import ConfigError
from simpod.hardware.spec import HardwareProfile
from simpod.policies.resolve import resolve
from simpod.policies.roles import PolicyRef

_SHARED: Final = "shared_memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSharedMemory:
    """The pool of memory, how it is reached, and who decides what stays."""

    spec: SharedMemorySpec
    plane: str
    eviction: PolicyRef
    waits_for_reads: bool
    layerwise: bool
    write_back: bool
    ssd_write_bytes_per_s: float  # of a host


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedNetwork:
    """What runs over the fabric.

    contends: KV transfers share its links; otherwise each has links of its own.
    degrade: link or switch -> share of its rate that is left.
    shares_exchanges: exchanges of steps are on the links of transfers.
    """

    contends: bool = False
    layerwise: bool = False
    degrade: Mapping[str, float] = field(default_factory=dict)
    shares_exchanges: bool = False
    link_samples_s: float | None = None
    shared_memory: ResolvedSharedMemory | None = None
    moves_experts: bool = False
    migrates: bool = False

    @property
    def needs_fabric(self) -> bool:
        """Something is moved over links that are shared."""
        users = (self.contends, self.shared_memory, self.moves_experts, self.migrates)
        return any(users)


def starts_in_order(experiment: Experiment) -> bool:
    """Experts lie in order at first, and their balancer decides on what it sees."""
    balancer = experiment.policies.experts
    return (
        balancer is not None
        and experiment.expert_routing is not None
        and balancer.initial_placement == "in_order"
    )


def moves_experts(experiment: Experiment) -> bool:
    """Whether experts may change places in a run."""
    return may_change(experiment.expert_routing) or starts_in_order(experiment)


def resolve_network(
    experiment: Experiment,
    pools: tuple[PoolSpec, ...],
    hardware: Mapping[str, HardwareProfile],
    problems: Problems,
    derived: Derived,
) -> ResolvedNetwork:
    """Check and complete `kv_transfer.contention`, `fabric`, `shared_memory`, `link_samples_s`."""
    profile = hardware[pools[0].name]
    network = ResolvedNetwork(
        contends=_contends(experiment, pools, hardware, problems, derived),
        layerwise=experiment.kv_transfer.layerwise and len(pools) == 2,
        degrade=experiment.fabric.degrade,
        shares_exchanges=experiment.fabric.exchanges == "shared",
        link_samples_s=experiment.engine.link_samples_s,
        shared_memory=_shared_memory(experiment, pools[0], profile, problems, derived),
        moves_experts=moves_experts(experiment),
        migrates=experiment.policies.migration is not None
        and experiment.kv_transfer.contention != "none"
        and hardware[pools[-1].name] == profile
        and bool(profile.topology.planes),
    )
    if network.moves_experts and any(hardware[pool.name] != profile for pool in pools):
        problems.at(
            ("expert_routing",),
            "experts move between slots as the balancer decides, over one fabric; the pools here"
            " are in different pods",
            show_value=False,
        )
    given = {
        ("fabric", "degrade"): bool(network.degrade),
        ("engine", "link_samples_s"): network.link_samples_s is not None,
    }
    for path, is_given in given.items():
        if is_given and not network.needs_fabric and experiment.shared_memory is None:
            problems.at(
                path,
                "nothing runs over the fabric here: no KV transfer that shares links, no"
                " shared_memory, no experts that change places, no migration;"
                " exchanges of steps take the rates of the profile's planes",
                show_value=False,
            )
    _check_degrade(network.degrade, profile, problems)
    return network


def _contends(
    experiment: Experiment,
    pools: tuple[PoolSpec, ...],
    hardware: Mapping[str, HardwareProfile],
    problems: Problems,
    derived: Derived,
) -> bool:
    """KV transfers share links: by default where there is a topology that both pools are in."""
    if len(pools) == 1:
        return False
    source, destination = (hardware[pool.name] for pool in pools)
    given = experiment.kv_transfer.contention
    if given == "fabric" and source != destination:
        problems.at(
            ("kv_transfer", "contention"),
            f"{pools[0].name} ({source.name}) and {pools[1].name} ({destination.name}) are in"
            " different pods, whose links are not known as one fabric",
            allowed="none",
        )
    if given is not None:
        return given == "fabric"
    contends = source == destination and bool(source.topology.planes)
    why = (
        f"{source.name} has a topology"
        if contends
        else "the pools are in different pods"
        if source != destination
        else f"{source.name} has no topology"
    )
    derived["kv_transfer", "contention"] = ("fabric" if contends else "none", why)
    return contends


def _check_degrade(
    degrade: Mapping[str, float], profile: HardwareProfile, problems: Problems
) -> None:
    """Every name is that of a link or a switch."""
    if not degrade:
        return
    graph = build_graph(profile)
    for name, frac in degrade.items():
        try:
            degraded(graph, {name: frac})
        except ConfigError as error:
            problems.at(("fabric", "degrade", name), str(error), show_value=False)


def _shared_memory(
    experiment: Experiment,
    entry: PoolSpec,
    profile: HardwareProfile,
    problems: Problems,
    derived: Derived,
) -> ResolvedSharedMemory | None:
    wanted = experiment.shared_memory
    if wanted is None:
        return None
    unit_tokens = _unit_tokens(experiment, wanted, problems)
    if entry.role == "decode":
        problems.at((_SHARED,), "prompts come with their KV: there is no prefill to save")
    _check_reach(wanted, profile, problems)
    ref = PolicyRef(use=wanted.eviction.use, params=wanted.eviction.params)
    _check_eviction(ref, problems)
    hosts = wanted.hosts or profile.num_nodes
    if wanted.hosts is None:
        derived[_SHARED, "hosts"] = (hosts, f"all nodes of {profile.name}")
    _check_sizes(wanted, hosts, profile, problems)
    if not unit_tokens:
        return None
    per_token = kv_bytes_per_token(experiment.model, entry.layout)
    shards = num_kv_shards(experiment.model.attention, entry.layout.tp)
    spec = SharedMemorySpec(
        hosts=hosts,
        sockets_per_host=profile.host.num_cpus,
        dram_bytes_per_host=wanted.dram_bytes_per_host,
        ssd_bytes=wanted.ssd_bytes,
        block_bytes=per_token * shards * unit_tokens,
        block_tokens=unit_tokens,
        replication=wanted.replication,
        virtual_nodes=wanted.virtual_nodes,
        local_bytes_per_host=wanted.local_bytes_per_host,
    )
    _check_blocks(spec, problems)
    return ResolvedSharedMemory(
        spec=spec,
        plane=wanted.plane,
        eviction=ref,
        waits_for_reads=_waits(wanted, entry, problems, derived),
        layerwise=wanted.reads == "layerwise",
        write_back=wanted.write_back,
        ssd_write_bytes_per_s=_ssd_writes(wanted, profile, problems, derived),
    )


def _check_blocks(spec: SharedMemorySpec, problems: Problems) -> None:
    """Memory that is there holds at least one block."""
    if not spec.dram_blocks:
        problems.at(
            (_SHARED, "dram_bytes_per_host"),
            f"each of {spec.sockets_per_host} sockets gets less than one block of"
            f" {spec.block_bytes:,.0f} bytes",
            allowed=f"at least {spec.block_bytes * spec.sockets_per_host:,.0f}",
        )
    if spec.local_bytes_per_host and not spec.local_blocks:
        problems.at(
            (_SHARED, "local_bytes_per_host"),
            f"less than one block of {spec.block_bytes:,.0f} bytes",
            allowed=f"0, or at least {spec.block_bytes:,.0f}",
        )


def _ssd_writes(
    wanted: SharedMemory, profile: HardwareProfile, problems: Problems, derived: Derived
) -> float:
    """Bytes per second of a host into its SSD: as given, or what its card takes from a socket."""
    key = "ssd_write_bytes_per_s"
    if not wanted.ssd_bytes:
        if wanted.ssd_write_bytes_per_s is not None:
            problems.at((_SHARED, key), "there is no SSD to write to (ssd_bytes is 0)")
        return 0.0
    if wanted.ssd_write_bytes_per_s is not None:
        return wanted.ssd_write_bytes_per_s
    vpc = profile.topology.planes.get("vpc")
    rate = vpc.cpu_bytes_per_s if vpc is not None else 0.0
    derived[_SHARED, key] = (rate, f"a socket of {profile.name} over vpc")
    return rate


def _waits(wanted: SharedMemory, entry: PoolSpec, problems: Problems, derived: Derived) -> bool:
    """Whether steps wait for reads: not where decodes would wait with them."""
    if wanted.reads == "before_step" and entry.role == "mixed":
        problems.at(
            (_SHARED, "reads"),
            "decodes of a mixed pool would stand still",
            allowed="async, layerwise",
        )
    waits = entry.role == "prefill"
    if wanted.reads is not None:
        return wanted.reads == "before_step" or (wanted.reads == "layerwise" and waits)
    value = "before_step" if waits else "async"
    derived[_SHARED, "reads"] = (value, f"usual in a {entry.role} pool")
    return waits


def _unit_tokens(experiment: Experiment, wanted: SharedMemory, problems: Problems) -> int:
    """Tokens of a block that has a name: of the pool's blocks and the workload's the larger."""
    named = experiment.workload.prefix_block_tokens
    if not named:
        problems.at(
            (_SHARED,),
            "the workload names no prefixes, so nothing could be found again",
            hint="leave it out (shared_memory: null), or give workload.sessions,"
            " workload.shared_prefix or a trace with prefixes",
        )
        return 0
    if max(named, wanted.block_tokens) % min(named, wanted.block_tokens):
        problems.at(
            (_SHARED, "block_tokens"),
            f"{wanted.block_tokens} and the workload's blocks of {named} tokens: neither divides"
            " the other, so no prefix could be found again",
        )
        return 0
    return max(named, wanted.block_tokens)


def _check_reach(wanted: SharedMemory, profile: HardwareProfile, problems: Problems) -> None:
    """CPUs are on the planes that are used."""
    on = [name for name, wiring in profile.topology.planes.items() if wiring.cpu_bytes_per_s > 0]
    where = listed(on) if on else "nothing: no plane of its topology has CPUs (cpu_bytes_per_s)"
    if wanted.plane not in on:
        path: Path = (_SHARED, "plane") if on else (_SHARED,)
        problems.at(path, f"the CPUs of {profile.name} are not on {wanted.plane}", allowed=where)
    if wanted.ssd_bytes and "vpc" not in on:
        problems.at(
            (_SHARED, "ssd_bytes"),
            f"SSD is reached over vpc, and the CPUs of {profile.name} are not on it",
            allowed="0",
        )


def _check_sizes(
    wanted: SharedMemory, hosts: int, profile: HardwareProfile, problems: Problems
) -> None:
    if hosts > profile.num_nodes:
        problems.at(
            (_SHARED, "hosts"),
            f"{profile.name} has {profile.num_nodes} nodes",
            allowed=f"at most {profile.num_nodes}",
        )
    if wanted.dram_bytes_per_host + wanted.local_bytes_per_host > profile.host.dram_bytes:
        path: Path = (_SHARED, "dram_bytes_per_host")
        room, beside = profile.host.dram_bytes, ""
        if wanted.local_bytes_per_host:
            path, beside = (_SHARED, "local_bytes_per_host"), " beside what the pool gets"
            room -= wanted.dram_bytes_per_host
        problems.at(
            path,
            f"a node of {profile.name} has {profile.host.dram_bytes:,.0f} bytes of DRAM",
            allowed=f"at most {max(0.0, room):,.0f}{beside}",
        )
    if wanted.replication > hosts:
        problems.at(
            (_SHARED, "replication"),
            "copies lie on different nodes",
            allowed=f"at most {hosts}, the number of hosts",
        )


def _check_eviction(ref: PolicyRef, problems: Problems) -> None:
    """The policy loads; what `resolve` says of `policies.eviction` is told at its own place."""
    try:
        resolve("eviction", ref)
    except ConfigError as error:
        for text in error.problems:
            what = text.removeprefix("policies.eviction").lstrip(".: ")
            problems.at((_SHARED, "eviction", "use"), what, show_value=False)
