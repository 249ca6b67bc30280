"""Prefix cache of one rank under a policy: which idle unit goes is for the policy to say."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from simpod.cluster.prefix import PrefixCache
from simpod.errors import PolicyError, blaming

Evict = Callable[["CacheFacade"], int]
"""Chooses the idle unit that goes: `policies.CachePolicy`."""


@dataclass(frozen=True, slots=True)
class CacheFacade:
    """Read-only view of the idle units of a cache: `policies.CacheView`."""

    _cache: "RankedPrefixCache"

    @property
    def num_blocks(self) -> int:
        """Idle units."""
        return self._cache.num_idle

    @property
    def by_last_use(self) -> Iterator[int]:
        """Idle units, the one unused for the longest first."""
        return iter(self._cache.idle)

    @property
    def by_entry(self) -> Iterator[int]:
        """Idle units, the one that came first first."""
        idle = self._cache.idle
        return (unit for unit in self._cache.hits if unit in idle)

    @property
    def by_hits(self) -> Iterator[int]:
        """Idle units, those with the fewest hits first; among equals, the longest unused."""
        counts = self._cache.by_count
        return (unit for count in sorted(counts) for unit in counts[count])

    def hits(self, block: int, /) -> int:
        """Reads of a unit since it came."""
        return self._cache.hits[block]

    @property
    def num_uses(self) -> int:
        """Reads and entries so far."""
        return self._cache.num_uses

    def last_use(self, block: int, /) -> int:
        """`num_uses` when a unit was last read, or came."""
        return self._cache.last_use[block]

    def depth(self, block: int, /) -> int:
        """Units of its prefix before it."""
        return self._cache.depth[block]

    def wanted_place(self, block: int, /) -> float:
        """Infinity: the queue is not looked at here."""
        return inf


class RankedPrefixCache(PrefixCache):
    """A prefix cache that counts what a policy may ask for; all of it goes with the unit."""

    def __init__(self, policy: Evict, policy_name: str) -> None:
        super().__init__()
        self.hits: dict[int, int] = {}  # in order of entry
        self.last_use: dict[int, int] = {}
        self.depth: dict[int, int] = {}
        self.by_count: dict[int, OrderedDict[int, None]] = {}  # idle units by hits
        self.num_uses = 0
        self._policy = policy
        self._name = policy_name
        self._view = CacheFacade(self)

    @property
    def idle(self) -> OrderedDict[int, None]:
        """Idle units, the one unused for the longest first."""
        return self._idle

    def pin(self, ids: Sequence[int]) -> int:
        """Use resident units; return how many of them were idle until now."""
        for unit in ids:
            if unit in self._idle:
                self._uncount(unit)
            self.hits[unit] += 1
            self._use(unit)
        return super().pin(ids)

    def add(self, unit: int, depth: int = 0) -> bool:
        """Make a freshly computed unit resident, used once; False if it is resident already."""
        is_new = super().add(unit)
        if is_new:
            self.hits[unit] = 0
            self.depth[unit] = depth
            self._use(unit)
        return is_new

    def unpin(self, ids: Sequence[int]) -> int:
        """Stop using units, tail first; return how many became idle."""
        rested = super().unpin(ids)
        for unit in reversed(ids):
            if unit in self._idle:
                self.by_count.setdefault(self.hits[unit], OrderedDict())[unit] = None
        return rested

    def evict(self) -> None:
        """Drop the idle unit that the policy names."""
        with blaming(self._name, " while evicting"):
            unit = self._policy(self._view)
        if unit not in self._idle:
            raise PolicyError(self._name, f"evicts {unit!r}, which is not idle here")
        self._uncount(unit)
        del self._idle[unit], self._users[unit]
        del self.hits[unit], self.last_use[unit], self.depth[unit]

    def _use(self, unit: int) -> None:
        self.num_uses += 1
        self.last_use[unit] = self.num_uses

    def _uncount(self, unit: int) -> None:
        same = self.by_count[self.hits[unit]]
        del same[unit]
        if not same:
            del self.by_count[self.hits[unit]]
