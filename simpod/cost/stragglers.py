"""The slowest of many dies whose decode kernels vary at random.

Kernels of a decode graph have a coefficient of variation, `Calibration.decode_kernel_spread_frac`;
ranks that meet in every layer wait for the one whose kernel came out longest. It counts where
nothing hides it: with one batch on all cores. Micro-batches on streams or on dies of their own have
another one to work on meanwhile.
"""

from math import hypot
from statistics import NormalDist

from simpod.cost.parts import COMBINE_WAIT, EXPERTS
from simpod.cost.work import Floats


def slowest_of(num_dies: int) -> float:
    """Mean of the largest of `num_dies` standard normal numbers; 0 for one.

    The quantile (n - 3/8) / (n + 1/4) of G. Blom, Statistical Estimates and Transformed
    Beta-Variables, 1958: within 5 % of the integral for 2, 1 % from 8 on.
    """
    return NormalDist().inv_cdf((num_dies - 0.375) / (num_dies + 0.25))


def wait_for_slow_experts(parts: Floats, late_frac: float) -> float:
    """Seconds added to `parts` [NUM_PARTS], in place: combine waits for slow experts, too.

    late_frac: of the experts' time, what the slowest die takes longer than the mean. The wait for
    the fullest die is there already; loads and speed are independent, so that the two add up as
    standard deviations do.
    """
    for_loads_s = parts.item(COMBINE_WAIT)
    more_s = hypot(for_loads_s, late_frac * parts.item(EXPERTS)) - for_loads_s
    parts[COMBINE_WAIT] += more_s
    return more_s
