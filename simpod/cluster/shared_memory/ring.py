"""Consistent hashing: which shards hold a block, without a directory.

Every shard has `virtual_nodes` points on a ring of 2^64; a block belongs to the shard of the next
point, its copies to the next ones on other hosts. A shard that joins or leaves moves only the
blocks of its own arcs, 1/n of all (Karger et al. 1997).
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from simpod.errors import ConfigError

_MASK: Final = (1 << 64) - 1


def scatter(number: int) -> int:
    """A whole number to a place on the ring: the finaliser of SplitMix64, the same everywhere."""
    mixed = (number + 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


class HashRing:
    """Shards on a ring; copies of a block lie on different hosts."""

    def __init__(self, host_of: Sequence[int], *, virtual_nodes: int, replication: int) -> None:
        """host_of: [shards] host of each shard."""
        if replication > len(set(host_of)):
            raise ConfigError(
                f"replication {replication} takes as many hosts, there are {len(set(host_of))}"
            )
        self._host_of = tuple(host_of)
        self._replication = replication
        points = sorted(
            (scatter(scatter(shard) ^ node), shard)
            for shard in range(len(host_of))
            for node in range(virtual_nodes)
        )
        self._places = [place for place, _ in points]
        self._shards = [shard for _, shard in points]

    def holders(self, block: int) -> tuple[int, ...]:
        """Shards of a block, the first copy first."""
        first = bisect_right(self._places, scatter(block)) % len(self._places)
        if self._replication == 1:
            return (self._shards[first],)
        found: dict[int, int] = {}  # host -> shard
        at = first
        while len(found) < self._replication:
            shard = self._shards[at]
            found.setdefault(self._host_of[shard], shard)
            at = (at + 1) % len(self._places)
        return tuple(found.values())
