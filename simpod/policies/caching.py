"""Eviction: which block of a full cache goes first."""

from simpod.policies.roles import CacheView


def lru(view: CacheView) -> int:
    """Least recently used: the block unused for the longest."""
    return next(iter(view.by_last_use))


def lfu(view: CacheView) -> int:
    """Least frequently used: the fewest reads since it came; among equals the longest unused."""
    return next(iter(view.by_hits))


def fifo(view: CacheView) -> int:
    """First in, first out: the block that came first, however often it is read."""
    return next(iter(view.by_entry))
