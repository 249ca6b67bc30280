"""Gaps and token times from the ledger, against tokens counted one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_builder import Member, TokenRun, group, requests, run, token_by_token

from simpod.errors import ConfigError
from simpod.metrics import inter_token_gaps, join_ledgers, token_times, tokens_per_second
from simpod.records.columns import FINISHED, LIVE, RunRecords


def everyone(records: RunRecords) -> np.ndarray:
    return np.ones(len(records.requests.status), dtype=bool)


def expanded(records: RunRecords, chosen: np.ndarray) -> np.ndarray:
    return np.sort(np.repeat(*inter_token_gaps(records, join_ledgers(records), chosen)))


@st.composite
def token_runs(draw: st.DrawFn) -> TokenRun:
    lengths = st.lists(st.integers(1, 50), min_size=1, max_size=25)
    ledgers = [
        (np.cumsum(draw(lengths)) / 100 + 10).tolist() for _ in range(draw(st.integers(1, 3)))
    ]
    ledgers += [[]] * draw(st.integers(0, 1))  # a prefill group has no decode step
    member = st.builds(
        lambda which, join, tokens, lead: Member(
            which, join % len(ledgers[which]), tokens + (lead is not None), lead
        ),
        st.integers(0, sum(map(bool, ledgers)) - 1),
        st.integers(0, 24),
        st.integers(1, 30),
        st.none() | st.floats(0.001, 5.0),
    )
    members = draw(st.lists(member, min_size=1, max_size=12))
    return token_by_token(ledgers, members, draw(st.sampled_from([(1, 1), (19, 10), (3, 2)])))


@given(token_runs())
@settings(max_examples=60)
def test_gaps_are_those_counted_token_by_token(case: TokenRun) -> None:
    brute = np.sort(np.concatenate([np.diff(times) for times in case.outputs_s]))
    np.testing.assert_allclose(expanded(case.records, everyone(case.records)), brute, atol=1e-12)


@given(token_runs())
@settings(max_examples=60)
def test_gaps_of_a_choice_add_up_to_its_decode_times(case: TokenRun) -> None:
    chosen = case.records.requests.status == FINISHED
    chosen[::2] = False
    rows = case.records.requests
    values, weights = inter_token_gaps(case.records, join_ledgers(case.records), chosen)
    decode_s = (rows.finish_s - rows.first_token_s)[chosen].sum()
    assert np.dot(values, weights) == pytest.approx(decode_s, abs=1e-9)


@given(token_runs())
@settings(max_examples=60)
def test_token_times_are_those_counted(case: TokenRun) -> None:
    rows = case.records.requests
    for request_id, expected in enumerate(case.tokens_s):
        times = token_times(case.records, request_id)
        np.testing.assert_allclose(times, expected, atol=1e-12)
        assert times[0] == pytest.approx(rows.first_token_s[request_id], abs=1e-12)
        if rows.status[request_id] == FINISHED:
            assert times[-1] == rows.finish_s[request_id]
            assert len(times) == rows.output_tokens[request_id]


@given(token_runs())
@settings(max_examples=60)
def test_everyone_weighs_what_the_ledger_says(case: TokenRun) -> None:
    """Each decode of each step ends a gap, but for those that gave the first token."""
    _, weights = inter_token_gaps(case.records, join_ledgers(case.records), everyone(case.records))
    decodes = sum(int(each.decode_seqs.sum()) for each in case.records.groups)
    without_gap = sum(is_by_step for is_by_step in case.is_by_step)
    assert weights.sum() == decodes - without_gap


def test_two_sequences_by_hand() -> None:
    """Steps end at 1, 2, 4; A (first token at 0.5) decodes in all, B (at 1.7) in the last two."""
    records = run(
        requests(
            [0.0, 0.0],
            first_token_s=[0.5, 1.7],
            finish_s=[4.0, 4.0],
            output_tokens=[4, 3],
            ledger=0,
            first_decode_step=[0, 1],
            last_decode_step=[3, 3],
        ),
        groups=(group([1.0, 2.0, 4.0], [1, 2, 2]),),
    )
    assert expanded(records, everyone(records)) == pytest.approx([0.3, 0.5, 1.0, 2.0, 2.0])
    assert token_times(records, 0).tolist() == [0.5, 1.0, 2.0, 4.0]
    assert token_times(records, 1).tolist() == [1.7, 2.0, 4.0]
    assert expanded(records, np.array([False, True])) == pytest.approx([0.3, 2.0])


def test_tokens_in_each_second() -> None:
    records = run(
        requests(
            [0.0, 0.0],
            first_token_s=[0.5, 1.5],
            finish_s=[4.0, 4.0],
            output_tokens=[4, 3],
            ledger=0,
            first_decode_step=[0, 1],
            last_decode_step=[3, 3],
        ),
        groups=(group([0.9, 1.8, 4.0], [1, 2, 2]),),
    )
    assert tokens_per_second(records, join_ledgers(records)).tolist() == [
        2,
        3,
        2,
    ]  # seconds 0, 1 and 4


def preempted_run(status: int = FINISHED, **columns: object) -> RunRecords:
    """Steps end at 1..6. A decodes in all; B joins at 1, leaves after step 3, is back for step 6.

    B's tokens: 1 (prompt), 2, 3 | preempted | 5 (recomputed with step 5), 6.
    """
    row = {
        "first_token_s": [0.5, 1.0],
        "finish_s": [6.0, 6.0],
        "output_tokens": [7, 5],
        "ledger": 0,
        "first_decode_step": [0, 5],
        "last_decode_step": [6, 6],
        "num_preemptions": [0, 1],
        "status": [FINISHED, status],
    }
    return run(
        requests([0.0, 0.0], **{**row, **columns}),
        groups=(group([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1, 2, 2, 1, 1, 2], num_preemptions=1),),
        segments=np.array([[1, 0, 1, 3]]),
    )


def test_gaps_of_a_preempted_request() -> None:
    records = preempted_run()
    # B: 1 -> 2 -> 3, two seconds across the preemption, 5 -> 6
    assert expanded(records, np.array([False, True])) == pytest.approx([1.0, 1.0, 1.0, 2.0])
    # A: its first token to 1, and five more steps
    assert expanded(records, everyone(records)) == pytest.approx([0.5] + [1.0] * 8 + [2.0])


def test_token_times_of_a_preempted_request() -> None:
    assert token_times(preempted_run(), 1).tolist() == [1.0, 2.0, 3.0, 5.0, 6.0]
    # A at .5, 1 ... 6; B at 1, 2, 3, 5, 6; in the seconds that begin at 0 ... 6
    assert tokens_per_second(preempted_run(), join_ledgers(preempted_run())).tolist() == [
        1,
        2,
        2,
        2,
        1,
        2,
        2,
    ]


def test_a_live_request_that_waits_after_a_preemption_has_the_tokens_before_it() -> None:
    waiting = preempted_run(LIVE, first_decode_step=[0, 1], last_decode_step=[6, -1])
    assert token_times(waiting, 1).tolist() == [1.0, 2.0, 3.0]


def test_recomputed_while_nobody_decodes_leaves_one_gap() -> None:
    """B alone: steps end at 2 and 9, the recomputed token came between them, unknown when."""
    records = run(
        requests(
            [0.0],
            first_token_s=[1.0],
            finish_s=[9.0],
            output_tokens=[4],
            ledger=0,
            first_decode_step=[1],
            last_decode_step=[2],
            num_preemptions=[1],
        ),
        groups=(group([2.0, 9.0]),),
        segments=np.array([[0, 0, 0, 1]]),
    )
    assert expanded(records, everyone(records)) == pytest.approx([1.0, 7.0])


def test_requests_without_decode_steps() -> None:
    records = run(requests([0.0, 1.0], first_token_s=[1.0, np.nan], status=[FINISHED, LIVE]))
    assert token_times(records, 0).tolist() == [1.0]
    assert token_times(records, 1).tolist() == []
    assert len(expanded(records, everyone(records))) == 0
    assert tokens_per_second(records, join_ledgers(records)).tolist() == [1]


def test_an_empty_run() -> None:
    records = run(requests([]), groups=(), pools=())
    assert len(expanded(records, everyone(records))) == 0
    assert tokens_per_second(records, join_ledgers(records)).tolist() == []


def test_unknown_request_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="request 5: none of the 1 that arrived"):
        token_times(run(requests([0.0])), 5)
