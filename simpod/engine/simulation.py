"""One run: pools of groups on one clock, fed by a source, leaving records."""

from array import array
from collections.abc import Callable

from simpod.cluster import PoolSpec, Role
from simpod.cluster.prefix import PrefixCache
from simpod.cluster.ranked_prefix import RankedPrefixCache
from simpod.engine.asking import blame_idleness
from simpod.engine.clock import Clock
from simpod.engine.collect import PACK_REQUEST, collect
from simpod.engine.context_cache import ContextCache
from simpod.engine.exchange_flows import ExchangeFlows
from simpod.engine.expert_moves import ExpertMover
from simpod.engine.frontend import Deliveries, FrontendQueue
from simpod.engine.gate import Gate
from simpod.engine.group import Group
from simpod.engine.inputs import RunInputs
from simpod.engine.kv_mover import KvMover
from simpod.engine.late_answers import LateAnswers
from simpod.engine.ledger import RunLog
from simpod.engine.load_watch import LoadWatch
from simpod.engine.migration import Migrator
from simpod.engine.network import Network
from simpod.engine.pace import Pace
from simpod.engine.pool import Pool
from simpod.engine.rank import Rank
from simpod.engine.scaling import Scaler
from simpod.engine.sequence import NAN, Sequence
from simpod.engine.source import Source
from simpod.engine.steps import StepRun
from simpod.engine.transfer_log import TransferLog
from simpod.errors import InvariantError
from simpod.records.columns import FINISHED, LIVE, REFUSED, RunRecords


class Simulation:
    """Runs once; keeps what is shared by all groups."""

    def __init__(self, inputs: RunInputs) -> None:
        self.inputs = inputs
        self.clock = Clock()
        self.skip_ahead = inputs.skip_ahead
        self.batching_name = inputs.batching_name
        self.output_tokens: list[int] = inputs.requests.output_tokens.tolist()
        self.has_tenants = bool(inputs.requests.tenant.any())
        self.log = RunLog()
        self.rows = bytearray()  # REQUEST_FIELDS of every request that has ended
        self.segments = array("q")  # seq_id, ledger, first, last decode step before a preemption
        self.live: dict[int, Sequence] = {}
        self.num_ended = 0
        self._last_end_s = 0.0
        self._total = len(inputs.requests)
        self._progress_every = max(1, self._total // 200)
        self.network = (
            Network(self.clock, inputs.fabric, inputs.link_samples_s) if inputs.fabric else None
        )
        self.cache = self._context_cache()
        self.entry = Pool(self, inputs.entry, 0)
        self.decode = Pool(self, inputs.decode, len(self.entry.groups)) if inputs.decode else None
        self.pools = [self.entry] + ([self.decode] if self.decode else [])
        self.groups = [group for pool in self.pools for group in pool.groups]
        self._meet_flows()
        self.kv = KvMover(self)
        planes = sorted({self.kv.path.plane, inputs.migration_plane})
        self.transfers = TransferLog(inputs.fabric.plane_names if inputs.fabric else planes)
        self.source: Source = Source(
            inputs.requests, self.clock, self.prefix_unit_tokens(inputs.entry.spec)
        )
        self.migrator = self._migrator(inputs)
        self.expert_movers = [
            ExpertMover(self, pool, pool.inputs.expert_path)
            for pool in self.pools
            if pool.inputs.expert_path
        ]
        self.scaler = Scaler(self, inputs.scaling) if inputs.scaling else None
        watches = inputs.samples_s is not None and self.scaler is None
        watch = LoadWatch(self, inputs.samples_s or 1.0) if watches else self.scaler
        self.samples = watch.samples if watch is not None else None
        needs_gate = inputs.make_admission or inputs.prediction
        self._gate = Gate(self, inputs) if needs_gate else None
        self.frontend = FrontendQueue(self, inputs.frontend) if inputs.frontend else None
        self.deliveries: Deliveries | None = None
        self.late = self._late_answers()
        room_tokens = min(pool.spec.room_tokens for pool in self.pools)
        self.pace = Pace(self.output_tokens, inputs.decode_pace, room_tokens)
        self._longest = min(room_tokens, *(pool.spec.max_model_len for pool in self.pools))

    def run(self) -> RunRecords:
        """Simulate to the end, or to `duration_s`; raise InvariantError if something got stuck."""
        for group in self.groups:
            self.clock.spawn(group.run())
        arrive = self._arrive
        self.source.start(self.samples.counting(arrive) if self.samples else arrive)
        for mover in self.expert_movers:
            mover.start()
        self.clock.run(until=self.inputs.duration_s)
        if self.inputs.duration_s is None and self.live:
            for rank in (rank for group in self.groups for rank in group.ranks):
                blame_idleness(rank)
            raise InvariantError(
                f"{len(self.live)} requests can't go on at {self.clock.now:.6f} s, the first is "
                f"{next(iter(self.live))} (seed {self.inputs.seed}); please report this experiment"
            )
        for group in self.groups:
            group.stop()
        self.log.close([group.ledger for group in self.groups])
        if self.frontend is not None:
            self.deliveries = self.frontend.close()
        if self.network is not None:
            self.network.catch_up_samples()
        if self.scaler is not None:
            self.scaler.close()
        for seq in self.live.values():
            self._record(seq, LIVE)
        return collect(self)

    def _meet_flows(self) -> None:
        """Let exchanges of steps share links with flows, where both are on the same plane."""
        sites = [site for pool in self.pools for site in pool.inputs.exchange_sites]
        if sites and self.network is not None:
            flows = ExchangeFlows(self.network, self.clock, skips_ahead=self.skip_ahead)
            self.network.exchanges = flows
            watched = [
                group for pool in self.pools if pool.inputs.exchange_sites for group in pool.groups
            ]
            for group, site in zip(watched, sites, strict=True):
                flows.watch(group, site)

    def _context_cache(self) -> ContextCache | None:
        if self.inputs.cache is None:
            return None
        if self.network is None:
            raise InvariantError("shared memory without a fabric")
        return ContextCache(self, self.inputs.cache, self.network)

    @property
    def end_s(self) -> float:
        """When the simulation stopped: alarms that nobody waits for any more may come later."""
        inputs = self.inputs
        looks = (inputs.make_migration, inputs.scaling, inputs.samples_s)
        has_alarms = any(look is not None for look in looks) or bool(self.expert_movers)
        end_s = self._last_end_s if self.is_over and has_alarms else self.clock.now
        if self.deliveries is None or inputs.duration_s is not None:
            return end_s
        return max(end_s, self.deliveries.end_s)

    @property
    def is_over(self) -> bool:
        """Every request has ended."""
        return self.num_ended == self._total

    def _late_answers(self) -> LateAnswers | None:
        """Where tokens leave one by one; a central frontend has times of its own."""
        launches = self.inputs.entry.late_launches
        return LateAnswers(launches) if launches and self.frontend is None else None

    # --- what groups ask ------------------------------------------------------------------------

    def begins_of(self, role: Role) -> Callable[[Group, StepRun], None] | None:
        """What is to be done as a step with prompts begins; None: nothing."""
        layers = self.cache.layers if self.cache is not None else None
        calls = [each.begin for each in (layers, self.late) if each is not None]
        if role == "prefill" and self.kv.is_layerwise:
            calls.insert(0, lambda group, run: self.kv.announce(group, run.end_s))
        if not calls:
            return None

        def begin(group: Group, run: StepRun) -> None:
            for call in calls:
                call(group, run)

        return begin

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

    def _migrator(self, inputs: RunInputs) -> Migrator | None:
        pool = self.decode or self.entry
        if inputs.make_migration is None or inputs.migration_law is None:
            return None
        return Migrator(self, pool, inputs.migration_law, inputs.make_migration())

    def make_prefix_cache(self) -> PrefixCache:
        """An empty prefix cache of a rank."""
        make = self.inputs.make_eviction
        if make is None:
            return PrefixCache()
        return RankedPrefixCache(make(), self.inputs.eviction_name)

    # --- the life of a request ------------------------------------------------------------------

    def _arrive(self, seq: Sequence) -> None:
        if seq.prompt_tokens + self.output_tokens[seq.seq_id] > self._longest:
            self._end(seq, REFUSED)
            return
        self.live[seq.seq_id] = seq
        seq.ttft_deadline_s = seq.arrival_s + self.inputs.ttft_target_s
        if self._gate is None:
            self.route(seq)
        else:
            self._gate.take(seq)

    def refuse(self, seq: Sequence) -> None:
        """A request is not let in."""
        del self.live[seq.seq_id]
        self._end(seq, REFUSED)

    def route(self, seq: Sequence) -> None:
        """A request that is let in goes to a rank."""
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
        if self.cache is not None:
            self.cache.write_back(seq, rank)
        is_prefill = group.spec.role == "prefill"
        pool = self.decode if is_prefill else None
        if pool is not None and self.inputs.first_token_from_decode:
            self.kv.hand_over(seq, rank)
            return
        if seq.emitted_tokens == 0:
            seq.first_token_s = now_s
            if self.late is not None:
                self.late.add(seq, group)
        seq.emitted_tokens += 1
        if self.frontend is not None:
            self.frontend.prompt_token(seq, group)
        is_last = seq.emitted_tokens == self.output_tokens[seq.seq_id]
        if is_last or (is_prefill and pool is None):
            rank.retire(seq)
            self.finish(seq)
        elif pool is not None:
            self.kv.hand_over(seq, rank)
        else:
            rank.begin_decode(seq)

    def finish(self, seq: Sequence) -> None:
        """A request has got its last token."""
        del self.live[seq.seq_id]
        self._end(seq, FINISHED)

    def _end(self, seq: Sequence, status: int) -> None:
        self._record(seq, status)
        self.num_ended += 1
        self._last_end_s = self.clock.now
        if self.inputs.on_progress is not None and self.num_ended % self._progress_every == 0:
            self.inputs.on_progress(self.num_ended, self._total, self.clock.now)
        if self.frontend is None or status != FINISHED:
            self.source.on_end(seq.seq_id)
        else:
            self.frontend.ended(seq)

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
            seq.dram_tokens,
            seq.ssd_tokens,
            seq.prefill_target,
            seq.decode_target,
            seq.cache_read_s,
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
