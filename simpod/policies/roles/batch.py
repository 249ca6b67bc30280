"""The role of a batch scheduler: what takes part in the next step of a rank."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from simpod.policies.roles.route import RouteRequest

Pause = Literal["recompute", "swap", "keep"]
"""How a decoding sequence is preempted: its KV is dropped (and recomputed later), copied to the
host's memory (and back), or kept where it is, so that only the slot comes free."""


class SequenceView(RouteRequest, Protocol):
    """A request as one scheduler sees it: what a router knows, and how far it is."""

    @property
    def arrival_s(self) -> float:
        """When the client sent it."""

    @property
    def uncached_tokens(self) -> int:
        """Tokens that still have to be computed before the next output token (prefix hits are
        off)."""

    @property
    def is_running(self) -> bool:
        """Has KV blocks already: a prompt that is computed in part."""

    @property
    def max_tokens(self) -> int:
        """Longest answer that its client allows (`workload.max_tokens`); 0: it says nothing."""

    @property
    def ignores_eos(self) -> bool:
        """The answer will be as long as allowed, and no shorter."""

    @property
    def emitted_tokens(self) -> int:
        """Output tokens so far."""

    @property
    def context_tokens(self) -> int:
        """Tokens whose KV is there, or on the host."""

    @property
    def held_blocks(self) -> int:
        """KV blocks that would come free if it made way (shared prefixes stay)."""

    @property
    def queued_s(self) -> float:
        """Since when it waits: its arrival, or when it was last preempted."""


class BatchView(Protocol):
    """One rank before a step.

    Decodes go on by default; the policy chooses among `prefilling`.
    """

    @property
    def now_s(self) -> float:
        """Start of the step."""

    @property
    def max_step_tokens(self) -> int:
        """Token budget of a step; a running decode takes one (its draft tokens are off)."""

    @property
    def num_decoding(self) -> int:
        """Sequences that will each produce tokens in this step."""

    @property
    def prefilling(self) -> Iterable[SequenceView]:
        """Prompts computed in part, then waiting ones, each in order of arrival at this rank."""

    @property
    def free_seq_slots(self) -> int:
        """How many prompts may take part in this step (`max_num_seqs` - `num_decoding`)."""

    @property
    def free_blocks(self) -> int:
        """KV blocks that could be given out, those of evictable cached prefixes included."""

    @property
    def freeing_blocks(self) -> int:
        """KV blocks of sequences that are being copied to the host: free when they are there."""

    @property
    def block_tokens(self) -> int:
        """Tokens of one KV block."""

    @property
    def decoding(self) -> Iterable[SequenceView]:
        """Sequences that will each produce tokens in this step, in order of admission."""

    @property
    def paused(self) -> Iterable[SequenceView]:
        """Sequences that an earlier plan paused by `swap` or `keep` and that could go on."""

    @property
    def can_swap(self) -> bool:
        """The pool has a link to the host's memory (`host_bytes_per_s`)."""

    @property
    def total_blocks(self) -> int:
        """KV blocks of the rank."""

    @property
    def tokens_per_decode(self) -> int:
        """What one more decode takes of the token budget: one, and its draft tokens."""

    @property
    def served_tokens(self) -> Mapping[int, tuple[int, int]]:
        """Tenant -> prompt and output tokens computed here so far (prefix hits and recomputation
        are no service); empty where the workload names no tenants."""

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens a second of a rank of this pool, measured so far; 0: none yet."""

    @property
    def decode_steps(self) -> int:
        """Steps of the group so far in which decodes went on."""

    @property
    def num_ranks(self) -> int:
        """Ranks of the lock-step group, this one included."""

    @property
    def ranks_prefilling(self) -> int:
        """Of those, the ranks that have prompts to compute."""

    @property
    def ranks_decoding(self) -> int:
        """Of those, the ranks that have running decodes."""


@dataclass(slots=True)
class BatchPlan:
    """What changes in the next step: chunks of prompts, in order of precedence.

    First `preempt` is applied, then `resume`, then blocks are given to the chunks in their order;
    the first waiting prompt that finds no room ends the admission of new ones. `decode=False` lets
    running decodes pause for this step (prefill-first scheduling).
    """

    prefill_chunks: Mapping[int, int] = field(default_factory=dict)  # seq_id -> tokens
    decode: bool = True
    preempt: Mapping[int, Pause] = field(default_factory=dict)
    """Decoding sequences that make way -> how."""
    resume: Sequence[int] = ()
    """Paused sequences that go on; one that finds no room ends the resumption."""
    review_tokens: int | None = None
    """Ask again once running decodes have gained so many tokens, also if nothing changes."""
    review_steps: int | None = None
    """Ask again after so many steps of the running decodes, also if nothing changes."""


class BatchScheduler(Protocol):
    """Chooses the prompts of one step of one rank.

    One whose answer depends on the other ranks of its lock-step group has an attribute
    `asks_group = True`: a prompt that arrives at one rank then lets all of them plan again.
    """

    def __call__(self, view: BatchView, /) -> BatchPlan:
        """Plan the next step."""


@runtime_checkable
class Reserving(Protocol):
    """A batch scheduler that sets aside what answers will still take, on decode ranks too.

    With `keeps_max_tokens = True`: nothing without `workload.max_tokens`, of which users are told.
    """

    def may_pull(self, view: BatchView, coming: Sequence[SequenceView], seq: SequenceView) -> bool:
        """Whether a prompt computed elsewhere, whose KV finds room, may be pulled now.

        view: the rank that would decode. coming: prompts on their way to it, whose blocks are
        taken. `seq` itself has none there.
        """
