"""One run: pools of groups on one clock, fed by a source, leaving records."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from simpod.cluster import PoolSpec
from simpod.cost import KvTransfer, Pricer
from simpod.engine.clock import DELIVER, Clock
from simpod.engine.collect import PACK_REQUEST, collect
from simpod.engine.dispatch import Dispatcher
from simpod.engine.group import Group
from simpod.engine.ledger import RunLog
from simpod.engine.rank import Rank
from simpod.engine.sequence import NAN, Sequence
from simpod.engine.source import Source
from simpod.errors import InvariantError
from simpod.policies import BatchScheduler, Router
from simpod.records.columns import FINISHED, LIVE, REFUSED, RunRecords
from simpod.workload import Requests

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolInputs:
    """A pool and all that its groups need; factories make one policy for each rank or router."""

    spec: PoolSpec
    pricer: Pricer
    renew_prices: Callable[[float], float] | None = None
    """Brings prices up to now; returns until when they hold. None: always."""
    dies_per_npu: int
    make_router: Callable[[], Router]
    router_name: str
    router_rng: np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInputs:
    """All that a run depends on; `entry` gets the requests, `decode` takes over."""

    seed: int
    requests: Requests
    entry: PoolInputs
    decode: PoolInputs | None = None
    make_batching: Callable[[], BatchScheduler]
    batching_name: str
    transfer: KvTransfer | None = None
    first_token_from_decode: bool = False
    ttft_target_s: float = float("inf")
    skip_ahead: bool = True
    duration_s: float | None = None
    on_progress: Progress | None = field(default=None, compare=False)


class Pool:
    """The groups of one pool behind its router."""

    def __init__(self, sim: "Simulation", inputs: PoolInputs, first_group: int) -> None:
        spec = inputs.spec
        self.inputs = inputs
        self.spec = spec
        self.dispatch = Dispatcher(
            spec,
            sim.clock,
            name=inputs.router_name,
            policy=inputs.make_router(),
            rng=inputs.router_rng,
        )
        self.groups = [
            Group(
                sim,
                index=first_group + instance,
                instance=instance,
                dispatch=self.dispatch,
                pricer=inputs.pricer,
                make_policy=sim.inputs.make_batching,
            )
            for instance in range(spec.instances)
        ]
        for group in self.groups:
            group.renew_prices = inputs.renew_prices

    def rank_of(self, target: int) -> tuple[Group, Rank]:
        """The group and the rank behind a router's target."""
        instance, index = divmod(target, self.spec.layout.dp)
        group = self.groups[instance]
        return group, group.ranks[index]


class Simulation:
    """Runs once; keeps what is shared by all groups."""

    def __init__(self, inputs: RunInputs) -> None:
        self.inputs = inputs
        self.clock = Clock()
        self.skip_ahead = inputs.skip_ahead
        self.batching_name = inputs.batching_name
        self.output_tokens: list[int] = inputs.requests.output_tokens.tolist()
        self.log = RunLog()
        self.rows = bytearray()  # REQUEST_FIELDS of every request that has ended
        self.segments = array("q")  # seq_id, ledger, first, last decode step before a preemption
        self.transfers = array("d")
        self.live: dict[int, Sequence] = {}
        self.num_ended = 0
        self._total = len(inputs.requests)
        self._progress_every = max(1, self._total // 200)
        self.entry = Pool(self, inputs.entry, 0)
        self.decode = Pool(self, inputs.decode, len(self.entry.groups)) if inputs.decode else None
        self.pools = [self.entry] + ([self.decode] if self.decode else [])
        self.groups = [group for pool in self.pools for group in pool.groups]
        self.source = Source(
            inputs.requests, self.clock, self.prefix_unit_tokens(inputs.entry.spec)
        )
        self._longest = min(self._longest_of(pool.spec) for pool in self.pools)

    def run(self) -> RunRecords:
        """Simulate to the end, or to `duration_s`; raise InvariantError if something got stuck."""
        for group in self.groups:
            self.clock.process(group.run())
        self.source.start(self._arrive)
        self.clock.run(until=self.inputs.duration_s)
        if self.inputs.duration_s is None and self.live:
            for rank in (rank for group in self.groups for rank in group.ranks):
                rank.blame_idleness()
            raise InvariantError(
                f"{len(self.live)} requests can't go on at {self.clock.now:.6f} s, the first is "
                f"{next(iter(self.live))} (seed {self.inputs.seed}); please report this experiment"
            )
        for group in self.groups:
            group.stop()
        parts = self.log.by_group(len(self.groups))
        for group, part in zip(self.groups, parts, strict=True):
            group.ledger.close(*part)
        for seq in self.live.values():
            self._record(seq, LIVE)
        return collect(self)

    # --- what groups ask ------------------------------------------------------------------------

    def prefix_unit_tokens(self, spec: PoolSpec) -> int:
        """Tokens of one prefix unit, whole hash blocks and KV blocks; 0: no prefix reuse."""
        block = self.inputs.requests.hash_block_tokens
        if not block or not spec.prefix_caching or spec.role == "decode":
            return 0
        unit = max(block, spec.block_tokens)
        if unit % min(block, spec.block_tokens):
            raise InvariantError(
                f"prefix blocks of {block} and KV blocks of {spec.block_tokens} tokens don't match"
            )
        return unit

    def _longest_of(self, spec: PoolSpec) -> int:
        """Longest prompt + output that a rank can hold alone, with the last step's surplus."""
        return min(spec.max_model_len, spec.kv_blocks * spec.block_tokens - spec.layout.mtp_layers)

    # --- the life of a request ------------------------------------------------------------------

    def _arrive(self, seq: Sequence) -> None:
        if seq.prompt_tokens + self.output_tokens[seq.seq_id] > self._longest:
            self._end(seq, REFUSED)
            return
        self.live[seq.seq_id] = seq
        seq.ttft_deadline_s = seq.arrival_s + self.inputs.ttft_target_s
        target = self.entry.dispatch.choose(seq)
        if self.entry.spec.role != "decode":
            seq.prefill_target = target
        if self.entry.spec.role != "prefill":
            seq.decode_target = target
        group, rank = self.entry.rank_of(target)
        group.submit(seq, rank)

    def prompt_done(self, seq: Sequence, group: Group, rank: Rank) -> None:
        """A prompt (or its recomputation) is complete: the next token is there."""
        now_s = self.clock.now
        if seq.prefill_end_s != seq.prefill_end_s:
            seq.prefill_end_s = now_s
        is_prefill = group.spec.role == "prefill"
        pool = self.decode if is_prefill else None
        if pool is not None and self.inputs.first_token_from_decode:
            self._hand_over(seq, rank, pool)
            return
        if seq.emitted_tokens == 0:
            seq.first_token_s = now_s
        seq.emitted_tokens += 1
        is_last = seq.emitted_tokens == self.output_tokens[seq.seq_id]
        if is_last or (is_prefill and pool is None):
            rank.retire(seq)
            self.finish(seq)
        elif pool is not None:
            self._hand_over(seq, rank, pool)
        else:
            rank.begin_decode(seq)

    def _hand_over(self, seq: Sequence, rank: Rank, pool: Pool) -> None:
        """Register a finished prompt with the decode pool; its KV stays until it is pulled."""
        rank.pin(seq)
        seq.decode_target = pool.dispatch.choose(seq)
        group, decode_rank = pool.rank_of(seq.decode_target)
        group.submit(seq, decode_rank)

    def transfer(self, seq: Sequence, group: Group, rank: Rank) -> None:
        """Pull a prompt's KV into `rank`; both sides hold it until it is there."""
        law = self.inputs.transfer
        if law is None:
            raise InvariantError("no link for the KV transfer")
        start_s = self.clock.now
        end_s = start_s + law.seconds(seq.resident_tokens)
        seq.transfer_start_s = start_s
        self.transfers.extend(
            (
                seq.seq_id,
                seq.prefill_target,
                seq.decode_target,
                start_s,
                end_s,
                law.size_bytes(seq.resident_tokens),
            )
        )
        self.clock.call_at(end_s, DELIVER, lambda: self._delivered(seq, group, rank))

    def _delivered(self, seq: Sequence, group: Group, rank: Rank) -> None:
        seq.transfer_end_s = self.clock.now
        source, source_rank = self.entry.rank_of(seq.prefill_target)
        source.let_go(seq, source_rank)
        group.deliver(seq, rank)

    def finish(self, seq: Sequence) -> None:
        """A request has got its last token."""
        del self.live[seq.seq_id]
        self._end(seq, FINISHED)

    def _end(self, seq: Sequence, status: int) -> None:
        self._record(seq, status)
        self.num_ended += 1
        if self.inputs.on_progress is not None and self.num_ended % self._progress_every == 0:
            self.inputs.on_progress(self.num_ended, self._total, self.clock.now)
        self.source.on_end(seq.seq_id)

    def _record(self, seq: Sequence, status: int) -> None:
        finished = status == FINISHED
        last_step = -1
        if finished and seq.ledger >= 0:
            last_step = self.groups[seq.ledger].ledger.num_decode_steps
        self.rows += PACK_REQUEST(
            seq.seq_id,
            status,
            seq.arrival_s,
            seq.cached_tokens,
            seq.prefill_target,
            seq.decode_target,
            seq.scheduled_s,
            seq.prefill_end_s,
            seq.barrier_wait_s,
            seq.transfer_start_s,
            seq.transfer_end_s,
            seq.first_token_s,
            self.clock.now if finished else NAN,
            seq.num_preemptions,
            seq.ledger,
            seq.first_decode_step,
            last_step,
        )
