"""Shares from a maximum flow, dealt by interleaved weighted round robin."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from simpod.policies.roles import Floats, RouteRequest, RouterView


@dataclass(slots=True)
class MaxFlow:
    """Requests in proportion to the maximum flow through instances and ranks of unequal speed.

    The graph is source -> instance (capacity `instance_tokens_per_s`, its link) -> rank (capacity
    `rank_tokens_per_s`) -> sink; a short list is repeated over the instances or ranks. Of the
    shares that the flow gives, each rank gets its turns evenly spread; one whose KV usage is above
    `max_kv_frac` is passed over while another is not.

    Source: Mei et al., Helix, ASPLOS 2025 (arXiv:2406.01566): max flow, interleaved weighted round
    robin, masking by KV usage.
    Sees: speeds that were profiled beforehand, KV usage as last reported.
    """

    rank_tokens_per_s: Sequence[float] = (1.0,)
    """Speed of each rank, above 0; in any unit."""

    instance_tokens_per_s: Sequence[float] = ()
    """What each instance can take in all, above 0; empty: no limit."""

    max_kv_frac: float = 0.9
    """KV usage from which a rank is passed over; above 0, at most 1."""

    _share: Floats = field(default_factory=lambda: np.zeros(0), init=False)
    _credit: Floats = field(default_factory=lambda: np.zeros(0), init=False)

    def __post_init__(self) -> None:
        for name, least in (("rank_tokens_per_s", 1), ("instance_tokens_per_s", 0)):
            values = getattr(self, name)
            is_list = isinstance(values, list | tuple) and len(values) >= least
            if not is_list or not all(value > 0 for value in values):
                raise ValueError(f"{name}: must be a list of numbers > 0, got {values}")
        if not 0 < self.max_kv_frac <= 1:
            raise ValueError(f"max_kv_frac: must be above 0 and at most 1, got {self.max_kv_frac}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        if len(self._share) != view.num_targets:
            self._share = self._shares(view.num_targets, view.ranks_per_instance)
            self._credit = np.zeros(view.num_targets)
        usage = view.kv_tokens + view.queued_tokens
        is_open = usage <= self.max_kv_frac * view.kv_capacity_tokens
        is_open &= self._share > 0
        if not is_open.any():
            is_open = self._share > 0
        self._credit += self._share
        target = int(np.where(is_open, self._credit, -np.inf).argmax())
        self._credit[target] -= 1.0
        return target

    def _shares(self, ranks: int, per_instance: int) -> Floats:
        instances = ranks // per_instance
        source, sink = 0, 1 + instances + ranks
        capacity: dict[int, dict[int, float]] = {node: {} for node in range(sink + 1)}
        for instance in range(instances):
            limits = self.instance_tokens_per_s or (float("inf"),)
            _edge(capacity, source, 1 + instance, limits[instance % len(limits)])
        for rank in range(ranks):
            node = 1 + instances + rank
            speeds = self.rank_tokens_per_s
            _edge(capacity, 1 + rank // per_instance, node, float("inf"))
            _edge(capacity, node, sink, speeds[rank % len(speeds)])
        maximise_flow(capacity, source, sink)
        flow = np.array([capacity[sink].get(1 + instances + rank, 0.0) for rank in range(ranks)])
        shares: Floats = flow / flow.sum()
        return shares


def _edge(capacity: dict[int, dict[int, float]], tail: int, head: int, limit: float) -> None:
    capacity[tail][head] = limit
    capacity[head].setdefault(tail, 0.0)


def maximise_flow(capacity: dict[int, dict[int, float]], source: int, sink: int) -> float:
    """Edmonds and Karp, JACM 1972: augment along shortest paths; `capacity` becomes the residual.

    capacity: tail -> head -> what can still flow; the flow of an edge is what its reverse can.
    """
    total = 0.0
    while path := _shortest_path(capacity, source, sink):
        amount = min(capacity[tail][head] for tail, head in path)
        for tail, head in path:
            capacity[tail][head] -= amount
            capacity[head][tail] += amount
        total += amount
    return total


def _shortest_path(
    capacity: dict[int, dict[int, float]], source: int, sink: int
) -> list[tuple[int, int]]:
    before = {source: source}
    queue = deque([source])
    while queue and sink not in before:
        tail = queue.popleft()
        for head, left in capacity[tail].items():
            if left > 0 and head not in before:
                before[head] = tail
                queue.append(head)
    if sink not in before:
        return []
    path, head = [], sink
    while head != source:
        path.append((before[head], head))
        head = before[head]
    return path
