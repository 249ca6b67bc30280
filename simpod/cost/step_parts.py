"""Parts of a step as columns of arrays."""

import numpy as np

from simpod.cost.table import NUM_PARTS
from simpod.cost.work import Amount, Floats
from simpod.records.columns import STEP_PARTS

(
    ATTENTION,
    ELEMENTWISE,
    EXPERTS,
    LATENT_GATHER,
    HEAD_EXCHANGE,
    DISPATCH,
    DISPATCH_WAIT,
    COMBINE,
    COMBINE_WAIT,
    A2E,
    E2A,
    MTP,
    HOST_GAP,
) = (
    STEP_PARTS.index(name)
    for name in (
        "attention",
        "elementwise",
        "experts",
        "latent_gather",
        "head_exchange",
        "dispatch",
        "dispatch_wait",
        "combine",
        "combine_wait",
        "a2e",
        "e2a",
        "mtp",
        "host_gap",
    )
)


def by_part(size: int, **seconds: Amount) -> Floats:
    """[size, NUM_PARTS]: seconds of the named parts, 0 in the others."""
    table = np.zeros((size, NUM_PARTS))
    for name, value in seconds.items():
        table[:, STEP_PARTS.index(name)] += value
    return table
