"""Which requests met their targets."""

import numpy as np

from simpod.metrics.latency import Bools, e2e_s, tpot_s, ttft_s
from simpod.records.columns import FINISHED, RequestRecords
from simpod.records.slo import Slo


def met_by_target(requests: RequestRecords, slo: Slo) -> dict[str, Bools]:
    """For each target that `slo` sets, [n]: finished, and at most that long.

    Refused and unfinished requests meet nothing; a request of one token has TPOT 0, which passes.
    """
    finished = requests.status == FINISHED
    columns = {"ttft": ttft_s, "tpot": tpot_s, "e2e": e2e_s}
    limits_s = {"ttft": slo.ttft_s, "tpot": slo.tpot_s, "e2e": slo.e2e_s}
    return {
        name: finished & (columns[name](requests) <= limit_s)
        for name, limit_s in limits_s.items()
        if limit_s is not None
    }


def is_good(requests: RequestRecords, slo: Slo) -> Bools:
    """Finished and met *every* target, [n]; without a target every finished one is good."""
    good: Bools = requests.status == FINISHED
    for met in met_by_target(requests, slo).values():
        good = good & met
    return good


def attainment_frac(met: Bools, sent: Bools) -> float:
    """Share of the requests sent that met their target; NaN if none was sent."""
    return float(np.mean(met[sent])) if sent.any() else np.nan
