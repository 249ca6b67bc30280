"""From an experiment's links and shared memory to what the engine needs of them."""

from dataclasses import dataclass
from typing import Final

from simpod.cluster import (
    ElasticKvRoutes,
    ElasticPlacement,
    KvRoutes,
    Placement,
    num_kv_shards,
    place_in_order,
)
from simpod.cluster.fabric import (
    Fabric,
    build_graph,
    degraded,
    freeze,
    transfer_law,
    whole_fabric,
    with_ssd,
)
from simpod.config import ResolvedExperiment
from simpod.cost import KvTransfer, kv_bytes_per_token, kv_transfer
from simpod.engine import CacheInputs, KvPath
from simpod.errors import ConfigError
from simpod.hardware import HardwareProfile, TransferLaw
from simpod.policies import resolve
from simpod.run.exchanges import flow_planes, migration_plane

_LIBRARY_PLANES: Final = {"scale_up": "ub", "scale_out": "rdma"}
"""How the fitted bulk transfers of a KV library call the planes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What a run moves, and over what."""

    placements: tuple[Placement, ...]
    transfer: KvTransfer | None
    kv_path: KvPath | None
    fabric: Fabric | None
    cache: CacheInputs | None
    migration_plane: str
    migration_law: TransferLaw | None


def links_of(experiment: ResolvedExperiment) -> Links:
    """Transfers, fabric and shared memory of an experiment."""
    placements = _placements(experiment)
    fabric = _fabric(experiment) if experiment.network.needs_fabric else None
    _check_ends(experiment, fabric, placements)
    profile = experiment.hardware[experiment.pools[-1].name]
    plane = migration_plane(experiment) if "migration" in experiment.policies else "scale_up"
    return Links(
        placements=placements,
        transfer=_transfer(experiment),
        kv_path=_kv_path(experiment, placements),
        fabric=fabric,
        cache=_cache(experiment, placements[0]),
        migration_plane=plane,
        migration_law=kv_law(profile, plane) if experiment.network.migrates else None,
    )


def kv_law(profile: HardwareProfile, plane: str) -> TransferLaw:
    """Of one KV transfer: a KV library's measured reads, else its writes, else the plane's own."""
    library = _LIBRARY_PLANES.get(plane, plane)
    names = [f"hixl/p2p_{verb}/{library}" for verb in ("read", "write")]
    known = [name for name in names if name in profile.kernels.exchange]
    return transfer_law(profile, (known or [plane])[0])


def _placements(experiment: ResolvedExperiment) -> tuple[Placement, ...]:
    """Pools of one pod take its dies in order; in pods of their own each begins with the first."""
    profiles = [experiment.hardware[pool.name] for pool in experiment.pools]
    if (scaling := experiment.scaling) is not None:
        placements = place_in_order(experiment.pools)
        used = sum(pool.instances * pool.layout.all_dies for pool in experiment.pools)
        num_dies = used + scaling.spare_dies
        return tuple(
            ElasticPlacement(first_die=0, dp=each.dp, tp=each.tp, num_dies=num_dies)
            for each in placements
        )
    if all(profile == profiles[0] for profile in profiles):
        return place_in_order(experiment.pools)
    return tuple(place_in_order([pool])[0] for pool in experiment.pools)


def _fabric(experiment: ResolvedExperiment) -> Fabric:
    """The pod's links, as far as they are left, and those into the SSD of a shared memory."""
    profile = experiment.hardware[experiment.pools[0].name]
    lost, shared = experiment.network.degrade, experiment.network.shared_memory
    fabric = freeze(degraded(build_graph(profile), lost)) if lost else whole_fabric(profile)
    if shared is not None and shared.spec.ssd_bytes:
        return with_ssd(fabric, "vpc", shared.ssd_write_bytes_per_s)
    return fabric


def _check_ends(
    experiment: ResolvedExperiment, fabric: Fabric | None, placements: tuple[Placement, ...]
) -> None:
    """Every die that transfers has a way in and out of the plane that they take."""
    if fabric is None:
        return
    for plane in flow_planes(experiment):
        arrays = fabric.planes[plane]
        lost = [
            die
            for placement in placements
            for die in range(placement.first_die, placement.first_die + placement.num_dies)
            if arrays.up_links[die] < 0 or arrays.down_links[die] < 0
        ]
        if lost:
            raise ConfigError(
                f"fabric.degrade: die/{lost[0]} has no link into {plane} left, over which its"
                f" transfers go ({len(lost)} such dies are in use)"
            )


def _transfer(experiment: ResolvedExperiment) -> KvTransfer | None:
    if experiment.kv_plane is None:
        return None
    prefill, decode = experiment.pools
    return kv_transfer(
        experiment.model,
        experiment.hardware[decode.name],
        experiment.kv_plane,
        prefill.layout,
        decode.layout,
    )


def _kv_path(experiment: ResolvedExperiment, placements: tuple[Placement, ...]) -> KvPath | None:
    if experiment.kv_plane is None:
        return None
    attention = experiment.model.attention
    prefill, decode = experiment.pools
    profile = experiment.hardware[decode.name]
    return KvPath(
        plane=experiment.kv_plane,
        routes=(ElasticKvRoutes if experiment.scaling else KvRoutes)(
            prefill=placements[0],
            decode=placements[1],
            prefill_shards=num_kv_shards(attention, prefill.layout.tp),
            decode_shards=num_kv_shards(attention, decode.layout.tp),
        ),
        law=kv_law(profile, experiment.kv_plane) if experiment.network.contends else None,
        layerwise=experiment.network.layerwise,
        num_layers=experiment.model.num_layers,
    )


def _cache(experiment: ResolvedExperiment, placement: Placement) -> CacheInputs | None:
    shared = experiment.network.shared_memory
    if shared is None:
        return None
    entry = experiment.pools[0]
    profile = experiment.hardware[entry.name]
    measured = shared.plane == "scale_up" and "read_cpu" in profile.topology.transfers
    read, write = ("read_cpu", "write_cpu") if measured else (shared.plane, shared.plane)
    return CacheInputs(
        spec=shared.spec,
        make_policy=resolve("eviction", shared.eviction),
        policy_name=f"{shared.eviction.use} (shared_memory.eviction)",
        read_law=transfer_law(profile, read),
        write_law=transfer_law(profile, write),
        ssd_law=transfer_law(profile, "vpc") if shared.spec.ssd_bytes else None,
        local_law=_local_law(profile, shared.plane) if shared.spec.local_blocks else None,
        placement=placement,
        num_shards=num_kv_shards(experiment.model.attention, entry.layout.tp),
        die_bytes_per_token=kv_bytes_per_token(experiment.model, entry.layout),
        waits_for_reads=shared.waits_for_reads,
        num_layers=experiment.model.num_layers if shared.layerwise else None,
        write_back=shared.write_back,
    )


def _local_law(profile: HardwareProfile, plane: str) -> TransferLaw:
    """Of a die and its own host's DRAM: as measured, else over the plane of the pool."""
    return transfer_law(profile, "read_cpu" if "read_cpu" in profile.topology.transfers else plane)
