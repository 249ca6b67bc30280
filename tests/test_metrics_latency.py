"""Latency columns, TTFT attribution and attainment: by hand, then their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_builder import NAN, requests

from simpod.metrics import (
    TTFT_PARTS,
    attainment_frac,
    e2e_s,
    has_tpot,
    is_good,
    met_by_target,
    produced_tokens,
    tpot_s,
    ttft_parts_s,
    ttft_s,
)
from simpod.records.columns import FINISHED, LIVE, REFUSED
from simpod.records.slo import Slo


def test_columns_by_hand() -> None:
    rows = requests(
        [1.0, 2.0, 3.0],
        first_token_s=[1.5, 4.0, NAN],
        finish_s=[3.5, 4.0, NAN],
        output_tokens=[5, 1, 9],
        ledger=[0, -1, 0],
        status=[FINISHED, FINISHED, LIVE],
    )
    np.testing.assert_array_equal(ttft_s(rows), [0.5, 2.0, NAN])
    np.testing.assert_array_equal(e2e_s(rows), [2.5, 2.0, NAN])
    np.testing.assert_array_equal(tpot_s(rows), [0.5, 0.0, NAN])
    assert has_tpot(rows).tolist() == [True, False, False]


def test_a_prefill_pool_alone_produces_one_token_of_each_request() -> None:
    rows = requests([0.0], output_tokens=[200])
    assert produced_tokens(rows).tolist() == [1]
    assert not has_tpot(rows).any()


def test_attribution_when_the_prefill_pool_gives_the_first_token() -> None:
    rows = requests(
        [1.0],
        scheduled_s=[1.2],
        prefill_end_s=[2.0],
        barrier_wait_s=[0.3],
        first_token_s=[2.0],
        transfer_start_s=[2.5],
        transfer_end_s=[2.6],
        finish_s=[9.0],
    )
    parts = {name: float(part[0]) for name, part in ttft_parts_s(rows).items()}
    expected = dict.fromkeys(TTFT_PARTS, 0.0) | {"queue": 0.2, "prefill": 0.5, "barrier": 0.3}
    assert parts == pytest.approx(expected)


def test_attribution_when_the_decode_pool_gives_the_first_token() -> None:
    rows = requests(
        [1.0],
        scheduled_s=[1.2],
        prefill_end_s=[2.0],
        barrier_wait_s=[0.3],
        transfer_start_s=[2.5],
        transfer_end_s=[2.6],
        first_token_s=[2.9],
        finish_s=[9.0],
    )
    parts = {name: float(part[0]) for name, part in ttft_parts_s(rows).items()}
    assert parts == pytest.approx(
        {
            "router": 0.0,
            "cache_read": 0.0,
            "queue": 0.2,
            "prefill": 0.5,
            "barrier": 0.3,
            "back_pressure": 0.5,
            "transfer": 0.1,
            "first_decode": 0.3,
            "frontend": 0.0,
        }
    )


def test_attribution_of_a_decode_pool_alone_and_of_a_request_without_token() -> None:
    rows = requests(
        [1.0, 1.0],
        scheduled_s=[1.5, NAN],
        prefill_end_s=NAN,
        first_token_s=[1.7, NAN],
        status=[FINISHED, LIVE],
    )
    parts = ttft_parts_s(rows)
    assert parts["queue"][0] == pytest.approx(0.5)
    assert parts["first_decode"][0] == pytest.approx(0.2)
    assert parts["prefill"][0] == 0.0
    assert all(np.isnan(part[1]) for part in parts.values())


lengths = st.floats(0, 1e3)


@given(lengths, lengths, lengths, st.floats(0, 1), st.lists(lengths, min_size=3, max_size=3))
def test_attribution_adds_up(
    arrival: float, queue: float, prefill: float, waited: float, later: list[float]
) -> None:
    prefill_end = arrival + queue + prefill
    start, end = prefill_end + later[0], prefill_end + later[0] + later[1]
    for first in (prefill_end, end + later[2]):
        rows = requests(
            [arrival],
            scheduled_s=[arrival + queue],
            prefill_end_s=[prefill_end],
            barrier_wait_s=[prefill * waited],
            transfer_start_s=[start],
            transfer_end_s=[end],
            first_token_s=[first],
        )
        parts = ttft_parts_s(rows)
        assert sum(part[0] for part in parts.values()) == pytest.approx(first - arrival, abs=1e-9)
        assert all(part[0] >= -1e-9 for part in parts.values())


def test_attainment_counts_what_was_sent() -> None:
    """Met when equal; refused and live requests meet nothing; one token passes any TPOT."""
    rows = requests(
        [0.0] * 5,
        first_token_s=[1.0, 1.0, 3.0, NAN, 1.0],
        finish_s=[2.0, 5.0, 3.0, NAN, NAN],
        output_tokens=[3, 3, 1, 3, 3],
        ledger=[0, 0, -1, -1, 0],
        status=[FINISHED, FINISHED, FINISHED, REFUSED, LIVE],
    )
    slo = Slo(ttft_s=1.0, tpot_s=0.5)
    met = met_by_target(rows, slo)
    assert met["ttft"].tolist() == [True, True, False, False, False]
    assert met["tpot"].tolist() == [True, False, True, False, False]
    assert set(met) == {"ttft", "tpot"}
    assert is_good(rows, slo).tolist() == [True, False, False, False, False]
    everyone = np.ones(5, dtype=bool)
    assert attainment_frac(is_good(rows, slo), everyone) == pytest.approx(0.2)
    assert np.isnan(attainment_frac(everyone, ~everyone))


def test_without_targets_every_finished_request_is_good() -> None:
    rows = requests([0.0, 0.0], status=[FINISHED, REFUSED])
    assert met_by_target(rows, Slo()) == {}
    assert is_good(rows, Slo()).tolist() == [True, False]


def test_e2e_target() -> None:
    rows = requests([0.0, 0.0], finish_s=[4.0, 4.5])
    assert met_by_target(rows, Slo(e2e_s=4.0))["e2e"].tolist() == [True, False]
