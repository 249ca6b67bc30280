"""FLOP-aware eviction."""

from dataclasses import dataclass
from itertools import islice

from simpod.policies.roles import CacheView


@dataclass(frozen=True, slots=True)
class Marconi:
    """FLOP-aware: recency + alpha x (FLOPs that a block saves / its bytes); the lowest goes.

    Both are scaled to 0..1 over the candidates. A block of depth d saves 1 + d / attention_blocks:
    of a long prefix the deep blocks are worth most. Only the `candidates` that are unused for the
    longest are compared.

    Source: Pan et al., Marconi, MLSys 2025 (arXiv:2411.19379), equation of the utility, for a model
    with attention alone.
    Sees: last use and depth of every block.
    """

    alpha: float = 1.0
    """Weight of the FLOPs saved against recency; at least 0, which is `lru`."""

    attention_blocks: float = 256.0
    """Depth at which attention costs as much as everything else; above 0."""

    candidates: int = 64
    """Blocks that are compared; at least 1."""

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise ValueError(f"alpha: must be >= 0, got {self.alpha}")
        if not self.attention_blocks > 0:
            raise ValueError(f"attention_blocks: must be > 0, got {self.attention_blocks}")
        if self.candidates < 1:
            raise ValueError(f"candidates: must be >= 1, got {self.candidates}")

    def __call__(self, view: CacheView) -> int:
        among = list(islice(view.by_last_use, self.candidates))
        recency = _scaled([float(view.last_use(block)) for block in among])
        saved = _scaled([1.0 + view.depth(block) / self.attention_blocks for block in among])
        utility = [r + self.alpha * s for r, s in zip(recency, saved, strict=True)]
        return among[min(range(len(among)), key=utility.__getitem__)]


def _scaled(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]
