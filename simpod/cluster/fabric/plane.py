"""The transfers of one plane: planes share no links, so each is a problem of its own.

Rates are worked out once for all starts and ends of an instant, and only where they can change:
the filling is the same as before up to the level at which the change is felt first, so transfers
that were stopped below keep their rates, and so do those that no others join to the change. The
links of domains are watched only once they have been found too full: rates that are fair without a
limit and keep it are fair with it.

Plain loops do this until they have cost as much as it takes to load the compiled kernel. From then
on that works out whatever happens while many transfers are under way. Both give the same rates, to
rounding, and what decides is counted, not timed: a run is the same everywhere.
"""

from collections.abc import Iterable
from math import inf

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.fabric.arrays import LINK_KINDS, Fabric
from simpod.cluster.fabric.fair import fair_rates, first_full_level
from simpod.cluster.fabric.slots import Slots

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEW = 64
"""While so many transfers are under way at most, loops are about as quick as the kernel."""

LOAD_TRANSFERS = 100_000
"""Rates that loops work out, at 5 us each, in the time that it takes to load the kernel."""

MANY_NEW = 64
"""From so many starts of one instant on, everything is worked out anew."""

JUST_BELOW = 1.0 - 1e-9
"""Rounding: a rate so close below a level is on it, a link that carries this share is full."""

SAME_FRAC = 1e-12
"""Rounding: a rate that changes by less than this share of it has not changed."""

CALM_FRAC = 0.9
"""A domain's link that carries less than this share of its rate is not watched any more."""


class PlaneFlows:
    """Transfers of a plane; its links are numbered from 0."""

    def __init__(self, fabric: Fabric, plane: str) -> None:
        mine = np.flatnonzero(fabric.link_plane == fabric.plane_names.index(plane))
        kinds = fabric.link_kind[mine]
        self._first = int(mine[0]) if len(mine) else 0
        self._capacity = np.append(fabric.link_bytes_per_s[mine], inf)  # the last stands for none
        self._capacity_of: list[float] = self._capacity.tolist()
        self._is_up = kinds == LINK_KINDS.index("up")
        ends = (LINK_KINDS.index("up"), LINK_KINDS.index("down"))
        self._limits = np.where(np.append(np.isin(kinds, ends), False), self._capacity, inf)
        self._watched_domains: set[int] = set()
        self._domain_rate = np.zeros(len(mine) + 1)  # the last stands for none
        self._slots = Slots(no_link=len(mine))
        self._num_looped = 0  # rates that loops have worked out
        self._members: list[set[int]] = [set() for _ in mine]
        self._carried_bytes = [0.0] * len(mine)
        self._busy_s = [0.0] * len(mine)
        self._busy_since_s = [0.0] * len(mine)
        self._new: dict[int, None] = {}  # slots without a rate yet, in order of their start
        self._freed: dict[int, float] = {}  # links with room to give away: from which rate on

    def start(
        self, now_s: float, flow_id: int, path: Iterable[int], size_bytes: float, most: float
    ) -> None:
        """Take up a transfer over the fabric's links `path`, of `most` bytes per second."""
        local = tuple([link - self._first for link in path])
        slot = self._slots.take(flow_id, local, size_bytes, most)
        self._new[slot] = None
        for link in local:
            members = self._members[link]
            if not members:
                self._busy_since_s[link] = now_s
            members.add(slot)

    def finish(self, now_s: float, flow_id: int) -> float:
        """Give up a transfer, done or not; returns the bytes that it moved."""
        slot = self._slots.slot_of[flow_id]
        path = self._slots.paths[slot]
        moved = self._slots.moved_bytes(slot, now_s)
        if slot in self._new:
            del self._new[slot]
        else:
            self._free_up(slot)
        for link in path:
            members = self._members[link]
            members.remove(slot)
            self._carried_bytes[link] += moved
            if not members:
                self._busy_s[link] += now_s - self._busy_since_s[link]
        self._slots.release(flow_id)
        return moved

    def set_capacities(self, links: Iterable[int], bytes_per_s: Iterable[float]) -> None:
        """From now on these links of the fabric carry so much."""
        for link, rate in zip(links, bytes_per_s, strict=True):
            local = link - self._first
            before = self._capacity_of[local]
            self._capacity[local] = self._capacity_of[local] = rate
            if self._members[local]:
                self._free(local, self._level_of_capacities(local, before, rate))

    def next_completion(self, now_s: float) -> tuple[float, int] | None:
        """Time and id of the first transfer to be done; the oldest of equals."""
        if not self._slots:
            return None
        self.settle(now_s)
        return self._slots.first_to_end()

    def completions(self, now_s: float) -> list[tuple[float, int]]:
        """Times and ids of the transfers that are done by now."""
        if not self._slots:
            return []
        self.settle(now_s)
        return self._slots.ended(now_s)

    def completion_s(self, now_s: float, flow_id: int) -> float:
        """When a transfer will be done as things stand."""
        self.settle(now_s)
        return float(self._slots.ends_s[self._slots.slot_of[flow_id]])

    def rate(self, now_s: float, flow_id: int) -> float:
        """Bytes per second of a transfer."""
        self.settle(now_s)
        return float(self._slots.rates[self._slots.slot_of[flow_id]])

    def carried_bytes(self, now_s: float) -> Floats:
        """Bytes that each link has carried, [L of this plane]."""
        active = self._slots.active()
        under_way = self._slots.moved_bytes_of(active, now_s)
        return np.array(self._carried_bytes) + self._slots.sums(active, under_way)

    def sent_bytes(self, now_s: float) -> float:
        """Bytes that have left the endpoints."""
        return float(self.carried_bytes(now_s)[self._is_up].sum())

    def busy_s(self, now_s: float) -> Floats:
        """Time that each link has carried something, [L of this plane]."""
        is_busy = np.array([bool(members) for members in self._members], dtype=bool)
        so_far = np.where(is_busy, now_s - np.array(self._busy_since_s), 0.0)
        return np.array(self._busy_s) + so_far

    def link_rates(self, now_s: float) -> Floats:
        """Bytes per second on each link, [L of this plane]."""
        self.settle(now_s)
        active = self._slots.active()
        return self._slots.sums(active, self._slots.rates.take(active))

    def settle(self, now_s: float) -> None:
        """Work out the rates after the starts and ends of this instant."""
        if not self._new and not self._freed:
            return
        if len(self._new) == 1 and not self._freed and self._settle_alone(now_s):
            return
        level = 0.0 if len(self._new) > MANY_NEW else self._level_of_change() * JUST_BELOW
        changed = dict.fromkeys(link for path in self._stops(self._new) for link in path)
        changed.update(dict.fromkeys(self._freed))
        too_full = self._work_out(now_s, level, list(changed))
        self._new.clear()
        self._freed.clear()
        while too_full:  # comes to an end: every turn adds a limit that was broken, rates only fall
            self._watched_domains.update(too_full)
            self._limits[too_full] = self._capacity[too_full]
            changed.update(dict.fromkeys(too_full))
            too_full = self._work_out(now_s, 0.0, list(changed))
        if self._watched_domains:
            self._let_go()

    def _work_out(self, now_s: float, least: float, changed: list[int]) -> list[int]:
        """New rates of what is joined to the `changed` links and was not stopped below `least`.

        Returns links of domains that are too full with them.
        """
        if self._num_looped > LOAD_TRANSFERS and len(self._slots) > FEW:
            return self._set_many(now_s, *self._compiled_rates(least, changed))
        reached = self._reached(least, changed)
        rates = self._looped_rates(reached)
        if len(reached) > FEW:
            return self._set_many(now_s, np.array(reached), np.array(rates))
        return self._set_few(now_s, reached, rates)

    def _stops(self, slots: Iterable[int]) -> list[tuple[int, ...]]:
        """Links that may stop each of these transfers."""
        paths, watched = self._slots.paths, self._watched_domains
        if not watched:
            return [paths[slot][:2] for slot in slots]
        return [
            (*paths[slot][:2], *(link for link in paths[slot][2:] if link in watched))
            for slot in slots
        ]

    def _free_up(self, slot: int) -> None:
        """Note which links have room to give away when this transfer ends.

        One that was stopped by its own cap leaves room only where others are stopped: on a full
        link.
        """
        rate = float(self._slots.rates[slot])
        is_capped = rate >= self._slots.caps[slot]
        for link in self._stops([slot])[0]:
            if link in self._freed:
                self._freed[link] = min(self._freed[link], rate)
            elif len(self._members[link]) > 1 and not (is_capped and self._has_room(link)):
                self._freed[link] = rate
        for link in self._slots.paths[slot][2:]:
            self._domain_rate[link] -= rate

    def _free(self, link: int, level: float) -> None:
        """Transfers of a link may change from this level on; infinite: none of them."""
        if level < inf:
            self._freed[link] = min(self._freed.get(link, inf), level)

    def _level_of_capacities(self, link: int, before: float, after: float) -> float:
        """No transfer of a link that is stopped below this rate notices that its rate changes."""
        if self._new or self._freed:
            return 0.0  # rates are being changed anyway
        rates = self._slots.rates[list(self._members[link])].tolist()
        if after < before:
            return first_full_level(after, rates)
        return max(rates) if sum(rates) >= before * JUST_BELOW else inf

    def _has_room(self, link: int) -> bool:
        carried = self._slots.rates[list(self._members[link])].sum()
        return bool(carried < self._capacity_of[link] * JUST_BELOW)

    def _settle_alone(self, now_s: float) -> bool:
        """A transfer that shares no port has all of it; False if it shares one, or may a domain."""
        (slot,) = self._new
        path = self._slots.paths[slot]
        rate = float(self._slots.caps[slot])
        for link in path[:2]:
            if len(self._members[link]) > 1:
                return False
            rate = min(rate, self._capacity_of[link])
        for link in path[2:]:
            if self._domain_rate[link] + rate > self._capacity_of[link]:
                return False
        for link in path[2:]:
            self._domain_rate[link] += rate
        self._slots.set_rate(slot, now_s, rate)
        self._new.clear()
        return True

    def _level_of_change(self) -> float:
        """No transfer that is stopped below this rate can notice what has changed."""
        rates, caps = self._slots.rates, self._slots.caps
        level = min(self._freed.values(), default=inf)
        for link in {link for path in self._stops(self._new) for link in path}:
            room, mine = self._capacity_of[link], list(self._members[link])
            if len(mine) > FEW:  # the equal share is no higher
                level = min(level, room / len(mine))
                continue
            limits = [
                rate or cap  # new ones have no rate yet
                for rate, cap in zip(rates[mine].tolist(), caps[mine].tolist(), strict=True)
            ]
            level = min(level, first_full_level(room, limits))
        return level

    def _reached(self, least: float, changed: list[int]) -> list[int]:
        """Slots whose rate may change: at least `least`, joined to the `changed` links."""
        rates = self._slots.rates
        found = dict(self._new)
        links, seen = list(changed), set(changed)
        while links:
            mine = list(self._members[links.pop()])
            more = [
                slot
                for slot, rate in zip(mine, rates[mine].tolist(), strict=True)
                if rate >= least and slot not in found
            ]
            found.update(dict.fromkeys(more))
            further = {link for path in self._stops(more) for link in path} - seen
            seen |= further
            links += further
        return list(found)

    def _looped_rates(self, reached: list[int]) -> list[float]:
        """New rates of these slots."""
        slots = self._slots
        self._num_looped += len(reached)
        paths = self._stops(reached)
        ours = set(reached)
        room = {}
        for link in {link for path in paths for link in path}:
            others = slots.rates[list(self._members[link] - ours)].sum()
            room[link] = self._capacity_of[link] - float(others)
        return fair_rates(paths, slots.caps[reached].tolist(), room)

    def _compiled_rates(self, least: float, changed: list[int]) -> tuple[Ints, Floats]:
        """Slots that the change reaches, and their new rates."""
        from simpod.cluster.fabric import kernel

        slots = self._slots
        links = slots.links if self._watched_domains else slots.links[:2]
        active, at = slots.active(), np.array(changed, dtype=np.int64)
        return kernel.fair_rates(active, links, slots.rates_and_caps, self._limits, least, at)

    def _set_few(self, now_s: float, reached: list[int], rates: list[float]) -> list[int]:
        """Set rates; returns domains' links that are too full with them."""
        slots, too_full = self._slots, []
        for slot, rate in zip(reached, rates, strict=True):
            for link in slots.paths[slot][2:]:
                self._domain_rate[link] += rate - float(slots.rates[slot])
                if self._domain_rate[link] * JUST_BELOW > self._capacity_of[link]:
                    too_full.append(link)
            slots.set_rate(slot, now_s, rate)
        return [link for link in too_full if link not in self._watched_domains]

    def _set_many(self, now_s: float, reached: Ints, rates: Floats) -> list[int]:
        """The same with arrays."""
        slots = self._slots
        old = slots.rates.take(reached)
        moves = (abs(rates - old) > SAME_FRAC * old).nonzero()[0]
        changes, rates = reached.take(moves), rates.take(moves)
        slots.set_rates(changes, now_s, rates)
        return self._weigh_domains(changes, rates - old.take(moves))

    def _weigh_domains(self, changes: Ints, differences: Floats) -> list[int]:
        """Add to the rates on the links of domains; returns those that are too full."""
        for row in (2, 3):
            links = self._slots.links[row].take(changes)
            self._domain_rate += np.bincount(links, differences, len(self._domain_rate))
        self._domain_rate[-1] = 0.0  # stands for none
        too_full = (self._domain_rate * JUST_BELOW > self._capacity) & (self._limits == inf)
        found: list[int] = too_full.nonzero()[0].tolist()
        return found

    def _let_go(self) -> None:
        """Watch links of domains no more that have room again."""
        calm = [
            link
            for link in self._watched_domains
            if self._domain_rate[link] < CALM_FRAC * self._capacity_of[link]
        ]
        self._watched_domains.difference_update(calm)
        self._limits[calm] = inf
