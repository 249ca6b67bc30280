"""Requests that accept more or fewer drafts than the mean of their group."""

import numpy as np
import pytest
from engine_cases import at, simulate

from simpod.cluster import PoolSpec
from simpod.config import load_experiment
from simpod.errors import ConfigError
from simpod.metrics.latency import tpot_s
from simpod.metrics.tokens import token_times
from simpod.run import run
from simpod.run.acceptance import decode_paces
from simpod.workload import streams
from tests.engine_cases import pool_spec

MTP = {"mtp_layers": 1, "mtp_acceptance": 0.5}


def spread(std: float, acceptance: float = 0.8) -> PoolSpec:
    mtp = {"mtp_layers": 1, "mtp_acceptance": acceptance, "mtp_acceptance_std": std}
    return pool_spec(mtp=mtp)


@pytest.mark.parametrize("skip", [True, False])
def test_each_request_ends_at_its_own_pace(*, skip: bool) -> None:
    """Steps of 1 s, 1.5 tokens on average; 30 tokens after the first at 1, 1.5 and 2 a step."""
    pace = np.array([1.0, 1.5, 2.0]) / 1.5
    records = simulate(
        at([0.0, 0.0, 0.0], 1, 31), mtp=MTP, run={"decode_pace": pace, "skip_ahead": skip}
    )
    decode_s = records.requests.finish_s - records.requests.first_token_s
    assert decode_s.tolist() == [30.0, 20.0, 15.0]
    for request_id in range(3):
        times = token_times(records, request_id)
        assert len(times) == 31
        assert times[-1] == records.requests.finish_s[request_id]
        assert np.diff(times).max() <= 1.0 + 1e-9
    assert np.diff(token_times(records, 0)[1:]).tolist().count(0.0) <= 1  # one token a step


def test_paces_have_the_mean_and_spread_that_were_asked_for() -> None:
    pace = decode_paces([spread(0.1)], 100_000, streams(0))
    assert pace is not None
    accepted = pace * 1.8 - 1.0
    assert accepted.mean() == pytest.approx(0.8, abs=0.002)
    assert accepted.std() == pytest.approx(0.1, rel=0.01)
    assert 0.0 <= accepted.min() <= accepted.max() <= 1.0 + 1e-12
    assert decode_paces([spread(0.0)], 10, streams(0)) is None


def test_tpot_spreads_with_acceptance_and_the_mean_stays() -> None:
    changes = (
        "workload.num_requests=2000",
        "workload.arrivals.concurrency=576",
        "deployment.decode.dies=288",
    )
    plain = run(load_experiment("mtp", changes))
    wide = run(load_experiment("mtp", (*changes, "deployment.decode.mtp.acceptance_std=0.1")))
    slowness, found_s = 1.0 / wide.records.requests.decode_pace, tpot_s(wide.records.requests)
    expected = slowness.std() / slowness.mean()
    assert found_s.std() / found_s.mean() == pytest.approx(expected, rel=0.1)
    assert wide.summary["mean_tpot_ms"] == pytest.approx(plain.summary["mean_tpot_ms"], rel=0.02)


def test_a_spread_that_no_share_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no share with mean 0\.9 spreads by 0\.4.*< 0\.3"):
        load_experiment("mtp", ("deployment.decode.mtp.acceptance_std=0.4",))
