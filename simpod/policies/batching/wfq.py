"""Weighted fair queueing over tenants."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from simpod.policies.batching.chunks import beside_decodes, check_at_least, expected_tokens, fill
from simpod.policies.roles import BatchPlan, BatchView, SequenceView


@dataclass(slots=True)
class WeightedFairQueueing:
    """Weighted fair queueing over tenants: prompts go in the order of their virtual finish times.

    A request's tag is max(virtual time, its tenant's last tag) + cost / weight, given when it is
    first seen; the virtual time is the tag of the last request that was started (self-clocked). The
    cost is its prompt and, if there is a length predictor, output_weight x its predicted output.

    Source: Demers, Keshav, Shenker, SIGCOMM 1989; the virtual time of Golestani, INFOCOM 1994.
    Sees: tenants, prompt lengths, what the length predictor says.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    """Tenant's number -> weight, above 0; 1 for all others."""

    output_weight: float = 2.0
    """Cost of a predicted output token, prompt tokens; at least 0."""

    _tags: dict[int, float] = field(default_factory=dict, init=False)  # seq -> finish tag
    _last: dict[int, float] = field(default_factory=dict, init=False)  # tenant -> its last tag
    _virtual_tokens: float = field(default=0.0, init=False)  # virtual time

    def __post_init__(self) -> None:
        for tenant, weight in self.weights.items():
            if not str(tenant).isdecimal():
                raise ValueError(f"weights: tenants are numbers from 0, got {tenant!r}")
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
                raise ValueError(f"weights: must be > 0, got {weight!r} for tenant {tenant}")
        check_at_least("output_weight", self.output_weight, 0)

    def __call__(self, view: BatchView) -> BatchPlan:
        waiting = list(view.prefilling)
        here = {seq.seq_id for seq in waiting}
        self._tags = {seq_id: tag for seq_id, tag in self._tags.items() if seq_id in here}
        for seq in sorted(waiting, key=lambda seq: (seq.arrival_s, seq.seq_id)):
            if seq.seq_id not in self._tags:
                self._tags[seq.seq_id] = self._tag(seq)
        tags = self._tags
        order = sorted(waiting, key=lambda s: (not s.is_running, tags[s.seq_id], s.seq_id))
        chunks = fill(view, order, beside_decodes(view))
        self._virtual_tokens = max([self._virtual_tokens, *(tags[seq_id] for seq_id in chunks)])
        return BatchPlan(chunks)

    def _tag(self, seq: SequenceView) -> float:
        cost = seq.prompt_tokens + self.output_weight * expected_tokens(seq)
        start = max(self._virtual_tokens, self._last.get(seq.tenant, 0.0))
        tag = start + cost / self.weights.get(str(seq.tenant), 1.0)
        self._last[seq.tenant] = tag
        return tag
