"""A lock-step group: one process that loops plan -> price -> advance."""

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from math import ceil, inf
from operator import attrgetter
from typing import TYPE_CHECKING

import simpy

from simpod.cluster import KvBlocks, PoolSpec
from simpod.cost import Pricer, StepPrices
from simpod.engine.before_plan import before_plan
from simpod.engine.clock import PLAN, STEP_END, Alarm, Clock
from simpod.engine.dispatch import Dispatcher
from simpod.engine.idleness import Idleness
from simpod.engine.intake import Arrival, receive, take_in
from simpod.engine.layer_streams import LayerStreams
from simpod.engine.leading import Leading
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

    # a thousand groups are more than the processor's cache holds: no dictionary for each
    __slots__ = (
        "_alarm _calendar _due_steps _end_order _joining _reviews _run "
        "batch clock context_tokens dirty dispatch idleness index instance kv leading ledger "
        "next_tokens num_chunks num_decoding num_preemptions num_pulling prefill_tokens "
        "pricer prompts ranks renew_prices sim spec tokens unseen"
    ).split()

    under_way = property(attrgetter("_run"))  # the run of steps, or None

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
        self.leading: Leading | None = None
        self.unseen: list[Arrival] = []  # prompts that came after the next step was planned
        self.tokens = token_clock(self.spec.layout)
        self.ledger = Ledger(sim.log, index, self.tokens)
        self.dirty: list[Rank] = []
        self.num_decoding = 0
        self.context_tokens = 0
        self.prefill_tokens = 0
        self.num_chunks = self.num_pulling = self.num_preemptions = 0
        self.idleness = Idleness(self.clock)
        self._calendar: dict[int, list[Sequence]] = {}
        self._due_steps: list[int] = []
        self._reviews: list[tuple[int, int]] = []  # token clock, rank that wants to plan then
        self._joining: list[tuple[Rank, Sequence]] = []
        self._alarm: Alarm | None = None
        self._run: StepRun | None = None

    # --- what the outside does to a group -------------------------------------------------------

    def submit(self, seq: Sequence, rank: Rank) -> None:
        """A request arrives at a rank; it is seen by the step that starts now or next."""
        self.dispatch.join_queue(seq, rank.target)
        self.poke(receive(self, seq, rank))

    def deliver(self, seq: Sequence, rank: Rank) -> None:
        """A prompt's KV has arrived; the sequence decodes from the next step on."""
        self._joining.append((rank, seq))
        self.poke()

    def let_go(self, seq: Sequence, rank: Rank) -> None:
        """The decode side has pulled a prompt's KV: free it."""
        if self.idleness.alarm is not None:
            self.idleness.tally(self.kv_tokens)
        rank.unpin(seq.seq_id)
        if rank.is_dirty:
            self.poke()

    def poke(self, last_step: int = 0) -> None:
        """Something came: wake up, or end a long run with a step, by default the one under way."""
        if self.idleness.alarm is not None:
            self.idleness.wake(self.kv_tokens)
            return
        run = self._run
        if run is None or run.steps == 1:
            return
        last = last_step - self.ledger.num_steps if last_step else run.step_at(self.clock.now)
        if run.cut(last):
            self.set_end(run.end_s)

    def set_end(self, end_s: float) -> None:
        """What the run under way waits for comes at another time."""
        if self._alarm is not None:
            waiting = self._alarm.disarm()
            self._alarm = self.clock.alarm_at(end_s, self._end_order)
            self._alarm.callbacks = waiting

    def step_at_work(self) -> int:
        """The step under way, or the one that begins now, counted from the first; 0: idle."""
        if self.idleness.alarm is not None:
            return 0
        run = self._run
        return self.ledger.num_steps + (run.step_at(self.clock.now) if run is not None else 1)

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

    def stop(self) -> None:
        """The simulation ends here: enter the steps of the run under way that are over."""
        run = self._run
        if run is not None and run.end_s >= self.clock.now:
            run.cut(run.step_at(self.clock.now))
            run.steps -= 1
            if run.steps:
                run.end_s = run.end_of(run.steps)
                self.ledger.add(run, self, self.num_decoding)
                self._advance()
        self.idleness.tally(self.kv_tokens)

    # --- the loop -------------------------------------------------------------------------------

    def run(self) -> Generator[simpy.Event, object, None]:
        """Plan, price, advance; sleep while there is nothing to do."""
        clock, ledger, kv, batch = self.clock, self.ledger, self.kv, self.batch
        price, renew_prices, begin = self.pricer.price, self.renew_prices, ledger.beginner
        skip_ahead, cache = self.sim.skip_ahead, self.sim.cache
        layers = cache.layers if cache is not None else None
        begins, waits = self.sim.begins_of(self.spec.role), before_plan(self.sim, self)
        fruitless = 0
        while True:
            if not clock.may_plan():
                yield clock.alarm_at(clock.now, PLAN)
            if waits is not None and waits():
                yield self.idleness.begin()
                continue
            decodes = self._plan()
            if not self.num_decoding and not self.prefill_tokens:
                if not self.dirty and not self.unseen:
                    yield self.idleness.begin()
                    fruitless = 0
                elif (fruitless := fruitless + 1) > MAX_FRUITLESS_PLANS:
                    raise InvariantError(
                        f"group {self.index} plans without end at {clock.now:.6f} s"
                    )
                continue
            batch.gained_tokens = kv.clock
            until_s = renew_prices(clock.now) if renew_prices else inf
            prices = price(batch if decodes else batch.without_decodes())
            steps = self._horizon(prices, until_s)
            self._run = run = begin(clock.now, prices, ledger.num_decode_steps, steps, self.tokens)
            if begins is not None and self.prefill_tokens:
                begins(self, run)
            if (skip_ahead or run.steps == 1) and not (layers and self.prefill_tokens):
                self._alarm = clock.alarm_at(run.end_s, self._end_order)
                yield self._alarm
            else:
                yield from self._walk(run, layers)
            self._run = self._alarm = None
            decoding = self.num_decoding if decodes else 0
            ledger.add(run, self, decoding)
            if decoding:
                self._advance()
            if self.prefill_tokens:
                self._finish_prefill(run.prices)

    def _plan(self) -> bool:
        """Let every rank on which something changed decide; return whether decodes go on."""
        if self.unseen:
            take_in(self)
        if not self.dirty and not self._joining and self.kv.surely_fits(self.next_tokens):
            return True
        dirty, self.dirty = self.dirty, []
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

    def _walk(
        self, run: StepRun, layers: LayerStreams | None
    ) -> Generator[simpy.Event, object, None]:
        """One alarm a step, until the run ends or is cut short; then what layers it waits for."""
        done = 0
        while done < run.steps:
            done += 1
            self._alarm = self.clock.alarm_at(run.end_of(done), self._end_order)
            yield self._alarm  # sooner if it is cut short at the boundary that was just passed
            self._alarm = None
            if done < run.steps and not self.clock.may_plan():
                yield self.clock.alarm_at(self.clock.now, PLAN)
        if layers is not None and self.prefill_tokens:
            yield from layers.end(self, run)

    # --- decoding -------------------------------------------------------------------------------

    def tokens_after(self, steps: int) -> int:
        """Tokens by which the clock advances in the next `steps` decode steps."""
        return self.tokens.at(self.ledger.num_decode_steps + steps) - self.kv.clock

    def _horizon(self, prices: StepPrices, until_s: float) -> int:
        """Steps until a rank plans, a finish, no room, another slowest rank, or other prices."""
        if self.prefill_tokens or self.dirty:
            return 1
        done = self.ledger.num_decode_steps
        due = self._due_steps
        while due[0] not in self._calendar:
            heappop(due)
        steps = due[0] - done
        if self.unseen:
            steps = min(steps, self.unseen[0].seen_at - self.ledger.num_steps)
        if self._reviews:
            steps = max(1, min(steps, self.tokens.step_of(self._reviews[0][0]) - done))
        if until_s < inf:  # no step gets shorter, so the last of these starts about then
            steps = min(steps, max(1, ceil((until_s - self.clock.now) / prices.base_s)))
        if steps == 1:
            return 1
        wanted = self.tokens_after(steps)
        tokens = self.kv.most_tokens(prices.linear_tokens(wanted))
        if tokens == wanted:
            return steps
        return max(1, self.tokens.step_of(self.kv.clock + tokens + 1) - 1 - done)

    def review(self, rank: Rank, tokens: int) -> None:
        """Let a rank plan again when running decodes have gained `tokens`, or when it must."""
        rank.review_clock = self.kv.clock + tokens
        heappush(self._reviews, (rank.review_clock, rank.index))

    def enter_decode(self, seq: Sequence) -> None:
        """Put a sequence into the calendar at the decode step that will give its last token."""
        self.num_decoding += 1
        self.context_tokens += seq.resident_tokens
        if not self.next_tokens:  # the first: until now nothing had to be set aside
            self.next_tokens = self.tokens_after(1)
        seq.ledger = self.index
        seq.first_decode_step = self.ledger.num_decode_steps
        seq.finish_step = step = self.sim.pace.finish_step(seq, self)
        bucket = self._calendar.get(step)
        if bucket is None:
            self._calendar[step] = [seq]
            heappush(self._due_steps, step)
        else:
            bucket.append(seq)

    def leave_decode(self, seq: Sequence) -> None:
        """Take a sequence out of the counts; its calendar entry, if any is left, is void."""
        self.num_decoding -= 1
        self.context_tokens -= seq.resident_tokens
        seq.finish_step = -1

    def close_segment(self, seq: Sequence) -> None:
        """A decoding sequence is cut off: note what it has got so far."""
        if self.kv.clock > seq.join_clock:
            seq.emitted_tokens += self.sim.pace.outputs(seq, self)
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
            when, index = heappop(self._reviews)
            if self.ranks[index].review_clock == when:  # else another one has replaced it
                self.ranks[index].touch()
        due = self._calendar.pop(step, None)
        if due is not None:
            for seq in due:
                if seq.finish_step == step and seq.ledger == self.index:  # else it has left
                    rank = self.dispatch.ranks[seq.decode_target]
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
