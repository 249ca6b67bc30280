"""Strict priorities."""

from dataclasses import dataclass
from typing import get_args

from simpod.policies.batching.best_first import serve_best
from simpod.policies.batching.chunks import UNLIMITED, check_at_least
from simpod.policies.roles import BatchPlan, BatchView, Pause, SequenceView

_PAUSES: dict[str, Pause] = {pause: pause for pause in get_args(Pause)}


@dataclass(frozen=True, slots=True)
class PriorityFirst:
    """The highest priority first, in order of arrival among equals; lower ones make way.

    The priority is that of the workload (`priority`); a larger number is more urgent.

    Source: preemptive head-of-line priorities (Cobham 1954); vLLM: scheduling_policy priority.
    Sees: priority and arrival.
    """

    preempt: str = "recompute"
    """How running requests make way: recompute, swap, keep, or none if they do not."""

    max_chunk_tokens: int = UNLIMITED
    """Longest chunk of one prompt; at least 1."""

    def __post_init__(self) -> None:
        allowed = (*_PAUSES, "none")
        if self.preempt not in allowed:
            raise ValueError(f"preempt: must be one of {', '.join(allowed)}, got {self.preempt}")
        check_at_least("max_chunk_tokens", self.max_chunk_tokens, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        return serve_best(
            view,
            lambda seq: (-seq.priority, seq.arrival_s, seq.seq_id),
            self._displaces,
            pause=_PAUSES.get(self.preempt, "recompute"),
            max_chunk_tokens=self.max_chunk_tokens,
        )

    def _displaces(self, seq: SequenceView, running: SequenceView) -> bool:
        return self.preempt != "none" and seq.priority > running.priority
