"""Exchanges of steps as aggregated flows that meet the transfers of a network.

To flows, the exchange of a group is a demand on each link of its dies: the bytes of a step over the
time of a step. It is stated anew only when it has moved by more than a grain.

To an exchange, flows are in the way while it moves: on a link of C bytes/s where it needs r alone,
beside flows, it gets the max-min share s of one more flow, so its bytes take r / s times as long.
Every layer is a barrier: the group waits for the slowest of its dies.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.fabric import first_full_level
from simpod.engine.clock import Alarm, Clock
from simpod.engine.held_steps import HeldSteps
from simpod.engine.idleness import Idleness
from simpod.engine.network import SETTLE, Network, Part

if TYPE_CHECKING:
    from simpod.engine.group import Group

Floats = NDArray[np.float64]

GRAIN_FRAC = 0.01
"""A demand that moves by less than this share of its links' rate is not stated anew."""

MAX_ROUNDS = 8
"""Demands and rates of one instant are worked out in turn, so often at most; each turn brings them
closer by the share of the links that exchanges take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSite:
    """Where the dies of an instance exchange.

    dies: those that it has at present, ranks' first; the same object until they change.
    """

    plane: str
    dies: Callable[[], Sequence[int]]
    num_rank_dies: int


@dataclass(slots=True, eq=False)
class Side:
    """Links of dies of one kind, in one direction."""

    links: list[int]
    column: int  # of `StepTraffic.die_bytes`
    least_bytes_per_s: float  # of the slowest link
    grain_bytes_per_s: float
    need_bytes_per_s: float = 0.0  # while it is moving
    stated_bytes_per_s: float = 0.0


@dataclass(slots=True, eq=False)
class Watch:
    """A group and the links of its dies."""

    held: HeldSteps
    site: ExchangeSite
    dies: Sequence[int] | None = None  # whose links `sides` are
    sides: list[Side] = field(default_factory=list)
    places: list[tuple[int, list[Side]]] = field(default_factory=list)
    """Sides over time, with the first run on them."""
    used: dict[int, Side] = field(default_factory=dict)  # links with flows
    slow: dict[int, float] = field(default_factory=dict)  # those of them that are in the way
    least_slow_frac: float = 0.0  # where links carry less than is needed, without any flow

    def slowest(self) -> float:
        """What moving takes longer on the slowest link, of what it takes on idle links."""
        return max(self.least_slow_frac, *self.slow.values()) if self.slow else self.least_slow_frac


class WatchedIdleness(Idleness):
    """Says when a group falls asleep."""

    __slots__ = ("_on_begin",)

    def __init__(self, clock: Clock, on_begin: Callable[[], None]) -> None:
        super().__init__(clock)
        self._on_begin = on_begin

    def begin(self) -> Alarm:
        """Fall asleep; the alarm goes off when the group is woken."""
        self._on_begin()
        return super().begin()


class ExchangeFlows:
    """The exchanges of all groups that share links with flows."""

    def __init__(self, network: Network, clock: Clock, *, skips_ahead: bool) -> None:
        self._network, self._clock = network, clock
        self._walks = not skips_ahead
        self._at: list[tuple[Watch, Side] | None] = [None] * network.fabric.num_links
        self._watches: list[Watch] = []
        self._changed: dict[int, None] = {}  # links whose flows have changed
        self._coming: dict[float, list[int]] = {}  # links of flows by when they begin
        self._restating: dict[int, Watch] = {}  # whose demand has moved
        self._rates: Floats | None = None  # of the table, as seen last
        self._num_changes = 0  # of the table, by then
        self._none = np.zeros(network.fabric.num_links)

    def watch(self, group: "Group", site: ExchangeSite) -> None:
        """From now on the exchanges of a group are on the links of its dies."""
        watch = Watch(HeldSteps(group, lambda: self._begin(watch)), site)
        self._watches.append(watch)
        group.ledger.held = watch.held
        group.idleness = WatchedIdleness(self._clock, lambda: self.rest(watch))

    def _move(self, watch: Watch, dies: Sequence[int]) -> None:
        """An instance has these dies now: its exchanges are on their links."""
        for side in watch.sides:
            mine = [link for link in side.links if self._is_on(link, watch)]
            self._network.take(mine, 0.0)
            for link in mine:
                self._at[link] = None
        watch.dies, watch.sides = dies, self._sides(watch.site, dies)
        watch.places.append((watch.held.num_runs, watch.sides))
        watch.slow.clear()
        watch.used.clear()
        for side in watch.sides:
            self._network.take(side.links, 0.0)
            for link in side.links:
                self._at[link] = watch, side
                if self._network.has_users(link):
                    watch.used[link] = side

    def _is_on(self, link: int, watch: Watch) -> bool:
        at = self._at[link]
        return at is not None and at[0] is watch

    def _sides(self, site: ExchangeSite, dies: Sequence[int]) -> list[Side]:
        arrays = self._network.fabric.planes[site.plane]
        kinds = dies[: site.num_rank_dies], dies[site.num_rank_dies :]
        (out, expert_out), (into, expert_into) = (
            [[links[die] for die in kind] for kind in kinds]
            for links in (arrays.up_links, arrays.down_links)
        )
        if not expert_out:  # every die gets as much as it sends
            return [self._side(out + into, 0)]
        every = (out, into, expert_out, expert_into)
        return [self._side(links, column) for column, links in enumerate(every)]

    def _side(self, links: list[int], column: int) -> Side:
        rates = self._network.fabric.link_bytes_per_s[links]
        return Side(links, column, float(rates.min()), GRAIN_FRAC * float(rates.max()))

    # --- what groups do ---------------------------------------------------------------------------

    def _begin(self, watch: Watch) -> None:
        """A run of steps begins."""
        traffic = watch.held.traffic
        if traffic is None:
            return
        dies = watch.site.dies()
        if dies is not watch.dies:
            self._move(watch, dies)
        has_moved = False
        for side in watch.sides:
            moved = traffic.die_bytes[side.column]
            need = moved / traffic.moving_s if traffic.moving_s > 0.0 else 0.0
            if abs(need - side.need_bytes_per_s) > 1e-9 * need:
                side.need_bytes_per_s = need
                has_moved = True
        if has_moved:
            watch.least_slow_frac = max(
                max(0.0, side.need_bytes_per_s / side.least_bytes_per_s - 1.0)
                for side in watch.sides
            )
            self._changed.update(dict.fromkeys(watch.used))
        is_felt = bool(watch.used) or watch.least_slow_frac != watch.held.slow
        if has_moved or watch.used:
            self._restate(watch, is_needed=has_moved and is_felt)

    def rest(self, watch: Watch) -> None:
        """A group falls idle."""
        watch.held.rest(self._clock.now)
        self._restate(watch)

    def _restate(self, watch: Watch, *, is_needed: bool = False) -> None:
        """State a demand anew when this instant is over, if there is anybody to notice."""
        if is_needed or (watch.used and any(self._has_moved(watch, side) for side in watch.sides)):
            self._restating[id(watch)] = watch
            self._network.settle_later()

    @staticmethod
    def _demand(watch: Watch, side: Side) -> float:
        """Bytes of a step over the time that it takes at present."""
        held = watch.held
        if held.traffic is None or held.base_s == 0.0:
            return 0.0
        step_s = held.base_s + held.traffic.exposed_s * held.slow
        return held.traffic.die_bytes[side.column] / step_s

    def _has_moved(self, watch: Watch, side: Side) -> bool:
        moved = abs(self._demand(watch, side) - side.stated_bytes_per_s)
        return moved > side.grain_bytes_per_s

    # --- what flows do ----------------------------------------------------------------------------

    def begin_flows(self, parts: Iterable[Part], begin_s: float) -> None:
        """Flows are going to begin."""
        links = []
        for part in parts:
            for link in part.path[:2]:
                at = self._at[link]
                if at is not None:
                    at[0].used[link] = at[1]
                    links.append(link)
        if begin_s == self._clock.now:
            self._note(links)
        elif begin_s in self._coming:
            self._coming[begin_s] += links
        elif links:
            self._coming[begin_s] = links
            self._clock.call_at(begin_s, SETTLE, lambda: self._note(self._coming.pop(begin_s)))

    def end_flow(self, part: Part) -> None:
        """A flow has ended."""
        links = [link for link in part.path[:2] if self._at[link] is not None]
        self._note(links)

    def _note(self, links: Sequence[int]) -> None:
        if links:
            self._changed.update(dict.fromkeys(links))
            self._network.settle_later()

    # --- settling ---------------------------------------------------------------------------------

    def settle(self) -> None:
        """After all that happens at this instant: who is in whose way, and what is left."""
        for _ in range(MAX_ROUNDS):
            touched, self._restating = self._restating | self._look(), {}
            has_taken = False
            for watch in touched.values():
                slow_frac = watch.slowest()
                if slow_frac != watch.held.slow:
                    watch.held.slow = slow_frac
                    watch.held.restate_run(self._clock.now, walks=self._walks)
                if watch.used:
                    has_taken = self._take(watch) or has_taken
            if not has_taken:
                return

    def _take(self, watch: Watch) -> bool:
        """State what has moved of a group's demands; False: nothing."""
        moved = [side for side in watch.sides if self._has_moved(watch, side)]
        for side in moved:
            side.stated_bytes_per_s = self._demand(watch, side)
            self._network.take(side.links, side.stated_bytes_per_s)
        return bool(moved)

    def _look(self) -> dict[int, Watch]:
        """Work out who is in the way on the links that have changed; returns whose they are."""
        if self._num_changes != self._network.num_changes:
            self._num_changes = self._network.num_changes
            self._compare(self._network.table_rates())
        touched = {}
        for link in self._changed:
            at = self._at[link]
            if at is not None:
                watch, side = at
                self._weigh(watch, side, link)
                touched[id(watch)] = watch
        self._changed = {}
        return touched

    def _compare(self, rates: Floats | None) -> None:
        """Note the links on which flows of the table have other rates than before."""
        if rates is not None or self._rates is not None:
            before, after = (self._none if each is None else each for each in (self._rates, rates))
            self._changed.update(dict.fromkeys((before != after).nonzero()[0].tolist()))
            self._rates = rates

    def _weigh(self, watch: Watch, side: Side, link: int) -> None:
        """How much longer an exchange takes to move over a link."""
        watch.slow.pop(link, None)
        rates = self._network.rates_on(link)
        if not rates:
            if not self._network.has_users(link):
                watch.used.pop(link, None)
            return
        need, capacity = side.need_bytes_per_s, self._network.capacity(link)
        if len(rates) == 1:
            level = max(capacity / 2.0, capacity - rates[0])
        else:
            level = first_full_level(capacity, [need, *rates])
        if level < need:
            watch.slow[link] = need / level - 1.0

    # --- after the run ----------------------------------------------------------------------------

    def moved_bytes(self, times_s: Floats) -> Floats:
        """[n, L] bytes that exchanges have put on each link up to times [n]."""
        found = np.zeros((len(times_s), len(self._at)))
        for watch in self._watches:
            lasts = [*(first for first, _ in watch.places[1:]), watch.held.num_runs]
            for (first, sides), last in zip(watch.places, lasts, strict=False):  # none: never ran
                for side in sides:
                    so_far = watch.held.moved_bytes(times_s, side.column, first, last)
                    found[:, side.links] += so_far[:, np.newaxis]
        return found
