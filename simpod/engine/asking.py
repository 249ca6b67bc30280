"""Asking a rank's batch scheduler, and checking what it answers before any of it is applied."""

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, NoReturn

from simpod.engine.sequence import Sequence
from simpod.errors import PolicyError
from simpod.policies import BatchPlan

if TYPE_CHECKING:
    from simpod.engine.rank import Rank

PAUSES = ("recompute", "swap", "keep")


def ask(rank: "Rank") -> BatchPlan:
    """Return the policy's plan, checked but for the length of chunks, which is when granted."""
    try:
        plan = rank.policy(rank.view)
    except Exception as error:  # the policy's code: whatever it raises, the policy is to blame
        raise PolicyError(rank.group.sim.batching_name, f"raised {error!r}") from error
    if not isinstance(plan, BatchPlan):
        raise PolicyError(rank.group.sim.batching_name, f"returned {plan!r}, not a BatchPlan")
    decoding = rank.num_decoding
    slots = rank.free_slots
    if plan.preempt or plan.resume:
        _check_pauses(rank, plan)
        change = len(plan.resume) - len(plan.preempt)
        decoding += change
        slots -= change
    chunks = plan.prefill_chunks
    if type(chunks) is not dict and not isinstance(chunks, Mapping):
        blame(rank, f"prefill_chunks {chunks!r} is no mapping of sequences to tokens")
    if chunks:
        _check_chunks(rank, chunks, decoding if plan.decode else 0, slots)
    elif slots < 0:
        blame(rank, f"{len(plan.resume)} sequences resumed; {rank.free_slots} slots are free")
    if plan.review_tokens is not None:
        _check_count(rank, "review_tokens", plan.review_tokens)
    if plan.review_steps is not None:
        _check_count(rank, "review_steps", plan.review_steps)
    return plan


def _check_count(rank: "Rank", name: str, value: object) -> None:
    if not isinstance(value, Integral) or int(value) < 1:
        blame(rank, f"{name} {value!r}; allowed: an integer >= 1")


def _check_chunks(rank: "Rank", chunks: Mapping[int, int], decoding: int, slots: int) -> None:
    spec = rank.group.spec
    for seq_id, chunk in chunks.items():
        if seq_id not in rank.waiting and seq_id not in rank.partial:
            blame(rank, f"chunk for sequence {seq_id}, which has no prompt to compute here")
        if (type(chunk) is not int and not isinstance(chunk, Integral)) or chunk < 1:
            blame(rank, f"chunk of {chunk!r} for sequence {seq_id}; allowed: an integer >= 1")
    budget = spec.max_step_tokens - decoding * (1 + spec.layout.mtp_layers)
    if (total := sum(chunks.values())) > budget:
        blame(rank, f"chunks of {total} tokens in all; {budget} of {spec.max_step_tokens} are left")
    if len(chunks) > slots:
        blame(rank, f"{len(chunks)} prompts in one step; {slots} slots are free")


def check_chunk(rank: "Rank", seq: Sequence, chunk: int, uncached: int) -> None:
    """When a chunk is granted, it is no longer than what is left to compute."""
    if chunk > uncached:
        blame(rank, f"chunk of {chunk} tokens for sequence {seq.seq_id}; {uncached} are uncomputed")


def _check_pauses(rank: "Rank", plan: BatchPlan) -> None:
    for seq_id, how in plan.preempt.items():
        seq = rank.running.get(seq_id)
        if seq is None or seq.join_clock < 0:
            blame(rank, f"preempts sequence {seq_id}, which does not decode here")
        if how not in PAUSES:
            blame(rank, f"preempts sequence {seq_id} by {how!r}; allowed: {', '.join(PAUSES)}")
        if how == "swap" and rank.host is None:
            blame(rank, "swaps without a link to the host: give the pool host_bytes_per_s")
    for seq_id in plan.resume:
        if seq_id not in rank.paused:
            blame(rank, f"resumes sequence {seq_id}, which is not paused here")
    if len(set(plan.resume)) < len(plan.resume):
        blame(rank, "resumes a sequence twice")


def blame_idleness(rank: "Rank") -> None:
    """Nothing will ever happen again: if the policy leaves requests waiting here, say so."""
    first = next(iter(rank.inbox.values()), None)
    if first is not None and rank.room is not None and not rank.room.admits(first):
        blame(rank, f"may_pull refuses for ever while {len(rank.inbox)} prompts wait")
    if not (rank.waiting or rank.partial or rank.paused):
        return
    plan = ask(rank)
    if not plan.prefill_chunks and not plan.resume:
        waiting = len(rank.waiting) + len(rank.partial) + len(rank.paused)
        kind = "requests" if rank.paused else "prompts"
        blame(rank, f"idles for ever while {waiting} {kind} wait")


def blame(rank: "Rank", rule: str) -> NoReturn:
    """Raise what the policy did wrong, with the place and the time."""
    now_s = rank.group.clock.now
    raise PolicyError(rank.group.sim.batching_name, f"{rule} (rank {rank.target}, {now_s:.6f} s)")
