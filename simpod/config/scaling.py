"""Scaling of an experiment: whether it can, and the dies that it has to do it with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Final, Literal

from simpod.cluster.pool_spec import PoolSpec
from simpod.config.network import moves_experts
from simpod.config.nodes import Path
from simpod.config.problems import Problems
from simpod.config.schema import Experiment, ScalingPolicyEntry
from simpod.hardware.spec import HardwareProfile

_AT: Final[Path] = ("policies", "scaling")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedScaling:
    """The settings of `policies.scaling` that are not the policy's.

    most_instances: of each pool, when all others have one.
    """

    every_s: float
    sample_s: float
    window_s: float
    spare_dies: int
    drain: Literal["wait", "recompute"]
    weights_from: Literal["pool", "host", "store"]
    start_s: float
    most_instances: tuple[int, ...]


def resolve_scaling(
    experiment: Experiment,
    pools: Sequence[PoolSpec],
    hardware: Mapping[str, HardwareProfile],
    problems: Problems,
) -> ResolvedScaling | None:
    """Check `policies.scaling`; None without it."""
    wanted = experiment.policies.scaling
    if wanted is None:
        return None
    _check_times(wanted, problems)
    _check_company(experiment, problems)
    sizes = [pool.layout.all_dies for pool in pools]
    used = sum(pool.instances * size for pool, size in zip(pools, sizes, strict=True))
    _check_dies(wanted, used, [hardware[pool.name] for pool in pools], problems)
    total = used + wanted.spare_dies
    return ResolvedScaling(
        every_s=wanted.every_s,
        sample_s=wanted.sample_s,
        window_s=wanted.window_s,
        spare_dies=wanted.spare_dies,
        drain=wanted.drain,
        weights_from=wanted.weights_from,
        start_s=wanted.start_s,
        most_instances=tuple((total - (sum(sizes) - size)) // size for size in sizes),
    )


def _check_times(wanted: ScalingPolicyEntry, problems: Problems) -> None:
    """Decisions and windows fall on samples."""
    for name in ("every_s", "window_s"):
        ratio = getattr(wanted, name) / wanted.sample_s
        if ratio < 0.5 or not isclose(ratio, round(ratio), rel_tol=1e-9):
            problems.at(
                (*_AT, name),
                f"{getattr(wanted, name):g} is no multiple of sample_s {wanted.sample_s:g}",
                allowed=f"{wanted.sample_s:g}, {2 * wanted.sample_s:g}, ...",
                show_value=False,
            )


def _check_company(experiment: Experiment, problems: Problems) -> None:
    """What does not go together with scaling."""
    if experiment.engine.samples_s is not None:
        problems.at(
            ("engine", "samples_s"),
            "policies.scaling takes samples at its own interval",
            hint="use policies.scaling.sample_s",
            show_value=False,
        )
    if experiment.policies.migration is not None:
        problems.at(
            ("policies", "migration"),
            "requests do not migrate between instances that come and go: not modelled",
            hint="leave out policies.migration or policies.scaling",
            show_value=False,
        )
    if moves_experts(experiment):
        problems.at(
            ("expert_routing",),
            "weights of experts do not move between instances that come and go: not modelled",
            hint="a popularity that stays and that the balancer knows, or no policies.scaling",
            show_value=False,
        )


def _check_dies(
    wanted: ScalingPolicyEntry, used: int, profiles: Sequence[HardwareProfile], problems: Problems
) -> None:
    """One kind of dies, and as many as there are."""
    if any(profile != profiles[0] for profile in profiles):
        problems.at(
            _AT,
            "pools on different hardware have no dies in common: not modelled",
            show_value=False,
        )
    if used + wanted.spare_dies > profiles[0].num_dies:
        problems.at(
            (*_AT, "spare_dies"),
            f"the pools have {used} of {profiles[0].num_dies} dies of {profiles[0].name}",
            allowed=f"0 to {max(0, profiles[0].num_dies - used)}",
        )
