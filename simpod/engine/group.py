"""A lock-step group: one SimPy process that loops plan -> price -> advance."""

import heapq
from collections.abc import Callable, Generator
from math import ceil, inf
from typing import TYPE_CHECKING

import simpy

from simpod.cluster import KvBlocks, PoolSpec
from simpod.cost import Pricer, StepPrices
from simpod.engine.clock import PLAN, STEP_END, Alarm, Clock
from simpod.engine.context_cache import ContextCache
from simpod.engine.dispatch import Dispatcher
from simpod.engine.intake import Arrival, receive, take_in
from simpod.engine.ledger import Ledger
from simpod.engine.prompt_counters import PromptCounters
from simpod.engine.rank import Rank
from simpod.engine.sequence import Sequence
from simpod.engine.steps import StepRun, token_clock
from simpod.errors import InvariantError
from simpod.policies import BatchScheduler

if TYPE_CHECKING:
    from simpod.engine.simulation import Simulation


MAX_FRUITLESS_PLANS = 1000
"""Plans at one instant that preempt and admit nothing: more is a livelock."""


class Group:
    """The ranks that meet in every step: one instance of a pool.

    `kv.clock` counts the tokens that a decoding sequence has received from this group so far: it
    advances by one in each decode step, or with draft tokens by the accepted ones, floor(steps x
    rate), the same for all. So the decode step in which a sequence will finish is known when it
    joins (the calendar).
    """

    def __init__(
        self,
        sim: "Simulation",
        *,
        index: int,
        instance: int,
        dispatch: Dispatcher,
        pricer: Pricer,
        make_policy: Callable[[], BatchScheduler],
    ) -> None:
        self.sim = sim
        self.clock: Clock = sim.clock
        self.index = index
        self._end_order = STEP_END - index
        self.instance = instance
        self.dispatch = dispatch
        self.spec: PoolSpec = dispatch.spec
        self.pricer = pricer
        self.renew_prices: Callable[[float], float] | None = None
        num_ranks = self.spec.layout.dp
        self.kv = KvBlocks(
            num_ranks=num_ranks,
            capacity_blocks=self.spec.kv_blocks,
            block_tokens=self.spec.block_tokens,
            prefix_unit_tokens=sim.prefix_unit_tokens(self.spec),
            make_cache=sim.make_prefix_cache,
        )
        self.prompts = PromptCounters(num_ranks)
        self.batch = self.prompts.batch(self.kv)
        self.next_tokens = 0  # of a decoding sequence in the next step: their room is set aside
        first = instance * num_ranks
        self.ranks = [Rank(self, r, first + r, make_policy()) for r in range(num_ranks)]
        dispatch.ranks += self.ranks
        self.unseen: list[Arrival] = []  # prompts that came after the next step was planned
        self.tokens = token_clock(self.spec.layout)
        self.ledger = Ledger(sim.log, index, self.tokens)
        self.dirty: list[Rank] = []
        self.num_decoding = 0
        self.context_tokens = 0
        self.prefill_tokens = 0
        self.num_chunks = 0
        self.num_pulling = 0
        self.num_preemptions = 0
        self.idle_kv_token_s = 0.0  # integral of the KV in use over idle time
        self._calendar: dict[int, list[Sequence]] = {}
        self._due_steps: list[int] = []
        self._reviews: list[tuple[int, int]] = []  # token clock, rank that wants to plan then
        self._joining: list[tuple[Rank, Sequence]] = []
        self._idle: Alarm | None = None
        self._idle_since_s = 0.0
        self._alarm: Alarm | None = None
        self._run: StepRun | None = None

    # --- what the outside does to a group -------------------------------------------------------

    def submit(self, seq: Sequence, rank: Rank) -> None:
        """A request arrives at a rank; it is seen by the step that starts now or next."""
        receive(self, seq, rank, at_work=self._idle is None, in_step=self._run is not None)
        self.dispatch.waiting_seqs[rank.target] += 1
        self.dispatch.held_seqs[rank.target] += 1
        self.dispatch.queued_tokens[rank.target] += seq.goal_tokens
        self.poke()

    def deliver(self, seq: Sequence, rank: Rank) -> None:
        """A prompt's KV has arrived; the sequence decodes from the next step on."""
        self._joining.append((rank, seq))
        self.poke()

    def let_go(self, seq: Sequence, rank: Rank) -> None:
        """The decode side has pulled a prompt's KV: free it."""
        if self._idle is not None:
            self._tally_idle()
        rank.unpin(seq.seq_id)
        if rank.is_dirty:
            self.poke()

    def poke(self) -> None:
        """Something came: wake from idleness, or from a long sleep at the next step boundary."""
        if self._idle is not None:
            self._tally_idle()
            idle, self._idle = self._idle, None
            self.clock.arm(idle, self.clock.now, PLAN)
        elif self._run is not None:
            self._cut_short(self._run)

    def _cut_short(self, run: StepRun) -> None:
        """End a run at the boundary after now."""
        if run.cut(self.clock.now) and self._alarm is not None:
            waiting = self._alarm.disarm()
            self._alarm = self.clock.alarm_at(run.end_s, self._end_order)
            self._alarm.callbacks = waiting

    @property
    def step_s(self) -> float:
        """How long a step takes of the run under way, at its start; 0: there is none."""
        run = self._run
        return run.prices.base_s if run is not None and run.end_s > self.clock.now else 0.0

    def clock_tokens(self) -> int:
        """The token clock now: ahead of `kv.clock` by the steps of the run that are over."""
        run = self._run
        done = run.steps_by(self.clock.now) if run is not None else 0
        return self.kv.clock + self.tokens_after(done)

    @property
    def kv_tokens(self) -> int:
        """KV in use on all ranks, in tokens; held blocks count as full."""
        return self.kv.tokens_beside + self.context_tokens

    def _tally_idle(self) -> None:
        """Add up what is held while no step runs: prompts that wait to be pulled."""
        now_s = self.clock.now
        self.idle_kv_token_s += (now_s - self._idle_since_s) * self.kv_tokens
        self._idle_since_s = now_s

    def _enter(self, run: StepRun, decoding: int) -> None:
        """Enter a run that is done into the ledger, with what was there at its start."""
        context = self.context_tokens
        slots = decoding + self.num_chunks + self.num_pulling
        kv_tokens = self.kv.tokens_beside + context
        self.ledger.add(run, decoding, context, self.prefill_tokens, slots, kv_tokens)

    def stop(self) -> None:
        """The simulation ends here: enter the steps of the run under way that are over."""
        run = self._run
        if run is not None and run.end_s >= self.clock.now:
            run.cut(self.clock.now)
            run.steps -= 1
            if run.steps:
                run.end_s = run.end_of(run.steps)
                self._enter(run, self.num_decoding)
                self._advance()
        if self._idle is not None:
            self._tally_idle()

    # --- the loop -------------------------------------------------------------------------------

    def run(self) -> Generator[simpy.Event, object, None]:
        """Plan, price, advance; sleep while there is nothing to do."""
        clock = self.clock
        skip_ahead = self.sim.skip_ahead
        cache = self.sim.cache
        announces = self.sim.kv.is_layerwise and self.spec.role == "prefill"
        fruitless = 0
        while True:
            if not clock.may_plan:
                yield clock.alarm_at(clock.now, PLAN)
            if cache is not None and self._must_wait_for_reads(cache):
                yield self._fall_idle()
                continue
            if self.unseen:
                take_in(self)
            decodes = self._plan()
            if not self.num_decoding and not self.prefill_tokens:
                if not self.dirty and not self.unseen:
                    yield self._fall_idle()
                    fruitless = 0
                elif (fruitless := fruitless + 1) > MAX_FRUITLESS_PLANS:
                    raise InvariantError(
                        f"group {self.index} plans without end at {clock.now:.6f} s"
                    )
                continue
            self.batch.gained_tokens = self.kv.clock
            until_s = self.renew_prices(clock.now) if self.renew_prices else inf
            prices = self.pricer.price(self.batch if decodes else self.batch.without_decodes())
            self._run = run = StepRun(
                clock.now,
                prices,
                self.ledger.num_decode_steps,
                self._horizon(prices, until_s),
                self.tokens,
            )
            if announces and self.prefill_tokens:
                self.sim.kv.announce(self, run.end_s)
            if skip_ahead or run.steps == 1:
                self._alarm = clock.alarm_at(run.end_s, self._end_order)
                yield self._alarm
            else:
                yield from self._walk(run)
            self._run = self._alarm = None
            decoding = self.num_decoding if decodes else 0
            self._enter(run, decoding)
            if decoding:
                self._advance()
            if self.prefill_tokens:
                self._finish_prefill(prices)

    def _fall_idle(self) -> Alarm:
        """Sleep until somebody pokes."""
        self._idle = Alarm()
        self._idle_since_s = self.clock.now
        return self._idle

    def _must_wait_for_reads(self, cache: ContextCache) -> bool:
        """Begin the reads that there is room for; True if the step is to wait for any of them."""
        for rank in self.dirty:
            if rank.reads is not None:
                rank.reads.start()
        return cache.waits_for_reads and any(
            rank.reads is not None and rank.reads.under_way for rank in self.ranks
        )

    def _plan(self) -> bool:
        """Let every rank on which something changed decide; return whether decodes go on."""
        dirty, self.dirty = self.dirty, []
        if not dirty and not self._joining and self.kv.surely_fits(self.next_tokens):
            return True
        for rank in dirty:
            rank.is_dirty = False
            if rank.at_boundary:
                rank.reach_boundary()
        self._join_pulled()
        decodes = True
        for rank in dirty:
            if rank.is_dirty:  # it has just preempted: nothing is admitted in this step
                continue
            if rank.waiting or rank.partial or rank.paused:
                decodes = rank.plan() and decodes
            if rank.inbox:
                rank.admit_from_inbox()
        if self._joining:  # prompts whose KV was here at once
            self._join_pulled()
        return decodes

    def _join_pulled(self) -> None:
        """Let pulled sequences decode, then set the next step's growth aside.

        Where it does not fit, the newest sequences are preempted (vLLM v1: recompute, last in
        first out).
        """
        for rank, seq in self._joining:
            rank.begin_pulled(seq)
        self._joining.clear()
        self.next_tokens = tokens = self.tokens_after(1) if self.num_decoding else 0
        if not self.kv.surely_fits(tokens):
            for index in self.kv.short_ranks(tokens):
                rank = self.ranks[index]
                while index in self.kv.short_ranks(tokens):
                    if not rank.preempt_newest():
                        raise InvariantError(f"rank {rank.target} has no sequence left to preempt")

    def _walk(self, run: StepRun) -> Generator[simpy.Event, object, None]:
        """One alarm a step, until the run ends or is cut short."""
        clock = self.clock
        done = 0
        while done < run.steps:
            done += 1
            yield clock.alarm_at(run.end_of(done), self._end_order)
            if done < run.steps and not clock.may_plan:
                yield clock.alarm_at(clock.now, PLAN)

    # --- decoding -------------------------------------------------------------------------------

    def tokens_after(self, steps: int) -> int:
        """Tokens by which the clock advances in the next `steps` decode steps."""
        return self.tokens.at(self.ledger.num_decode_steps + steps) - self.kv.clock

    def _horizon(self, prices: StepPrices, until_s: float) -> int:
        """Steps until a rank plans, a finish, no room, another slowest rank, or other prices."""
        if self.prefill_tokens or self.dirty or self.unseen:
            return 1
        done = self.ledger.num_decode_steps
        while self._due_steps[0] not in self._calendar:
            heapq.heappop(self._due_steps)
        steps = self._due_steps[0] - done
        if self._reviews:
            steps = max(1, min(steps, self.tokens.step_of(self._reviews[0][0]) - done))
        if until_s < inf:  # no step gets shorter, so the last of these starts about then
            steps = min(steps, max(1, ceil((until_s - self.clock.now) / prices.base_s)))
        if steps == 1:
            return 1
        wanted = self.tokens_after(steps)
        tokens = self.kv.most_tokens(min(wanted, prices.linear_tokens()))
        if tokens == wanted:
            return steps
        return max(1, self.tokens.step_of(self.kv.clock + tokens + 1) - 1 - done)

    def review(self, rank: Rank, tokens: int) -> None:
        """Let a rank plan again when running decodes have gained `tokens`, or when it must."""
        rank.review_clock = self.kv.clock + tokens
        heapq.heappush(self._reviews, (rank.review_clock, rank.index))

    def enter_decode(self, seq: Sequence) -> None:
        """Put a sequence into the calendar at the decode step that will give its last token."""
        self.num_decoding += 1
        self.context_tokens += seq.resident_tokens
        seq.ledger = self.index
        seq.first_decode_step = self.ledger.num_decode_steps
        need = self.sim.output_tokens[seq.seq_id] - seq.emitted_tokens
        step = self.tokens.step_of(self.kv.clock + need)
        seq.finish_step = step
        bucket = self._calendar.get(step)
        if bucket is None:
            self._calendar[step] = [seq]
            heapq.heappush(self._due_steps, step)
        else:
            bucket.append(seq)

    def leave_decode(self, seq: Sequence) -> None:
        """Take a sequence out of the counts; its calendar entry, if any is left, is void."""
        self.num_decoding -= 1
        self.context_tokens -= seq.resident_tokens
        seq.finish_step = -1

    def close_segment(self, seq: Sequence) -> None:
        """A decoding sequence is cut off: note what it has got so far."""
        gained = self.kv.clock - seq.join_clock
        if gained:
            seq.emitted_tokens += gained
            first, last = seq.first_decode_step, self.ledger.num_decode_steps
            self.sim.segments.extend((seq.seq_id, self.index, first, last))
        seq.ledger = seq.first_decode_step = -1  # until it decodes again, if it does

    def _advance(self) -> None:
        """Give every decoding sequence the tokens of the run; finish those that are due."""
        step = self.ledger.num_decode_steps  # ahead of the clock by the run
        clock = self.tokens.at(step)
        gained = clock - self.kv.clock
        self.kv.advance(gained)
        self.next_tokens = self.tokens.at(step + 1) - clock
        self.context_tokens += gained * self.num_decoding
        while self._reviews and self._reviews[0][0] <= clock:
            when, index = heapq.heappop(self._reviews)
            if self.ranks[index].review_clock == when:  # else another one has replaced it
                self.ranks[index].touch()
        due = self._calendar.pop(step, None)
        if due is not None:
            for seq in due:
                if seq.finish_step == step and seq.ledger == self.index:  # else it has left
                    rank = self.ranks[seq.decode_target % len(self.ranks)]
                    rank.end_decode(seq)
                    rank.retire(seq)
                    self.sim.finish(seq)

    def pull(self, seq: Sequence, rank: Rank) -> None:
        """Fetch a prompt's KV; without a prefill pool it is here at once."""
        if seq.prefill_target < 0:
            seq.scheduled_s = seq.prefill_end_s = self.clock.now
            seq.transfer_start_s = seq.transfer_end_s = self.clock.now
            self._joining.append((rank, seq))
        else:
            self.sim.kv.pull(seq, self, rank)

    # --- prefill --------------------------------------------------------------------------------

    def _finish_prefill(self, prices: StepPrices) -> None:
        """Account for the chunks of the step that ended; pass complete prompts on."""
        wait_s = prices.rank_wait_s
        at_work = 0
        for rank in self.ranks:
            if rank.chunks:
                at_work += 1
                for seq in rank.finish_chunks(wait_s.item(rank.index)):
                    self.sim.prompt_done(seq, self, rank)
                if rank.waiting or rank.partial or rank.paused:
                    rank.touch()
        self.dispatch.prompt_tokens += self.prefill_tokens
        self.dispatch.prompt_rank_s += at_work * prices.base_s
        self.prefill_tokens = self.num_chunks = 0
