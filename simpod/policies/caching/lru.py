"""Least recently used."""

from simpod.policies.roles import CacheView


def lru(view: CacheView) -> int:
    """Least recently used: the block unused for the longest.

    Source: textbook; vLLM's automatic prefix caching.
    Sees: the order of uses.
    """
    return next(iter(view.by_last_use))
