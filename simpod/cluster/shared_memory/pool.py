"""DRAM of chosen hosts and a part of an SSD behind each, as one pool of KV blocks.

A shard is one CPU socket's memory. Blocks lie where consistent hashing puts them, `replication`
copies on as many hosts. A block that DRAM evicts goes to its shard's SSD part, where it has a place
at once and is found once it has arrived; what that evicts is gone. A block that is read from SSD
moves back to DRAM.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from simpod.cluster.shared_memory.ring import HashRing
from simpod.cluster.shared_memory.tier import Evict, Tier
from simpod.errors import ConfigError

DRAM: Final = 0
SSD: Final = 1
LOCAL: Final = 2
TIERS: Final = ("dram", "ssd")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMemorySpec:
    """What the pool is made of; bytes are those of the pool, not of one host, for SSD."""

    hosts: int
    sockets_per_host: int
    dram_bytes_per_host: float
    ssd_bytes: float
    block_bytes: float
    block_tokens: int
    replication: int = 1
    virtual_nodes: int = 64
    local_bytes_per_host: float = 0.0  # DRAM for a host's own dies, beside the pool

    @property
    def local_blocks(self) -> int:
        """Whole blocks in the local DRAM of one host."""
        return int(self.local_bytes_per_host // self.block_bytes)

    @property
    def num_shards(self) -> int:
        """Sockets of all hosts."""
        return self.hosts * self.sockets_per_host

    @property
    def dram_blocks(self) -> int:
        """Whole blocks in the DRAM of one shard."""
        return int(self.dram_bytes_per_host / self.sockets_per_host // self.block_bytes)

    @property
    def ssd_blocks(self) -> int:
        """Whole blocks in the SSD part of one shard."""
        return int(self.ssd_bytes / self.num_shards // self.block_bytes)


class Found(NamedTuple):
    """Where a block is."""

    block: int
    host: int
    socket: int  # CPU number within the pod: host x sockets + place
    tier: int  # DRAM or SSD of the pool, or LOCAL: of the reader's host alone


class Demotion(NamedTuple):
    """A block on its way from a socket's DRAM to its SSD."""

    block: int
    socket: int
    number: int  # of all demotions: the same block may be on its way again


class SharedMemory:
    """Who holds which block. Nothing takes time here: who moves blocks says when they are there."""

    def __init__(
        self, spec: SharedMemorySpec, make_policy: Callable[[], Evict], policy_name: str
    ) -> None:
        if not spec.dram_blocks:
            raise ConfigError(
                f"shared memory: {spec.dram_bytes_per_host:g} bytes a host hold no block of"
                f" {spec.block_bytes:g} bytes in each of {spec.sockets_per_host} sockets"
            )
        self.spec = spec
        self.num_lost_blocks = 0  # copies that were evicted from the last tier
        self.num_demoted_blocks = 0  # from DRAM to SSD
        self.num_promoted_blocks = 0  # back
        hosts = [shard // spec.sockets_per_host for shard in range(spec.num_shards)]
        self._ring = HashRing(hosts, virtual_nodes=spec.virtual_nodes, replication=spec.replication)
        capacities = (spec.dram_blocks, spec.ssd_blocks)
        self.shards = [
            tuple(Tier(blocks, make_policy(), policy_name) for blocks in capacities)
            for _ in range(spec.num_shards)
        ]
        self._arriving: list[dict[int, int]] = [{} for _ in self.shards]  # block -> demotion
        self._demotions: list[Demotion] = []  # that nobody has taken up yet

    def held_blocks(self, tier: int) -> int:
        """Copies that a tier holds, all shards."""
        return sum(shard[tier].held for shard in self.shards)

    def free_blocks(self, tier: int) -> int:
        """Copies that a tier could still take, all shards."""
        return sum(shard[tier].free for shard in self.shards)

    def __contains__(self, block: int) -> bool:
        return self.find(block) is not None

    def find(self, block: int, near_host: int = -1) -> Found | None:
        """The best copy of a block: DRAM before SSD, the reader's host before others."""
        best: Found | None = None
        for shard in self._ring.holders(block):
            for tier, memory in enumerate(self.shards[shard]):
                if block in memory and not (tier == SSD and block in self._arriving[shard]):
                    host = shard // self.spec.sockets_per_host
                    found = Found(block, host, shard, tier)
                    if tier == DRAM and (host == near_host or near_host < 0):
                        return found
                    if best is None or (tier, host != near_host) < (
                        best.tier,
                        best.host != near_host,
                    ):
                        best = found
        return best

    def find_prefix(self, blocks: Sequence[int], near_host: int = -1) -> list[Found]:
        """Copies of the leading blocks that are here."""
        found: list[Found] = []
        for block in blocks:
            here = self.find(block, near_host)
            if here is None:
                break
            found.append(here)
        return found

    def read(self, found: Found) -> None:
        """A block is read: note the use; from SSD it moves to DRAM.

        Where the block before it in the same read has pushed it out, it is not put back.
        """
        dram, ssd = self.shards[found.socket]
        if found.block in dram:
            dram.touch(found.block)
        elif found.block in ssd and found.block not in self._arriving[found.socket]:
            ssd.drop(found.block)
            self.num_promoted_blocks += 1
            self._put(found.socket, found.block)

    def homes(self, block: int) -> tuple[int, ...]:
        """Sockets that should have a copy of a block and have none."""
        return tuple(
            shard
            for shard in self._ring.holders(block)
            if not any(block in memory for memory in self.shards[shard])
        )

    def write(self, block: int, socket: int) -> None:
        """A copy has arrived at a socket; one that is there already stays."""
        if not any(block in memory for memory in self.shards[socket]):
            self._put(socket, block)

    def take_demotions(self) -> list[Demotion]:
        """Blocks that have been given up by DRAM since the last time: to be moved to SSD."""
        taken, self._demotions = self._demotions, []
        return taken

    def arrive(self, demotion: Demotion) -> None:
        """A block is on its SSD and can be read, if it has not been given up meanwhile."""
        arriving = self._arriving[demotion.socket]
        if arriving.get(demotion.block) == demotion.number:
            del arriving[demotion.block]

    def _put(self, socket: int, block: int) -> None:
        dram, ssd = self.shards[socket]
        arriving = self._arriving[socket]
        for demoted in dram.put(block):
            for lost in ssd.put(demoted):
                self.num_lost_blocks += 1
                arriving.pop(lost, None)
            if ssd.capacity_blocks:
                arriving[demoted] = self.num_demoted_blocks
                self._demotions.append(Demotion(demoted, socket, self.num_demoted_blocks))
                self.num_demoted_blocks += 1
