"""What happens in a group between two steps before it plans: leading, and waiting for reads."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from simpod.engine.prefix_reads import must_wait

if TYPE_CHECKING:
    from simpod.engine.group import Group
    from simpod.engine.simulation import Simulation


def before_plan(sim: "Simulation", group: "Group") -> Callable[[], bool] | None:
    """What a group does before it plans; it answers True if the next step is to wait.

    Its leader gives prompts to ranks, which then read prefixes; experts may be on their way. None:
    there is nothing to do.
    """
    cache, leading = sim.cache, group.leading
    mover = next((each for each in sim.expert_movers if group in each.pool.groups), None)
    if cache is None and leading is None and mover is None:
        return None

    def waits() -> bool:
        if leading is not None:
            leading.assign()
        for_prefixes = cache is not None and must_wait(group.dirty, group.ranks, cache)
        return for_prefixes or (mover is not None and mover.holds(group))

    return waits
