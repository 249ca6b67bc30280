"""Engines that plan a step ahead: by hand, on a clock whose steps take a second each."""

import numpy as np
import pytest
from engine_cases import assert_same, at, simulate


def first_tokens(second_s, *, outputs=(20, 3), steps_ahead=0):
    """When a request at 0 and another at `second_s` get their first tokens."""
    requests = at([0.0, second_s], 8, list(outputs))
    records = simulate(requests, run={"steps_ahead": steps_ahead})
    return records.requests.first_token_s.tolist()


def test_an_arrival_during_a_step_joins_the_step_after_the_next():
    """At 4.5 s step 5 runs and step 6 is planned: step 7 has the prompt, and ends at 7 s."""
    assert first_tokens(4.5) == [1.0, 6.0]
    assert first_tokens(4.5, steps_ahead=1) == [1.0, 7.0]
    assert first_tokens(4.5, steps_ahead=2) == [1.0, 8.0]


def test_what_an_answer_triggers_comes_after_the_plan_made_at_its_end():
    """The answer at 5 s triggers a request: step 6 has been planned, step 7 is planned at 5 s."""
    requests = at(None, 8, [5, 20, 3], concurrency=2)
    found = [
        simulate(requests, run={"steps_ahead": ahead}).requests.first_token_s.tolist()
        for ahead in (0, 1)
    ]
    assert found == [[1.0, 1.0, 6.0], [1.0, 1.0, 8.0]]


def test_an_engine_at_rest_has_planned_nothing():
    assert first_tokens(50.0, steps_ahead=1) == [1.0, 51.0]


def test_what_waits_to_be_seen_is_seen_when_the_work_ends():
    """The first request ends at 5 s, before the second would have been seen."""
    assert first_tokens(4.5, outputs=(5, 3), steps_ahead=3) == [1.0, 6.0]


@pytest.mark.parametrize("batching", ["fcfs", "prefill_first", "in_flight"])
@pytest.mark.parametrize("dp", [1, 3])
def test_skipping_ahead_changes_nothing(dp, batching):
    rng = np.random.default_rng(5)
    requests = at(
        np.sort(rng.uniform(0.0, 60.0, 40)), rng.integers(1, 30, 40), rng.integers(1, 30, 40)
    )
    runs = [
        simulate(requests, run={"steps_ahead": 1, "skip_ahead": skip, "batching": batching}, dp=dp)
        for skip in (True, False)
    ]
    assert_same(*runs)
