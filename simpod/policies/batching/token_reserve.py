"""SGLang's estimate of the KV that requests under way will still take."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from simpod.policies.roles import BatchView, SequenceView

LEAST_OF_FIRST: Final = 0.14
"""Of the first share, the least (SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR)."""
DECAY_STEPS: Final = 600
"""Decode steps from the first share to the least (SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS)."""
RETRACT_STEPS: Final = 20
"""Steps that must find room after a retraction (SGLANG_RETRACT_DECODE_STEPS)."""
MOST_NEW_TOKENS: Final = 4096
"""Of an allowed answer, what is counted (SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION)."""
RESERVED_TOKENS: Final = 512
"""Of each request on a decode rank, kept free (num_reserved_decode_tokens)."""


def keeps_reserve(view: BatchView, coming: Sequence[SequenceView], seq: SequenceView) -> bool:
    """Whether a decode rank may pull a prompt: RESERVED_TOKENS stay free for each that it has.

    The longest of those that decode must also find room to its end if all others made way.
    """
    decoding = list(view.decoding)
    if not decoding and not coming:
        return True
    could_leave = sum(other.context_tokens for other in decoding)
    kept = RESERVED_TOKENS * (len(decoding) + len(coming))
    if decoding:
        kept = max(kept, max(map(_whole, decoding)) - could_leave)
    wanted = max(seq.prompt_tokens + RESERVED_TOKENS, _whole(seq) - could_leave)
    return wanted <= view.free_blocks * view.block_tokens - kept


def _whole(seq: SequenceView) -> int:
    """Tokens of a request at its end, as far as they are counted."""
    return seq.prompt_tokens + min(seq.max_tokens, MOST_NEW_TOKENS)


@dataclass(slots=True)
class TokenReserve:
    """Which waiting prompts find room: `PrefillAdder` of SGLang.

    A running request reserves `frac` of the answer that it may still write; a new one all of it.
    That share falls with each decode step, and rises when a request had to make way. Requests that
    ignore end-of-sequence are admitted if the cache never overflows while all write their answers
    to the end, each giving back what it holds. After a refusal nobody is admitted until a request
    has ended. Requests that name no limit reserve no answer.
    Source: SGLang, managers/schedule_policy.py (`PrefillAdder.add_one_req`,
    `add_one_req_ignore_eos`), managers/scheduler.py (`new_token_ratio`, `batch_is_full`),
    managers/schedule_batch.py (`retract_decode`), environ.py.
    """

    first_frac: float
    frac: float = field(init=False)
    _decay_from: int = field(default=0, init=False)
    _full_at: int | None = field(default=None, init=False)
    _longest: int = field(default=0, init=False)
    _retracted: dict[int, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.frac = self.first_frac

    def admitted(self, view: BatchView, prompts: list[SequenceView]) -> list[SequenceView]:
        """Those of `prompts` (under way first) that may take part, in the same order."""
        self._follow(view, prompts)
        under_way = [seq for seq in prompts if seq.is_running]
        waiting = [seq for seq in prompts if not seq.is_running]
        running = view.num_decoding + len(under_way)
        if self._full_at is not None and running >= self._full_at > 0:
            return under_way
        self._full_at = None
        self._longest = max(self._longest, max((s.max_tokens for s in prompts), default=0))
        if not self._longest or self._surely_fits(view, running, prompts):
            return prompts
        budget = _Budget(view, self.frac, under_way)
        for place, seq in enumerate(waiting[: view.free_seq_slots]):
            if not budget.admits(seq) and (running or place):
                self._full_at = running + place
                return under_way + waiting[:place]
        return prompts

    def _surely_fits(self, view: BatchView, running: int, prompts: list[SequenceView]) -> bool:
        """Even if everybody writes the longest answer that anyone was allowed."""
        wanted = sum(seq.uncached_tokens + view.block_tokens for seq in prompts)
        wanted += (running + len(prompts)) * (self._longest + 1)
        return wanted < view.free_blocks * view.block_tokens

    def _follow(self, view: BatchView, prompts: Iterable[SequenceView]) -> None:
        """Let the share fall with the decode steps since the last call; raise it on retractions."""
        steps = view.decode_steps - self._decay_from
        self._decay_from = view.decode_steps
        if not view.num_decoding:
            self.frac = self.first_frac
            return
        least = self.first_frac * LEAST_OF_FIRST
        self.frac = max(least, self.frac - steps * (self.first_frac - least) / DECAY_STEPS)
        new = {s.seq_id: s.queued_s for s in prompts if s.emitted_tokens and not s.is_running}
        if any(self._retracted.get(seq_id) != at_s for seq_id, at_s in new.items()):
            decoding = list(view.decoding)
            written = sum(seq.emitted_tokens for seq in decoding) + RETRACT_STEPS * len(decoding)
            self.frac = min(1.0, written / (1 + sum(seq.max_tokens for seq in decoding)))
        self._retracted = new


class _Budget:
    """Tokens left while one step's prompts are chosen."""

    def __init__(self, view: BatchView, frac: float, under_way: list[SequenceView]) -> None:
        self._page = view.block_tokens
        self._free = view.free_blocks * view.block_tokens
        decoding = list(view.decoding)
        self._total = self._free - frac * sum(map(_rest, decoding))
        self._states = sorted(_states([*decoding, *under_way]))
        for seq in under_way:
            self._take(seq)

    def admits(self, seq: SequenceView) -> bool:
        """Take a waiting prompt's tokens if there is room for it and its answer."""
        if seq.ignores_eos:
            states = sorted([*self._states, *_states([seq])])
            fits = seq.uncached_tokens <= min(self._free, self._total)
            if not fits or _overflows(self._free - seq.uncached_tokens, states):
                return False
            self._states = states
        elif seq.uncached_tokens + _rest(seq) + self._page >= self._total:
            return False
        self._take(seq)
        return True

    def _take(self, seq: SequenceView) -> None:
        self._total -= seq.uncached_tokens + _rest(seq)
        self._free -= seq.uncached_tokens


def _rest(seq: SequenceView) -> int:
    """Tokens of its answer that a request may still write, as far as they are counted."""
    return min(max(0, seq.max_tokens - seq.emitted_tokens), MOST_NEW_TOKENS)


def _states(seqs: Iterable[SequenceView]) -> Iterator[tuple[int, int]]:
    """Tokens left to write, and tokens held, of each that still writes."""
    for seq in seqs:
        if (left := seq.max_tokens - seq.emitted_tokens) > 0:
            yield left, seq.prompt_tokens + seq.emitted_tokens


def _overflows(free: int, states: list[tuple[int, int]]) -> bool:
    """Whether a cache runs out while requests write their answers to the end.

    states: shortest rest first. One token a request is kept for corner cases
    (IGNORE_EOS_RESERVE_TOKENS).
    """
    freed = 0
    for place, (left, held) in enumerate(states):
        writing = len(states) - place
        if free + freed - left * writing <= writing:
            return True
        freed += held
    return False
