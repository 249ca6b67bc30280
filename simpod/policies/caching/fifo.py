"""First in, first out."""

from simpod.policies.roles import CacheView


def fifo(view: CacheView) -> int:
    """First in, first out: the block that came first, however often it is read.

    Source: textbook.
    Sees: the order of entries.
    """
    return next(iter(view.by_entry))
