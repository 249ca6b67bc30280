"""Skip-join multi-level feedback queue."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from simpod.policies.batching.best_first import serve_best
from simpod.policies.batching.chunks import check_at_least, check_positive
from simpod.policies.roles import BatchPlan, BatchView, SequenceView


@dataclass(slots=True)
class FastServe:
    """Skip-join multi-level feedback queue: new short requests first, long ones sink.

    Queue i grants quantum_tokens x ratio^i of service, the longer the lower. Service is counted in
    output tokens; a prompt counts `prompt_weight` for each of its tokens. A request joins the
    highest queue whose quantum covers its prompt (it skips those above), sinks by one when it has
    used up its quantum, and starts again at the top when it has waited for `starvation_s`. Lower
    queues make way; their KV stays where it is while there is room, and else goes to the host
    (without `host_bytes_per_s`: is recomputed).

    Source: Wu et al., FastServe (arXiv:2305.05920).
    Sees: prompt lengths, tokens emitted so far.
    """

    quantum_tokens: int = 16
    """Quantum of the highest queue, output tokens; at least 1."""

    ratio: int = 2
    """Quantum of a queue / that of the queue above; at least 1."""

    num_queues: int = 8
    """How many queues there are; at least 1."""

    prompt_weight: float = 0.01
    """Service that a prompt token counts for, in output tokens: time of one / time of the other."""

    starvation_s: float = 30.0
    """Who has waited longer is put at the top again; above 0."""

    _restart: dict[int, float] = field(default_factory=dict, init=False)  # seq -> service then
    _place: dict[int, tuple[int, float]] = field(default_factory=dict, init=False)  # queue, since

    def __post_init__(self) -> None:
        for name in ("quantum_tokens", "ratio", "num_queues"):
            check_at_least(name, getattr(self, name), 1)
        check_at_least("prompt_weight", self.prompt_weight, 0)
        check_positive("starvation_s", self.starvation_s)

    def __call__(self, view: BatchView) -> BatchPlan:
        waiting = [*view.paused, *view.prefilling]
        decoding = list(view.decoding)
        for seq in waiting:
            if view.now_s - seq.queued_s > self.starvation_s and self.level(seq)[0] > 0:
                self._restart[seq.seq_id] = self._service(seq)
        self._put_in_queues((*waiting, *decoding), view.now_s)
        place = self._place
        plan = serve_best(
            view,
            lambda seq: (*place[seq.seq_id], seq.seq_id),
            lambda seq, running: place[seq.seq_id] < place[running.seq_id],
            pause="keep",
        )
        plan.review_tokens = self._review(decoding) if waiting else None
        return plan

    def _put_in_queues(self, seqs: Sequence[SequenceView], now_s: float) -> None:
        """Note who has sunk, or been lifted, to the end of another queue."""
        before, self._place = self._place, {}
        for seq in seqs:
            queue = self.level(seq)[0]
            last, since_s = before.get(seq.seq_id, (queue, seq.arrival_s))
            self._place[seq.seq_id] = (queue, since_s if queue == last else now_s)
        self._restart = {s: v for s, v in self._restart.items() if s in self._place}

    def level(self, seq: SequenceView) -> tuple[int, float]:
        """Queue that a request is in, 0 is the highest, and the service left until it sinks."""
        join = 0
        restart = self._restart.get(seq.seq_id)
        if restart is None:
            prompt = self.prompt_weight * seq.prompt_tokens
            while join < self.num_queues - 1 and prompt > self._quantum(join):
                join += 1
        left = self._quantum(join) - (self._service(seq) - (restart or 0.0))
        while left <= 0 and join < self.num_queues - 1:
            join += 1
            left += self._quantum(join)
        return join, left

    def _quantum(self, queue: int) -> int:
        return self.quantum_tokens * int(self.ratio**queue)

    def _service(self, seq: SequenceView) -> float:
        return self.prompt_weight * seq.prompt_tokens + seq.emitted_tokens

    def _review(self, decoding: list[SequenceView]) -> int | None:
        """When the next running request sinks."""
        places = [self.level(seq) for seq in decoding]
        left = [service for queue, service in places if queue < self.num_queues - 1]
        return max(1, ceil(min(left))) if left else None
