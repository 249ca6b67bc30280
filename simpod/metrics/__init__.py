"""Statistics of a run: pure functions of its records. `window` says what is counted."""

from simpod.metrics.attainment import attainment_frac, is_good, met_by_target
from simpod.metrics.attribution import TTFT_PARTS, ttft_parts_s
from simpod.metrics.distribution import Distribution, describe, describe_weighted
from simpod.metrics.keys import SUMMARY_KEYS
from simpod.metrics.latency import e2e_s, has_tpot, produced_tokens, tpot_s, ttft_s
from simpod.metrics.occupancy import (
    LittlesLaw,
    Stationarity,
    littles_law,
    peak_in_system,
    stationarity,
)
from simpod.metrics.pools import PoolUse, StepBreakdown, pool_use, step_breakdown
from simpod.metrics.saturation import Saturation, saturation
from simpod.metrics.summary import summary
from simpod.metrics.tokens import (
    inter_token_gaps,
    join_ledgers,
    token_times,
    tokens_per_second,
)
from simpod.metrics.window import Window, measure

__all__ = [
    "SUMMARY_KEYS",
    "TTFT_PARTS",
    "Distribution",
    "LittlesLaw",
    "PoolUse",
    "Saturation",
    "Stationarity",
    "StepBreakdown",
    "Window",
    "attainment_frac",
    "describe",
    "describe_weighted",
    "e2e_s",
    "has_tpot",
    "inter_token_gaps",
    "is_good",
    "join_ledgers",
    "littles_law",
    "measure",
    "met_by_target",
    "peak_in_system",
    "pool_use",
    "produced_tokens",
    "saturation",
    "stationarity",
    "step_breakdown",
    "summary",
    "token_times",
    "tokens_per_second",
    "tpot_s",
    "ttft_parts_s",
    "ttft_s",
]
