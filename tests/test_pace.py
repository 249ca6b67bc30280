"""Requests that accept more or fewer drafts than the mean of their group."""

import numpy as np
import pytest
from engine_cases import at, simulate

from simpod.cluster import PoolSpec
from simpod.config import load_experiment
from simpod.cost import Layout, mean_tokens
from simpod.engine.steps import token_clock
from simpod.errors import ConfigError
from simpod.metrics.latency import tpot_s
from simpod.metrics.tokens import token_times
from simpod.run import run
from simpod.run.acceptance import decode_paces
from simpod.workload import streams
from tests.engine_cases import pool_spec

MTP = {"mtp_layers": 1, "mtp_acceptance": 0.5}


def spread(std: float, acceptance: float = 0.8, layers: int = 1) -> PoolSpec:
    mtp = {"mtp_layers": layers, "mtp_acceptance": acceptance, "mtp_acceptance_std": std}
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


@pytest.mark.parametrize(
    ("layers", "acceptance", "tokens"),
    [
        (0, 0.9, 1.0),
        (1, 0.9, 1.9),
        (2, 0.9, 2.71),
        (3, 0.5, 1.875),
        (2, (0.9, 0.5), 2.35),  # xDeepServe 4.6: a second layer, trained
        (2, (0.9, 0.4), 2.26),  # with weights of the first
        (3, (0.9, 0.0, 1.0), 1.9),  # nothing comes after a draft that is wrong
    ],
)
def test_drafts_are_a_chain(
    layers: int, acceptance: float | tuple[float, ...], tokens: float
) -> None:
    layout = Layout(dies=1, mtp_layers=layers, mtp_acceptance=acceptance)
    assert layout.mean_decode_tokens == pytest.approx(tokens)
    clock = token_clock(layout)
    assert clock.tokens / clock.per_steps == pytest.approx(tokens)


def test_one_draft_has_its_share_to_the_last_bit() -> None:
    for share, std in [(0.79, 0.0), (0.9, 0.1), (0.635, 0.2)]:
        assert mean_tokens(1, share, std) == 1.0 + share


def test_those_who_get_far_accept_more() -> None:
    """The mean of chains, each with its own share, is not the chain of the mean share."""
    shares = np.random.default_rng(1).beta(0.8 * 3.0, 0.2 * 3.0, 400_000)  # std 0.2
    assert mean_tokens(3, 0.8, 0.2) == pytest.approx(
        (1.0 + shares + shares**2 + shares**3).mean(), abs=0.005
    )
    assert mean_tokens(3, 0.8, 0.2) > mean_tokens(3, 0.8) + 0.1
    pace = decode_paces([spread(0.2, layers=3)], 100_000, streams(0))
    assert pace is not None
    assert pace.mean() == pytest.approx(1.0, abs=0.003)


@pytest.mark.parametrize(
    ("mtp", "message"),
    [
        (
            "{layers: 2, acceptance: [0.9]}",
            r"acceptance: a list of 1 where layers is 2; allowed: 2",
        ),
        ("{acceptance: [0.9, 0.5]}", r"acceptance: a list of 2 where layers is 1"),
        (
            "{layers: 2, acceptance: [0.9, 1.5]}",
            r"acceptance\.1: too large \(got 1\.5\)[^\n]*<= 1$",
        ),
        ("{layers: 2, acceptance: [0.9, 0.5], acceptance_std: 0.1}", r"std: a spread of several"),
        (
            "{layers: 2, acceptance: often}",
            r"wrong type \(got \"often\"\); allowed: a number, or a",
        ),
        (
            "{acceptance: {first: 0.9}}",
            r"mtp\.acceptance: wrong type; allowed: a number, or a list$",
        ),
    ],
)
def test_shares_that_do_not_fit_the_layers_are_refused(mtp: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment("mtp", (f"deployment.decode.mtp={mtp}",))


def test_a_list_of_one_is_a_number_and_no_layer_needs_none() -> None:
    one = load_experiment(
        "mtp", ("deployment.decode.mtp={acceptance: [0.9], acceptance_std: 0.1}",)
    )
    number = load_experiment("mtp", ("deployment.decode.mtp.acceptance_std=0.1",))
    assert one.pools == number.pools
    shares = "deployment.decode.mtp={layers: 0, acceptance: [0.9, 0.5]}"
    assert load_experiment("mtp", (shares,)).pools[0].layout.mean_decode_tokens == 1.0


def test_a_spread_that_no_share_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no share with mean 0\.9 spreads by 0\.4.*< 0\.3"):
        load_experiment("mtp", ("deployment.decode.mtp.acceptance_std=0.4",))
