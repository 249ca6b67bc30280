"""Least frequently used."""

from simpod.policies.roles import CacheView


def lfu(view: CacheView) -> int:
    """Least frequently used: the fewest reads since it came; among equals the longest unused.

    Source: textbook.
    Sees: reads of every block.
    """
    return next(iter(view.by_hits))
