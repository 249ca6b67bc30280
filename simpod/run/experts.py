"""The experts of a pool: from routing and balancer to the loads that its steps are priced with."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from simpod.cluster import Placement, PoolSpec
from simpod.cluster.experts.loads import ExactSampler, LoadSampler, MomentSampler
from simpod.cluster.experts.placement import ExpertPlacement, SlotsSeen, expert_slots, in_order
from simpod.cluster.experts.reconfiguration import Reconfiguration, Wave, aligned, reconfiguration
from simpod.cluster.experts.routing import Popularity, RouterDims, RoutingSpec, after, popularity
from simpod.cluster.fabric import transfer_law
from simpod.config import ResolvedExperiment
from simpod.cost.collectives import group_plane
from simpod.cost.expert_imbalance import LoadModel
from simpod.cost.layout import Layout
from simpod.cost.memory import expert_die_bytes
from simpod.engine import ExpertPath
from simpod.errors import InvariantError, PolicyError, blaming
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
    """Who decides on placements, how often, and how fast weights are copied into slots."""

    balancer: ExpertBalancer
    name: str
    every_s: float
    expert_bytes: float
    hbm_bytes_per_s: float
    staging_bytes: float = inf
    """Of a die, for weights that wait for their slots."""
    starts_in_order: bool = False
    """The first decision is that on the load of the first `every_s`."""

    def decide(self, load: Floats, seen: SlotsSeen) -> Ints:
        """The balancer's decision, checked."""
        load.flags.writeable = False
        with blaming(self.name):
            experts = self.balancer(load, seen)
        problem = next(placement_problems(load, seen, experts), None)
        if problem is not None:
            raise PolicyError(self.name, problem)
        return experts

    def note(self) -> str:
        """What the balancer says of its last decision; mostly nothing."""
        note = getattr(self.balancer, "note", "")
        return f"{self.name}: {note}" if note else ""


@dataclass(frozen=True, slots=True)
class _Stage:
    """A placement that serves for so long at least."""

    placement: ExpertPlacement
    lasts_s: float


class ExpertTimeline:
    """Popularity and placement over time; the same for all instances of a pool.

    At the start the balancer knows the popularity, unless experts start in order. Then it decides
    every `every_s` on the mean popularity since it decided last, unless a change is still under
    way; a popularity that stays tells it nothing new. Slots change in waves: in
    each, some leave the map, for a step at least, and come back with their new expert. Weights have
    been fetched before, all of them, if there is memory for them on each die; else those of a wave
    are fetched while its slots are out of the map.
    """

    def __init__(
        self,
        popular: Popularity,
        start: ExpertPlacement,
        balancing: Balancing,
        sampler: LoadSampler,
        left_layers: int = 0,
    ) -> None:
        """left_layers: the last ones, whose experts stay where they are at the start."""
        self._popular, self._balancing, self._sampler = popular, balancing, sampler
        self.note = ""
        """What the balancer had to say last of a decision of its."""
        self._balanced = start.num_layers - left_layers
        self._shares = popular.at(0.0)
        self._is_asked = not balancing.starts_in_order
        self._placement = start
        if self._is_asked:
            self._placement = aligned(start, self._ask(start, self._shares))
        self._seen = np.zeros(self._shares.shape)
        self._counted_s = self._decided_s = 0.0
        self._change: Reconfiguration | None = None  # under way
        self._waves: deque[Wave] = deque()  # that fetch their weights themselves; the first does
        self._stages: deque[_Stage] = deque()  # what is still to serve, once the weights are there
        self._until_s = -inf  # the present stage
        self._loads = self._draw()
        self.start = start
        """What would serve if nobody balanced."""
        self.history = [(0.0, self._shares, self._placement)]
        """From when on which popularity [num_layers, num_experts] and placement served; waves of a
        change count to the placement before it."""

    @property
    def loads(self) -> LoadModel:
        """At present."""
        return self._loads

    @property
    def is_fixed(self) -> bool:
        """Popularity stays, and so does the placement of the start."""
        return self._popular.until_s(0.0) == inf and not self._balancing.starts_in_order

    @property
    def next_decision_s(self) -> float:
        """When the balancer is asked next; infinity: never, since nothing will be new."""
        if self._is_asked and self._popular.until_s(0.0) == inf:
            return inf
        return after(self._decided_s, self._balancing.every_s)

    def until_s(self, now_s: float) -> float:
        """When loads may change next; with stages ahead at the end of any step."""
        if self._stages:
            return max(now_s, self._until_s)
        return self._popular.until_s(now_s)

    @property
    def is_in_place(self) -> bool:
        """What is to be fetched goes into slots that are out of the map."""
        return bool(self._waves)

    @property
    def holds_steps(self) -> bool:
        """These slots hold the only copies of experts."""
        return bool(self._waves) and self._waves[0].during is None

    def decide(self, now_s: float) -> list[tuple[int, int, float]]:
        """Ask the balancer; returns what is to be fetched: source, destination die and bytes."""
        self._count(now_s)
        load = self._seen / (now_s - self._decided_s)
        self._seen, self._decided_s = np.zeros(load.shape), now_s
        if self._change is not None:
            return []
        self._is_asked = True
        new = aligned(self._placement, self._ask(self._placement, load))
        if np.array_equal(new.experts, self._placement.experts):
            return []
        change = reconfiguration(self._placement, new, self._balancing.expert_bytes)
        self._change = change
        if change.transfers.staged_bytes > self._balancing.staging_bytes:
            self._waves.extend(change.waves)
            return self._begin_wave(now_s)
        pairs = list(change.transfers.by_pair())
        return pairs or self.arrived(now_s)

    def arrived(self, now_s: float) -> list[tuple[int, int, float]]:
        """What was to be fetched is there: slots change from the next step on. Returns more."""
        if self._change is None:
            raise InvariantError("weights of experts that nobody asked for")
        if self._waves:
            done = self._waves.popleft()
            if self._waves:
                return self._begin_wave(now_s)
            self._stages.append(_Stage(done.after, 0.0))
        else:
            self._stages.extend(self._loading(self._change))
        self._until_s = now_s
        return []

    def _begin_wave(self, now_s: float) -> list[tuple[int, int, float]]:
        """Take the slots of the next wave out of the map, and fetch what they need.

        Nothing to fetch: a die has it in another slot already, and the wave is over at once.
        """
        wave = self._waves[0]
        if wave.during is not None:
            self._stages.append(_Stage(wave.during, 0.0))
            self._until_s = now_s
        return list(wave.transfers.by_pair()) or self.arrived(now_s)

    def _loading(self, change: Reconfiguration) -> Iterator[_Stage]:
        """Stages of slots whose weights wait in spare memory; a ring takes those in place of its
        own between two steps.
        """
        after = self._placement
        for wave in change.waves:
            after = wave.after
            if wave.during is not None:
                local_bytes = change.local_bytes(wave)
                lasts_s = READ_AND_WRITTEN * local_bytes / self._balancing.hbm_bytes_per_s
                yield _Stage(wave.during, lasts_s)
        yield _Stage(after, 0.0)

    def advance(self, now_s: float) -> bool:
        """Go on to now, the start of a step; has anything changed?"""
        if self._stages and self._until_s <= now_s:
            stage = self._stages.popleft()
            self._placement, self._until_s = stage.placement, now_s + stage.lasts_s
            if not self._stages and not self._waves:
                self._change = None
        self._count(now_s)
        shares, placement = self._drawn_from
        if shares is self._shares and placement is self._placement:
            return False
        self._loads = self._draw()
        stable = self._placement if self._change is None else self.history[-1][2]
        self.history.append((now_s, self._shares, stable))
        return True

    def _count(self, now_s: float) -> None:
        """Add up what has been popular until now."""
        while self._counted_s < now_s:
            until_s = min(self._popular.until_s(self._counted_s), now_s)
            self._seen = self._seen + self._shares * (until_s - self._counted_s)
            self._counted_s = until_s
            self._shares = self._popular.at(until_s)

    @property
    def serving(self) -> tuple[Floats, ExpertPlacement]:
        """Popularity [num_layers, num_experts] and placement that the loads are of."""
        return self._drawn_from

    def _ask(self, placement: ExpertPlacement, shares: Floats) -> Ints:
        ours, left = np.split(placement.experts, [self._balanced])
        seen = SlotsSeen(placement=replace(placement, experts=ours), tokens=SEEN_TOKENS)
        decided = self._balancing.decide(shares[: self._balanced] * SEEN_TOKENS, seen)
        self.note = self._balancing.note() or self.note
        return np.concatenate([decided, left])

    def _draw(self) -> LoadModel:
        self._drawn_from = (self._shares, self._placement)
        return self._sampler(self._placement, self._shares)


Timelines = Mapping[str, ExpertTimeline | None]
"""By pool."""


def expert_timelines(experiment: ResolvedExperiment, stream: Stream) -> Timelines:
    """Of every pool."""
    return {spec.name: expert_timeline(experiment, spec, stream) for spec in experiment.pools}


def expert_timeline(
    experiment: ResolvedExperiment, spec: PoolSpec, stream: Stream
) -> ExpertTimeline | None:
    """Of a pool; None without routing, or where each die has all experts, or a slice of each.

    Dies that share their experts, `moe_tp` of them, have the same load: one place of the timeline.
    """
    routing, moe, layout = experiment.expert_routing, experiment.model.moe, spec.layout
    if routing is None or moe is None or layout.ep == 1:
        return None
    hardware = experiment.hardware[spec.name]
    slots = expert_slots(
        num_dies=layout.ep,
        num_experts=moe.num_experts,
        redundant_slots=layout.redundant_slots,
        shared_copies=layout.shared_expert_dies,
        dies_per_node=max(1, hardware.dies_per_node // layout.moe_tp),
        experts_per_token=moe.experts_per_token,
    )
    dims = RouterDims(
        num_layers=experiment.model.num_moe_layers + layout.mtp_layers,
        num_experts=moe.num_experts,
        top_k=moe.experts_per_token,
        mtp_layers=layout.mtp_layers,
        model_mtp_layers=experiment.model.num_mtp_layers,
    )
    return ExpertTimeline(
        popularity(routing, dims, stream("expert_routing")),
        ExpertPlacement(slots=slots, experts=in_order(slots, dims.num_layers)),
        _balancing(experiment, spec, hardware),
        _sampler(routing, dims, spec, stream),
        left_layers=0 if layout.balances_mtp else layout.mtp_layers,
    )


def _sampler(routing: RoutingSpec, dims: RouterDims, spec: PoolSpec, stream: Stream) -> LoadSampler:
    if routing.sampling == "exact":
        rng = stream(f"expert_tokens of {spec.name}")
        return ExactSampler(dims.top_k, rng, routing.step_log_scale)
    seed = int(stream("expert_loads").integers(2**31))
    return MomentSampler(seed=seed, step_log_scale=routing.step_log_scale)


def _balancing(
    experiment: ResolvedExperiment, spec: PoolSpec, hardware: HardwareProfile
) -> Balancing:
    ref = experiment.policies.get("experts", PolicyRef("none"))
    every_s = experiment.rebalance_every_s or DEFAULT_EVERY_S
    return Balancing(
        balancer=resolve("experts", ref)(),
        name=f"{ref.use} (policies.experts)",
        every_s=every_s,
        expert_bytes=_bytes_of_die(experiment, spec),
        hbm_bytes_per_s=hardware.die.hbm_bytes_per_s,
        staging_bytes=_staging_bytes(experiment, spec),
        starts_in_order=experiment.starts_in_order,
    )


def _staging_bytes(experiment: ResolvedExperiment, spec: PoolSpec) -> float:
    """Of a die that holds experts: what was set aside, or what `memory_frac` leaves free.

    A die that holds nothing else has all the rest of its memory for them.
    """
    plan = experiment.memory[spec.name]
    if experiment.staging_slots is None and spec.layout.expert_dies:
        return plan.hbm_bytes - expert_die_bytes(experiment.model, spec.layout)
    if experiment.staging_slots is None:
        return plan.hbm_bytes - plan.usable_bytes
    return experiment.staging_slots * _bytes_of_die(experiment, spec)


def _bytes_of_die(experiment: ResolvedExperiment, spec: PoolSpec) -> float:
    """Of one expert of one layer, what a die has of it."""
    parts = weight_parts(experiment.model, spec.layout.weight_dtype)
    return parts.expert_bytes / spec.layout.moe_tp


def renewal(
    timeline: ExpertTimeline, renew: Callable[[LoadModel], None]
) -> Callable[[float], float]:
    """What the engine calls before a step: prices follow the timeline; until when they hold."""

    def bring_up_to(now_s: float) -> float:
        if timeline.advance(now_s):
            renew(timeline.loads)
        return timeline.until_s(now_s)

    return bring_up_to


def expert_path(
    timeline: ExpertTimeline, hardware: HardwareProfile, placement: Placement, layout: Layout
) -> ExpertPath:
    """How weights get to new slots: dies read each other's memory.

    Each of `moe_tp` dies that share an expert reads its own slice, from its like.
    """
    moe_tp = layout.moe_tp
    plane = group_plane(hardware, len(placement.expert_sets[0])).name
    measured = plane == "scale_up" and "read_die" in hardware.topology.transfers
    law = transfer_law(hardware, "read_die" if measured else plane)
    slices = [dies[part::moe_tp] for dies in placement.expert_sets for part in range(moe_tp)]
    return ExpertPath(changes=timeline, dies=slices, law=law)
