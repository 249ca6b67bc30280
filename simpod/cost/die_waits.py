"""What one die sees of dispatch and combine in one decode step, waiting included.

Profilers show exchanges of one die with the waiting for all others in them (xDeepServe
arXiv:2508.02520v6, figure 20). So one step is drawn die by die and layer by layer. Ranks come to
dispatch when attention is through, whose kernels vary at random (`stragglers`) around the time of
their batch and context, which is the same in all layers; dispatch ends when the last rank's tokens
have come. From there each die goes through its experts, with its own load, at its own speed;
combine ends on all dies with the slowest one's share.

On average that is the waiting that the price of a step has: in combine within 3 %, tests say, in
dispatch, which it takes from below (`stragglers`), within 8 % where ranks differ as much as kernels
vary.
"""

from dataclasses import dataclass

import numpy as np

from simpod.cost.expert_imbalance import DieTimes
from simpod.cost.work import Floats

SEED = 0
"""Of the draws: the same step looks the same whenever it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Meetings:
    """What dies bring to the sparse layers of one step, MTP layers included; ranks [num_ranks]."""

    rank_busy_s: Floats
    """Until dispatch, of one layer; what is the same for all ranks does not matter."""
    rank_spread_s: Floats
    """Standard deviation of that from layer to layer."""
    dies: DieTimes
    """[sparse layers, num_dies], dies of a rank one after the other."""
    experts_spread_frac: float
    """Coefficient of variation of experts' kernels; dies of a rank vary together."""
    fullest_dispatch_s: float
    """What dispatch of the rank with most tokens takes longer than that of the mean rank."""
    fullest_combine_s: float
    launch_skew_s: float = 0.0
    """What a usual die waits at the first dispatch for the die that was launched last."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DieExchanges:
    """[sparse layers, num_dies]; dispatch and combine have the waiting in them."""

    dispatch_s: Floats
    dispatch_wait_s: Floats
    experts_s: Floats
    combine_s: Floats
    combine_wait_s: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Of a typical die: means over dies of each one's mean, least and most over layers."""

    mean_s: float
    least_s: float
    most_s: float

    @classmethod
    def of(cls, seconds: Floats) -> "Seen":
        """From [layers, dies]."""
        return cls(
            mean_s=float(seconds.mean()),
            least_s=float(seconds.min(axis=0).mean()),
            most_s=float(seconds.max(axis=0).mean()),
        )


def die_exchanges(meetings: Meetings, seed: int = SEED) -> DieExchanges:
    """Draw one step."""
    rng = np.random.default_rng(seed)
    dies = meetings.dies
    num_layers, num_dies = dies.experts_s.shape
    num_ranks = len(meetings.rank_busy_s)
    rank = np.arange(num_dies) * num_ranks // num_dies
    late, slow = rng.standard_normal((2, num_layers, num_ranks))
    there_s = (meetings.rank_busy_s + meetings.rank_spread_s * late)[:, rank]
    experts_s = dies.experts_s * (1.0 + meetings.experts_spread_frac * slow[:, rank])
    through_s = dies.dispatch_s + experts_s + dies.combine_s
    first = np.arange(num_layers)[:, np.newaxis] == 0
    skew_s = np.where(first, meetings.launch_skew_s, 0.0)
    dispatch_wait_s = meetings.fullest_dispatch_s + _until_last(there_s) + skew_s
    combine_wait_s = meetings.fullest_combine_s + _until_last(through_s)
    return DieExchanges(
        dispatch_s=dies.dispatch_s + dispatch_wait_s,
        dispatch_wait_s=dispatch_wait_s,
        experts_s=experts_s,
        combine_s=dies.combine_s + combine_wait_s,
        combine_wait_s=combine_wait_s,
    )


def _until_last(seconds: Floats) -> Floats:
    """[layers, dies]: how long each waits for the slowest of its layer."""
    return np.asarray(seconds.max(axis=1, keepdims=True) - seconds)
