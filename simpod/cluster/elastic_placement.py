"""Dies of a pool whose instances come and go."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from simpod.cluster.placement import KvPart, KvRoutes, Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticPlacement(Placement):
    """The dies of each instance, given out while the run goes on; num_dies: of all pools.

    dies_of: instance -> its dies, those of its ranks first, rank by rank. An instance that has
    gone keeps its entry: what it wrote may still be on its way.
    """

    dies_of: dict[int, Sequence[int]] = field(default_factory=dict)

    def die(self, target: int, member: int = 0) -> int:
        """Die of tensor-parallel member `member` of a rank."""
        instance, rank = divmod(target, self.dp)
        return self.dies_of[instance][rank * self.tp + member]

    def dies(self, target: int) -> Sequence[int]:
        """All dies of a rank."""
        instance, rank = divmod(target, self.dp)
        return self.dies_of[instance][rank * self.tp : (rank + 1) * self.tp]


@dataclass(frozen=True, kw_only=True)
class ElasticKvRoutes(KvRoutes):
    """The same rule of who takes from whom, where the dies of a rank need not be neighbours."""

    def parts(self, prefill_target: int, decode_target: int) -> tuple[KvPart, ...]:
        """Who sends what to whom; the shares add up to 1."""
        source, destination = self.prefill.die, self.decode.die
        return tuple(
            (source(prefill_target, sender), destination(decode_target, taker), share, of_die)
            for sender, taker, share, of_die in self.members(decode_target)
        )
