"""What policies see of the engine: read-only facades over live state, built in O(1)."""

from collections.abc import Iterator
from collections.abc import Sequence as ReadOnly
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simpod.cluster import PoolSpec
from simpod.engine.sequence import Sequence
from simpod.policies import Ints, RouteRequest

if TYPE_CHECKING:
    from simpod.engine.rank import Rank


class SequenceFacade:
    """Read-only view of a sequence: `policies.SequenceView` and `policies.RouteRequest`."""

    __slots__ = ("_gained_tokens", "_hit_tokens", "_seq")

    def __init__(self, seq: Sequence, hit_tokens: int = 0, gained_tokens: int = 0) -> None:
        self._seq = seq
        self._hit_tokens = hit_tokens
        self._gained_tokens = gained_tokens  # since it joined the running decodes

    @property
    def seq_id(self) -> int:
        """Identity within the run."""
        return self._seq.seq_id

    @property
    def arrival_s(self) -> float:
        """When the client sent it."""
        return self._seq.arrival_s

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return self._seq.prompt_tokens

    @property
    def session_id(self) -> int:
        """Conversation that it belongs to, or -1."""
        return self._seq.session_id

    @property
    def prefix_hashes(self) -> ReadOnly[int]:
        """Ids of the prompt's prefix blocks."""
        return self._seq.prefix_hashes

    @property
    def uncached_tokens(self) -> int:
        """Tokens to compute before the next output token."""
        return max(0, self._seq.goal_tokens - self._seq.resident_tokens - self._hit_tokens)

    @property
    def is_running(self) -> bool:
        """Has KV blocks already."""
        return self._seq.own_blocks > 0 or bool(self._seq.units)

    @property
    def ttft_deadline_s(self) -> float:
        """Arrival plus the TTFT target."""
        return self._seq.ttft_deadline_s

    @property
    def tenant(self) -> int:
        """Who pays for it."""
        return self._seq.tenant

    @property
    def priority(self) -> int:
        """Importance; larger is more urgent."""
        return self._seq.priority

    @property
    def predicted_tokens(self) -> float:
        """Output length as predicted, or NaN."""
        return self._seq.predicted_tokens

    @property
    def max_tokens(self) -> int:
        """Longest answer that its client allows, or 0."""
        return self._seq.max_tokens

    @property
    def ignores_eos(self) -> bool:
        """The answer is as long as allowed."""
        return self._seq.ignores_eos

    @property
    def emitted_tokens(self) -> int:
        """Output tokens so far."""
        return self._seq.emitted_tokens + self._gained_tokens

    @property
    def context_tokens(self) -> int:
        """Tokens whose KV is there, or on the host."""
        return self._seq.resident_tokens + self._gained_tokens

    @property
    def held_blocks(self) -> int:
        """KV blocks that it holds alone, those grown while decoding aside."""
        return self._seq.own_blocks

    @property
    def queued_s(self) -> float:
        """Since when it waits."""
        seq = self._seq
        return seq.arrival_s if seq.queued_s != seq.queued_s else seq.queued_s


class DecodingFacade(SequenceFacade):
    """A sequence that decodes: its blocks have grown since it joined."""

    __slots__ = ("_block_tokens",)

    def __init__(self, seq: Sequence, block_tokens: int, gained_tokens: int) -> None:
        super().__init__(seq, 0, gained_tokens)
        self._block_tokens = block_tokens

    @property
    def is_running(self) -> bool:
        """It has KV blocks."""
        return True

    @property
    def held_blocks(self) -> int:
        """KV blocks that it holds alone."""
        seq = self._seq
        before = -(-seq.resident_tokens // self._block_tokens)
        return seq.own_blocks - before - (-self.context_tokens // self._block_tokens)


def hits_of(ranks: ReadOnly["Rank"], request: RouteRequest) -> Ints:
    """[ranks] leading tokens of a prompt that are in the prefix cache of each."""
    ids, prompt = request.prefix_hashes, request.prompt_tokens
    found = (rank.hit_tokens(ids, prompt) for rank in ranks)
    return np.fromiter(found, dtype=np.int64, count=len(ranks))


def reusable_of(ranks: ReadOnly["Rank"], request: RouteRequest) -> Ints:
    """[ranks] leading tokens that each has in its prefix cache or can read."""
    hits = hits_of(ranks, request)
    cache = ranks[0].group.sim.cache
    if cache is None or ranks[0].reads is None:
        return hits
    return cache.reusable_tokens(request, ranks, hits)


@dataclass(frozen=True, slots=True)
class RankFacade:
    """Read-only view of a rank before a step: `policies.BatchView`."""

    _rank: "Rank"
    _spec: PoolSpec

    @property
    def block_tokens(self) -> int:
        """Tokens of one KV block."""
        return self._spec.block_tokens

    @property
    def now_s(self) -> float:
        """Start of the step."""
        return self._rank.group.clock.now

    @property
    def max_step_tokens(self) -> int:
        """Token budget of the step, less the draft tokens that running decodes bring."""
        drafts = self._rank.num_decoding * self._spec.layout.mtp_layers
        return self._spec.max_step_tokens - drafts

    @property
    def num_decoding(self) -> int:
        """Sequences that decode in this step."""
        return self._rank.num_decoding

    @property
    def prefilling(self) -> Iterator[SequenceFacade]:
        """Prompts computed in part, then waiting ones."""
        rank = self._rank
        for seq in rank.partial.values():
            yield SequenceFacade(seq)
        for seq in rank.waiting.values():
            if seq.seq_id in rank.held:
                continue
            ids = seq.prefix_hashes
            hit = rank.hit_tokens(ids, seq.goal_tokens) if ids else 0
            yield SequenceFacade(seq, hit)

    @property
    def decoding(self) -> Iterator[SequenceFacade]:
        """Sequences that decode."""
        clock = self._rank.group.kv.clock
        for seq in self._rank.running.values():
            if seq.join_clock >= 0:
                yield DecodingFacade(seq, self._spec.block_tokens, clock - seq.join_clock)

    @property
    def paused(self) -> Iterator[SequenceFacade]:
        """Sequences whose KV is complete, here or on the host."""
        return map(SequenceFacade, self._rank.paused.values())

    @property
    def can_swap(self) -> bool:
        """KV can go to the host."""
        return self._rank.host is not None

    @property
    def freeing_blocks(self) -> int:
        """KV blocks of sequences on their way to the host."""
        host = self._rank.host
        return sum(seq.own_blocks for seq in host.leaving.values()) if host else 0

    @property
    def total_blocks(self) -> int:
        """KV blocks of the rank."""
        return self._spec.kv_blocks

    @property
    def tokens_per_decode(self) -> int:
        """Tokens of the budget that a decode takes."""
        return 1 + self._spec.layout.mtp_layers

    @property
    def served_tokens(self) -> dict[int, tuple[int, int]]:
        """Tenant -> prompt and output tokens so far."""
        rank = self._rank
        if rank.service is None:
            return {}
        return rank.service.so_far(rank.running.values(), rank.group.kv.clock)

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens a second of a rank of this pool."""
        return self._rank.group.dispatch.prompt_tokens_per_s

    @property
    def decode_steps(self) -> int:
        """Decode steps of the group."""
        return self._rank.group.ledger.num_decode_steps

    @property
    def num_ranks(self) -> int:
        """Ranks of the group."""
        return len(self._rank.group.ranks)

    @property
    def ranks_prefilling(self) -> int:
        """Ranks of the group with prompts to compute."""
        return sum(1 for rank in self._rank.group.ranks if rank.waiting or rank.partial)

    @property
    def ranks_decoding(self) -> int:
        """Ranks of the group with running decodes."""
        return sum(1 for rank in self._rank.group.ranks if rank.num_decoding)

    @property
    def free_seq_slots(self) -> int:
        """How many prompts may take part in this step."""
        return self._rank.free_slots

    @property
    def free_blocks(self) -> int:
        """KV blocks that could be given out."""
        return self._rank.free_blocks
