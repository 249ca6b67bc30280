"""Preemptions that a policy asks for: dropped, kept in place, or copied to the host and back.

A paused sequence has no slot and its KV is complete: in its blocks (`keep`), or in host memory
(`swap`). Copies of a rank in one direction follow each other on its link to the host; the blocks of
one that is copied out come free when the copy is there.
"""

from typing import TYPE_CHECKING

from simpod.engine.clock import DELIVER
from simpod.engine.sequence import Sequence
from simpod.policies import BatchPlan

if TYPE_CHECKING:
    from simpod.cost import KvTransfer
    from simpod.engine.rank import Rank


class HostLink:
    """A rank's link to host memory, both ways, and who is on the way out.

    Host memory is not counted: it is tens of times that of a die.
    """

    def __init__(self, law: "KvTransfer") -> None:
        self.leaving: dict[int, Sequence] = {}
        self.held: set[int] = set()  # sequences whose KV is on the host, or on the way back
        self._law = law
        self._out_free_s = 0.0
        self._in_free_s = 0.0

    def out_until_s(self, now_s: float, tokens: int) -> float:
        """End of a copy to the host that is asked for now."""
        self._out_free_s = max(now_s, self._out_free_s) + self._law.seconds(tokens)
        return self._out_free_s

    def in_until_s(self, now_s: float, tokens: int) -> float:
        """End of a copy back that is asked for now."""
        self._in_free_s = max(now_s, self._in_free_s) + self._law.seconds(tokens)
        return self._in_free_s


def switch(rank: "Rank", plan: BatchPlan) -> None:
    """Apply the preemptions and resumptions of a plan; what finds no room stays paused."""
    for seq_id, how in plan.preempt.items():
        seq = rank.running[seq_id]
        if how == "recompute":
            rank.preempt(seq)
        else:
            _pause(rank, seq, swap=how == "swap")
    for seq_id in plan.resume:
        if seq_id not in rank.paused or not _resume(rank, rank.paused[seq_id]):
            break


def _pause(rank: "Rank", seq: Sequence, *, swap: bool) -> None:
    group = rank.group
    group.close_segment(seq)
    rank.end_decode(seq)
    seq.num_preemptions += 1
    seq.queued_s = group.clock.now
    group.num_preemptions += 1
    rank.leave_slot()
    if not swap or rank.host is None:
        rank.paused[seq.seq_id] = seq
        return
    host = rank.host
    del rank.running[seq.seq_id]
    host.leaving[seq.seq_id] = seq
    end_s = host.out_until_s(group.clock.now, seq.resident_tokens)
    group.clock.call_at(end_s, DELIVER, lambda: _copied_out(rank, seq))


def _copied_out(rank: "Rank", seq: Sequence) -> None:
    host = rank.host
    if host is None:
        return
    del host.leaving[seq.seq_id]
    host.held.add(seq.seq_id)
    tokens = seq.resident_tokens
    rank.release(seq)
    seq.resident_tokens = tokens
    rank.paused[seq.seq_id] = seq
    rank.touch()
    rank.group.poke()


def _resume(rank: "Rank", seq: Sequence) -> bool:
    """Let a paused sequence go on; change nothing and return False without room."""
    group, kv = rank.group, rank.group.kv
    tokens = group.tokens_after(1)
    on_host = rank.host is not None and seq.seq_id in rank.host.held
    held = 0 if on_host else seq.own_blocks + len(seq.units) * kv.unit_blocks
    if not kv.fits(rank.index, kv.blocks_for(seq.resident_tokens + tokens) - held, tokens):
        return False
    del rank.paused[seq.seq_id]
    rank.take_slot()
    if not on_host or rank.host is None:
        group.next_tokens = tokens
        rank.begin_decode(seq)
        return True
    blocks = kv.blocks_for(seq.resident_tokens)
    kv.take(rank.index, blocks)
    seq.own_blocks = blocks
    rank.num_pulling += 1
    group.num_pulling += 1
    end_s = rank.host.in_until_s(group.clock.now, seq.resident_tokens)
    group.clock.call_at(end_s, DELIVER, lambda: _copied_in(rank, seq))
    return True


def _copied_in(rank: "Rank", seq: Sequence) -> None:
    if rank.host is not None:
        rank.host.held.discard(seq.seq_id)
    rank.group.deliver(seq, rank)
