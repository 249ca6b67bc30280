"""Instances that come and go: what a scaling policy decides, carried out at its cost.

An instance that drains gets no more requests. What waits there goes to others at once; what runs
finishes there, or is taken out at the next step boundary and computed again elsewhere. When nothing
is left, its KV blocks are all free, its prefix cache is lost and its dies are spare, or belong to
another pool. An instance that comes loads its weights, then serves. Drained instances are noticed
when the controller samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, cast

from simpod.cluster import ElasticPlacement
from simpod.engine.clock import DELIVER
from simpod.engine.elastic import ElasticDispatcher
from simpod.engine.handing_over import hand_over_waiting, send_on, take_out
from simpod.engine.load_samples import Finishes, LoadSamples
from simpod.engine.scaling_view import PoolFacade, ScalingFacade
from simpod.engine.sequence import Sequence as Request
from simpod.errors import InvariantError, PolicyError, blaming
from simpod.policies import AddInstance, Scaling, SwitchInstance
from simpod.policies.roles import ScaleAction
from simpod.policies.scaling_checks import action_problems
from simpod.records.columns import ScalingRecords

if TYPE_CHECKING:
    from collections.abc import Callable

    from simpod.engine.group import Group
    from simpod.engine.pool import Pool
    from simpod.engine.rank import Rank
    from simpod.engine.simulation import Simulation

State = Literal["off", "loading", "serving", "draining"]
STATES: Final[tuple[State, ...]] = ("serving", "draining", "loading")
"""Of an instance that has dies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsOverFabric:
    """Weights that are read over the fabric: dies in turn from the CPUs of the pool."""

    plane: str
    num_cpus: int
    die_bytes: tuple[float, ...]  # by pool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingInputs:
    """The policy, the dies, and what it takes to start an instance; tuples are by pool."""

    make_policy: "Callable[[], Scaling]"
    policy_name: str
    every_s: float
    sample_s: float  # every_s is a multiple of it
    window_s: float
    placements: tuple[ElasticPlacement, ...]
    start_instances: tuple[int, ...]
    dies_per_instance: tuple[int, ...]
    spare_dies: int
    load_s: tuple[float, ...]  # of the weights, when nobody else is on the links
    start_s: float  # of an engine whose weights are there
    keeps_weights: bool  # in a switch: both pools hold the same on every die
    over_fabric: WeightsOverFabric | None = None
    recomputes: bool = False  # what runs on a draining instance


@dataclass(slots=True, eq=False)
class Instance:
    """A place in a pool: an instance, or room for one."""

    pool: "ElasticPool"
    group: "Group"
    state: State = "off"
    dies: tuple[int, ...] = ()
    since_s: float = 0.0
    heir: "ElasticPool | None" = None  # the pool that gets the dies when it has drained
    reserved: tuple[int, ...] = ()  # what the heir needs beyond them

    @property
    def number(self) -> int:
        """Within the pool."""
        return self.group.instance

    @property
    def held_seqs(self) -> int:
        """Requests that are here, in whatever state."""
        held = self.group.dispatch.held_seqs
        return sum(held[rank.target] for rank in self.group.ranks)


@dataclass(slots=True, eq=False)
class ElasticPool:
    """A pool and the places of its instances."""

    pool: "Pool"
    index: int
    placement: ElasticPlacement
    dies_per_instance: int
    instances: list[Instance] = field(default_factory=list)
    num_promised: int = 0  # instances whose dies still drain elsewhere
    die_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STATES, 0.0))

    def in_state(self, state: State) -> list[Instance]:
        """Instances in a state, by number."""
        return [instance for instance in self.instances if instance.state == state]

    def route(self) -> None:
        """Tell the router who serves."""
        dispatch = cast(ElasticDispatcher, self.pool.dispatch)
        dispatch.serve(instance.number for instance in self.in_state("serving"))


class Scaler:
    """Samples, asks the policy every so often and carries its actions out."""

    def __init__(self, sim: "Simulation", inputs: ScalingInputs) -> None:
        self._sim, self._inputs, self._clock = sim, inputs, sim.clock
        self._policy = inputs.make_policy()
        self.samples = LoadSamples(sim, inputs.sample_s)
        self._finishes = Finishes(sim, inputs.window_s, self.samples.ended)
        self._free: list[int] = []
        self._pools = self._start()
        self._by_name = {pool.pool.spec.name: pool for pool in self._pools}
        self._taken_out: list[tuple[ElasticPool, Request]] = []
        self._ticks = 0
        self._counts = {"add": 0, "remove": 0, "switch": 0}
        self._drain_s: list[float] = []
        self._load_s: list[float] = []
        self._call_next()

    def _start(self) -> list[ElasticPool]:
        """Give the first instances the first dies, pool by pool."""
        inputs, first = self._inputs, 0
        pools = []
        for index, pool in enumerate(self._sim.pools):
            size = inputs.dies_per_instance[index]
            elastic = ElasticPool(pool, index, inputs.placements[index], size)
            elastic.instances = [Instance(elastic, group) for group in pool.groups]
            for instance in elastic.instances[: inputs.start_instances[index]]:
                self._settle(instance, tuple(range(first, first + size)), "serving")
                first += size
            elastic.route()
            pools.append(elastic)
        self._free = list(range(first, first + inputs.spare_dies))
        return pools

    # --- the controller's clock -----------------------------------------------------------------

    def _call_next(self) -> None:
        self._ticks += 1
        self._clock.tick_at(self._ticks * self._inputs.sample_s, self._tick)

    def _tick(self) -> None:
        inputs = self._inputs
        taken, self._taken_out = self._taken_out, []
        for pool, seq in taken:
            send_on(pool.pool, seq)
        for pool in self._pools:
            for instance in pool.in_state("draining"):
                self._go_on_draining(instance)
        self._finishes.catch_up()
        self.samples.take([self._states(pool) for pool in self._pools], len(self._free))
        if self._ticks % round(inputs.every_s / inputs.sample_s) == 0:
            self._decide()
        if self._clock.is_busy and not self._sim.is_over:  # else nothing would happen again
            self._call_next()

    def _states(self, pool: ElasticPool) -> tuple[int, int, int]:
        serving, draining, loading = (len(pool.in_state(state)) for state in STATES)
        return serving, draining, loading

    def _view(self) -> ScalingFacade:
        inputs = self._inputs
        window = self.samples.window(round(inputs.window_s / inputs.sample_s))
        pools = []
        for pool, rows in zip(self._pools, window, strict=True):
            serving, draining, loading = self._states(pool)
            coming, size = loading + pool.num_promised, pool.dies_per_instance
            pools.append(PoolFacade(pool.pool.spec, size, serving, draining, coming, rows))
        finished = self._finishes.columns()
        run = self._sim.inputs
        targets = (run.ttft_target_s, run.tpot_target_s)
        times = (self._clock.now, inputs.every_s, inputs.sample_s)
        return ScalingFacade(*times, tuple(pools), len(self._free), finished, *targets)

    # --- decisions ------------------------------------------------------------------------------

    def _decide(self) -> None:
        view, name = self._view(), self._inputs.policy_name
        with blaming(name, f" at {view.now_s:.6f} s"):
            actions: Sequence[ScaleAction] = self._policy(view)
        if (problem := next(action_problems(view, actions), None)) is not None:
            raise PolicyError(name, f"{problem} (at {view.now_s:.6f} s)")
        for action in actions:
            if isinstance(action, AddInstance):
                pool = self._by_name[action.pool]
                self._counts["add"] += 1
                self._load(pool, self._take(pool.dies_per_instance), has_weights=False)
            elif isinstance(action, SwitchInstance):
                self._counts["switch"] += 1
                self._drain(self._by_name[action.source], self._by_name[action.destination])
            else:
                self._counts["remove"] += 1
                self._drain(self._by_name[action.pool], None)

    def _take(self, num: int) -> tuple[int, ...]:
        """Spare dies, those of the lowest numbers."""
        taken, self._free = tuple(self._free[:num]), self._free[num:]
        return taken

    # --- draining -------------------------------------------------------------------------------

    def _drain(self, pool: ElasticPool, heir: ElasticPool | None) -> None:
        """Let the emptiest instance drain, of equals the last one."""
        serving = reversed(pool.in_state("serving"))
        instance = min(serving, key=lambda each: each.held_seqs)
        instance.heir = heir
        if heir is not None:
            heir.num_promised += 1
            instance.reserved = self._take(max(0, heir.dies_per_instance - len(instance.dies)))
        self._settle(instance, instance.dies, "draining")
        pool.route()
        for rank in instance.group.ranks:
            hand_over_waiting(pool.pool, rank)
        self._go_on_draining(instance)

    def _go_on_draining(self, instance: Instance) -> None:
        """Pass the dies on if all is gone, else take out what runs if that is the rule."""
        if not instance.held_seqs:
            self._end_drain(instance)
        elif self._inputs.recomputes:
            for rank in instance.group.ranks:
                if rank.running or rank.waiting:
                    rank.at_boundary = [partial(self._take_out, instance.pool, rank)]
                    rank.touch()
            instance.group.poke()

    def _take_out(self, pool: ElasticPool, rank: "Rank") -> None:
        """They find another rank when the controller looks next."""
        self._taken_out += [(pool, seq) for seq in take_out(rank)]

    def _end_drain(self, instance: Instance) -> None:
        kv = instance.group.kv
        if kv.used_everywhere().any():
            raise InvariantError(f"a drained instance holds KV blocks: {kv.used_everywhere()}")
        for rank in instance.group.ranks:
            kv.forget_prefixes(rank.index)
        self._drain_s.append(self._clock.now - instance.since_s)
        dies, heir = instance.dies + instance.reserved, instance.heir
        self._settle(instance, (), "off")
        instance.heir, instance.reserved = None, ()
        needed = 0 if heir is None else heir.dies_per_instance
        self._free = sorted([*self._free, *dies[needed:]])
        if heir is not None:
            heir.num_promised -= 1
            self._load(heir, dies[:needed], has_weights=self._inputs.keeps_weights)

    # --- coming ---------------------------------------------------------------------------------

    def _load(self, pool: ElasticPool, dies: tuple[int, ...], *, has_weights: bool) -> None:
        """Give dies to a free place of the pool; it serves when the weights are there."""
        inputs, now_s = self._inputs, self._clock.now
        instance = pool.in_state("off")[0]
        self._settle(instance, dies, "loading")
        load_s = 0.0 if has_weights else inputs.load_s[pool.index]
        network, over_fabric = self._sim.network, inputs.over_fabric
        if not load_s or network is None or over_fabric is None:
            end_s = now_s + inputs.start_s + load_s
            self._clock.call_at(end_s, DELIVER, lambda: self._serve(instance))
            return
        size_bytes, cpus = over_fabric.die_bytes[pool.index], over_fabric.num_cpus
        ends = ((network.fabric.cpu(die % cpus), die) for die in dies)
        parts = [network.part(*e, over_fabric.plane, size_bytes, size_bytes / load_s) for e in ends]
        network.send(parts, inputs.start_s, lambda _: self._serve(instance))

    def _serve(self, instance: Instance) -> None:
        self._load_s.append(self._clock.now - instance.since_s)
        self._settle(instance, instance.dies, "serving")
        instance.pool.route()

    # --- accounts -------------------------------------------------------------------------------

    def _settle(self, instance: Instance, dies: tuple[int, ...], state: State) -> None:
        """Change an instance's state, and book what the last one took."""
        self._book(instance)
        instance.state, instance.dies, instance.since_s = state, dies, self._clock.now
        if dies:
            instance.pool.placement.dies_of[instance.number] = dies

    def _book(self, instance: Instance) -> None:
        if instance.state != "off":
            lasted_s = min(self._clock.now, self._sim.end_s) - instance.since_s
            spent = max(0.0, lasted_s) * len(instance.dies)
            instance.pool.die_s[instance.state] += spent

    def instances_of(self, pool: "Pool") -> tuple[int, float]:
        """Of a pool the instances at the start, and the mean number that had dies."""
        index, end_s = self._sim.pools.index(pool), float(self._sim.end_s)
        elastic, start = self._pools[index], self._inputs.start_instances[index]
        used = sum(elastic.die_s.values()) / elastic.dies_per_instance
        return start, used / end_s if end_s > 0 else float(start)

    def close(self) -> None:
        """The run is over: book what instances have had until now."""
        for instance in (each for pool in self._pools for each in pool.instances):
            self._book(instance)

    def records(self) -> ScalingRecords:
        """Accounts of the run."""
        die_s = {name: dict(pool.die_s) for name, pool in self._by_name.items()}
        inputs = self._inputs
        sizes = zip(inputs.start_instances, inputs.dies_per_instance, strict=True)
        num_dies = inputs.spare_dies + sum(number * size for number, size in sizes)
        used = sum(sum(states.values()) for states in die_s.values())
        return ScalingRecords(
            die_s=die_s,
            spare_die_s=max(0.0, num_dies * float(self._sim.end_s) - used),
            num_added=self._counts["add"],
            num_removed=self._counts["remove"],
            num_switched=self._counts["switch"],
            drain_s=tuple(self._drain_s),
            load_s=tuple(self._load_s),
            mean_instances={
                name: self.instances_of(pool.pool)[1] for name, pool in self._by_name.items()
            },
        )
