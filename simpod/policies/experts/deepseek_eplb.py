"""DeepSeek's balancer of experts."""

from dataclasses import dataclass

import numpy as np

from simpod.policies.expert_packing import copies_by_hottest, packed, slots_of_die, tokens_per_copy
from simpod.policies.roles import ExpertSlotsView, Floats, Ints


@dataclass(frozen=True, slots=True)
class DeepSeekEplb:
    """DeepSeek's load balancer: hierarchical where groups divide over nodes, else global.

    Hierarchical: groups are packed on nodes, copies are added inside each node, and packed on its
    dies. Global: one node, one group. Every copy goes to whoever has most tokens a copy.

    Source: EPLB of DeepSeek (github.com/deepseek-ai/EPLB), its two policies.
    Sees: tokens of each expert in each layer since the last decision.
    """

    num_groups: int = 1
    """Groups of experts that a token's choice is limited to (DeepSeek-V3: 8); at least 1."""

    def __post_init__(self) -> None:
        if self.num_groups < 1:
            raise ValueError(f"num_groups: must be >= 1, got {self.num_groups}")

    def __call__(self, load: Floats, slots: ExpertSlotsView) -> Ints:
        load = np.asarray(load, dtype=np.float64)
        nodes = self._nodes(load.shape[1], slots)
        groups = self.num_groups if len(nodes) > 1 else 1
        members = _on_nodes(load, groups, len(nodes))
        found = np.empty((len(load), len(slots.die_of_slot)), dtype=np.int64)
        capacity = slots_of_die(slots)
        resident = np.asarray(slots.resident_tokens, dtype=np.float64)
        for node, dies in enumerate(nodes):
            experts = members[:, node]
            own = np.take_along_axis(load, experts, axis=1)
            held = copies_by_hottest(own, int(capacity[dies].sum()))
            base = np.tile(resident[dies], (len(load), 1))
            position = _packed_or_kept(tokens_per_copy(own, held), capacity[dies], base)
            first = int(capacity[: dies[0]].sum())
            named = np.take_along_axis(experts, held, axis=1)
            np.put_along_axis(found, first + position, named, axis=1)
        return found

    def _nodes(self, num_experts: int, slots: ExpertSlotsView) -> list[Ints]:
        """Dies of each node; all dies as one where the groups do not divide over the nodes."""
        nodes = [np.flatnonzero(slots.node_of_die == n) for n in np.unique(slots.node_of_die)]
        capacity = slots_of_die(slots)
        groups_fit = num_experts % self.num_groups == 0 and self.num_groups % len(nodes) == 0
        share = num_experts // len(nodes)
        if groups_fit and all(capacity[dies].sum() >= share for dies in nodes):
            return nodes
        return [np.arange(slots.num_dies)]


def _on_nodes(load: Floats, num_groups: int, num_nodes: int) -> Ints:
    """[layers, nodes, experts of a node]: groups of experts packed on nodes by their tokens."""
    layers, experts = load.shape
    size = experts // num_groups
    tokens = load.reshape(layers, num_groups, size).sum(axis=2)
    position = _packed_or_kept(tokens, np.full(num_nodes, num_groups // num_nodes))
    group = np.argsort(position, axis=1)
    members: Ints = group[:, :, np.newaxis] * size + np.arange(size)
    return members.reshape(layers, num_nodes, experts // num_nodes)


def _packed_or_kept(loads: Floats, capacity: Ints, base: Floats | None = None) -> Ints:
    """Positions of items in packs; where each pack holds one, items stay in their order."""
    if (capacity == 1).all():
        return np.tile(np.arange(loads.shape[1]), (len(loads), 1))
    return packed(loads, capacity, base=base)
