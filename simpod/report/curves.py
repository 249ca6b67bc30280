"""SLO curves as numbers: figures by rate with intervals over seeds, the knee, the frontier."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from simpod.metrics.interval import mean_interval

if TYPE_CHECKING:
    import pandas as pd

ATTAINMENT: Final = "slo_attainment"
GOODPUT: Final = "request_goodput"


def by_rate(runs: "pd.DataFrame", metric: str) -> "pd.DataFrame":
    """Mean of a metric over the seeds of each variant and rate, with its t interval.

    Columns variant, rate_per_s, mean, low, high (= mean where there is one seed), seeds; variants
    in order of appearance, rates ascending.
    """
    import pandas as pd

    rows = []
    finite = runs[np.isfinite(runs["rate_per_s"]) & runs[metric].notna()]
    for variant in dict.fromkeys(finite["variant"]):
        of_variant = finite[finite["variant"] == variant]
        for rate in sorted(of_variant["rate_per_s"].unique()):
            values = of_variant.loc[of_variant["rate_per_s"] == rate, metric].to_numpy(float)
            around = mean_interval(values)
            is_alone = np.isnan(around.low)
            rows.append(
                {
                    "variant": variant,
                    "rate_per_s": rate,
                    "mean": around.mean,
                    "low": around.mean if is_alone else around.low,
                    "high": around.mean if is_alone else around.high,
                    "seeds": len(values),
                }
            )
    columns = ["variant", "rate_per_s", "mean", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def knee_rate_per_s(
    rates_per_s: Sequence[float], attainments: Sequence[float], target_frac: float
) -> float | None:
    """Highest rate up to which the attainment stays at the target; None if it never is there.

    Linear between the last rate that holds and the first that does not; the highest rate tried if
    all hold (the knee lies beyond).
    """
    best: float | None = None
    points = sorted(zip(rates_per_s, attainments, strict=True))
    for index, (rate, attainment) in enumerate(points):
        if attainment >= target_frac:
            best = rate
            continue
        if best is not None:
            left, before = points[index - 1]
            best = left + (rate - left) * (before - target_frac) / (before - attainment)
        break
    return best


def frontier(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Indices of the points that no other beats in both, by ascending x (more is better)."""
    order = sorted(range(len(x)), key=lambda i: (-x[i], -y[i]))
    best, kept = -np.inf, []
    for i in order:
        if y[i] > best:
            kept.append(i)
            best = y[i]
    return kept[::-1]
