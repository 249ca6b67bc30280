"""Context caching: prompt prefixes that lie in the shared memory are read, not computed.

When a slot of a prefill rank is there for a prompt, its leading blocks are looked up in the pool,
beyond those in the rank's own prefix cache. What is found is read over the fabric while the rank
goes on with its steps; then the prompt joins with its prefix resident. When a prompt is computed,
its blocks that the pool lacks are written there; others find them once they have arrived.

Every die of a rank reads what it needs of each block, from all sockets at once, and no faster in
all than one operation does alone. The write comes from one die for each different part.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simpod.cluster import Placement
from simpod.cluster.shared_memory import DRAM, SSD, Evict, Found, SharedMemory, SharedMemorySpec
from simpod.engine.network import Network, Operation, Part
from simpod.engine.sequence import Sequence as Request
from simpod.engine.transfer_log import CACHE_READ, NOWHERE, WRITE_BACK
from simpod.errors import InvariantError
from simpod.hardware import TransferLaw
from simpod.records.columns import SharedMemoryRecords

if TYPE_CHECKING:
    from simpod.engine.rank import Rank
    from simpod.engine.simulation import Simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheInputs:
    """The pool and how the dies of the entry pool reach it."""

    spec: SharedMemorySpec
    make_policy: Callable[[], Evict]
    policy_name: str
    read_law: TransferLaw
    write_law: TransferLaw
    placement: Placement
    ssd_law: TransferLaw | None = None
    num_shards: int = 1  # different parts of a block on the dies of a rank
    die_bytes_per_token: float
    waits_for_reads: bool = False  # a group's step waits for the reads that are under way
    write_back: bool = True


class ContextCache:
    """The pool in a run."""

    def __init__(self, sim: "Simulation", inputs: CacheInputs, network: Network) -> None:
        self.memory = SharedMemory(inputs.spec, inputs.make_policy, inputs.policy_name)
        self.unit_tokens = inputs.spec.block_tokens
        self._sim = sim
        self.waits_for_reads = inputs.waits_for_reads
        self._inputs = inputs
        self._network = network
        self._under_way: set[tuple[int, int]] = set()  # block and socket of writes
        self._read_bytes = [0.0, 0.0]
        self._written_bytes = 0.0
        self._own_host_bytes = 0.0

    def find(self, seq: Request, rank: "Rank", local_tokens: int) -> list[Found]:
        """Blocks beyond `local_tokens` that can be read; one token is left to compute."""
        unit = self.unit_tokens
        most = (seq.goal_tokens - 1) // unit
        first = local_tokens // unit
        blocks = self._blocks(seq)[first:most]
        return self.memory.find_prefix(blocks, self._host(rank)) if blocks else []

    def hit_tokens(self, found: Sequence[Found], local_tokens: int) -> int:
        """Tokens that are resident once these have been read."""
        return (local_tokens // self.unit_tokens + len(found)) * self.unit_tokens

    def read(
        self, seq: Request, rank: "Rank", found: Sequence[Found], on_done: Callable[[], None]
    ) -> None:
        """Read blocks into all dies of a rank."""
        inputs = self._inputs
        host = self._host(rank)
        by_tier: list[dict[int, int]] = [defaultdict(int), defaultdict(int)]
        for block in found:
            by_tier[block.tier][block.socket] += 1
            self.memory.read(block)
        dies = inputs.placement.dies(rank.target)
        own = by_tier[DRAM]
        mine = sum(n for socket, n in own.items() if self._host_of(socket) == host)
        self._own_host_bytes += mine * self._unit_bytes * len(dies)
        num_open = sum(bool(sockets) for sockets in by_tier)
        asked_s = self._sim.clock.now
        waiting = [num_open]

        def done(operation: Operation) -> None:
            self._note(seq, CACHE_READ, rank.target, operation)
            waiting[0] -= 1
            if not waiting[0]:
                seq.cache_read_s += self._sim.clock.now - asked_s
                on_done()

        for tier, law in ((DRAM, inputs.read_law), (SSD, inputs.ssd_law)):
            if by_tier[tier]:
                if law is None:
                    raise InvariantError("blocks on SSD, and no way to read them")
                pairs = [(die, socket, n) for die in dies for socket, n in by_tier[tier].items()]
                self._read_bytes[tier] += sum(n for *_, n in pairs) * self._unit_bytes
                self._send(pairs, law, done, is_read=True)

    def write_back(self, seq: Request, rank: "Rank") -> None:
        """Write the blocks of a computed prompt that the pool lacks."""
        inputs = self._inputs
        if not inputs.write_back:
            return
        blocks = self._blocks(seq)[: seq.resident_tokens // self.unit_tokens]
        wanted = [
            (block, socket)
            for block in blocks
            for socket in self.memory.homes(block)
            if (block, socket) not in self._under_way
        ]
        if not wanted:
            return
        self._under_way.update(wanted)
        count: dict[int, int] = defaultdict(int)
        for _, socket in wanted:
            count[socket] += 1
        dies = inputs.placement.dies(rank.target)
        sources = dies[:: len(dies) // inputs.num_shards]
        pairs = [(die, socket, n) for die in sources for socket, n in count.items()]

        def done(operation: Operation) -> None:
            self._note(seq, WRITE_BACK, rank.target, operation)
            self._under_way.difference_update(wanted)
            self._written_bytes += sum(part.size_bytes for part in operation.parts)
            for block, socket in wanted:
                self.memory.write(block, socket)

        self._send(pairs, inputs.write_law, done, is_read=False)

    def records(self) -> SharedMemoryRecords:
        """What the pool holds, and what went in and out so far."""
        memory, spec = self.memory, self._inputs.spec
        return SharedMemoryRecords(
            block_bytes=spec.block_bytes,
            dram_capacity_blocks=spec.dram_blocks * spec.num_shards,
            ssd_capacity_blocks=spec.ssd_blocks * spec.num_shards,
            dram_held_blocks=memory.held_blocks(DRAM),
            ssd_held_blocks=memory.held_blocks(SSD),
            lost_blocks=memory.num_lost_blocks,
            dram_read_bytes=self._read_bytes[DRAM],
            own_host_read_bytes=self._own_host_bytes,
            ssd_read_bytes=self._read_bytes[SSD],
            dram_written_bytes=self._written_bytes + memory.num_promoted_blocks * spec.block_bytes,
            ssd_written_bytes=memory.num_demoted_blocks * spec.block_bytes,
        )

    # --- links ----------------------------------------------------------------------------------

    @property
    def _unit_bytes(self) -> float:
        """What one die holds of a block."""
        return self.unit_tokens * self._inputs.die_bytes_per_token

    def _send(
        self,
        pairs: Iterable[tuple[int, int, int]],
        law: TransferLaw,
        on_done: Callable[[Operation], None],
        *,
        is_read: bool,
    ) -> None:
        """Move blocks between dies and sockets: one operation, its rate split over its parts."""
        fabric = self._network.fabric
        pairs = list(pairs)
        total: dict[int, int] = defaultdict(int)
        for die, _, blocks in pairs:
            total[die] += blocks
        parts: list[Part] = []
        start_up_s = 0.0
        for die, socket, blocks in pairs:
            cpu = fabric.cpu(socket)
            same_node = fabric.node_of[die] == fabric.node_of[cpu]
            start_up_s = max(start_up_s, law.start_s(same_node=same_node))
            most = law.bytes_per_s(same_node=same_node) * blocks / total[die]
            ends = (cpu, die) if is_read else (die, cpu)
            parts.append(self._network.part(*ends, law.plane, blocks * self._unit_bytes, most))
        self._network.send(parts, start_up_s, on_done)

    def _note(self, seq: Request, kind: int, target: int, operation: Operation) -> None:
        fabric, is_read = self._network.fabric, kind == CACHE_READ
        ranks = (NOWHERE, target) if is_read else (target, NOWHERE)
        for part in operation.parts:
            cpu = part.source if is_read else part.destination
            dies = (NOWHERE, part.destination) if is_read else (part.source, NOWHERE)
            end_s = min(part.end_s, operation.end_s)
            where = (*ranks, *dies, fabric.node_of[cpu])
            figures = (operation.start_s, end_s, part.size_bytes, 0.0, operation.alone_s)
            self._sim.transfers.add(seq.seq_id, kind, part.plane, where, figures)

    def _blocks(self, seq: Request) -> list[int]:
        return self._sim.inputs.requests.prefix_units(seq.seq_id, self.unit_tokens)

    def _host(self, rank: "Rank") -> int:
        return self._network.fabric.node_of[self._inputs.placement.die(rank.target)]

    def _host_of(self, socket: int) -> int:
        return socket // self._inputs.spec.sockets_per_host
