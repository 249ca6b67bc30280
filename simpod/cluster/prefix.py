"""Prefix cache of one rank: which prefix blocks are resident, who uses them, which may go first."""

from collections import OrderedDict
from collections.abc import Sequence


class PrefixCache:
    """Prefix units by hash id; an id stands for its whole prefix, so membership needs no tree.

    A unit in use is pinned; an idle one stays until its room is needed, least recently used first
    (vLLM's automatic prefix caching: blocks of a finished request are freed tail first).
    """

    def __init__(self) -> None:
        self._users: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def num_idle(self) -> int:
        """Units that nobody uses: they can be evicted."""
        return len(self._idle)

    def match(self, ids: Sequence[int]) -> int:
        """Count the leading `ids` that are resident."""
        users = self._users
        for position, unit in enumerate(ids):
            if unit not in users:
                return position
        return len(ids)

    def count_idle(self, ids: Sequence[int]) -> int:
        """Count the resident `ids` that nobody uses."""
        return sum(unit in self._idle for unit in ids)

    def pin(self, ids: Sequence[int]) -> int:
        """Use resident units; return how many of them were idle until now."""
        woken = 0
        for unit in ids:
            if self._users[unit] == 0:
                del self._idle[unit]
                woken += 1
            self._users[unit] += 1
        return woken

    def add(self, unit: int, depth: int = 0) -> bool:
        """Make a freshly computed unit resident, used once; False if it is resident already.

        depth: units of its prefix before it; of no use here.
        """
        if unit in self._users:
            return False
        self._users[unit] = 1
        return True

    def unpin(self, ids: Sequence[int]) -> int:
        """Stop using units, tail first; return how many became idle."""
        rested = 0
        for unit in reversed(ids):
            self._users[unit] -= 1
            if self._users[unit] == 0:
                self._idle[unit] = None
                rested += 1
        return rested

    def evict(self) -> None:
        """Drop the idle unit that was used longest ago."""
        unit, _ = self._idle.popitem(last=False)
        del self._users[unit]
