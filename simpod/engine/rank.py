"""One data-parallel rank: its queues, its slots and its KV blocks."""

from collections import OrderedDict
from collections.abc import Callable, Set
from collections.abc import Sequence as ReadOnly
from itertools import chain
from typing import TYPE_CHECKING

from simpod.engine.asking import ask, check_chunk
from simpod.engine.decode_room import DecodeRoom
from simpod.engine.facades import RankFacade
from simpod.engine.pausing import HostLink, switch
from simpod.engine.prefix_reads import PrefixReads
from simpod.engine.pull_order import PullOrder
from simpod.engine.sequence import Sequence
from simpod.engine.service import Service
from simpod.policies import BatchScheduler

if TYPE_CHECKING:
    from simpod.engine.group import Group


class Rank:
    """Queues and slots of one rank; its blocks and batch counts live in the group's arrays.

    A sequence is in `waiting` (no blocks), in `reads` (its prefix is on its way from the shared
    memory), in `partial` (prompt computed or read in part), decoding, `paused` (all of its KV is
    there, but it holds no slot), or, on a decode rank, in `inbox` (prompt still on the prefill die)
    or being pulled. `running` holds all with blocks that can be preempted, in order of admission.
    """

    __slots__ = (
        "asks_group at_boundary chunks group held host inbox index is_dirty num_decoding "
        "num_pulling partial paused pinned policy pulls reads reserved review_clock room running "
        "service spec target view waiting"
    ).split()

    def __init__(self, group: "Group", index: int, target: int, policy: BatchScheduler) -> None:
        self.group = group
        self.index = index
        self.target = target
        self.policy = policy
        self.asks_group: bool = getattr(policy, "asks_group", False)
        self.spec = group.spec
        self.view = RankFacade(self, group.spec)
        self.inbox: OrderedDict[int, Sequence] = OrderedDict()
        self.waiting: OrderedDict[int, Sequence] = OrderedDict()
        self.partial: dict[int, Sequence] = {}
        cache = group.sim.cache if group.spec.role != "decode" else None
        self.reads = PrefixReads(self, cache) if cache is not None else None
        self.held: Set[int] = frozenset()  # waiting prompts that a leader keeps back
        self.running: dict[int, Sequence] = {}
        self.pinned: dict[int, tuple[int, ReadOnly[int]]] = {}  # own blocks and prefix units
        self.reserved: dict[int, int] = {}  # blocks for prompts that are still being computed
        self.chunks: dict[int, tuple[Sequence, int]] = {}
        self.paused: dict[int, Sequence] = {}
        self.host: HostLink | None = None
        self.service: Service | None = None  # None: there are no tenants
        self.pulls: PullOrder | None = None  # None: in order of arrival
        self.room: DecodeRoom | None = None  # None: what finds blocks for its prompt is pulled
        self.review_clock = -1  # token clock of the group at which the policy wants to be asked
        self.at_boundary: list[Callable[[], None]] = []  # what migrations do between two steps
        self.num_decoding = 0
        self.num_pulling = 0
        self.is_dirty = False

    @property
    def free_slots(self) -> int:
        """Sequences that could still take part in the next step."""
        return self.spec.max_num_seqs - self.num_decoding - self.num_pulling

    @property
    def free_blocks(self) -> int:
        """Blocks left after those that the next decode step takes."""
        return self.group.kv.free(self.index, self.group.next_tokens)

    def hit_units(self, prefix_hashes: ReadOnly[int], prompt_tokens: int) -> int:
        """Leading prefix units that are resident here; at least one token is left to compute."""
        kv = self.group.kv
        if not prefix_hashes or not kv.unit_tokens:
            return 0
        return kv.match(self.index, prefix_hashes[: (prompt_tokens - 1) // kv.unit_tokens])

    def hit_tokens(self, prefix_hashes: ReadOnly[int], prompt_tokens: int) -> int:
        """The same in tokens."""
        return self.hit_units(prefix_hashes, prompt_tokens) * self.group.kv.unit_tokens

    def reach_boundary(self) -> None:
        """Do what has waited for the end of a step."""
        calls, self.at_boundary = self.at_boundary, []
        for call in calls:
            call()

    # --- the policy's decision ----------------------------------------------------------------

    def plan(self) -> bool:
        """Ask the policy, grant the chunks that fit; False if decodes are to pause for them."""
        plan = ask(self)
        if plan.preempt or plan.resume:
            switch(self, plan)
        is_full = False
        for seq_id, chunk in plan.prefill_chunks.items():
            seq = self.partial.get(seq_id)
            if seq is not None:
                if not self._extend(seq, chunk):
                    break
            elif (
                not is_full and not self.is_dirty
            ):  # else (vLLM: nor after a preemption) only prompts under way go on
                is_full = not self._start(self.waiting[seq_id], chunk, whole=not plan.decode)
        if plan.review_tokens is not None:
            self.group.review(self, plan.review_tokens)
        if plan.review_steps is not None:
            self.group.review(self, self.group.tokens_after(plan.review_steps))
        return plan.decode or not self.chunks

    # --- chunks -------------------------------------------------------------------------------

    def _start(self, seq: Sequence, chunk: int, *, whole: bool) -> bool:
        """Admit a prompt with its first chunk; change nothing and return False without room.

        With `reserve_full_prompt` all of the prompt must find room, though only the chunk's blocks
        are taken (vLLM: scheduler_reserve_full_isl); else the chunk. Where decodes pause for it, a
        prompt that had to make way before needs room for the `whole` of it all the same: else two
        ranks of a group could in turn start and drop theirs, and no decode would ever end.
        """
        group, kv = self.group, self.group.kv
        hit = self.hit_units(seq.prefix_hashes, seq.goal_tokens) if seq.prefix_hashes else 0
        resident = hit * kv.unit_tokens
        check_chunk(self, seq, chunk, seq.goal_tokens - resident)
        if not self.admit(seq, hit, resident, resident + chunk, whole=whole):
            return False
        if seq.scheduled_s != seq.scheduled_s:
            seq.scheduled_s = group.clock.now
            seq.cached_tokens = resident
            seq.dram_tokens = seq.ssd_tokens = 0
        self.partial[seq.seq_id] = self.running[seq.seq_id] = seq
        self._enter(seq, chunk)
        self.report_kv()
        return True

    def admit(self, seq: Sequence, hit: int, resident: int, tokens: int, *, whole: bool) -> bool:
        """Give a waiting prompt blocks for its first `tokens`, `hit` prefix units among them.

        resident: tokens that need not be computed.
        """
        group, kv = self.group, self.group.kv
        own = kv.blocks_for(tokens) - hit * kv.unit_blocks
        ids = seq.prefix_hashes[:hit]
        shared = kv.blocks_to_pin(self.index, ids) if hit else 0
        need = own + shared
        reserves = group.spec.reserve_full_prompt or (whole and seq.num_preemptions)
        if reserves and tokens < seq.goal_tokens:
            need += kv.blocks_for(seq.goal_tokens) - kv.blocks_for(tokens)
        if not kv.fits(self.index, need, group.next_tokens):
            return False
        if hit:
            kv.pin(self.index, ids)
            seq.units = ids
        kv.take(self.index, own)
        seq.own_blocks = own
        seq.resident_tokens = resident
        del self.waiting[seq.seq_id]
        if self.reads is not None:
            self.reads.forget(seq)
        self.take_slot()
        group.dispatch.queued_tokens[self.target] -= resident
        return True

    def _extend(self, seq: Sequence, chunk: int) -> bool:
        """Grant a further chunk to a prompt computed in part, preempting the newest if it must."""
        kv = self.group.kv
        check_chunk(self, seq, chunk, seq.goal_tokens - seq.resident_tokens)
        held = seq.own_blocks + len(seq.units) * kv.unit_blocks
        more = kv.blocks_for(seq.resident_tokens + chunk) - held
        while not kv.fits(self.index, more, self.group.next_tokens):
            if not self.preempt_newest() or seq.seq_id not in self.partial:
                return False
        kv.take(self.index, more)
        seq.own_blocks += more
        if seq.scheduled_s != seq.scheduled_s:  # it was read, not computed, up to here
            seq.scheduled_s = self.group.clock.now
        self._enter(seq, chunk)
        return True

    def _enter(self, seq: Sequence, chunk: int) -> None:
        """Put a granted chunk into the group's batch."""
        prompts, index = self.group.prompts, self.index
        self.chunks[seq.seq_id] = (seq, chunk)
        prompts.tokens[index] += chunk
        prompts.pairs[index] += chunk * (seq.resident_tokens + (chunk + 1) / 2)
        prompts.context[index] += seq.resident_tokens + chunk
        prompts.chunks[index] += 1
        self.group.prefill_tokens += chunk
        self.group.num_chunks += 1
        self.group.dispatch.queued_tokens[self.target] -= chunk
        if self.service is not None and not seq.num_preemptions:
            self.service.add(seq.tenant, chunk, 0)

    def finish_chunks(self, wait_s: float) -> list[Sequence]:
        """Account for the chunks of the step that ended; return the complete prompts."""
        done = []
        for seq, chunk in self.chunks.values():
            seq.resident_tokens += chunk
            if seq.prefill_end_s != seq.prefill_end_s:  # later ones recompute: no part of the TTFT
                seq.barrier_wait_s += wait_s
            if seq.prefix_hashes:
                self.publish(seq)  # with each chunk: others need not wait for the whole prompt
            if seq.resident_tokens == seq.goal_tokens:
                del self.partial[seq.seq_id]
                done.append(seq)
                if self.service is not None:
                    self.service.add(seq.tenant, 0, 1)
        self.chunks.clear()
        prompts, index = self.group.prompts, self.index
        prompts.tokens[index] = prompts.context[index] = prompts.chunks[index] = 0
        prompts.pairs[index] = 0.0
        return done

    def publish(self, seq: Sequence) -> None:
        """Make full prefix units that this sequence computed shareable."""
        kv = self.group.kv
        if kv.unit_tokens:
            full = seq.resident_tokens // kv.unit_tokens
            first = len(seq.units)
            new = kv.publish(self.index, seq.prefix_hashes[first:full], first)
            seq.units = [*seq.units, *new]
            seq.own_blocks -= len(new) * kv.unit_blocks

    # --- decoding -----------------------------------------------------------------------------

    def admit_from_inbox(self) -> None:
        """Take prompts from the prefill dies, in order, while slots and blocks last.

        Waiting (preempted) sequences go first: nothing is pulled before they run again.
        """
        group, kv = self.group, self.group.kv
        if self.pulls is not None and len(self.inbox) > 1:
            self.pulls.sort()
        while self.inbox and not self.waiting and self.free_slots > len(self.partial):
            seq = next(iter(self.inbox.values()))
            blocks = kv.blocks_for(seq.goal_tokens)
            if not kv.fits(self.index, blocks, group.next_tokens):
                return
            if self.room is not None and not self.room.admits(seq):
                return
            del self.inbox[seq.seq_id]
            kv.take(self.index, blocks)
            if seq.prefill_target >= 0 and seq.prefill_end_s != seq.prefill_end_s:
                self.reserved[seq.seq_id] = blocks  # the prefill rank still counts its own
            else:
                seq.own_blocks = blocks
                seq.resident_tokens = seq.goal_tokens
            self.num_pulling += 1
            group.num_pulling += 1
            self.take_slot()
            group.dispatch.queued_tokens[self.target] -= seq.goal_tokens
            self.report_kv()
            group.pull(seq, self)

    def keep_reserved(self, seq: Sequence) -> None:
        """A prompt that was still being computed when its blocks were set aside is complete."""
        seq.own_blocks = self.reserved.pop(seq.seq_id)
        seq.resident_tokens = seq.goal_tokens

    def begin_pulled(self, seq: Sequence) -> None:
        """A prompt's KV has come: decode from the next step on."""
        self.num_pulling -= 1
        self.group.num_pulling -= 1
        if self.room is not None:
            self.room.begin(seq)
        self.running[seq.seq_id] = seq
        self.begin_decode(seq)

    def begin_decode(self, seq: Sequence) -> None:
        """Join the running decodes at the group's present clock."""
        group, index = self.group, self.index
        seq.join_clock = group.kv.clock
        seq.offset = group.kv.join(index, seq.resident_tokens)
        self.num_decoding += 1
        group.enter_decode(seq)

    def end_decode(self, seq: Sequence) -> None:
        """Leave the running decodes; blocks grown since the join are the sequence's own."""
        group, index, kv = self.group, self.index, self.group.kv
        if self.service is not None:
            self.service.add(seq.tenant, 0, kv.clock - seq.join_clock)
        seq.resident_tokens = kv.leave(index, seq.offset)
        seq.join_clock = -1
        seq.own_blocks = kv.blocks_for(seq.resident_tokens) - len(seq.units) * kv.unit_blocks
        self.num_decoding -= 1
        group.leave_decode(seq)

    def preempt_newest(self) -> bool:
        """Preempt the newest sequence outside this step's chunks; it will be recomputed.

        Paused ones go before all others.
        """
        newest_first = list(reversed(self.running.values()))
        paused = (seq for seq in newest_first if seq.seq_id in self.paused)
        others = (seq for seq in newest_first if seq.seq_id not in self.chunks)
        seq = next(chain(paused, others), None)
        if seq is not None:
            self.preempt(seq)
            self.touch()
        return seq is not None

    def preempt(self, seq: Sequence) -> None:
        """Drop a sequence's KV: it waits for its recomputation, before all others."""
        group = self.group
        if seq.join_clock >= 0:
            group.close_segment(seq)
            self.end_decode(seq)
            uncounted = seq.prompt_tokens + seq.emitted_tokens
            self.leave_slot()
        elif seq.seq_id in self.paused:
            del self.paused[seq.seq_id]
            uncounted = seq.prompt_tokens + seq.emitted_tokens
        else:
            del self.partial[seq.seq_id]
            uncounted = seq.resident_tokens
            self.leave_slot()
        self.release(seq)
        seq.goal_tokens = seq.prompt_tokens + seq.emitted_tokens
        seq.num_preemptions += 1
        seq.queued_s = group.clock.now
        group.num_preemptions += 1
        self.waiting[seq.seq_id] = seq
        self.waiting.move_to_end(seq.seq_id, last=False)
        group.dispatch.queued_tokens[self.target] += uncounted

    def take_slot(self) -> None:
        """A sequence that waited holds a slot."""
        self.group.dispatch.waiting_seqs[self.target] -= 1
        self.group.dispatch.running_seqs[self.target] += 1

    def leave_slot(self) -> None:
        """A sequence that had a slot waits."""
        self.group.dispatch.waiting_seqs[self.target] += 1
        self.group.dispatch.running_seqs[self.target] -= 1

    # --- leaving --------------------------------------------------------------------------------

    def retire(self, seq: Sequence) -> None:
        """A sequence is done here: publish what its output filled, free blocks and slot."""
        if seq.prefix_hashes:
            self.publish(seq)
        self.release(seq)
        self._make_way()

    def pin(self, seq: Sequence) -> None:
        """Keep a finished prompt's KV, without a slot, until the decode side has pulled it."""
        del self.running[seq.seq_id]
        self.pinned[seq.seq_id] = (seq.own_blocks, seq.units)
        seq.own_blocks, seq.units = 0, ()

    def unpin(self, seq_id: int) -> None:
        """A prompt's KV has been pulled: free it."""
        kv = self.group.kv
        own_blocks, units = self.pinned.pop(seq_id)
        kv.release(self.index, own_blocks)
        if units:
            kv.unpin(self.index, units)
        self.report_kv()
        self._make_way()

    def _make_way(self) -> None:
        self.group.dispatch.running_seqs[self.target] -= 1
        self.group.dispatch.held_seqs[self.target] -= 1
        leading = self.group.leading  # who may let a prompt begin here that waits at another rank
        is_led_here = leading is not None and leading.has_waiting
        if is_led_here or self.waiting or self.inbox or self.partial or self.paused:
            self.touch()

    def release(self, seq: Sequence) -> None:
        """Give back every block of a sequence and its slot."""
        kv = self.group.kv
        kv.release(self.index, seq.own_blocks)
        if seq.units:
            kv.unpin(self.index, seq.units)
            seq.units = ()
        seq.own_blocks = 0
        seq.resident_tokens = 0
        self.running.pop(seq.seq_id, None)
        self.report_kv()

    def touch(self) -> None:
        """Something changed: the policy will be asked before the next step."""
        if not self.is_dirty:
            self.is_dirty = True
            self.group.dirty.append(self)

    def report_kv(self) -> None:
        """Tell the router how full this rank is, where there is anything to choose."""
        if self.group.dispatch.num_targets > 1:
            self.group.dispatch.kv_tokens[self.target] = self.group.kv.tokens_held(self.index)
