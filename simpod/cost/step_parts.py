"""Parts of a step as columns of arrays."""

import numpy as np

from simpod.cost.table import NUM_PARTS
from simpod.cost.work import Amount, Floats
from simpod.records.columns import STEP_PARTS

ATTENTION = STEP_PARTS.index("attention")
ELEMENTWISE = STEP_PARTS.index("elementwise")
EXPERTS = STEP_PARTS.index("experts")
LATENT_GATHER = STEP_PARTS.index("latent_gather")
HEAD_EXCHANGE = STEP_PARTS.index("head_exchange")
DISPATCH = STEP_PARTS.index("dispatch")
DISPATCH_WAIT = STEP_PARTS.index("dispatch_wait")
COMBINE = STEP_PARTS.index("combine")
COMBINE_WAIT = STEP_PARTS.index("combine_wait")
A2E = STEP_PARTS.index("a2e")
E2A = STEP_PARTS.index("e2a")
MTP = STEP_PARTS.index("mtp")
HOST_GAP = STEP_PARTS.index("host_gap")


def by_part(size: int, **seconds: Amount) -> Floats:
    """[size, NUM_PARTS]: seconds of the named parts, 0 in the others."""
    table = np.zeros((size, NUM_PARTS))
    for name, value in seconds.items():
        table[:, STEP_PARTS.index(name)] += value
    return table
