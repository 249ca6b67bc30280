"""Transfers in numbered slots: their links, rates, and what they have still to move, in arrays."""

from math import inf

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

START_SIZE = 64


class Slots:
    """Struct of arrays over slots [n]; slots are reused, the arrays double when they are full."""

    def __init__(self, no_link: int) -> None:
        self.no_link = no_link
        self.ids = np.empty(0, dtype=np.int64)  # -1: empty
        self.links = np.empty((4, 0), dtype=np.int64)  # out, in, out of the domain, into the other
        self.paths: list[tuple[int, ...]] = []  # the same without `no_link`
        self.slot_of: dict[int, int] = {}
        self._free: list[int] = []
        self._table = np.empty((6, 0))
        self._grow(START_SIZE)

    def __len__(self) -> int:
        return len(self.slot_of)

    def _grow(self, size: int) -> None:
        old = len(self.paths)
        more = size - old
        self._free += range(size - 1, old - 1, -1)
        self.paths += [()] * more
        self.ids = np.append(self.ids, np.full(more, -1))
        none = np.full((4, more), self.no_link)
        self.links = np.concatenate([self.links, none], axis=1)
        self._table = np.concatenate([self._table, np.full((6, more), inf)], axis=1)
        # left: bytes to move at since_s; ends_s: infinite without a rate
        self.rates, self.caps, self.sizes, self.left, self.since_s, self.ends_s = self._table

    def take(self, flow_id: int, path: tuple[int, ...], size_bytes: float, most: float) -> int:
        """A slot for a transfer that has no rate yet."""
        if not self._free:
            self._grow(2 * len(self.paths))
        slot = self._free.pop()
        self.slot_of[flow_id] = slot
        self.ids[slot] = flow_id
        self.paths[slot] = path
        self.links[: len(path), slot] = path
        self._table[:, slot] = (0.0, most, size_bytes, size_bytes, 0.0, inf)
        return slot

    def release(self, flow_id: int) -> None:
        """Empty the slot of a transfer."""
        slot = self.slot_of.pop(flow_id)
        self.ids[slot] = -1
        self.links[:, slot] = self.no_link
        self.ends_s[slot] = inf
        self._free.append(slot)

    @property
    def rates_and_caps(self) -> Floats:
        """Both, [2, n]."""
        return self._table[:2]

    def active(self) -> Ints:
        """Slots that are taken."""
        return (self.ids >= 0).nonzero()[0]

    def first_to_end(self) -> tuple[float, int]:
        """Time and id of the transfer that is done first; the oldest of equals."""
        if len(self.slot_of) == 1:
            ((flow_id, slot),) = self.slot_of.items()
            return float(self.ends_s[slot]), flow_id
        first_s = self.ends_s[self.ends_s.argmin()]
        equal = (self.ends_s == first_s).nonzero()[0]
        flow_id = self.ids[equal].min() if len(equal) > 1 else self.ids[equal[0]]
        return float(first_s), int(flow_id)

    def ended(self, now_s: float) -> list[tuple[float, int]]:
        """Times and ids of the transfers whose ends have come."""
        done = (self.ends_s <= now_s).nonzero()[0]
        return list(zip(self.ends_s[done].tolist(), self.ids[done].tolist(), strict=True))

    def moved_bytes(self, slot: int, now_s: float) -> float:
        """What a transfer has moved so far; all of it from its end on, without rounding."""
        size = float(self.sizes[slot])
        if now_s >= self.ends_s[slot]:
            return size
        rate = float(self.rates[slot])
        done = rate * (now_s - float(self.since_s[slot])) if rate else 0.0
        return min(size - float(self.left[slot]) + done, size)

    def moved_bytes_of(self, slots: Ints, now_s: float) -> Floats:
        """The same for many."""
        sizes = self.sizes.take(slots)
        done = self.rates.take(slots) * (now_s - self.since_s.take(slots))
        moved = np.minimum(sizes - self.left.take(slots) + done, sizes)
        return np.where(self.ends_s.take(slots) <= now_s, sizes, moved)

    def set_rate(self, slot: int, now_s: float, rate: float) -> None:
        """From now on a transfer goes on at `rate`."""
        done = float(self.rates[slot]) * (now_s - float(self.since_s[slot]))
        left = max(float(self.left[slot]) - done, 0.0)
        self.left[slot] = left
        self.since_s[slot] = now_s
        self.rates[slot] = rate
        self.ends_s[slot] = now_s + left / rate

    def set_rates(self, slots: Ints, now_s: float, rates: Floats) -> None:
        """The same for many."""
        done = self.rates.take(slots) * (now_s - self.since_s.take(slots))
        left = np.maximum(self.left.take(slots) - done, 0.0)
        self.left[slots] = left
        self.since_s[slots] = now_s
        self.rates[slots] = rates
        self.ends_s[slots] = now_s + left / rates

    def sums(self, slots: Ints, values: Floats) -> Floats:
        """Of a value of each of these slots, by link [no_link]."""
        links = self.links.take(slots, axis=1).ravel()
        return np.bincount(links, np.tile(values, 4), self.no_link + 1)[:-1].astype(np.float64)
