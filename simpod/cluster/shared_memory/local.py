"""DRAM of each host that serves its own dies alone, in front of the pool."""

from collections.abc import Callable, Iterable, Sequence

from simpod.cluster.shared_memory.pool import LOCAL, Found, SharedMemory, SharedMemorySpec
from simpod.cluster.shared_memory.tier import Evict, Tier


class LocalMemory:
    """A cache of blocks in each host; what it gives up is gone from there, the pool may have it."""

    def __init__(
        self, spec: SharedMemorySpec, num_hosts: int, make_policy: Callable[[], Evict], name: str
    ) -> None:
        self.spec = spec
        self.num_lost_blocks = 0
        self.tiers = [Tier(spec.local_blocks, make_policy(), name) for _ in range(num_hosts)]

    @property
    def capacity_blocks(self) -> int:
        """Of all hosts."""
        return self.spec.local_blocks * len(self.tiers)

    @property
    def held_blocks(self) -> int:
        """Of all hosts."""
        return sum(tier.held for tier in self.tiers)

    def find_prefix(
        self, blocks: Sequence[int], host: int, socket: int, pool: SharedMemory
    ) -> list[Found]:
        """Copies of the leading blocks that are here or in the pool; socket: of the host."""
        tier = self.tiers[host]
        found: list[Found] = []
        for block in blocks:
            here = Found(block, host, socket, LOCAL) if block in tier else pool.find(block, host)
            if here is None:
                break
            found.append(here)
        return found

    def read(self, found: Found) -> None:
        """A block is read, if the one before it has not pushed it out."""
        if found.block in self.tiers[found.host]:
            self.tiers[found.host].touch(found.block)

    def lacking(self, blocks: Iterable[int], host: int) -> list[int]:
        """Blocks that a host does not have."""
        return [block for block in blocks if block not in self.tiers[host]]

    def write(self, block: int, host: int) -> None:
        """A copy has arrived at a host; one that is there already stays."""
        if block not in self.tiers[host]:
            self.num_lost_blocks += len(self.tiers[host].put(block))
