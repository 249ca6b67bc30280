"""The shape of a deployment: roles that go together, and the plane between two pools."""

from collections.abc import Mapping, Sequence
from typing import Final

from simpod.config.problems import Problems, listed
from simpod.config.schema import Experiment
from simpod.hardware.spec import HardwareProfile

_SHAPES: Final = (("mixed",), ("prefill",), ("decode",), ("decode", "prefill"))
DEFAULT_POLICIES: Final[Mapping[str, str]] = {
    "router": "least_requests",
    "prefill_router": "least_tokens",
    "decode_router": "least_kv",
    "batching": "fcfs",
}
"""What decides when the file does not say."""
OPTIONAL_POLICIES: Final = (
    "prefill_leader",
    "admission",
    "length_predictor",
    "prefix_eviction",
    "migration",
)
"""Asked only if the file names them: else requests are let in, lengths are unknown, the least
recently used block goes, and nobody moves, no prompt to another rank either."""


def ordered_pools(experiment: Experiment, problems: Problems) -> tuple[str, ...] | None:
    """Pool names, prefill before decode; None and the problem if the roles do not go together."""
    roles = tuple(sorted(pool.role for pool in experiment.deployment.values()))
    if roles not in _SHAPES:
        problems.at(
            ("deployment",),
            f"pools with the roles {listed(roles)}",
            allowed="one mixed pool; one prefill and one decode pool; one prefill pool alone"
            " (requests end with the first token); one decode pool alone (prompts come with KV)",
        )
        return None
    return tuple(
        sorted(experiment.deployment, key=lambda name: experiment.deployment[name].role == "decode")
    )


def policy_keys(num_pools: int) -> tuple[str, ...]:
    """The policies that a deployment needs."""
    routers = ("prefill_router", "decode_router") if num_pools == 2 else ("router",)
    return (*routers, "batching")


def check_policy_keys(experiment: Experiment, num_pools: int, problems: Problems) -> None:
    """A policy that nobody would ask is a mistake."""
    needed = (*policy_keys(num_pools), *OPTIONAL_POLICIES, "experts", "scaling")
    for key in experiment.policies.model_fields_set:
        if key not in needed and getattr(experiment.policies, key) is not None:
            pools = "prefill and decode pools" if num_pools == 2 else "one pool"
            problems.at(("policies", key), f"is not used with {pools}", allowed=listed(needed))
    has_prefill = any(pool.role == "prefill" for pool in experiment.deployment.values())
    if experiment.policies.prefill_leader is not None and not has_prefill:
        problems.at(("policies", "prefill_leader"), "there is no pool with the role prefill")


def kv_plane(
    experiment: Experiment,
    pools: Sequence[str],
    hardware: Mapping[str, HardwareProfile],
    problems: Problems,
) -> str | None:
    """The plane from the prefill pool to the decode pool; None with one pool or no link."""
    given = experiment.kv_transfer.plane
    if len(pools) == 1:
        if "kv_transfer" in experiment.model_fields_set:
            problems.at(("kv_transfer",), "there is one pool, nothing is transferred")
        return None
    source, destination = hardware[pools[0]], hardware[pools[1]]
    joining = _joining(source, destination)
    ends = f"{pools[0]} ({source.name}) and {pools[1]} ({destination.name})"
    if not joining:
        problems.at(("deployment",), f"no link between {ends}: no plane of scope pod in both")
        return None
    if given is not None and given not in joining:
        problems.at(
            ("kv_transfer", "plane"), f"no link between {ends} on {given}", allowed=listed(joining)
        )
    return given or joining[0]


def _joining(source: HardwareProfile, destination: HardwareProfile) -> tuple[str, ...]:
    """Planes that join two pools, fastest first.

    In one pod every plane of scope pod does, and in a single node all planes; between two different
    pods the scale-up fabrics are apart.
    """
    same = source == destination
    names = [
        name
        for name, plane in source.planes.items()
        if (other := destination.planes.get(name)) is not None
        and (plane.scope == other.scope == "pod" or (same and source.num_nodes == 1))
        and (same or name != "scale_up")
    ]

    def speed(name: str) -> float:
        return min(source.planes[name].bytes_per_s, destination.planes[name].bytes_per_s)

    return tuple(sorted(names, key=speed, reverse=True))
