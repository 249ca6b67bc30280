"""Many runs: comparisons with paired seeds, and the benchmark of the simulator itself."""

from simpod.sweep.compare import (
    DEFAULT_METRICS,
    Cell,
    Comparison,
    compare,
    plan_jobs,
    split_variation,
    t_quantile,
)
from simpod.sweep.jobs import Job, run_jobs, run_named

__all__ = [
    "DEFAULT_METRICS",
    "Cell",
    "Comparison",
    "Job",
    "compare",
    "plan_jobs",
    "run_jobs",
    "run_named",
    "split_variation",
    "t_quantile",
]
