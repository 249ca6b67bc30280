"""The central frontend: tokens leave once, in order, when a queue with one server says so."""

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from engine_cases import LinearPricer, assert_same, at, simulate
from engine_random import EXAMPLES, Experiment, run
from engine_random import experiments as all_experiments
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_queueing import batch_means, poisson

from simpod.cost.frontend import Frontend
from simpod.engine.frontend import departures
from simpod.engine.steps import TokenClock
from simpod.metrics import ttft_parts_s
from simpod.metrics.tokens import token_times
from simpod.records.columns import FINISHED, LIVE, FrontendRecords, RunRecords

law = settings(max_examples=EXAMPLES // 2)


def experiments(**fixed: Any) -> st.SearchStrategy[Experiment]:
    return all_experiments(has_paces=False, **fixed)


open_loops = experiments(load="poisson") | experiments(load="ticks")


def frontend(s_per_token: float, s_per_message: float = 0.0, processes: int = 1) -> Frontend:
    return Frontend(s_per_token=s_per_token, s_per_message=s_per_message, processes=processes)


def central(case: Experiment, share: float = 0.2) -> Frontend:
    """A frontend that some cases fill: steps take about 1 s, or 2 ms with real prices."""
    unit_s = 2.0**-8 if case.real_prices else 1.0
    return frontend(share * unit_s, 0.1 * share * unit_s)


def messages_of(records: RunRecords) -> FrontendRecords:
    assert records.frontend is not None
    return records.frontend


def one_by_one(arrive_s: np.ndarray, work_s: np.ndarray, free_s: float = -math.inf) -> list[float]:
    """Lindley's recursion as it is written."""
    left_s = []
    for time_s, took_s in zip(arrive_s.tolist(), work_s.tolist(), strict=True):
        free_s = max(time_s, free_s) + took_s
        left_s.append(free_s)
    return left_s


# --- the queue ------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=30),
    st.floats(-10, 100) | st.just(-math.inf),
)
def test_departures_are_those_of_the_recursion(
    messages: list[tuple[float, float]], free_s: float
) -> None:
    gaps, work = np.array(messages, dtype=float).reshape(-1, 2).T
    arrive_s = gaps.cumsum()
    left_s = departures(arrive_s, work, free_s)
    np.testing.assert_allclose(left_s, one_by_one(arrive_s, work, free_s), rtol=1e-12, atol=1e-12)
    assert (left_s >= arrive_s + work).all()


def test_deterministic_queue_by_hand() -> None:
    """D/D/1: a token a second, service 1.5 s: token i is 1.5 + 0.5 i late; at 0.5 s always 0.5."""
    alone = at([0.0], 1, [20])
    for s_per_token, late_s in ((1.5, 1.5 + 0.5 * np.arange(20)), (0.5, np.full(20, 0.5))):
        records = simulate(alone, run={"frontend": frontend(s_per_token)})
        np.testing.assert_allclose(token_times(records, 0), 1.0 + np.arange(20) + late_s)


def test_three_requests_by_hand() -> None:
    """Steps of 1 s end with 1, 3, 2, 1, 1 tokens; 0.3 s each: 1.3, 2.9, 3.6, 4.3, 5.3."""
    records = simulate(at([0.0, 0.5, 0.7], 5, [3, 1, 4]), run={"frontend": frontend(0.3)})
    messages, rows = messages_of(records), records.requests
    assert messages.tokens.tolist() == [1, 3, 2, 1, 1]
    np.testing.assert_allclose(messages.left_s, [1.3, 2.9, 3.6, 4.3, 5.3])
    np.testing.assert_allclose(rows.first_token_s, [1.3, 2.9, 2.9])
    np.testing.assert_allclose(rows.finish_s, [3.6, 2.9, 5.3])
    np.testing.assert_array_equal(rows.engine_first_token_s, [1.0, 2.0, 2.0])
    np.testing.assert_array_equal(rows.engine_finish_s, [3.0, 2.0, 5.0])
    np.testing.assert_allclose(ttft_parts_s(rows)["frontend"], [0.3, 0.9, 0.9])
    assert records.end_s == pytest.approx(5.3)


def test_messages_and_processes_by_hand() -> None:
    """Two processes share 3 tokens of 0.2 s and get a message of 0.1 s each: 0.4 s."""
    records = simulate(at([0.0] * 3, 1, 1), run={"frontend": frontend(0.2, 0.1, 2)})
    np.testing.assert_allclose(records.requests.finish_s, 1.0 + 0.4)


def test_mean_wait_of_m_d_1() -> None:
    """Requests of one token, whose steps take no time to speak of: Pollaczek-Khinchine for 1 s."""
    num, load = 20_000, 0.8
    arrival_s = poisson(np.random.default_rng(17), load, num)
    rows = simulate(
        at(arrival_s, 1, np.ones(num)),
        LinearPricer(base_s=1e-9),
        run={"frontend": frontend(1.0)},
    ).requests
    wait_s = rows.first_token_s - rows.engine_first_token_s - 1.0
    expected_s = load / (2 * (1 - load))
    mean_s, error_s = batch_means(wait_s)
    assert error_s < 0.12 * expected_s
    assert abs(mean_s - expected_s) < 4 * error_s


@given(
    st.integers(1, 7),
    st.integers(0, 12),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=20),
)
def test_token_clock_sums_are_those_of_its_steps(
    per_steps: int, drafts: int, spans: list[tuple[int, int]]
) -> None:
    clock = TokenClock(per_steps + drafts, per_steps)
    firsts, steps = np.array(spans).T
    expected = [sum(clock.at(f + i) - clock.at(f) for i in range(n)) for f, n in spans]
    assert clock.gained_sums(firsts, steps).tolist() == expected


# --- laws -----------------------------------------------------------------------------------------


@law
@given(experiments())
def test_every_token_leaves_once_in_order_and_not_before_its_step_ends(case: Experiment) -> None:
    sim, records = run(case, frontend=central(case))
    messages, requests = messages_of(records), records.requests
    done = requests.status == FINISHED
    assert messages.tokens.sum() == requests.output_tokens[done].sum()
    assert (messages.tokens > 0).all()
    assert (np.diff(messages.time_s) >= 0).all()
    work_s = central(case).work_s(messages.tokens)
    np.testing.assert_array_equal(messages.work_s, work_s)
    np.testing.assert_allclose(messages.left_s, one_by_one(messages.time_s, work_s), rtol=1e-9)
    assert not sim.live
    assert (requests.engine_first_token_s < requests.first_token_s)[done].all()
    assert (requests.engine_finish_s < requests.finish_s)[done].all()
    assert (requests.finish_s[done] <= records.end_s).all()


@law
@given(experiments(load="poisson", migrates=False) | experiments(load="ticks", migrates=False))
def test_messages_are_what_is_counted_token_by_token(case: Experiment) -> None:
    """Times of tokens, and those at which they are with clients, one request after the other.

    Without preemptions and moves: what `token_times` says of these is near, not exact.
    """
    _, records = run(case, frontend=central(case))
    assume(not records.requests.num_preemptions.any())
    _, without = run(case)
    came, left = Counter[float](), Counter[float]()
    for request_id in range(case.num_requests):
        came.update(token_times(without, request_id).tolist())
        left.update(token_times(records, request_id).tolist())
    messages = messages_of(records)
    for times_s, counted in ((messages.time_s, came), (messages.left_s, left)):
        tokens: defaultdict[float, int] = defaultdict(int)
        for time_s, number in zip(times_s.tolist(), messages.tokens.tolist(), strict=True):
            tokens[time_s] += number
        assert sorted(tokens.values()) == sorted(counted.values())
        np.testing.assert_allclose(sorted(tokens), sorted(counted), rtol=1e-12)


@law
@given(open_loops)
def test_engines_do_not_notice_it_unless_clients_wait(case: Experiment) -> None:
    _, records = run(case, frontend=central(case))
    _, without = run(case)
    mine, others = records.requests, without.requests
    np.testing.assert_array_equal(records.steps.end_s, without.steps.end_s)
    np.testing.assert_array_equal(mine.engine_first_token_s, others.first_token_s)
    np.testing.assert_array_equal(mine.engine_finish_s, others.finish_s)


@law
@given(experiments())
def test_with_no_time_for_a_token_nothing_changes(case: Experiment) -> None:
    _, records = run(case, frontend=frontend(0.0))
    _, without = run(case)
    assert_same(records, without)


@law
@given(experiments())
def test_skipping_ahead_changes_nothing(case: Experiment) -> None:
    _, fast = run(case, frontend=central(case))
    _, slow = run(case, frontend=central(case), skip_ahead=False)
    assert_same(fast, slow)
    np.testing.assert_array_equal(messages_of(fast).tokens, messages_of(slow).tokens)
    np.testing.assert_allclose(messages_of(fast).left_s, messages_of(slow).left_s, rtol=1e-9)


@law
@given(experiments(load="closed"), st.sampled_from([0.01, 0.2, 2.0]))
def test_clients_of_a_closed_loop_wait_for_their_tokens(case: Experiment, share: float) -> None:
    """Every request after the first ones is sent the moment that another has its last token."""
    sim, records = run(case, frontend=central(case, share))
    clients = sim.inputs.requests.concurrency or 0
    requests = records.requests
    ends_s = np.sort(np.where(requests.status == FINISHED, requests.finish_s, requests.arrival_s))
    sent_s = np.sort(requests.arrival_s)
    assert (sent_s[:clients] == 0).all()
    np.testing.assert_allclose(sent_s[clients:], ends_s[: len(sent_s[clients:])], rtol=1e-9)


@law
@given(experiments(load="sessions"))
def test_clients_of_a_session_think_after_the_last_token(case: Experiment) -> None:
    sim, records = run(case, frontend=central(case))
    requests, given_ = records.requests, sim.inputs.requests
    ends_s = np.where(requests.status == FINISHED, requests.finish_s, requests.arrival_s)
    rows = np.flatnonzero(given_.after >= 0)
    np.testing.assert_allclose(
        requests.arrival_s[rows], ends_s[given_.after[rows]] + given_.think_s[rows], rtol=1e-9
    )


@law
@given(experiments(), st.floats(0.05, 0.95))
def test_a_run_that_is_cut_off_is_the_start_of_the_whole(case: Experiment, part: float) -> None:
    _, whole = run(case, frontend=central(case))
    cut_s = part * whole.end_s
    assume(cut_s > 0)
    _, cut = run(case, frontend=central(case), duration_s=cut_s)
    rows, other = cut.requests, whole.requests
    ids = rows.request_id
    for name in ("first_token_s", "finish_s"):
        expected_s = getattr(other, name)[ids]
        expected_s = np.where(expected_s < cut_s, expected_s, np.nan)
        np.testing.assert_allclose(getattr(rows, name), expected_s, rtol=1e-9, err_msg=name)
    assert (rows.status == LIVE).sum() == (np.isnan(rows.finish_s) & (other.status[ids] == 1)).sum()
    for request_id in set(ids.tolist()) - set(whole.segments[:, 0].tolist()):
        all_s = token_times(whole, request_id)
        np.testing.assert_allclose(token_times(cut, request_id), all_s[all_s < cut_s], rtol=1e-9)


def test_several_groups_share_one_queue_in_order_of_time() -> None:
    """Two replicas whose long runs overlap: the order is that of their steps, not of their runs."""
    requests = at([0.0, 0.4], 1, [50, 50], concurrency=None)
    records = simulate(
        requests, instances=2, router="round_robin", run={"frontend": frontend(0.45)}
    )
    times_s = [token_times(records, i) for i in (0, 1)]
    arrive_s = np.sort(np.concatenate([1.0 + np.arange(50), 1.4 + np.arange(50)]))
    np.testing.assert_allclose(
        np.sort(np.concatenate(times_s)), one_by_one(arrive_s, np.full(100, 0.45))
    )
    np.testing.assert_allclose(times_s[1] - times_s[0], 0.45)
