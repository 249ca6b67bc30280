"""The role of a cache policy: which idle block of a prefix cache goes first."""

from typing import Protocol


class CachedBlock(Protocol):
    """An idle block (prefix unit): resident, used by nobody at the moment."""

    @property
    def block_id(self) -> int:
        """Identity: it stands for the whole prefix up to and including the block."""

    @property
    def depth(self) -> int:
        """Blocks of its prefix before it, as far as is known."""

    @property
    def hits(self) -> int:
        """How often it was found since it is resident."""

    @property
    def tokens(self) -> int:
        """Tokens of one block."""

    @property
    def last_used(self) -> int:
        """Count of uses of the cache when it was last used: larger is later."""


class CachePolicy(Protocol):
    """Ranks idle blocks for eviction; one for each cache."""

    def __call__(self, block: CachedBlock, /) -> float:
        """Priority of a block that has just become idle; the lowest is evicted first, of equal
        ones the one that is idle longest."""
