"""What is measured, weighted percentiles, occupancy and its verdicts."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_builder import NAN, pool, requests, run

from simpod.errors import ConfigError
from simpod.metrics import (
    describe,
    describe_weighted,
    littles_law,
    measure,
    peak_in_system,
    stationarity,
)
from simpod.metrics.distribution import PERCENTILES, weighted_percentiles
from simpod.records.columns import FINISHED, LIVE, REFUSED, RunRecords

# --- which requests count -------------------------------------------------------------------------


def test_open_loop_leaves_out_the_first_and_the_last() -> None:
    """Ten arrivals a second apart, each served in 5 s: arrivals 1 to 8, finishes in (5, 13]."""
    rows = requests(np.arange(10.0), finish_s=np.arange(10.0) + 5)
    window = measure(rows, 0.1, 0.1)
    assert np.flatnonzero(window.measured).tolist() == list(range(1, 9))
    assert np.flatnonzero(window.completed).tolist() == list(range(1, 9))
    assert (window.arrival_start_s, window.arrival_end_s) == (1.0, 8.0)
    assert (window.finish_start_s, window.finish_end_s) == (5.0, 13.0)
    assert window.completed.sum() / window.duration_s == 1.0  # the rate of arrivals, exactly
    assert not window.is_whole_run


def test_without_trimming_it_is_the_rule_of_vllm() -> None:
    rows = requests([2.0, 3.0, 4.0], finish_s=[9.0, 7.0, NAN], status=[FINISHED, FINISHED, LIVE])
    window = measure(rows, 0.0, 0.0)
    assert window.measured.all()
    assert window.completed.tolist() == [True, True, False]
    assert window.duration_s == 7.0  # first arrival to last finish
    assert not window.is_whole_run


def test_order_is_that_of_arrival_and_of_finish() -> None:
    rows = requests([3.0, 1.0, 2.0, 0.0], finish_s=[10.0, 30.0, 20.0, 40.0])
    window = measure(rows, 0.25, 0.25)
    assert window.measured.tolist() == [False, True, True, False]
    assert window.completed.tolist() == [False, True, True, False]


def test_a_burst_is_measured_whole() -> None:
    window = measure(requests([0.0] * 10, finish_s=np.arange(1.0, 11.0)), 0.2, 0.2)
    assert window.is_whole_run
    assert window.measured.all()
    assert window.completed.all()
    assert window.duration_s == 10.0


def test_finishes_at_one_instant_leave_no_rate_but_that_of_the_whole_run() -> None:
    window = measure(requests(np.arange(10.0), finish_s=[12.0] * 10), 0.2, 0.2)
    assert window.is_whole_run
    assert window.duration_s == 12.0


def test_clumps_of_finishes_count_whole() -> None:
    """Closed loop of 4 in lock-step: three batches of 4, at 1, 2 and 3; counted: two in 2 s."""
    arrivals = np.repeat([0.0, 1.0, 2.0], 4)
    window = measure(requests(arrivals, finish_s=arrivals + 1), 0.1, 0.1)
    assert window.completed.sum() == 8
    assert window.completed.sum() / window.duration_s == 4.0


def test_fractions_are_not_lost_to_rounding() -> None:
    window = measure(requests(np.arange(100.0)), 0.29, 0.0)  # 0.29 * 100 = 28.999999999999996
    assert window.measured.sum() == 71


@pytest.mark.parametrize(
    "statuses", [[], [LIVE], [REFUSED, LIVE]], ids=["nothing", "live", "refused"]
)
def test_nothing_finished(statuses: list[int]) -> None:
    rows = requests(
        np.arange(float(len(statuses))), status=statuses, first_token_s=[NAN] * len(statuses)
    )
    window = measure(rows, 0.1, 0.1)
    assert window.is_whole_run
    assert not window.completed.any()
    assert np.isnan(window.duration_s)


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (-0.1, 0.0), (np.nan, 0.1)])
def test_impossible_fractions(fractions: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="must be >= 0 and add up to less than 1"):
        measure(requests([0.0, 1.0]), *fractions)


# --- distributions --------------------------------------------------------------------------------

weighted = st.lists(
    st.tuples(st.floats(1e-6, 1e3), st.integers(0, 5)), min_size=1, max_size=40
).filter(lambda pairs: any(weight for _, weight in pairs))


@given(weighted)
def test_weighted_is_the_same_as_written_out(pairs: list[tuple[float, int]]) -> None:
    values, weights = np.array([v for v, _ in pairs]), np.array([w for _, w in pairs])
    written_out = np.repeat(values, weights)
    got, expected = describe_weighted(values, weights), describe(written_out)
    assert dataclasses.asdict(got) == pytest.approx(
        dataclasses.asdict(expected), rel=1e-9, abs=1e-9 * written_out.max()
    )


@pytest.mark.parametrize(
    "shape", ["lognormal", "two_values", "one_outlier", "ties", "every_scale", "neighbours"]
)
def test_percentiles_of_a_large_weighted_sample_are_exact(shape: str) -> None:
    rng = np.random.default_rng(3)
    values = {
        "lognormal": rng.lognormal(-4.0, 1.5, 50_000),
        "two_values": rng.choice([0.01, 0.5], 50_000),
        "one_outlier": np.append(rng.uniform(0.01, 0.02, 49_999), 1e6),
        "ties": np.round(rng.normal(1.0, 0.01, 50_000), 3),
        "every_scale": 10.0 ** rng.uniform(-300, 300, 50_000),
        "neighbours": 1.0 + 2.0**-52 * rng.integers(0, 9000, 50_000),
    }[shape]
    weights = rng.integers(1, 9, 50_000)
    expected = np.percentile(np.repeat(values, weights), PERCENTILES)
    got = weighted_percentiles(values, weights, PERCENTILES)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_describe_by_hand() -> None:
    sample = describe(np.array([1.0, 2.0, 3.0, 4.0]))
    assert (sample.count, sample.mean, sample.p50) == (4, 2.5, 2.5)
    assert sample.std == pytest.approx(1.25**0.5)
    assert sample.p90 == pytest.approx(3.7)
    assert np.isnan(describe(np.empty(0)).mean)
    assert np.isnan(describe_weighted(np.empty(0), np.empty(0, dtype=np.int64)).p99)


# --- occupancy ------------------------------------------------------------------------------------


def test_peak_by_hand_and_ties() -> None:
    """At 2 the first leaves before the third comes; a refused one is never inside."""
    rows = requests(
        [0.0, 1.0, 2.0, 2.0],
        finish_s=[2.0, 5.0, 3.0, NAN],
        status=[FINISHED, FINISHED, FINISHED, REFUSED],
    )
    assert peak_in_system(rows) == 2


stays = st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 20)), min_size=1, max_size=30)


@given(stays, st.floats(1.0, 80.0))
def test_littles_law_is_an_identity(pairs: list[tuple[float, float]], cut_s: float) -> None:
    """Drained or cut off: L from the count over time equals lambda W from the requests."""
    arrivals = np.array([0.0] + [a for a, _ in pairs if a < cut_s])
    finishes = arrivals + np.array([1.0] + [s for a, s in pairs if a < cut_s])
    for end_s in (cut_s, finishes.max()):
        done = finishes <= end_s
        rows = requests(
            arrivals,
            finish_s=np.where(done, finishes, NAN),
            status=np.where(done, FINISHED, LIVE),
        )
        law = littles_law(run(rows, end_s=float(end_s)))
        assert law.mean_in_system == pytest.approx(law.rate_per_s * law.mean_time_s, abs=1e-9)
        assert law.mean_in_system >= 0


def test_littles_law_by_hand() -> None:
    law = littles_law(run(requests([0.0, 1.0], finish_s=[2.0, 4.0])))
    assert (law.mean_in_system, law.rate_per_s, law.mean_time_s) == (1.25, 0.5, 2.5)


def queue(
    service_s: float, gap_s: float = 1.0, number: int = 1000, **columns: object
) -> RunRecords:
    """One server, arrivals every `gap_s`, each served in `service_s`, in turn."""
    arrivals = np.arange(number) * gap_s
    start = np.maximum(arrivals, np.arange(number) * service_s)
    return run(requests(arrivals, scheduled_s=start, finish_s=start + service_s, **columns))


def verdict(records: RunRecords) -> str:
    return stationarity(records, measure(records.requests, 0.1, 0.1)).verdict


def test_verdict_of_a_queue_below_and_above_capacity() -> None:
    assert verdict(queue(service_s=0.9)) == "STABLE"
    assert verdict(queue(service_s=1.2)) == "BACKLOGGED"


def test_growth_is_what_arrives_less_what_leaves() -> None:
    records = queue(service_s=2.0)  # half of the 799 s between the measured arrivals is left over
    state = stationarity(records, measure(records.requests, 0.1, 0.1))
    assert state.growth_seqs == pytest.approx(399.5, rel=0.01)
    assert state.waiting_growth_seqs == pytest.approx(399.5, rel=0.01)
    assert not state.is_stationary


def test_a_system_that_still_fills_is_growing_not_backlogged() -> None:
    """Nobody waits, each stays longer than the run lasts."""
    arrivals = np.arange(500.0)
    records = run(requests(arrivals, finish_s=arrivals + 600))
    assert verdict(records) == "GROWING"


def test_back_pressure_is_waiting() -> None:
    """Prefill is at once; the pull of the KV falls behind by a second a request."""
    arrivals = np.arange(500.0)
    pull = 2 * arrivals
    rows = requests(
        arrivals,
        prefill_end_s=arrivals,
        first_token_s=arrivals,
        transfer_start_s=pull,
        transfer_end_s=pull,
        finish_s=pull + 1,
    )
    split = (pool("p", "prefill"), pool("d", "decode"))
    assert verdict(run(rows, pools=split)) == "BACKLOGGED"
    assert verdict(run(rows)) == "GROWING"  # without the pools there is nothing to be pulled


def test_a_burst_has_no_steady_state() -> None:
    records = run(requests([0.0] * 50, finish_s=np.arange(1.0, 51.0)))
    state = stationarity(records, measure(records.requests, 0.1, 0.1))
    assert state.verdict == "BURST"
    assert not state.is_stationary
    assert state.mean_in_system == pytest.approx(25.5)


def test_random_fluctuation_is_no_growth() -> None:
    """Poisson arrivals at half the capacity of one server, ten seeds."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        arrivals = np.cumsum(rng.exponential(1.0, 2000))
        service = rng.exponential(0.5, 2000)
        finish = np.empty(2000)
        free = 0.0
        for i in range(2000):
            free = max(free, arrivals[i]) + service[i]
            finish[i] = free
        rows = requests(arrivals, scheduled_s=finish - service, finish_s=finish)
        assert verdict(run(rows)) == "STABLE"
