"""A lock-step group: one SimPy process that loops plan -> price -> advance."""

import heapq
from collections.abc import Callable, Generator, Sequence as ReadOnly
from typing import TYPE_CHECKING

import numpy as np
import simpy

from simpod.cluster import KvBlocks, PoolSpec
from simpod.cost import Batch, StepPricer
from simpod.engine.clock import DELIVER, PLAN, STEP_END, Alarm, Clock
from simpod.engine.dispatch import Dispatcher
from simpod.engine.ledger import Floats, Ledger
from simpod.engine.rank import Rank
from simpod.engine.sequence import Sequence
from simpod.errors import InvariantError
from simpod.policies import BatchScheduler

if TYPE_CHECKING:
    from simpod.engine.simulation import Simulation

MAX_RUN_ELEMENTS = 4096
"""Step prices computed ahead at most (steps x ranks): bounds memory and work thrown away by a wake-up."""


class Group:
    """The ranks that meet in every step: one instance of a pool.

    `kv.clock` counts the tokens that a decoding sequence has received from this group so far: it advances
    by one in each decode step, or with draft tokens by the accepted ones, floor(steps x rate), the same
    for all. So the decode step in which a sequence will finish is known when it joins (the calendar).
    """

    def __init__(
        self,
        sim: "Simulation",
        *,
        index: int,
        instance: int,
        dispatch: Dispatcher,
        pricer: StepPricer,
        make_policy: Callable[[], BatchScheduler],
    ) -> None:
        self.sim = sim
        self.clock: Clock = sim.clock
        self.index = index
        self.instance = instance
        self.dispatch = dispatch
        self.spec: PoolSpec = dispatch.spec
        self.pricer = pricer
        self.policy_name = sim.batching_name
        num_ranks = self.spec.layout.dp
        self.kv = KvBlocks(
            num_ranks=num_ranks,
            capacity_blocks=self.spec.kv_blocks,
            block_tokens=self.spec.block_tokens,
            prefix_unit_tokens=sim.prefix_unit_tokens(self.spec),
        )
        self.batch = Batch.empty(num_ranks)
        self.reserved = np.zeros(num_ranks, dtype=np.int64)
        first = instance * num_ranks
        self.ranks = [Rank(self, r, first + r, make_policy()) for r in range(num_ranks)]
        self.ledger = Ledger()
        self.dirty: list[Rank] = []
        self.num_decoding = 0
        self.context_tokens = 0
        self.prefill_tokens = 0
        self.num_preemptions = 0
        self._rate = sim.token_rate(self.spec)  # accepted tokens per decode step, as a fraction
        self._calendar: dict[int, list[Sequence]] = {}
        self._due_steps: list[int] = []
        self._joining: list[tuple[Rank, Sequence]] = []
        self._idle: Alarm | None = None
        self._asleep: Alarm | None = None
        self._run_ends: Floats = np.empty(0)
        self._run_steps = 0
        self._steps = np.arange(max(1, MAX_RUN_ELEMENTS // num_ranks) + 1, dtype=np.int64)

    # --- what the outside does to a group --------------------------------------------------------

    def submit(self, seq: Sequence, rank: Rank) -> None:
        """A request arrives at a rank; it is seen by the step that starts now or next."""
        (rank.inbox if self.spec.role == "decode" else rank.waiting)[seq.seq_id] = seq
        self.dispatch.waiting_seqs[rank.target] += 1
        self.dispatch.queued_tokens[rank.target] += seq.goal_tokens
        rank.touch()
        self.poke()

    def deliver(self, seq: Sequence, rank: Rank) -> None:
        """A prompt's KV has arrived; the sequence decodes from the next step on."""
        self._joining.append((rank, seq))
        self.poke()

    def let_go(self, seq: Sequence, rank: Rank) -> None:
        """The decode side has pulled a prompt's KV: free it."""
        rank.unpin(seq.seq_id)
        if rank.is_dirty:
            self.poke()

    def poke(self) -> None:
        """Something came: wake from idleness, or from a long sleep at the next step boundary."""
        if self._idle is not None:
            idle, self._idle = self._idle, None
            self.clock.arm(idle, self.clock.now, PLAN)
        elif self._asleep is not None:
            done = int(self._run_ends.searchsorted(self.clock.now))
            if done + 1 < self._run_steps:
                self._run_steps = done + 1
                waiting = self._asleep.disarm()
                self._asleep = self.clock.alarm_at(float(self._run_ends[done]), STEP_END)
                self._asleep.callbacks = waiting
        else:
            self._run_steps = 0

    # --- the loop ----------------------------------------------------------------------------------

    def run(self) -> Generator[simpy.Event, object, None]:
        """Plan, price, advance; sleep while there is nothing to do."""
        clock = self.clock
        while True:
            if not clock.may_plan:
                yield clock.alarm_at(clock.now, PLAN)
            decodes = self._plan()
            if not self.num_decoding and not self.prefill_tokens:
                self._idle = Alarm(clock)
                yield self._idle
                continue
            yield from self._run_steps_from(clock.now, decodes)

    def _plan(self) -> bool:
        """Let every rank on which something changed decide; return whether decodes go on."""
        dirty, self.dirty = self.dirty, []
        self._join_pulled()
        decodes = True
        for rank in dirty:
            rank.is_dirty = False
        for rank in dirty:
            if rank.is_dirty:  # it has just preempted: nothing is admitted in this step
                continue
            if rank.waiting or rank.partial:
                decodes = rank.plan() and decodes
            if rank.inbox:
                rank.admit_from_inbox()
        if self._joining:  # prompts whose KV was here at once
            self._join_pulled()
        return decodes

    def _join_pulled(self) -> None:
        """Let pulled sequences decode, then set the next step's growth aside.

        Where it does not fit, the newest sequences are preempted (vLLM v1: recompute, last in first out).
        """
        for rank, seq in self._joining:
            rank.begin_pulled(seq)
        self._joining.clear()
        if not self.num_decoding:
            self.reserved[:] = 0
            return
        tokens = self._tokens_after(1)
        for index in self.kv.short_ranks(tokens):
            rank = self.ranks[index]
            while index in self.kv.short_ranks(tokens):
                if not rank.preempt_newest():
                    raise InvariantError(f"rank {rank.target} has no sequence left to preempt")
        self.reserved[:] = self.kv.growth(tokens)

    def _run_steps_from(
        self, start_s: float, decodes: bool
    ) -> Generator[simpy.Event, object, None]:
        """Price a run of like steps, sleep through it, account for what was done of it."""
        batch = self.batch
        steps = 1 if self.prefill_tokens else self._horizon()
        paused = None if decodes else self._pause()
        prices = self.pricer.price(batch, self._growth(steps))
        ends = prices.duration_s.copy()
        ends[0] += start_s
        ends.cumsum(out=ends)  # one addition a step, as if each were slept through
        if steps == 1 or not self.sim.skip_ahead:
            done = yield from self._step_through(ends)
        else:
            done = yield from self._skip_through(ends)
        ends = ends[:done]
        decoding = self.num_decoding if decodes else 0
        self.ledger.add_run(ends, start_s, (decoding, self.context_tokens, self.prefill_tokens))
        self.ledger.add_parts(prices.parts(done))
        if paused is not None:
            batch.decode_seqs[:], batch.context_tokens[:] = paused
        elif decoding:
            self._advance(ends)
        if self.prefill_tokens:
            self._finish_prefill(prices.rank_wait_s)

    def _step_through(self, ends: Floats) -> Generator[simpy.Event, object, int]:
        """One alarm a step; return how many steps were done before something came."""
        clock = self.clock
        self._run_steps = steps = len(ends)
        for done, end_s in enumerate(ends.tolist(), start=1):
            yield clock.alarm_at(end_s, STEP_END)
            if done == steps:
                break
            if not clock.may_plan:
                yield clock.alarm_at(end_s, PLAN)
            if self._run_steps == 0:
                break
        return done

    def _skip_through(self, ends: Floats) -> Generator[simpy.Event, object, int]:
        """One alarm for the whole run; `poke` moves it to the boundary after what came."""
        self._run_ends = ends
        self._run_steps = len(ends)
        self._asleep = self.clock.alarm_at(float(ends[-1]), STEP_END)
        yield self._asleep
        self._asleep = None
        return self._run_steps

    def _pause(self) -> tuple[np.ndarray, np.ndarray]:
        """Take the decodes out of the batch for one step; return what to put back."""
        batch = self.batch
        kept = batch.decode_seqs.copy(), batch.context_tokens.copy()
        batch.decode_seqs[:] = 0
        batch.context_tokens[:] = 0
        return kept

    # --- decoding ----------------------------------------------------------------------------------

    def _tokens_after(self, steps: int) -> int:
        """Tokens by which the clock advances in the next `steps` decode steps."""
        tokens, per_steps = self._rate
        return (self.ledger.num_decode_steps + steps) * tokens // per_steps - self.kv.clock

    def _growth(self, steps: int) -> np.ndarray:
        """[steps] tokens that each decoding sequence has gained before each of the next steps."""
        tokens, per_steps = self._rate
        if tokens == per_steps:
            return self._steps[:steps]
        first = self.ledger.num_decode_steps
        return (first + self._steps[:steps]) * tokens // per_steps - self.kv.clock

    def _horizon(self) -> int:
        """Steps until the first finish, or until blocks run out, or as many as are priced at once."""
        done = self.ledger.num_decode_steps
        while self._due_steps[0] not in self._calendar:
            heapq.heappop(self._due_steps)
        steps = min(self._due_steps[0] - done, len(self._steps) - 1)
        if steps > 1:
            clocks = self._growth(steps + 1)[1:]
            steps = max(1, self.kv.room(clocks))
        return steps

    def enter_decode(self, seq: Sequence) -> None:
        """Put a sequence into the calendar at the decode step that will give its last token."""
        self.num_decoding += 1
        self.context_tokens += seq.resident_tokens
        seq.ledger = self.index
        seq.first_decode_step = self.ledger.num_decode_steps
        need = self.sim.output_tokens[seq.seq_id] - seq.emitted_tokens
        tokens, per_steps = self._rate
        step = -(-(self.kv.clock + need) * per_steps // tokens)
        seq.finish_step = step
        bucket = self._calendar.get(step)
        if bucket is None:
            self._calendar[step] = [seq]
            heapq.heappush(self._due_steps, step)
        else:
            bucket.append(seq)

    def leave_decode(self, seq: Sequence) -> None:
        """Take a sequence out of the counts; a preempted one stays in its bucket and is passed over."""
        self.num_decoding -= 1
        self.context_tokens -= seq.resident_tokens
        seq.finish_step = -1

    def close_segment(self, seq: Sequence) -> None:
        """A decoding sequence is cut off: note what it has got so far."""
        gained = self.kv.clock - seq.join_clock
        if gained:
            seq.emitted_tokens += gained
            first, last = seq.first_decode_step, self.ledger.num_decode_steps
            if seq.first_token_s != seq.first_token_s:
                seq.first_token_s = float(self.ledger.decode_end_s[first])
            seq.last_token_s = float(self.ledger.decode_end_s[last - 1])
            self.sim.segments.extend((seq.seq_id, self.index, first, last))

    def _advance(self, ends: Floats) -> None:
        """Give every decoding sequence the tokens of these steps; finish those that are due."""
        steps = len(ends)
        gained = self._tokens_after(steps)
        self.ledger.add_decodes(ends, self.num_decoding)
        self.kv.advance(gained)
        self.batch.context_tokens += gained * self.batch.decode_seqs
        self.context_tokens += gained * self.num_decoding
        due = self._calendar.pop(self.ledger.num_decode_steps, None)
        if due is not None:
            step = self.ledger.num_decode_steps
            for seq in due:
                if seq.finish_step == step:
                    rank = self.ranks[seq.decode_target % len(self.ranks)]
                    rank.end_decode(seq)
                    rank.retire(seq)
                    self.sim.finish(seq)

    def pull(self, seq: Sequence, rank: Rank) -> None:
        """Fetch a prompt's KV from where it was computed; without a prefill pool it is here at once."""
        if seq.prefill_target < 0:
            seq.scheduled_s = seq.prefill_end_s = self.clock.now
            seq.transfer_start_s = seq.transfer_end_s = self.clock.now
            self._joining.append((rank, seq))
        else:
            self.sim.transfer(seq, self, rank)

    # --- prefill -----------------------------------------------------------------------------------

    def _finish_prefill(self, rank_wait_s: Floats) -> None:
        """Account for the chunks of the step that ended and pass on the prompts that are complete."""
        for rank in self.ranks:
            if not rank.chunks:
                continue
            for seq in rank.finish_chunks(float(rank_wait_s[rank.index])):
                self.sim.prompt_done(seq, self, rank)
            if rank.waiting or rank.partial:
                rank.touch()
        self.batch.clear_prefill()
        self.prefill_tokens = 0
