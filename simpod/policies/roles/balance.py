"""The role of a balancer of experts: which slot holds a copy of which expert."""

from typing import Protocol

from simpod.policies.roles.route import Floats, Ints


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

        Each expert has at least one slot in each layer. Copies get even shares of its tokens. What
        a reader of the run must know of its last decision a balancer may say in a `note`.
        """
