"""Which prompt a decode rank pulls first: for the batch scheduler to say.

A prompt that waits on a prefill die is computed, so there is no chunk to plan and no token budget
to keep; what is left of a plan is its order. The scheduler is shown the prompts that wait for this
rank as if they were to be computed here, and the order of its chunks is that in which they are
pulled. Others follow in order of arrival. The first that finds no room ends it, as for chunks.
Nothing that runs makes way for a prompt that waits elsewhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simpod.engine.asking import blame
from simpod.engine.facades import SequenceFacade
from simpod.engine.sequence import Sequence
from simpod.errors import PolicyError, blaming
from simpod.policies import BatchPlan, BatchScheduler

if TYPE_CHECKING:
    from simpod.engine.rank import Rank

NO_LIMIT = 1 << 62


class PullOrder:
    """Sorts the inbox of one rank by a policy of its own, with a memory of its own."""

    def __init__(self, rank: "Rank", policy: BatchScheduler) -> None:
        self._rank = rank
        self._policy = policy
        self._view = PullFacade(self, rank)
        self.queue: dict[int, Sequence] = {}  # the inbox in order of arrival

    def sort(self) -> None:
        """Bring the inbox into the order in which it is to be pulled."""
        rank, inbox = self._rank, self._rank.inbox
        if rank.waiting or self._view.free_seq_slots < 1:
            return  # nothing is pulled
        known = {seq_id: seq for seq_id, seq in self.queue.items() if seq_id in inbox}
        self.queue = known | inbox
        with blaming(rank.group.sim.batching_name):
            plan = self._policy(self._view)
        if not isinstance(plan, BatchPlan):
            raise PolicyError(rank.group.sim.batching_name, f"returned {plan!r}, not a BatchPlan")
        first = plan.prefill_chunks
        for seq_id in first:
            if seq_id not in inbox:
                blame(rank, f"chunk for sequence {seq_id}, which does not wait here")
        order = [*first, *(seq_id for seq_id in self.queue if seq_id not in first)]
        for seq_id in order:
            inbox.move_to_end(seq_id)


class PromptFacade(SequenceFacade):
    """A prompt that waits on a prefill die, as if nothing of it were here or computed."""

    __slots__ = ()

    @property
    def uncached_tokens(self) -> int:
        """All of it."""
        return self._seq.goal_tokens

    @property
    def is_running(self) -> bool:
        """It has no blocks here."""
        return False

    @property
    def context_tokens(self) -> int:
        """None is here."""
        return 0

    @property
    def held_blocks(self) -> int:
        """None is here."""
        return 0


@dataclass(frozen=True, slots=True)
class PullFacade:
    """Read-only view of the prompts that wait for a decode rank: `policies.BatchView`."""

    _order: PullOrder
    _rank: "Rank"

    @property
    def now_s(self) -> float:
        """The moment of the decision."""
        return self._rank.group.clock.now

    @property
    def max_step_tokens(self) -> int:
        """Without a limit: nothing is computed."""
        return NO_LIMIT

    @property
    def num_decoding(self) -> int:
        """None that could make way."""
        return 0

    @property
    def prefilling(self) -> Iterator[SequenceFacade]:
        """Prompts that wait, in order of arrival."""
        return map(PromptFacade, self._order.queue.values())

    @property
    def free_seq_slots(self) -> int:
        """How many prompts could be pulled."""
        return self._rank.free_slots - len(self._rank.partial)

    @property
    def free_blocks(self) -> int:
        """KV blocks that could be given out."""
        return self._rank.free_blocks

    @property
    def freeing_blocks(self) -> int:
        """KV blocks of sequences on their way to the host."""
        return self._rank.view.freeing_blocks

    @property
    def block_tokens(self) -> int:
        """Tokens of one KV block."""
        return self._rank.view.block_tokens

    @property
    def decoding(self) -> Iterator[SequenceFacade]:
        """None."""
        return iter(())

    @property
    def paused(self) -> Iterator[SequenceFacade]:
        """None."""
        return iter(())

    @property
    def can_swap(self) -> bool:
        """Nothing makes way."""
        return False

    @property
    def total_blocks(self) -> int:
        """KV blocks of the rank."""
        return self._rank.view.total_blocks

    @property
    def tokens_per_decode(self) -> int:
        """Tokens of the budget that a decode takes."""
        return self._rank.view.tokens_per_decode

    @property
    def served_tokens(self) -> Mapping[int, tuple[int, int]]:
        """Tenant -> prompt and output tokens so far."""
        return self._rank.view.served_tokens

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens a second of a rank of this pool."""
        return self._rank.view.prompt_tokens_per_s

    @property
    def decode_steps(self) -> int:
        """Decode steps of the group."""
        return self._rank.view.decode_steps

    @property
    def num_ranks(self) -> int:
        """Ranks of the group."""
        return self._rank.view.num_ranks

    @property
    def ranks_prefilling(self) -> int:
        """Ranks of the group that compute prompts anew."""
        return self._rank.view.ranks_prefilling

    @property
    def ranks_decoding(self) -> int:
        """Ranks of the group with running decodes."""
        return self._rank.view.ranks_decoding
