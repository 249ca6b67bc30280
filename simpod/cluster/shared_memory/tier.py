"""One kind of memory of one shard: blocks of one size, an eviction policy, exact counts."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from simpod.errors import InvariantError, PolicyError, blaming

Evict = Callable[["TierFacade"], int]
"""Chooses the block that a full tier gives up: `policies.CachePolicy`."""


@dataclass(frozen=True, slots=True)
class TierFacade:
    """Read-only view of a tier: `policies.CacheView`; iteration is lazy, from either order."""

    _tier: "Tier"

    @property
    def num_blocks(self) -> int:
        """Blocks held."""
        return self._tier.held

    @property
    def by_last_use(self) -> Iterator[int]:
        """Blocks, the one unused for the longest first."""
        return iter(self._tier.used)

    @property
    def by_entry(self) -> Iterator[int]:
        """Blocks, the one that came first first."""
        return iter(self._tier.entered)

    @property
    def by_hits(self) -> Iterator[int]:
        """Blocks, those with the fewest hits first; among equals, the longest unused."""
        counts = self._tier.by_count
        return (block for count in sorted(counts) for block in counts[count])

    def hits(self, block: int, /) -> int:
        """Reads of a block since it came."""
        return self._tier.used[block]

    @property
    def num_uses(self) -> int:
        """Reads and entries so far."""
        return self._tier.num_uses

    def last_use(self, block: int, /) -> int:
        """`num_uses` when a block was last read, or came."""
        return self._tier.last_use[block]

    def depth(self, block: int, /) -> int:
        """0: blocks are spread over memories, none knows the prefix of one."""
        return 0

    def wanted_place(self, block: int, /) -> float:
        """Place in its queue of the first waiting request that has this block; infinity: none."""
        return self._tier.look_ahead().get(block, inf)


class Tier:
    """Blocks by id; free + held == capacity at all times."""

    def __init__(self, capacity_blocks: int, policy: Evict, policy_name: str) -> None:
        if capacity_blocks < 0:
            raise InvariantError(f"a tier of {capacity_blocks} blocks")
        self.capacity_blocks = capacity_blocks
        self.used: OrderedDict[int, int] = OrderedDict()  # block -> hits, longest unused first
        self.entered: dict[int, None] = {}
        self.last_use: dict[int, int] = {}
        self.num_uses = 0
        self.by_count: dict[int, OrderedDict[int, None]] = {}
        self.look_ahead: Callable[[], Mapping[int, float]] = dict
        """Block -> place in its queue of the first waiting request that has it."""
        self._policy = policy
        self._name = policy_name
        self._view = TierFacade(self)

    def __contains__(self, block: int) -> bool:
        return block in self.used

    @property
    def held(self) -> int:
        """Blocks that are here."""
        return len(self.used)

    @property
    def free(self) -> int:
        """Blocks that would still fit."""
        return self.capacity_blocks - len(self.used)

    def touch(self, block: int) -> None:
        """A block is read."""
        hits = self.used[block]
        self._uncount(block, hits)
        self.used[block] = hits + 1
        self.used.move_to_end(block)
        self._use(block)
        self.by_count.setdefault(hits + 1, OrderedDict())[block] = None

    def put(self, block: int) -> list[int]:
        """Take a block in; returns those that had to go, perhaps itself (without any room)."""
        if block in self.used:
            raise InvariantError(f"block {block} is held already")
        if not self.capacity_blocks:
            return [block]
        gone = []
        while self.free < 1:
            victim = self._victim()
            self.drop(victim)
            gone.append(victim)
        self.used[block] = 0
        self.entered[block] = None
        self._use(block)
        self.by_count.setdefault(0, OrderedDict())[block] = None
        return gone

    def drop(self, block: int) -> None:
        """Give a block up."""
        self._uncount(block, self.used.pop(block))
        del self.entered[block], self.last_use[block]

    def _use(self, block: int) -> None:
        self.num_uses += 1
        self.last_use[block] = self.num_uses

    def _uncount(self, block: int, hits: int) -> None:
        same = self.by_count[hits]
        del same[block]
        if not same:
            del self.by_count[hits]

    def _victim(self) -> int:
        with blaming(self._name, " while evicting"):
            victim = self._policy(self._view)
        if victim not in self.used:
            raise PolicyError(self._name, f"evicts {victim!r}, which is not held")
        return victim
