"""The roles that a policy can play: view in, decision out.

A policy is a function, or a frozen dataclass with `__call__` when it has parameters or memory. It
gets a read-only view that holds only what a real scheduler could know (never the true output
length) and returns a decision, which the engine checks and applies.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class SequenceView(Protocol):
    """A request as one scheduler sees it."""

    @property
    def seq_id(self) -> int:
        """Identity within the run, ascending in order of submission."""

    @property
    def arrival_s(self) -> float:
        """When the client sent it."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""

    @property
    def uncached_tokens(self) -> int:
        """Tokens that still have to be computed before the next output token (prefix hits are
        off)."""

    @property
    def is_running(self) -> bool:
        """Has KV blocks already: a prompt that is computed in part."""

    @property
    def ttft_deadline_s(self) -> float:
        """Arrival plus the TTFT target; infinity without one."""


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
    def block_tokens(self) -> int:
        """Tokens of one KV block."""


@dataclass(slots=True)
class BatchPlan:
    """What changes in the next step: chunks of prompts, in order of precedence.

    Blocks are given in this order; the first waiting prompt that finds no room ends the admission.
    `decode=False` lets running decodes pause for this step (prefill-first scheduling).
    """

    prefill_chunks: Mapping[int, int] = field(default_factory=dict)  # seq_id -> tokens
    decode: bool = True


class BatchScheduler(Protocol):
    """Chooses the prompts of one step of one rank."""

    def __call__(self, view: BatchView, /) -> BatchPlan:
        """Plan the next step."""


class RouteRequest(Protocol):
    """What a router knows of the request that it places."""

    @property
    def seq_id(self) -> int:
        """Identity within the run."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""

    @property
    def session_id(self) -> int:
        """Conversation that it belongs to, or -1."""

    @property
    def prefix_hashes(self) -> Sequence[int]:
        """Ids of the prompt's prefix blocks, first block first; empty if unknown."""


class RouterView(Protocol):
    """The targets of a pool: its data-parallel ranks.

    Arrays are [num_targets] and read-only.
    """

    @property
    def now_s(self) -> float:
        """The moment of the decision."""

    @property
    def num_targets(self) -> int:
        """How many ranks there are."""

    @property
    def waiting_seqs(self) -> Ints:
        """Requests sent there that hold no slot yet; up to date."""

    @property
    def running_seqs(self) -> Ints:
        """Requests that hold a slot; up to date."""

    @property
    def held_seqs(self) -> Ints:
        """Requests there, `waiting_seqs` + `running_seqs`; up to date."""

    @property
    def max_num_seqs(self) -> int:
        """Slots of one target."""

    @property
    def queued_tokens(self) -> Ints:
        """Prompt tokens sent there and not computed yet; up to date."""

    @property
    def kv_tokens(self) -> Ints:
        """KV tokens held, as each rank reported at its last admission or release."""

    @property
    def kv_capacity_tokens(self) -> int:
        """KV capacity of one target."""

    @property
    def rng(self) -> np.random.Generator:
        """Random stream of this router alone."""


class Router(Protocol):
    """Chooses the rank that gets a request."""

    def __call__(self, view: RouterView, request: RouteRequest, /) -> int:
        """Return a target, 0 <= target < view.num_targets."""


class ExpertSlotsView(Protocol):
    """Slots for routed experts of an expert-parallel group, the same in every layer."""

    @property
    def num_dies(self) -> int:
        """Expert-parallel degree."""

    @property
    def die_of_slot(self) -> Ints:
        """[num_slots], ascending."""

    @property
    def node_of_die(self) -> Ints:
        """[num_dies], ascending."""

    @property
    def experts(self) -> Ints:
        """[num_layers, num_slots]: who is where now."""

    @property
    def resident_tokens(self) -> Floats:
        """[num_dies]: tokens that a copy of the shared expert there gets while the load is seen."""


class ExpertBalancer(Protocol):
    """Chooses the logical expert of each slot."""

    def __call__(self, load: Floats, slots: ExpertSlotsView, /) -> Ints:
        """Return experts [num_layers, num_slots] for tokens seen `load` [num_layers, num_experts].

        Each expert has at least one slot in each layer. Copies get even shares of its tokens.
        """


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """`use:` of an experiment and the parameters beside it."""

    use: str
    params: Mapping[str, Any] = field(default_factory=dict)
