"""What dies see of the work that other streams, engines or dies do for them.

The mean die of a step is busy with its own work; then it waits until the slowest rank's is done;
what the step lasts beyond that is not hidden behind anybody's attention: stages of the experts, and
the wait for their turn.
"""

import numpy as np

from simpod.cost.step_parts import COMBINE_WAIT, DISPATCH_WAIT
from simpod.cost.work import Floats


def exposed(stages: Floats, seconds: float, spread_s: float) -> Floats:
    """[NUM_PARTS]: `seconds` in all, none if that is negative.

    spread_s: what the slowest rank's own work takes longer than the mean rank's, `dispatch_wait`.
    stages [NUM_PARTS]: of the experts, at most once in full; what is left then is waiting for the
    experts, `combine_wait`.
    """
    seconds = max(seconds, 0.0)
    waits_s = min(max(spread_s, 0.0), seconds)
    left_s, once_s = seconds - waits_s, float(stages.sum())
    shown = np.zeros_like(stages)
    if once_s > 0.0:
        shown += stages * min(1.0, left_s / once_s)
    shown[DISPATCH_WAIT] += waits_s
    shown[COMBINE_WAIT] += max(0.0, left_s - once_s)
    return shown
