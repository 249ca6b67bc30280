"""The experts of a pool: from routing and balancer to the loads that its steps are priced with."""

from simpod.cluster import PoolSpec
from simpod.cluster.experts.loads import DrawnLoads
from simpod.cluster.experts.placement import ExpertPlacement, SlotsSeen, expert_slots, in_order
from simpod.cluster.experts.routing import RouterDims, popularity
from simpod.config import ResolvedExperiment
from simpod.errors import PolicyError
from simpod.policies import PolicyRef, resolve
from simpod.policies.expert_checks import placement_problems
from simpod.policies.roles import Floats, Ints
from simpod.workload import Stream

SEEN_TOKENS = 1e6
"""Tokens of the load that the balancer is shown: large, so that it is the popularity itself."""


def pool_loads(experiment: ResolvedExperiment, spec: PoolSpec, stream: Stream) -> DrawnLoads | None:
    """Loads of a pool's experts once the balancer knows their popularity; None without routing.

    The popularity is that of the start; it is the same in all instances.
    """
    routing, moe, layout = experiment.expert_routing, experiment.model.moe, spec.layout
    if routing is None or moe is None or layout.ep == 1 or layout.dp == 1 or layout.moe_tp > 1:
        return None
    slots = expert_slots(
        num_dies=layout.ep,
        num_experts=moe.num_experts,
        redundant_slots=layout.redundant_slots,
        shared_copies=layout.shared_expert_dies,
        dies_per_node=experiment.hardware[spec.name].dies_per_node,
    )
    dims = RouterDims(
        num_layers=experiment.model.num_moe_layers,
        num_experts=moe.num_experts,
        top_k=moe.experts_per_token,
    )
    shares = popularity(routing, dims, stream("expert_routing")).at(0.0)
    start = ExpertPlacement(slots=slots, experts=in_order(slots, dims.num_layers))
    experts = _balanced(
        experiment, shares * SEEN_TOKENS, SlotsSeen(placement=start, tokens=SEEN_TOKENS)
    )
    seed = int(stream("expert_loads").integers(2**31))
    return DrawnLoads.of(ExpertPlacement(slots=slots, experts=experts), shares, seed)


def _balanced(experiment: ResolvedExperiment, load: Floats, seen: SlotsSeen) -> Ints:
    """The balancer's decision, checked."""
    ref = experiment.policies.get("experts", PolicyRef("none"))
    load.flags.writeable = False
    try:
        experts: Ints = resolve("experts", ref)()(load, seen)
    except Exception as error:  # the policy's code: whatever it raises, it is to blame
        raise PolicyError(f"{ref.use} (policies.experts)", f"raised {error!r}") from error
    problem = next(placement_problems(load, seen, experts), None)
    if problem is not None:
        raise PolicyError(f"{ref.use} (policies.experts)", problem)
    return experts
