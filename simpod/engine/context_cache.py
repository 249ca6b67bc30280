"""Context caching: prompt prefixes that lie in the shared memory are read, not computed.

When a slot of a prefill rank is there for a prompt, its leading blocks are looked up in the pool,
beyond those in the rank's own prefix cache. What is found is read over the fabric while the rank
goes on with its steps; then the prompt joins with its prefix resident. When a prompt is computed,
its blocks that the pool lacks are written there; others find them once they have arrived.

Every die of a rank reads what it needs of each block, from all sockets at once, and no faster in
all than one operation does alone. The write comes from one die for each different part.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from simpod.cluster import Placement
from simpod.cluster.shared_memory import (
    DRAM,
    LOCAL,
    SSD,
    Evict,
    Found,
    LocalMemory,
    SharedMemory,
    SharedMemorySpec,
    Tier,
)
from simpod.engine.demotions import Demotions
from simpod.engine.layer_streams import LayerStreams
from simpod.engine.network import Network, Operation, Part
from simpod.engine.sequence import Sequence as Request
from simpod.engine.transfer_log import CACHE_READ, NOWHERE, WRITE_BACK
from simpod.errors import InvariantError
from simpod.hardware import TransferLaw
from simpod.policies import Ints, RouteRequest
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
    local_law: TransferLaw | None = None  # of a die and its own host's DRAM; None: no local tier
    num_shards: int = 1  # different parts of a block on the dies of a rank
    die_bytes_per_token: float
    waits_for_reads: bool = False  # a group's step waits for the reads that are under way
    num_layers: int | None = None  # then prefixes come, and go, layer by layer; None: whole
    write_back: bool = True


@dataclass(frozen=True, slots=True)
class _Share:
    """What of the blocks is moved at a time."""

    frac: float = 1.0
    pace_s: float = 0.0  # no faster than in this time
    goes_on: bool = False  # after another share: no start-up


class ContextCache:
    """The pool in a run."""

    def __init__(self, sim: "Simulation", inputs: CacheInputs, network: Network) -> None:
        self.memory = SharedMemory(inputs.spec, inputs.make_policy, inputs.policy_name)
        self.unit_tokens = inputs.spec.block_tokens
        self._sim = sim
        self.waits_for_reads = inputs.waits_for_reads
        self._inputs = inputs
        self.layers = LayerStreams(self, inputs.num_layers) if inputs.num_layers else None
        self._network = network
        self._demotions = self._to_ssd()
        self._local = self._local_memory()
        self._wanted: dict[int, float] = {}
        self._wanted_at: tuple[float, int] = (-1.0, -1)  # time, and requests in queues
        for tier in self._tiers():
            tier.look_ahead = self._look_ahead
        self._under_way: set[tuple[int, int]] = set()  # block and socket of writes
        self._local_under_way: set[tuple[int, int]] = set()  # block and host
        self._read_bytes = [0.0, 0.0, 0.0]
        self._local_written_bytes = 0.0
        self._written_bytes = 0.0
        self._own_host_bytes = 0.0

    def find(self, seq: Request, rank: "Rank", local_tokens: int) -> list[Found]:
        """Blocks beyond `local_tokens` that can be read; one token is left to compute."""
        unit = self.unit_tokens
        blocks = self._blocks(seq)[local_tokens // unit : (seq.goal_tokens - 1) // unit]
        return self._readable(blocks, rank)

    def _readable(self, blocks: Sequence[int], rank: "Rank") -> list[Found]:
        """Copies of leading blocks that a rank can read."""
        host = self._host(rank)
        if self._local is not None:
            return self._local.find_prefix(blocks, host, self._own_socket(rank), self.memory)
        return self.memory.find_prefix(blocks, host) if blocks else []

    def reusable_tokens(self, request: RouteRequest, ranks: Sequence["Rank"], hits: Ints) -> Ints:
        """[ranks] `hits`, the tokens in their prefix caches, or more with what they can read."""
        unit = self.unit_tokens
        blocks = self._blocks(request)[: (request.prompt_tokens - 1) // unit]
        reusable = hits.copy()
        known: dict[tuple[int, int], int] = {}  # host, where it matters, and blocks that are there
        for index, rank in enumerate(ranks):
            first = int(hits[index]) // unit
            key = (self._host(rank) if self._local is not None else -1, first)
            if key not in known:
                known[key] = (first + len(self._readable(blocks[first:], rank))) * unit
            reusable[index] = max(reusable[index], known[key])
        return reusable

    def hit_tokens(self, found: Sequence[Found], local_tokens: int) -> int:
        """Tokens that are resident once these have been read."""
        return (local_tokens // self.unit_tokens + len(found)) * self.unit_tokens

    def read(
        self,
        seq: Request,
        rank: "Rank",
        found: Sequence[Found],
        on_begun: Callable[[], None],
        on_done: Callable[[], None],
    ) -> None:
        """Read blocks into all dies of a rank; `on_begun`: the first layer is here, or all are.

        Layer by layer `on_done` follows when the others are.
        """
        host = self._host(rank)
        by_tier: list[dict[int, int]] = [defaultdict(int), defaultdict(int), defaultdict(int)]
        for block in found:
            by_tier[block.tier][block.socket] += 1
            if self._local is not None and block.tier == LOCAL:
                self._local.read(block)
            else:
                self.memory.read(block)
        self._demote()
        own = by_tier[DRAM]
        mine = sum(n for socket, n in own.items() if self._host_of(socket) == host)
        dies = self._inputs.placement.dies(rank.target)
        self._own_host_bytes += mine * self._unit_bytes * len(dies)
        asked_s = self._sim.clock.now
        fetched = [block.block for block in found if block.tier != LOCAL]

        def done() -> None:
            self._keep_locally(seq, rank, fetched)
            on_done()

        def begun() -> None:
            seq.cache_read_s += self._sim.clock.now - asked_s
            on_begun()
            if self.layers is not None:
                rest = _Share(1.0 - self.layers.first_frac, goes_on=True)
                self._read_share(seq, rank, by_tier, rest, done)
            else:
                done()

        first = _Share(1.0 if self.layers is None else self.layers.first_frac)
        self._read_share(seq, rank, by_tier, first, begun)

    def _read_share(
        self,
        seq: Request,
        rank: "Rank",
        by_tier: Sequence[dict[int, int]],
        share: "_Share",
        on_done: Callable[[], None],
    ) -> None:
        """Read a share of every block, from both tiers at once; by_tier: socket -> blocks."""
        inputs = self._inputs
        waiting = [sum(bool(sockets) for sockets in by_tier)]

        def done(operation: Operation) -> None:
            self._note(seq, CACHE_READ, rank.target, operation)
            waiting[0] -= 1
            if not waiting[0]:
                on_done()

        laws = ((DRAM, inputs.read_law), (SSD, inputs.ssd_law), (LOCAL, inputs.local_law))
        for tier, law in laws:
            if by_tier[tier]:
                if law is None:
                    raise InvariantError("blocks in a tier, and no way to read them")
                dies = inputs.placement.dies(rank.target)
                pairs = [(die, socket, n) for die in dies for socket, n in by_tier[tier].items()]
                size_bytes = sum(n for *_, n in pairs) * self._unit_bytes * share.frac
                self._read_bytes[tier] += size_bytes
                self._send(pairs, law, done, share, is_read=True)

    def write_back(
        self, seq: Request, rank: "Rank", tokens: int | None = None, pace_s: float = 0.0
    ) -> None:
        """Write the blocks of a computed prompt that the pool lacks, in no less than `pace_s`.

        tokens: that are computed when they are there; default: those that are resident.
        """
        inputs = self._inputs
        if not inputs.write_back or rank.group.spec.role == "decode":
            return
        computed = seq.resident_tokens if tokens is None else tokens
        blocks = self._blocks(seq)[: computed // self.unit_tokens]
        self._keep_locally(seq, rank, blocks, pace_s)
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
            self._demote()

        self._send(pairs, inputs.write_law, done, _Share(pace_s=pace_s), is_read=False)

    def _keep_locally(
        self, seq: Request, rank: "Rank", blocks: Sequence[int], pace_s: float = 0.0
    ) -> None:
        """Copy blocks that a rank has into its host's own DRAM, where that has a tier."""
        local, law, host = self._local, self._inputs.local_law, self._host(rank)
        if local is None or law is None:
            return
        new = [b for b in local.lacking(blocks, host) if (b, host) not in self._local_under_way]
        if not new:
            return
        self._local_under_way.update((block, host) for block in new)
        dies = self._inputs.placement.dies(rank.target)
        sources = dies[:: len(dies) // self._inputs.num_shards]
        pairs = [(die, self._own_socket(rank), len(new)) for die in sources]

        def done(operation: Operation) -> None:
            self._note(seq, WRITE_BACK, rank.target, operation)
            self._local_under_way.difference_update((block, host) for block in new)
            self._local_written_bytes += sum(part.size_bytes for part in operation.parts)
            for block in new:
                local.write(block, host)

        self._send(pairs, law, done, _Share(pace_s=pace_s), is_read=False)

    def records(self) -> SharedMemoryRecords:
        """What the pool holds, and what went in and out so far."""
        memory, spec, local = self.memory, self._inputs.spec, self._local
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
            local_capacity_blocks=local.capacity_blocks if local else 0,
            local_held_blocks=local.held_blocks if local else 0,
            local_lost_blocks=local.num_lost_blocks if local else 0,
            local_read_bytes=self._read_bytes[LOCAL],
            local_written_bytes=self._local_written_bytes,
        )

    def _tiers(self) -> Iterator[Tier]:
        """Every memory that evicts."""
        for shard in self.memory.shards:
            yield from shard
        yield from self._local.tiers if self._local is not None else ()

    def _look_ahead(self) -> dict[int, float]:
        """Blocks of the prompts that wait -> their places in the queues; made when asked for."""
        dispatch = self._sim.entry.dispatch
        at = (self._sim.clock.now, sum(dispatch.waiting_seqs))
        if at != self._wanted_at:
            self._wanted_at, self._wanted = at, {}
            for rank in dispatch.ranks:
                for place, seq in enumerate(rank.waiting.values()):
                    for block in self._blocks(seq):
                        before = self._wanted.get(block, inf)
                        self._wanted[block] = min(before, float(place))
        return self._wanted

    def _to_ssd(self) -> Demotions | None:
        inputs = self._inputs
        if not inputs.spec.ssd_blocks:
            return None
        if inputs.ssd_law is None:
            raise InvariantError("an SSD tier, and no way to it")
        block_bytes = inputs.num_shards * self._unit_bytes
        return Demotions(self._sim, self.memory, inputs.ssd_law, block_bytes)

    def _demote(self) -> None:
        if self._demotions is not None:
            self._demotions.start(self._network)

    def _local_memory(self) -> LocalMemory | None:
        inputs = self._inputs
        if inputs.local_law is None:
            return None
        num_hosts = self._network.fabric.num_nodes
        return LocalMemory(inputs.spec, num_hosts, inputs.make_policy, inputs.policy_name)

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
        share: "_Share",
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
            if not share.goes_on:
                start_up_s = max(start_up_s, law.start_s(same_node=same_node))
            most = law.bytes_per_s(same_node=same_node) * blocks / total[die]
            size_bytes = blocks * self._unit_bytes * share.frac
            if share.pace_s:
                most = min(most, size_bytes / share.pace_s)
            ends = (cpu, die) if is_read else (die, cpu)
            parts.append(self._network.part(*ends, law.plane, size_bytes, most))
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

    def _blocks(self, seq: Request | RouteRequest) -> list[int]:
        return self._sim.inputs.requests.prefix_units(seq.seq_id, self.unit_tokens)

    def _host(self, rank: "Rank") -> int:
        return self._network.fabric.node_of[self._inputs.placement.die(rank.target)]

    def _own_socket(self, rank: "Rank") -> int:
        """A CPU of the rank's host: ranks take turns."""
        sockets = self._inputs.spec.sockets_per_host
        return self._host(rank) * sockets + rank.target % sockets

    def _host_of(self, socket: int) -> int:
        return socket // self._inputs.spec.sockets_per_host
