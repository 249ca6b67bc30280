"""The role of a cache policy: which block of a full cache goes first."""

from collections.abc import Iterable
from typing import Protocol


class CacheView(Protocol):
    """The blocks of a full cache that may go. Orders are lazy: take what is needed of them."""

    @property
    def num_blocks(self) -> int:
        """Blocks that may go."""

    @property
    def by_last_use(self) -> Iterable[int]:
        """Blocks, the one unused for the longest first."""

    @property
    def by_entry(self) -> Iterable[int]:
        """Blocks, the one that came first first."""

    @property
    def by_hits(self) -> Iterable[int]:
        """Blocks, those with the fewest hits first; among equals, the longest unused."""

    def hits(self, block: int, /) -> int:
        """Reads of a block since it came."""

    @property
    def num_uses(self) -> int:
        """Reads and entries of the cache so far: its clock."""

    def last_use(self, block: int, /) -> int:
        """`num_uses` when a block was last read, or came."""

    def depth(self, block: int, /) -> int:
        """Blocks of the same prefix before this one; 0 where that is not known."""

    def wanted_place(self, block: int, /) -> float:
        """Place in its queue of the first waiting request that has this block, from 0; infinity:
        none, or not known."""


class CachePolicy(Protocol):
    """Chooses what a full cache gives up."""

    def __call__(self, view: CacheView, /) -> int:
        """Return a block of the view."""
