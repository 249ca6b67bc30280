"""Scheduler-aware eviction."""

from dataclasses import dataclass
from itertools import islice

from simpod.policies.roles import CacheView


@dataclass(frozen=True, slots=True)
class CachedAttention:
    """The block that no waiting request needs, unused the longest; else the one needed last.

    The queue is the look-ahead window: what a request that waits will read is kept for it, and the
    further back it stands the sooner its blocks go. Only the `candidates` that are unused for the
    longest are compared. In a rank's own prefix cache the queue is not known: there it is LRU. The
    tiers and the layer-wise preload of the same paper are `shared_memory` with `reads: layerwise`.

    Source: Gao et al., CachedAttention, USENIX ATC 2024 (arXiv:2403.19708), scheduler-aware
    fetching and eviction.
    Sees: the order of uses, and the blocks of the requests that wait.
    """

    candidates: int = 64
    """Blocks that are compared; at least 1."""

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"candidates: must be >= 1, got {self.candidates}")

    def __call__(self, view: CacheView) -> int:
        return max(islice(view.by_last_use, self.candidates), key=view.wanted_place)
