"""The engine against queueing theory: statistical error stated, the error bar kept narrow."""

import math

import numpy as np
import pytest
from engine_cases import LinearPricer, at, simulate
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NUM_BATCHES = 20


def batch_means(values: Floats, *, warm_up_frac: float = 0.05) -> tuple[float, float]:
    """Mean and its standard error from the means of batches in order of time."""
    values = values[int(warm_up_frac * len(values)) :]
    means = [part.mean() for part in np.array_split(values, NUM_BATCHES)]
    return float(np.mean(means)), float(np.std(means, ddof=1) / math.sqrt(NUM_BATCHES))


def poisson(rng: np.random.Generator, rate_per_s: float, num: int) -> Floats:
    return rng.exponential(1.0 / rate_per_s, num).cumsum()


def erlang_c(servers: int, offered: float) -> float:
    """Probability of waiting in M/M/c, offered = lambda / mu (Erlang 1917)."""
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(terms) + last)


def test_deterministic_queue_by_hand() -> None:
    """D/D/1: service 2 s, arrivals each 1.5 s: request i waits 0.5 i seconds; each 2.5 s: never."""
    late = simulate(at(1.5 * np.arange(50), 1, 2), max_num_seqs=1).requests
    np.testing.assert_allclose(late.scheduled_s - late.arrival_s, 0.5 * np.arange(50))
    idle = simulate(at(2.5 * np.arange(50), 1, 2), max_num_seqs=1).requests
    np.testing.assert_allclose(idle.scheduled_s - idle.arrival_s, 0.0)


@pytest.mark.parametrize(("load", "bar"), [(0.3, 0.03), (0.6, 0.05), (0.8, 0.12)])
def test_mean_wait_of_m_d_1(load: float, bar: float) -> None:
    """Pollaczek-Khinchine for constant service S = 1 s: W = rho S / (2 (1 - rho)).

    The wait is from the arrival to the step that serves it, so there is no discretisation error;
    every single wait also obeys Lindley's recursion.
    """
    num = 20_000
    arrival_s = poisson(np.random.default_rng(17), load, num)
    requests = simulate(at(arrival_s, 1, np.ones(num)), max_num_seqs=1).requests
    wait_s = requests.scheduled_s - requests.arrival_s
    expected_s = load / (2 * (1 - load))
    mean_s, error_s = batch_means(wait_s)
    assert error_s < bar * expected_s
    assert abs(mean_s - expected_s) < 4 * error_s
    lindley_s = [0.0]
    for gap_s in np.diff(arrival_s).tolist():
        lindley_s.append(max(0.0, lindley_s[-1] + 1.0 - gap_s))
    np.testing.assert_allclose(wait_s, lindley_s, atol=1e-6)


def test_mean_wait_of_m_m_c() -> None:
    """One rank with c slots; service = geometric number of steps of `step_s`, mean 1 s.

    A request that finds the rank busy is seen at the next step boundary: up to one step of 1/400 s
    more, and geometric for exponential service is as near as that; both errors are below the
    allowance of one step.
    """
    servers, load = 3, 0.8
    num, step_s = 10_000, 1 / 400
    rng = np.random.default_rng(23)
    outputs = rng.geometric(step_s, num)
    arrival_s = poisson(rng, load * servers, num)
    requests = simulate(
        at(arrival_s, 1, outputs), LinearPricer(base_s=step_s), max_num_seqs=servers
    ).requests
    wait_s = requests.scheduled_s - requests.arrival_s
    offered = load * servers
    expected_s = erlang_c(servers, offered) / (servers - offered)
    mean_s, error_s = batch_means(wait_s)
    assert error_s < 0.12 * expected_s
    assert abs(mean_s - expected_s) < 4 * error_s + step_s
    delayed, error = batch_means((wait_s > step_s).astype(float))
    # waiting for less than a step is waiting for the boundary, not for a slot
    assert abs(delayed - erlang_c(servers, offered)) < 4 * error + 2 * step_s


def test_requests_are_served_in_order_of_arrival() -> None:
    rng = np.random.default_rng(5)
    arrival_s = poisson(rng, 0.5, 2_000)
    requests = simulate(
        at(arrival_s, rng.integers(1, 30, 2_000), rng.integers(1, 9, 2_000)),
        max_num_seqs=4,
        max_step_tokens=16,
    ).requests
    assert (np.diff(requests.scheduled_s) >= 0).all()
    assert (np.diff(requests.prefill_end_s) >= 0).all()
    assert (requests.scheduled_s > requests.arrival_s).mean() > 0.3  # they do queue


def test_littles_law_holds_exactly_over_a_drained_run() -> None:
    """Time average of requests in the system = arrivals per second x mean time in the system.

    The left side is counted from arrivals and finishes in order of time, the right side from the
    time that each single request took.
    """
    rng = np.random.default_rng(8)
    records = simulate(
        at(poisson(rng, 1.0, 3_000), 3, rng.integers(1, 12, 3_000)),
        LinearPricer(base_s=0.3, s_per_decode=0.02),
        max_num_seqs=6,
    )
    requests = records.requests
    times_s = np.concatenate([requests.arrival_s, requests.finish_s])
    change = np.repeat([1, -1], len(requests.arrival_s))
    order = np.argsort(times_s, kind="stable")
    inside = np.cumsum(change[order])[:-1]
    assert inside.min() >= 0
    area = float((inside * np.diff(times_s[order])).sum())
    assert area == pytest.approx(float((requests.finish_s - requests.arrival_s).sum()), rel=1e-9)
    # the pool's own averages, over its span from the first arrival on
    pool, span_s = records.pools[0], records.end_s - requests.arrival_s[0]
    waits_s = float((requests.scheduled_s - requests.arrival_s).sum())
    stays_s = float((requests.finish_s - requests.scheduled_s).sum())
    assert pool.mean_waiting_seqs == pytest.approx(waits_s / span_s, rel=1e-9)
    assert pool.mean_slots_frac == pytest.approx(stays_s / span_s / 6, rel=1e-9)


def test_closed_loop_obeys_the_cycle_time_law() -> None:
    """N clients, no think time: throughput x time in the system = N, never more than N inside."""
    rng = np.random.default_rng(4)
    num, clients = 2_000, 7
    requests = simulate(
        at([float("nan")] * num, 1, rng.integers(1, 20, num), concurrency=clients),
        LinearPricer(base_s=0.1),
        max_num_seqs=4,
    ).requests
    times_s = np.concatenate([requests.finish_s, requests.arrival_s])  # finishes first in a tie
    change = np.repeat([-1, 1], num)
    inside = np.cumsum(change[np.argsort(times_s, kind="stable")])
    assert inside.max() == clients
    last_start_s = requests.arrival_s.max()  # until then all clients are busy
    busy_s = np.minimum(requests.finish_s, last_start_s) - requests.arrival_s
    assert busy_s.sum() == pytest.approx(clients * last_start_s, rel=1e-9)


def test_fork_and_join_of_exponential_work() -> None:
    """n ranks with exponential work of mean 1 s: a step lasts H_n = 1 + 1/2 + ... + 1/n seconds.

    Work is prompts in units of 1 ms, rounded up (0.5 ms more on average). Rounds do not overlap.
    """
    ranks, rounds = 6, 1_500
    rng = np.random.default_rng(31)
    prompts = np.ceil(rng.exponential(1000.0, ranks * rounds)).astype(np.int64)
    arrival_s = np.repeat(100.0 * np.arange(rounds), ranks)
    requests = simulate(
        at(arrival_s, prompts, 1), LinearPricer(base_s=0.0, s_per_prompt_token=1e-3), dp=ranks
    ).requests
    harmonic = sum(1 / k for k in range(1, ranks + 1))
    step_s = (requests.prefill_end_s - requests.arrival_s).reshape(rounds, ranks)
    assert (np.ptp(step_s, axis=1) < 1e-9).all()  # they join
    mean_s, error_s = batch_means(step_s[:, 0])
    assert error_s < 0.02 * harmonic
    assert abs(mean_s - harmonic) < 4 * error_s + 1e-3
    wait_s, error_s = batch_means(requests.barrier_wait_s.reshape(rounds, ranks).mean(axis=1))
    assert abs(wait_s - (harmonic - 1)) < 4 * error_s + 1e-3
