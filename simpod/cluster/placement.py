"""Which die a rank sits on, and which die of a prefill rank has what a decode die needs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

from simpod.cluster.pool_spec import PoolSpec
from simpod.model.spec import AttentionSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The dies of one pool, in order: instance by instance, rank by rank, each rank side by side.

    Then those that experts have to themselves. A target is a rank of the pool, instance x dp +
    rank.
    """

    first_die: int
    dp: int
    tp: int
    num_dies: int
    expert_dies: int = 0
    """Of an instance; 0: its experts are on the dies of its ranks."""

    def die(self, target: int, member: int = 0) -> int:
        """Die of tensor-parallel member `member` of a rank."""
        return self.first_die + target * self.tp + member

    def dies(self, target: int) -> Sequence[int]:
        """All dies of a rank."""
        first = self.die(target)
        return range(first, first + self.tp)

    @property
    def expert_sets(self) -> list[range]:
        """Of each instance, the dies that its experts are on."""
        of_ranks = self.dp * self.tp
        instances = self.num_dies // (of_ranks + self.expert_dies)
        size, first = of_ranks, self.first_die
        if self.expert_dies:
            size, first = self.expert_dies, self.first_die + instances * of_ranks
        return [range(first + i * size, first + (i + 1) * size) for i in range(instances)]


def place(spec: PoolSpec, first_die: int = 0) -> Placement:
    """A pool on the dies from `first_die` on."""
    layout = spec.layout
    return Placement(
        first_die=first_die,
        dp=layout.dp,
        tp=layout.tp,
        num_dies=spec.instances * layout.all_dies,
        expert_dies=layout.expert_dies,
    )


def place_in_order(specs: Sequence[PoolSpec]) -> tuple[Placement, ...]:
    """Pools of one pod take its dies one after the other."""
    placements = []
    first_die = 0
    for spec in specs:
        placements.append(place(spec, first_die))
        first_die += placements[-1].num_dies
    return tuple(placements)


def num_kv_shards(attention: AttentionSpec, tp: int) -> int:
    """Different parts that the dies of a rank hold of its KV: of a latent (mla) all hold it all.

    Heads that do not come out even on the dies count as if each part had copies.
    """
    return 1 if attention.kind == "mla" else gcd(tp, attention.num_kv_heads)


KvPart = tuple[int, int, float, float]
"""Source die, destination die, share of all bytes that the decode rank takes in, and the share of
a die's rate: of what the one takes in, or of what the other gives out, whichever is less."""


@dataclass(frozen=True, kw_only=True)
class KvRoutes:
    """The die pairs of a KV transfer: a fixed function of the two ranks, no negotiation.

    Where every prefill die has a copy of what is wanted, decode ranks are spread over the copies:
    with r prefill dies to one decode die, group = floor(decode rank x r / decode dp) and the
    source is member group x decode tp + member of the prefill rank (CloudMatrix-Infer 4.3.3, with
    its group_size = decode dp / r). Where KV heads are cut, a decode die takes from those that
    have its heads, and the rule chooses among equal copies.
    """

    prefill: Placement
    decode: Placement
    prefill_shards: int = 1
    decode_shards: int = 1

    def parts(self, prefill_target: int, decode_target: int) -> tuple[KvPart, ...]:
        """Who sends what to whom; the shares add up to 1."""
        source, destination = self.prefill.die(prefill_target), self.decode.die(decode_target)
        return tuple(
            (source + sender, destination + taker, share, of_die)
            for sender, taker, share, of_die in self._members[decode_target % self.decode.dp]
        )

    def members(self, decode_target: int) -> tuple[KvPart, ...]:
        """The same by place within the two ranks."""
        return self._members[decode_target % self.decode.dp]

    @cached_property
    def _members(self) -> list[tuple[KvPart, ...]]:
        """The same for each decode rank, by place within the two ranks."""
        return [self._members_of(rank) for rank in range(self.decode.dp)]

    def _members_of(self, decode_rank: int) -> tuple[KvPart, ...]:
        copies = self.prefill.tp // self.prefill_shards
        wanted = self.decode.tp // self.decode_shards  # decode dies that want the same
        group = decode_rank * copies // (wanted * self.decode.dp)
        found: list[tuple[int, int, float]] = []
        for taker in range(self.decode.tp):
            shard, twin = divmod(taker, wanted)
            copy = twin * copies // wanted if copies < wanted else (group * wanted + twin) % copies
            first = shard * self.prefill_shards // self.decode_shards
            last = -(-(shard + 1) * self.prefill_shards // self.decode_shards)
            share = 1.0 / (self.decode.tp * (last - first))
            found += [(part * copies + copy, taker, share) for part in range(first, last)]
        sent: dict[int, float] = defaultdict(float)
        for sender, _, share in found:
            sent[sender] += share
        return tuple(
            (sender, taker, share, min(share * self.decode.tp, share / sent[sender]))
            for sender, taker, share in found
        )
