"""The experts of a pool: from routing and balancer to the loads that its steps are priced with."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np

from simpod.cluster import PoolSpec
from simpod.cluster.experts.loads import DrawnLoads
from simpod.cluster.experts.placement import ExpertPlacement, SlotsSeen, expert_slots, in_order
from simpod.cluster.experts.reconfiguration import aligned, reconfiguration
from simpod.cluster.experts.routing import Popularity, RouterDims, after, popularity
from simpod.config import ResolvedExperiment
from simpod.cost.collectives import group_link
from simpod.errors import PolicyError
from simpod.hardware.spec import HardwareProfile
from simpod.model.weights import weight_parts
from simpod.policies import PolicyRef, resolve
from simpod.policies.expert_checks import placement_problems
from simpod.policies.roles import ExpertBalancer, Floats, Ints
from simpod.workload import Stream

SEEN_TOKENS = 1e6
"""Tokens of the load that the balancer is shown: large, so that it is the popularity itself."""
DEFAULT_EVERY_S = 60.0
READ_AND_WRITTEN = 2.0
"""Times that a weight crosses memory when it is copied into its slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancing:
    """Who decides on placements, how often, and how fast weights move."""

    balancer: ExpertBalancer
    name: str
    every_s: float
    expert_bytes: float
    link_bytes_per_s: float
    hbm_bytes_per_s: float

    def decide(self, load: Floats, seen: SlotsSeen) -> Ints:
        """The balancer's decision, checked."""
        load.flags.writeable = False
        try:
            experts = self.balancer(load, seen)
        except Exception as error:  # the policy's code: whatever it raises, it is to blame
            raise PolicyError(self.name, f"raised {error!r}") from error
        problem = next(placement_problems(load, seen, experts), None)
        if problem is not None:
            raise PolicyError(self.name, problem)
        return experts


class ExpertTimeline:
    """Popularity and placement over time; the same for all instances of a pool.

    At the start the balancer knows the popularity. Then it decides every `every_s` on the mean
    popularity since it decided last, and its placement serves once the weights are there.
    """

    def __init__(
        self, popular: Popularity, start: ExpertPlacement, balancing: Balancing, seed: int
    ) -> None:
        self._popular, self._balancing, self._seed = popular, balancing, seed
        self._shares = popular.at(0.0)
        self._placement = aligned(start, self._decide(start, self._shares))
        self._seen = np.zeros(self._shares.shape)
        self._counted_s = self._decided_s = 0.0
        self._next_s = balancing.every_s
        self._coming: tuple[float, ExpertPlacement] | None = None
        self._loads = self._drawn()
        self.moved_bytes = 0.0
        """Weights that crossed the fabric so far."""

    @property
    def loads(self) -> DrawnLoads:
        """At present."""
        return self._loads

    def until_s(self, now_s: float) -> float:
        """When loads may change next."""
        popular_s = self._popular.until_s(now_s)
        if popular_s == inf:
            return inf
        return min(popular_s, self._next_s, self._coming[0] if self._coming else inf)

    def advance(self, now_s: float) -> bool:
        """Go on to now; has anything changed? Decisions that are due are made one by one."""
        if self._popular.until_s(0.0) == inf:
            return False
        before = (self._shares, self._placement)
        while self._next_s <= now_s:
            self._count(self._next_s)
            self._rebalance(self._next_s)
            self._next_s = after(self._next_s, self._balancing.every_s)
        if self._coming and self._coming[0] <= now_s:
            self._placement, self._coming = self._coming[1], None
        self._count(now_s)
        self._shares = self._popular.at(now_s)
        changed = before[0] is not self._shares or before[1] is not self._placement
        if changed:
            self._loads = self._drawn()
        return changed

    def _count(self, now_s: float) -> None:
        self._seen = self._seen + self._shares * (now_s - self._counted_s)
        self._counted_s = now_s

    def _rebalance(self, now_s: float) -> None:
        if self._coming:
            self._placement, self._coming = self._coming[1], None
        load = self._seen / (now_s - self._decided_s)
        experts = self._decide(self._placement, load)
        self._seen, self._decided_s = np.zeros(load.shape), now_s
        new = aligned(self._placement, experts)
        if np.array_equal(new.experts, self._placement.experts):
            return
        change = reconfiguration(self._placement, new, self._balancing.expert_bytes)
        self.moved_bytes += change.transfers.total_bytes
        fetch_s = change.transfers.busiest_bytes / self._balancing.link_bytes_per_s
        local_bytes = sum(change.local_bytes(wave) for wave in change.waves)
        copy_s = READ_AND_WRITTEN * local_bytes / self._balancing.hbm_bytes_per_s
        self._coming = (now_s + fetch_s + copy_s, new)

    def _decide(self, placement: ExpertPlacement, shares: Floats) -> Ints:
        seen = SlotsSeen(placement=placement, tokens=SEEN_TOKENS)
        return self._balancing.decide(shares * SEEN_TOKENS, seen)

    def _drawn(self) -> DrawnLoads:
        return DrawnLoads.of(self._placement, self._shares, self._seed)


def expert_timeline(
    experiment: ResolvedExperiment, spec: PoolSpec, stream: Stream
) -> ExpertTimeline | None:
    """Of a pool; None without routing, or where no ranks share experts."""
    routing, moe, layout = experiment.expert_routing, experiment.model.moe, spec.layout
    if routing is None or moe is None or layout.ep == 1 or layout.dp == 1 or layout.moe_tp > 1:
        return None
    hardware = experiment.hardware[spec.name]
    slots = expert_slots(
        num_dies=layout.ep,
        num_experts=moe.num_experts,
        redundant_slots=layout.redundant_slots,
        shared_copies=layout.shared_expert_dies,
        dies_per_node=hardware.dies_per_node,
    )
    dims = RouterDims(
        num_layers=experiment.model.num_moe_layers,
        num_experts=moe.num_experts,
        top_k=moe.experts_per_token,
    )
    return ExpertTimeline(
        popularity(routing, dims, stream("expert_routing")),
        ExpertPlacement(slots=slots, experts=in_order(slots, dims.num_layers)),
        _balancing(experiment, spec, hardware),
        int(stream("expert_loads").integers(2**31)),
    )


def _balancing(
    experiment: ResolvedExperiment, spec: PoolSpec, hardware: HardwareProfile
) -> Balancing:
    ref = experiment.policies.get("experts", PolicyRef("none"))
    every_s = experiment.rebalance_every_s or DEFAULT_EVERY_S
    return Balancing(
        balancer=resolve("experts", ref)(),
        name=f"{ref.use} (policies.experts)",
        every_s=every_s,
        expert_bytes=weight_parts(experiment.model, spec.layout.weight_dtype).expert_bytes,
        link_bytes_per_s=group_link(hardware, spec.layout.ep).bytes_per_s,
        hbm_bytes_per_s=hardware.die.hbm_bytes_per_s,
    )


def renewal(
    timeline: ExpertTimeline, renew: Callable[[DrawnLoads], None]
) -> Callable[[float], float]:
    """What the engine calls before a step: prices follow the timeline; until when they hold."""

    def bring_up_to(now_s: float) -> float:
        if timeline.advance(now_s):
            renew(timeline.loads)
        return timeline.until_s(now_s)

    return bring_up_to
