"""A bounded queue."""

from dataclasses import dataclass

from simpod.policies.roles import AdmissionView, RouteRequest


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """Refuse a request when too many wait already, all targets of the pool together.

    Source: textbook, M/M/c/K; Triton's max_queue_size.
    Sees: the number of waiting requests.
    """

    max_waiting_seqs: int = 256
    """Requests that may wait; at least 0."""

    def __post_init__(self) -> None:
        if self.max_waiting_seqs < 0:
            raise ValueError(f"max_waiting_seqs: must be >= 0, got {self.max_waiting_seqs}")

    def __call__(self, view: AdmissionView, request: RouteRequest) -> bool:
        entry = view.entry
        can_start = bool(
            (entry.waiting_seqs + entry.running_seqs < entry.max_num_seqs).any()
            and not entry.waiting_seqs.any()
        )
        return can_start or int(entry.waiting_seqs.sum()) < self.max_waiting_seqs
