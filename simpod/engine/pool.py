"""The groups of one pool."""

from typing import TYPE_CHECKING

from simpod.engine.decode_room import DecodeRoom
from simpod.engine.dispatch import Dispatcher
from simpod.engine.elastic import ElasticDispatcher
from simpod.engine.group import Group
from simpod.engine.inputs import PoolInputs
from simpod.engine.leading import Leading
from simpod.engine.pauses import StepPauses
from simpod.engine.pausing import HostLink
from simpod.engine.pull_order import PullOrder
from simpod.engine.rank import Rank
from simpod.engine.service import Service
from simpod.policies import Reserving

if TYPE_CHECKING:
    from simpod.engine.simulation import Simulation


class Pool:
    """The groups of one pool behind its router."""

    def __init__(self, sim: "Simulation", inputs: PoolInputs, first_group: int) -> None:
        spec = inputs.spec
        self.inputs = inputs
        self.spec = spec
        self.dispatch = self._dispatcher(sim)
        self.groups = [
            Group(
                sim,
                index=first_group + instance,
                instance=instance,
                dispatch=self.dispatch,
                pricer=inputs.pricer,
                make_policy=sim.inputs.make_batching,
            )
            for instance in range(spec.instances)
        ]
        for rank in self.dispatch.ranks:
            rank.host = HostLink(inputs.host_link) if inputs.host_link else None
            rank.service = Service() if sim.has_tenants else None
            if spec.role == "decode" and sim.inputs.orders_pulls:
                rank.pulls = PullOrder(rank, sim.inputs.make_batching())
            if spec.role == "decode" and isinstance(rank.policy, Reserving):
                rank.room = DecodeRoom(rank, rank.policy)
        make_leader = sim.inputs.make_leader
        for group in self.groups:
            group.renew_prices = inputs.renew_prices
            if spec.role == "prefill" and make_leader is not None:
                group.leading = Leading(group, make_leader(), sim.inputs.leader_name)
        if spec.pauses:
            streams = inputs.pause_rng.spawn(spec.instances)
            for group, rng in zip(self.groups, streams, strict=True):
                group.ledger.pauses = StepPauses(spec.pauses, spec.layout.all_dies, rng)

    def _dispatcher(self, sim: "Simulation") -> Dispatcher:
        inputs = self.inputs
        name, make, rng = inputs.router_name, inputs.make_router, inputs.router_rng
        if sim.inputs.scaling is None:
            return Dispatcher(self.spec, sim.clock, name=name, policy=make(), rng=rng)
        return ElasticDispatcher(self.spec, sim.clock, name=name, make_policy=make, rng=rng)

    def rank_of(self, target: int) -> tuple[Group, Rank]:
        """The group and the rank behind a router's target."""
        rank = self.dispatch.ranks[target]
        return rank.group, rank
