"""What preemptive schedulers do: the best have the slots, others make way."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simpod.policies.batching.chunks import UNLIMITED
from simpod.policies.roles import BatchPlan, BatchView, Pause, SequenceView

Key = Callable[[SequenceView], Any]
Displaces = Callable[[SequenceView, SequenceView], bool]


@dataclass(slots=True)
class _Room:
    """What is left of a step: slots, token budget, blocks now, and blocks on their way out."""

    view: BatchView
    pause: Pause
    victims: list[SequenceView]  # running decodes, the worst last
    displaces: Displaces
    slots: int = 0
    budget: int = 0
    blocks: int = 0
    coming: int = 0
    preempt: dict[int, Pause] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.slots = self.view.free_seq_slots
        self.budget = self.view.max_step_tokens - self.view.num_decoding
        self.blocks = self.view.free_blocks
        self.coming = self.view.freeing_blocks

    def make(self, seq: SequenceView, blocks: int, tokens: int) -> bool:
        """Make room for `seq` if that can be had by displacing; is there room at once?

        If it can't be had, nobody is displaced for nothing.
        """
        slots, budget, free, coming = self.slots, self.budget, self.blocks, self.coming
        chosen: list[tuple[SequenceView, Pause]] = []
        while slots < 1 or budget < tokens or free + coming < blocks:
            place = len(self.victims) - 1 - len(chosen)
            if place < 0 or not self.displaces(seq, self.victims[place]):
                return False
            victim = self.victims[place]
            how = self._how(blocks - free - coming)
            chosen.append((victim, how))
            slots += 1
            budget += self.view.tokens_per_decode
            free += victim.held_blocks if how == "recompute" else 0
            coming += victim.held_blocks if how == "swap" else 0
        del self.victims[len(self.victims) - len(chosen) :]
        self.preempt.update({victim.seq_id: how for victim, how in chosen})
        self.slots, self.budget, self.blocks, self.coming = slots, budget, free, coming
        return free >= blocks

    def is_there(self, blocks: int, tokens: int) -> bool:
        """There is room without displacing anybody."""
        return self.slots >= 1 and self.budget >= tokens and blocks <= self.blocks

    def _how(self, missing_blocks: int) -> Pause:
        """KV that is kept frees no block: where blocks are missing it must go."""
        if self.pause == "recompute":
            return "recompute"
        if self.pause == "keep" and missing_blocks <= 0:
            return "keep"
        return "swap" if self.view.can_swap else "recompute"

    def seat(self, blocks: int, tokens: int) -> None:
        """Take a slot, blocks and tokens."""
        self.slots -= 1
        self.blocks -= blocks
        self.budget -= tokens


def serve_best(
    view: BatchView,
    key: Key,
    displaces: Displaces,
    *,
    pause: Pause = "recompute",
    max_chunk_tokens: int = UNLIMITED,
) -> BatchPlan:
    """Serve who waits in ascending order of `key`; a running decode makes way where `displaces`.

    The first that finds no room ends the admission; what has blocks already goes on, so that they
    come free some day. A request alone is always tried.
    """
    paused = {seq.seq_id for seq in view.paused}
    wanting = sorted((*view.paused, *view.prefilling), key=key)
    room = _Room(view, pause, sorted(view.decoding, key=key), displaces)
    chunks: dict[int, int] = {}
    resume: list[int] = []
    is_closed = False
    for seq in wanting:
        if is_closed and not seq.is_running:
            continue
        tokens = view.tokens_per_decode if seq.seq_id in paused else 1
        blocks = _blocks_to_go_on(seq, view, is_paused=seq.seq_id in paused)
        if is_closed or not room.make(seq, blocks, tokens):
            is_closed = True
            needs = blocks if seq.seq_id in paused else 0  # a prompt under way takes what it lacks
            if not seq.is_running or not room.is_there(needs, tokens):
                continue
        if seq.seq_id in paused:
            resume.append(seq.seq_id)
            room.seat(blocks, tokens)
            continue
        chunks[seq.seq_id] = min(seq.uncached_tokens, room.budget, max_chunk_tokens)
        room.seat(blocks, chunks[seq.seq_id])
    if not chunks and not resume and not room.victims and wanting:
        _try_first(wanting, paused, room, chunks, resume)
    return BatchPlan(chunks, preempt=room.preempt, resume=tuple(resume))


def _try_first(
    wanting: list[SequenceView],
    paused: set[int],
    room: _Room,
    chunks: dict[int, int],
    resume: list[int],
) -> None:
    """Nothing would run: let the engine see whether the first one fits."""
    first = wanting[0]
    tokens = room.view.tokens_per_decode if first.seq_id in paused else 1
    if not room.is_there(0, tokens):
        return
    if first.seq_id in paused:
        resume.append(first.seq_id)
    else:
        chunks[first.seq_id] = min(first.uncached_tokens, room.budget)


def _blocks_to_go_on(seq: SequenceView, view: BatchView, *, is_paused: bool) -> int:
    """Blocks that a paused sequence lacks for its next step, or a prompt to be complete."""
    block_tokens = view.block_tokens
    if is_paused:
        there = -(-seq.context_tokens // block_tokens) if seq.is_running else 0  # else on the host
        return -(-(seq.context_tokens + view.tokens_per_decode) // block_tokens) - there
    if seq.is_running:
        return -(-seq.uncached_tokens // block_tokens)
    return -(-(seq.prompt_tokens + seq.emitted_tokens) // block_tokens)  # as if nothing were cached
