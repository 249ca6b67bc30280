"""From an experiment's scaling policy to what the engine needs of it."""

from dataclasses import replace
from typing import cast

from simpod.cluster import ElasticPlacement, Placement, PoolSpec
from simpod.cluster.shared_memory import ModelCache
from simpod.config import ResolvedExperiment
from simpod.engine import ScalingInputs, WeightsOverFabric
from simpod.model.weights import weight_bytes
from simpod.policies import resolve
from simpod.policies.roles import Scaling


def largest(experiment: ResolvedExperiment) -> tuple[PoolSpec, ...]:
    """The pools with all the instances that each can get; as they are, without a policy."""
    if experiment.scaling is None:
        return experiment.pools
    most = experiment.scaling.most_instances
    pairs = zip(experiment.pools, most, strict=True)
    return tuple(replace(pool, instances=number) for pool, number in pairs)


def scaling_inputs(
    experiment: ResolvedExperiment, placements: tuple[Placement, ...]
) -> ScalingInputs | None:
    """The policy and the costs of a change; None without a policy."""
    scaling, ref = experiment.scaling, experiment.policies.get("scaling")
    if scaling is None or ref is None:
        return None
    make = resolve("scaling", ref)
    pools = experiment.pools
    return ScalingInputs(
        make_policy=lambda: cast(Scaling, make()),
        policy_name=f"{ref.use} (policies.scaling)",
        every_s=scaling.every_s,
        sample_s=scaling.sample_s,
        window_s=scaling.window_s,
        placements=cast("tuple[ElasticPlacement, ...]", placements),
        start_instances=tuple(pool.instances for pool in pools),
        dies_per_instance=tuple(pool.layout.all_dies for pool in pools),
        spare_dies=scaling.spare_dies,
        load_s=tuple(load_s(experiment, pool) for pool in pools),
        start_s=scaling.start_s,
        keeps_weights=all(pool.layout == pools[0].layout for pool in pools),
        over_fabric=weights_over_fabric(experiment),
        recomputes=scaling.drain == "recompute",
    )


def load_s(experiment: ResolvedExperiment, pool: PoolSpec) -> float:
    """Time to load the weights of one instance when nobody else loads: `ModelCache`."""
    scaling = experiment.scaling
    layout = pool.layout
    cache = ModelCache(
        weight_bytes=weight_bytes(experiment.model, layout.weight_dtype, layout.mtp_layers),
        num_instances=1,
        num_models=1,
    )
    if scaling is None or scaling.weights_from == "store":
        return cache.figures("none").cold_start_s
    warm_s = cache.figures("pool" if scaling.weights_from == "pool" else "local").warm_start_s
    return warm_s or 0.0


def weights_over_fabric(experiment: ResolvedExperiment) -> WeightsOverFabric | None:
    """Where the run has a fabric that CPUs are on, weights of the pool go over its links."""
    scaling = experiment.scaling
    profile = experiment.hardware[experiment.pools[0].name]
    on = [name for name, plane in profile.topology.planes.items() if plane.cpu_bytes_per_s > 0]
    if scaling is None or scaling.weights_from != "pool" or not experiment.network.needs_fabric:
        return None
    if not on:
        return None
    return WeightsOverFabric(
        plane="scale_up" if "scale_up" in on else on[0],
        num_cpus=profile.host.num_cpus * profile.num_nodes,
        die_bytes=tuple(experiment.memory[pool.name].weight_bytes for pool in experiment.pools),
    )
