"""Prompts first, as SGLang's scheduler admits them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from simpod.policies.batching.chunks import check_at_least, check_share, fill
from simpod.policies.batching.token_reserve import TokenReserve, keeps_reserve
from simpod.policies.roles import BatchPlan, BatchView, SequenceView


@dataclass(slots=True)
class Sglang:
    """SGLang: prompts first, decodes pause; admitted if running requests' answers still find room.

    Source: SGLang's managers/scheduler.py and schedule_policy.py (`new_token_ratio`); Zheng et al.
    (arXiv:2312.07104). The interval: `scheduler_recv_skipper.py` (a decode counts 1, any other step
    as many as it takes).
    Sees: order of arrival, prompt lengths, prefix hits, `max_tokens`, whether it ends before.
    """

    receive_interval: int = 1
    """Decode steps between two looks for new prompts (scheduler_recv_interval); a step of prompts,
    and one without decodes, is followed by a look."""
    new_tokens_frac: float = 0.7
    """Of its allowed rest, what a running request is at first expected to write
    (SGLANG_INIT_NEW_TOKEN_RATIO x schedule_conservativeness, at most 1)."""
    _looked: int = field(default=0, init=False, repr=False)
    _next: int | None = field(default=None, init=False, repr=False)
    _seen: set[int] = field(default_factory=set, init=False, repr=False)
    _reserve: TokenReserve = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_at_least("receive_interval", self.receive_interval, 1)
        check_share("new_tokens_frac", self.new_tokens_frac)
        self._reserve = TokenReserve(self.new_tokens_frac)

    def __call__(self, view: BatchView) -> BatchPlan:
        prompts = list(view.prefilling)
        if self.receive_interval == 1:
            return self._plan(view, prompts)
        clock = view.decode_steps
        if self._next is None:
            over = (clock - self._looked) % self.receive_interval
            self._next = clock + self.receive_interval - over if over else clock
        if clock >= self._next or not view.num_decoding:
            self._seen = {seq.seq_id for seq in prompts}
            self._next = None
        seen = [seq for seq in prompts if seq.seq_id in self._seen or seq.emitted_tokens]
        plan = self._plan(view, seen)
        if plan.prefill_chunks:
            self._looked, self._next = clock, None
        if len(seen) < len(prompts) and self._next is not None:
            plan.review_steps = self._next - clock
        return plan

    def may_pull(self, view: BatchView, coming: Sequence[SequenceView], seq: SequenceView) -> bool:
        """On decode ranks so many tokens are set aside for each request, whatever its limit.

        Source: SGLang, disaggregation/decode.py (`pop_preallocated`, `_allocatable_tokens`).
        """
        return keeps_reserve(view, coming, seq)

    def _plan(self, view: BatchView, prompts: list[SequenceView]) -> BatchPlan:
        chunks = fill(view, self._reserve.admitted(view, prompts), view.max_step_tokens)
        return BatchPlan(chunks, decode=not chunks)
