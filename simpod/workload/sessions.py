"""Structure over plain requests: shared system prompts and conversations of several turns."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np

from simpod.fields import STRICT, Count, Frac, NonNegative, Positive, TaggedBy
from simpod.workload.lengths import LengthSpec, draw_index
from simpod.workload.requests import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantThink:
    """The same pause before every turn."""

    __pydantic_config__: ClassVar[Any] = STRICT
    distribution: Literal["constant"] = "constant"
    mean_s: NonNegative

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return pauses in seconds, [num]; `rng` is not used."""
        return np.full(num, self.mean_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialThink:
    """Memoryless pauses."""

    __pydantic_config__: ClassVar[Any] = STRICT
    distribution: Literal["exponential"] = "exponential"
    mean_s: NonNegative

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return pauses in seconds, [num]."""
        return rng.standard_exponential(num) * self.mean_s


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalThink:
    """Lognormal pauses."""

    __pydantic_config__: ClassVar[Any] = STRICT
    distribution: Literal["lognormal"] = "lognormal"
    mean_s: Positive
    cv: Positive
    """Standard deviation / mean."""

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Return pauses in seconds, [num]."""
        variance = math.log1p(self.cv**2)
        normal = rng.standard_normal(num)
        return self.mean_s * np.exp(math.sqrt(variance) * normal - variance / 2)


ThinkSpec: TypeAlias = Annotated[
    ConstantThink | ExponentialThink | LognormalThink, TaggedBy("distribution")
]
"""`think_s:` of sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefixSpec:
    """System prompts in front of what users write; `prompt_tokens` comes on top of them."""

    __pydantic_config__: ClassVar[Any] = STRICT
    num_prefixes: Count
    """How many different system prompts there are."""
    tokens: Count
    """Length of each."""
    exponent: NonNegative = 1.0
    """Zipf popularity: the k-th has a chance proportional to k^-exponent; 0: all alike."""
    share_frac: Frac = 1.0
    """Share of requests (or sessions) that have a system prompt at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsSpec:
    """Conversations: `arrivals` starts them; a turn follows the answer to the one before.

    The prompt of a turn is the whole conversation so far and `prompt_tokens` new ones;
    `num_requests` counts turns (the last conversation is cut short there).
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    turns: LengthSpec
    """Requests of one conversation."""
    think_s: ThinkSpec
    """Pause between an answer and the next turn."""
    max_prompt_tokens: Count | None = None
    """Longest prompt with all that went before: the turn that would exceed it begins a conversation
    of its own, with nothing before it, at a time of `arrivals`. Every conversation counts as if it
    had a system prompt, where some have. None: conversations grow without bound."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turns:
    """Which conversation each of n requests belongs to, conversations one after the other."""

    conversation: Ints  # [n]: 0, 0, 0, 1, 1, 2, ...
    turn: Ints  # [n]: 0, 1, 2, 0, 1, 0, ...

    @property
    def num_conversations(self) -> int:
        """How many there are."""
        return int(self.conversation[-1]) + 1


def single_turns(num: int) -> Turns:
    """Every request stands alone."""
    return Turns(conversation=np.arange(num), turn=np.zeros(num, dtype=np.int64))


def draw_turns(num: int, turns: LengthSpec, rng: np.random.Generator) -> Turns:
    """Conversations until there are `num` requests."""
    ends = np.cumsum(turns.sample(num, rng))
    kept = ends[: int(np.searchsorted(ends, num)) + 1]
    starts = np.concatenate(([0], kept[:-1]))
    conversation = np.repeat(np.arange(len(kept)), np.minimum(kept, num) - starts)
    return Turns(conversation=conversation, turn=np.arange(num) - starts[conversation])


def split_long(turns: Turns, said_tokens: Ints, output_tokens: Ints, limit_tokens: int) -> Turns:
    """Let a turn whose prompt would be longer than the limit begin a conversation of its own.

    said_tokens [n]: what a turn adds to its conversation, the answer in output_tokens [n] included.
    """
    begins, before = turns.turn == 0, 0
    prompts = (said_tokens - output_tokens).tolist()
    for index, (said, prompt) in enumerate(zip(said_tokens.tolist(), prompts, strict=True)):
        if begins[index] or before + prompt > limit_tokens:
            begins[index], before = True, 0
        before += said
    starts, conversation = np.flatnonzero(begins), np.cumsum(begins) - 1
    return Turns(conversation=conversation, turn=np.arange(len(begins)) - starts[conversation])


def draw_prefixes(spec: SharedPrefixSpec, num: int, rng: np.random.Generator) -> Ints:
    """Return the system prompt of each of `num` conversations, [num]; -1: none."""
    choice_rng, share_rng = rng.spawn(2)
    popularity = np.arange(1, spec.num_prefixes + 1, dtype=np.float64) ** -spec.exponent
    chosen = draw_index(popularity, num, choice_rng)
    return np.where(share_rng.random(num) < spec.share_frac, chosen, -1)


def whole_prompts(turns: Turns, prefix_tokens: Ints, new_tokens: Ints, output_tokens: Ints) -> Ints:
    """Prompts with all that went before in the conversation, [n].

    prefix_tokens: [num_conversations]; new_tokens, output_tokens: [n].
    """
    said = np.cumsum(new_tokens + output_tokens)
    first = np.flatnonzero(turns.turn == 0)
    before = (said - new_tokens - output_tokens)[first][turns.conversation]
    return prefix_tokens[turns.conversation] + said - output_tokens - before


def name_blocks(
    turns: Turns, last_token: Ints, prefixes: Ints, prefix_blocks: int, block_tokens: int
) -> tuple[Ints, Ints]:
    """Prefix identity: (hash_offsets [n + 1], hash_ids) as in `Requests`.

    last_token [n]: tokens to name of each request (whole blocks only).
    prefixes [num_conversations]: system prompt or -1. The blocks of system prompt j are
    j x prefix_blocks ..., shared by all its conversations; the others belong to one conversation.
    """
    counts = last_token // block_tokens
    conversation = turns.conversation
    shared = np.where(prefixes >= 0, prefix_blocks, 0)
    last_turn = np.append(np.flatnonzero(turns.turn == 0)[1:], len(counts)) - 1
    own = np.maximum(counts[last_turn] - shared, 0)
    first_own = (int(prefixes.max(initial=-1)) + 1) * prefix_blocks + np.cumsum(own) - own
    # each request is two runs of successive ids: [n, 2] lengths and first ids
    in_prefix = np.minimum(counts, shared[conversation])
    lengths = np.stack((in_prefix, counts - in_prefix), axis=1).ravel()
    starts = np.stack((prefixes * prefix_blocks, first_own), axis=1)[conversation].ravel()
    ids = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    ids += np.arange(len(ids))
    return np.concatenate(([0], np.cumsum(counts))), ids
