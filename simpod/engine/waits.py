"""What a group between two steps may have to wait for: prefixes, and experts on their way."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from simpod.engine.prefix_reads import must_wait

if TYPE_CHECKING:
    from simpod.engine.group import Group
    from simpod.engine.simulation import Simulation


def waits_of(sim: "Simulation", group: "Group") -> Callable[[], bool] | None:
    """What a group asks before it plans; None: it never waits."""
    cache = sim.cache

    def for_prefixes() -> bool:
        return cache is not None and must_wait(group.dirty, group.ranks, cache)

    for mover in sim.expert_movers:
        if group in mover.pool.groups:
            return lambda: for_prefixes() or mover.holds(group)
    return for_prefixes if cache is not None else None
