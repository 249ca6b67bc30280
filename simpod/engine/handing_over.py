"""Requests of an instance that drains: those that wait go to other instances, at once."""

from typing import TYPE_CHECKING

from simpod.engine.sequence import Sequence

if TYPE_CHECKING:
    from simpod.engine.pool import Pool
    from simpod.engine.rank import Rank


def hand_over_waiting(pool: "Pool", rank: "Rank") -> None:
    """Route all that hold nothing here once more, among those that serve.

    Called when all steps of the instant have ended and none has begun. A prompt whose prefix is on
    its way from the shared memory holds blocks and stays.
    """
    for seq in list(rank.waiting.values()):
        forget(rank, seq)
        del rank.waiting[seq.seq_id]
        send_on(pool, seq)
    for seq in list(rank.inbox.values()):
        forget(rank, seq)
        del rank.inbox[seq.seq_id]
        seq.decode_target = pool.dispatch.choose(seq)
        group, other = pool.rank_of(seq.decode_target)
        group.submit(seq, other)


def take_out(rank: "Rank") -> list[Sequence]:
    """At a step boundary: preempt all that can be, by recomputation, and take them out."""
    for seq in list(rank.running.values()):
        if seq.join_clock >= 0 or seq.seq_id in rank.partial or seq.seq_id in rank.paused:
            rank.preempt(seq)
    taken = [*rank.waiting.values()]
    for seq in taken:
        forget(rank, seq)
    rank.waiting.clear()
    return taken


def send_on(pool: "Pool", seq: Sequence) -> None:
    """Put a request that computes a prompt, or computes one again, into a queue of the pool."""
    target = pool.dispatch.choose(seq)
    role = pool.spec.role
    if role != "decode" and not seq.num_preemptions:
        seq.prefill_target = target
    if role == "prefill":
        seq.prefill_target = target
    else:
        seq.decode_target = target
    group, rank = pool.rank_of(target)
    rank.waiting[seq.seq_id] = seq
    group.dispatch.join_queue(seq, target)
    rank.touch()
    group.poke()


def forget(rank: "Rank", seq: Sequence) -> None:
    """A waiting request leaves the counts of its rank."""
    rank.group.dispatch.leave_queue(seq, rank.target)
    if rank.reads is not None:
        rank.reads.forget(seq)
