"""No balancing."""

import numpy as np

from simpod.policies.roles import ExpertSlotsView, Floats, Ints


def keep(load: Floats, slots: ExpertSlotsView) -> Ints:
    """Everything stays where it is.

    Source: none; expert parallelism without a balancer.
    Sees: nothing.
    """
    return np.array(slots.experts)
