"""Greedy dual, size, frequency."""

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import islice

from simpod.policies.roles import CacheView


@dataclass(slots=True)
class Gdsf:
    """Greedy dual: age + (reads + 1) x cost of recomputing a block; the lowest goes.

    The age is the value of what went last before the block's last use, so that values that were
    never used again sink against new ones. Blocks are of one size; a block of depth d costs
    1 + d / attention_blocks, as attention grows with the context. Only the `candidates` that are
    unused for the longest are compared.

    Source: Cherkasova, HP Labs 1998 (GDSF); Jin et al., RAGCache (arXiv:2404.12457).
    Sees: reads, last use and depth of every block.
    """

    attention_blocks: float = 256.0
    """Depth at which attention costs as much as everything else; above 0."""

    candidates: int = 64
    """Blocks that are compared; at least 1."""

    _age_since: list[int] = field(default_factory=list, init=False)  # uses when the age changed
    _ages: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not self.attention_blocks > 0:
            raise ValueError(f"attention_blocks: must be > 0, got {self.attention_blocks}")
        if self.candidates < 1:
            raise ValueError(f"candidates: must be >= 1, got {self.candidates}")

    def __call__(self, view: CacheView) -> int:
        among = list(islice(view.by_last_use, self.candidates))
        values = [self._value(view, block) for block in among]
        lowest = min(range(len(among)), key=values.__getitem__)
        if not self._ages or values[lowest] > self._ages[-1]:
            self._age_since.append(view.num_uses)
            self._ages.append(values[lowest])
        return among[lowest]

    def _value(self, view: CacheView, block: int) -> float:
        place = bisect_right(self._age_since, view.last_use(block) - 1)
        age = self._ages[place - 1] if place else 0.0
        return age + (view.hits(block) + 1) * (1.0 + view.depth(block) / self.attention_blocks)
