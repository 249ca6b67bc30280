"""Where the exchanges of steps meet the flows of a run."""

from collections.abc import Callable, Iterator, Sequence

from simpod.cluster import ElasticPlacement, Placement, PoolSpec, place_in_order
from simpod.config import ResolvedExperiment
from simpod.cost import ExchangeTraffic
from simpod.cost.collectives import group_plane
from simpod.engine import ExchangeSite
from simpod.run.scaling import weights_over_fabric


def flow_planes(experiment: ResolvedExperiment) -> tuple[str, ...]:
    """Planes that carry flows: of KV first, then of prefixes, migrations and weights."""
    network, planes = experiment.network, []
    if network.contends and experiment.kv_plane is not None:
        planes.append(experiment.kv_plane)
    if network.shared_memory is not None:
        planes.append(network.shared_memory.plane)
    if network.migrates:
        planes.append(migration_plane(experiment))
    if network.moves_experts:
        planes += [expert_plane(experiment, pool) for pool in experiment.pools]
    if (weights := weights_over_fabric(experiment)) is not None:
        planes.append(weights.plane)
    return tuple(dict.fromkeys(planes))


def migration_plane(experiment: ResolvedExperiment) -> str:
    """What joins all dies of the pool that decodes."""
    pool = experiment.pools[-1]
    num_dies = pool.instances * pool.layout.all_dies
    return group_plane(experiment.hardware[pool.name], num_dies).name


def expert_plane(experiment: ResolvedExperiment, pool: PoolSpec) -> str:
    """What joins the dies that hold one set of experts."""
    (placement,) = place_in_order([pool])
    return group_plane(experiment.hardware[pool.name], len(placement.expert_sets[0])).name


def exchange_sites(
    experiment: ResolvedExperiment, spec: PoolSpec, placement: Placement
) -> tuple[tuple[ExchangeSite, ...], ExchangeTraffic | None]:
    """Where exchanges of a pool's steps meet flows, and what they put there: on the first plane.

    Nowhere if the experiment keeps them apart, or if the pool's dies are not those of the fabric.
    """
    hardware, entry = experiment.hardware[spec.name], experiment.pools[0]
    if not experiment.network.shares_exchanges or hardware != experiment.hardware[entry.name]:
        return (), None
    for plane in flow_planes(experiment):
        traffic = ExchangeTraffic(
            experiment.model, hardware, spec.layout, experiment.semantics, plane
        )
        if traffic.is_there:
            return tuple(_sites(spec, placement, plane)), traffic
    return (), None


def _sites(spec: PoolSpec, placement: Placement, plane: str) -> Iterator[ExchangeSite]:
    for instance in range(spec.instances):
        yield ExchangeSite(
            plane=plane,
            dies=_dies_of(spec, placement, instance),
            num_rank_dies=spec.layout.dies,
        )


def _dies_of(spec: PoolSpec, placement: Placement, instance: int) -> Callable[[], Sequence[int]]:
    if isinstance(placement, ElasticPlacement):
        return lambda: placement.dies_of[instance]
    targets = range(instance * spec.layout.dp, (instance + 1) * spec.layout.dp)
    dies = [die for target in targets for die in placement.dies(target)]
    if spec.layout.expert_dies:
        dies += placement.expert_sets[instance]
    return lambda: dies
