"""Whole prompts beside the decodes, held back until it pays to break a run of decodes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from simpod.policies.batching.chunks import check_at_least
from simpod.policies.batching.no_evict import NoEvict
from simpod.policies.batching.orca import whole_prompts
from simpod.policies.roles import BatchPlan, BatchView, SequenceView

Capacity = Literal["guaranteed_no_evict", "max_utilization"]
"""Whom the cache is given to: those whose whole answers find room, or whose next step does."""


@dataclass(slots=True)
class InFlight:
    """TensorRT-LLM's in-flight batching: whole prompts, in order of arrival, beside the decodes.

    Prompts may be held back, so that fewer steps have prompts in them: until the ranks of a group
    all have some (attention data parallel), or until enough tokens wait. Without decodes nothing
    is held back.

    Source: TensorRT-LLM, `pyexecutor/py_executor.py`: `_balance_adp_requests`, `_waiting_requests`;
    capacity: `batch_manager/capacityScheduler.cpp`.
    Sees: order of arrival, prompt lengths, prefix hits, `max_tokens`, which ranks have prompts.
    """

    asks_group: ClassVar[bool] = True

    balance_steps: int = 0
    """Several ranks: prompts start when all ranks have some, or every so many decode steps
    (attention_dp_config: timeout_iters with enable_balance); 0: at once."""
    wait_steps: int = 0
    """One rank: prompts wait for others at most so many decode steps (batch_wait_timeout_iters)."""
    wait_tokens_frac: float = 0.0
    """... and no longer once a step would have this share of its token budget
    (batch_wait_max_tokens_ratio)."""
    capacity: Capacity = "guaranteed_no_evict"
    """capacity_scheduler_policy. `guaranteed_no_evict` keeps room for the longest answers that
    clients allow, of which only `workload.max_tokens` tells. `max_utilization`: prompts start as
    soon as they find room themselves, and the newest make way later."""
    _no_evict: NoEvict = field(default_factory=NoEvict, init=False, repr=False)
    _start: int = field(default=0, init=False, repr=False)
    _next: int | None = field(default=None, init=False, repr=False)
    _since: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_at_least("balance_steps", self.balance_steps, 0)
        check_at_least("wait_steps", self.wait_steps, 0)
        check_at_least("wait_tokens_frac", self.wait_tokens_frac, 0.0)
        if self.capacity not in get_args(Capacity):
            raise ValueError(f"{self.capacity!r}; allowed: {', '.join(get_args(Capacity))}")

    @property
    def keeps_max_tokens(self) -> bool:
        """Without limits on answers it keeps no room for them."""
        return self.capacity == "guaranteed_no_evict"

    def __call__(self, view: BatchView) -> BatchPlan:
        if view.num_ranks > 1:
            left = self._until_balanced(view) if self.balance_steps else 0
        else:
            left = self._until_enough(view) if self.wait_steps else 0
        if left:
            return BatchPlan(review_steps=left)
        self._since = None
        chunks = whole_prompts(view)
        if self.keeps_max_tokens:
            chunks = self._no_evict.admitted(view, chunks)
        return BatchPlan(chunks)

    def may_pull(self, view: BatchView, coming: Sequence[SequenceView], seq: SequenceView) -> bool:
        """On decode ranks the same capacity rule lets prompts in."""
        return not self.keeps_max_tokens or self._no_evict.may_pull(view, coming, seq)

    def _until_balanced(self, view: BatchView) -> int:
        """Decode steps until the next chance; one comes round whether prompts wait or not."""
        clock = view.decode_steps
        if view.ranks_prefilling == view.num_ranks or view.ranks_decoding < view.num_ranks:
            self._start, self._next = clock, None
            return 0
        if self._next is None:
            over = (clock - self._start) % self.balance_steps
            self._next = clock + self.balance_steps - over if over else clock
        if clock < self._next:
            return self._next - clock
        self._next = None
        return 0

    def _until_enough(self, view: BatchView) -> int:
        """Decode steps until the oldest prompt has waited its time, unless enough tokens wait."""
        if self._since is None:
            self._since = view.decode_steps
        waiting = sum(seq.uncached_tokens for seq in view.prefilling)
        wanted = self.wait_tokens_frac * view.max_step_tokens
        if not view.num_decoding or waiting + view.num_decoding >= wanted:
            return 0
        return max(0, self.wait_steps - (view.decode_steps - self._since))
