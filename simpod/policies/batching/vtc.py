"""Virtual token counter: fair shares of tokens between tenants."""

from collections import defaultdict, deque
from dataclasses import dataclass, field

from simpod.policies.batching.chunks import beside_decodes, check_positive
from simpod.policies.roles import BatchPlan, BatchView, SequenceView


@dataclass(slots=True)
class VirtualTokenCounter:
    """Fairness between tenants: the one that has got the least service so far goes first.

    Service is prompt tokens x prompt_weight + output tokens x output_weight. A tenant that comes
    back is lifted to the least counter of those that wait (or to that of the last that left the
    queue): idleness earns no credit. While two tenants are backlogged, their services differ by at
    most 2 x max(prompt_weight x longest prompt, output_weight x KV tokens of the rank).

    Source: Sheng et al., Fairness in Serving Large Language Models, OSDI 2024 (arXiv:2401.00588).
    Sees: tenants, prompt and output tokens served so far.
    """

    prompt_weight: float = 1.0
    """Service of a prompt token; above 0."""

    output_weight: float = 2.0
    """Service of an output token; above 0."""

    _lift: dict[int, float] = field(default_factory=dict, init=False)
    _queued: set[int] = field(default_factory=set, init=False)  # tenants that waited last time
    _last_left: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        check_positive("prompt_weight", self.prompt_weight)
        check_positive("output_weight", self.output_weight)

    def __call__(self, view: BatchView) -> BatchPlan:
        queues: defaultdict[int, deque[SequenceView]] = defaultdict(deque)
        running: list[SequenceView] = []
        for seq in view.prefilling:
            if seq.is_running:
                running.append(seq)
            else:
                queues[seq.tenant].append(seq)
        counters = self._counters(view, queues.keys() | self._queued)
        self._lift_newcomers(set(queues), counters)
        budget, slots = beside_decodes(view), view.free_seq_slots
        chunks: dict[int, int] = {}
        while budget > 0 and len(chunks) < slots and (running or queues):
            if running:
                seq = running.pop(0)
            else:
                tenant = min(queues, key=lambda t: (counters[t], t))
                seq = queues[tenant].popleft()
                if not queues[tenant]:
                    del queues[tenant]
            chunk = min(seq.uncached_tokens, budget)
            chunks[seq.seq_id] = chunk
            budget -= chunk
            counters[seq.tenant] = counters.get(seq.tenant, 0.0) + self.prompt_weight * chunk
        return BatchPlan(chunks)

    def _counters(self, view: BatchView, tenants: set[int]) -> dict[int, float]:
        served = view.served_tokens
        counters = {tenant: self._lift.get(tenant, 0.0) for tenant in tenants | served.keys()}
        for tenant, (prompt, output) in served.items():
            counters[tenant] += self.prompt_weight * prompt + self.output_weight * output
        return counters

    def _lift_newcomers(self, queued: set[int], counters: dict[int, float]) -> None:
        stayed = queued & self._queued
        if left := self._queued - queued:
            self._last_left = max(left, key=lambda t: (counters[t], t))
        if stayed:
            floor = min(counters[tenant] for tenant in stayed)
        else:
            floor = counters.get(self._last_left, 0.0)
        for tenant in queued - stayed:
            if (missing := floor - counters[tenant]) > 0:
                self._lift[tenant] = self._lift.get(tenant, 0.0) + missing
                counters[tenant] = floor
        self._queued = queued
