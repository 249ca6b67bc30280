"""Numbers that are accepted but absurd: no warning (warnings are errors), no nonsense."""

from pathlib import Path

import numpy as np
import pytest
from cli_runs import tiny
from records_builder import group, pool, requests, run

from simpod.config import load_experiment
from simpod.metrics import join_ledgers, summary, tokens_per_second
from simpod.records.columns import RunRecords
from simpod.records.slo import Slo
from simpod.run import run as run_experiment


@pytest.mark.parametrize("rate", ["1e-300", "1e-160", "1e-16", "1e300"])
def test_absurd_rates(tmp_path: Path, rate: str) -> None:
    change = f"workload.arrivals.rate_per_s={rate}"
    got = run_experiment(load_experiment(str(tiny(tmp_path)), [change])).summary
    assert got["finished"] == got["num_prompts"] == 40
    assert got["request_rate"] == float(rate)


def late(start_s: float) -> RunRecords:
    """One request; its tokens come at once, in the same second and in the next one."""
    return run(
        requests(
            [start_s],
            first_token_s=start_s,
            finish_s=start_s + 1.5,
            ledger=0,
            first_decode_step=0,
            last_decode_step=2,
            output_tokens=3,
        ),
        groups=(group([start_s + 0.5, start_s + 1.5]),),
        pools=(pool(),),
    )


def test_seconds_are_counted_from_the_first_arrival_on_however_late() -> None:
    records = late(2.0**40 + 0.75)
    assert tokens_per_second(records, join_ledgers(records)).tolist() == [2, 1]


def test_times_beyond_any_integer() -> None:
    records = run(requests([0.0, 1e300], finish_s=[1.0, 1e300]))
    assert tokens_per_second(records, join_ledgers(records)).tolist() == [1, 1]
    assert np.isfinite(summary(records, slo=Slo())["mean_e2el_ms"])
