"""Pools, breakdown and the whole summary."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from records_builder import NAN, group, pool, requests, run, steps
from report_cases import in_memory

from simpod.errors import ConfigError
from simpod.metrics import (
    SUMMARY_KEYS,
    measure,
    pool_use,
    step_breakdown,
    summary,
)
from simpod.records.columns import FINISHED, LIVE, REFUSED, STEP_PARTS, RunRecords
from simpod.records.measure import Measure
from simpod.records.slo import Slo

HEADER = {
    "label": "test",
    "backend": "simpod",
    "seed": 0,
    "skipped_trace_rows": 0,
    "policy_notes": ["optimum: a layer may have a better placement"],
    "model_id": "deepseek-r1",
    "num_prompts": 4,
    "request_rate": "inf",
    "burstiness": 1.0,
    "max_concurrency": None,
}


def small_run() -> RunRecords:
    """Prefill and decode, three requests finished and one refused, by hand.

    Decode steps end at 2, 3, 4, 5; request 0 decodes in the first two, 1 in all, 2 in the last.
    """
    return run(
        requests(
            [0.0, 0.5, 1.0, 1.0],
            status=[FINISHED, FINISHED, FINISHED, REFUSED],
            prompt_tokens=[100, 200, 300, 9999],
            output_tokens=[3, 5, 2, 7],
            cached_tokens=[0, 100, 200, 0],
            scheduled_s=[0.0, 0.5, 2.0, NAN],
            prefill_end_s=[1.0, 1.0, 3.0, NAN],
            first_token_s=[1.0, 1.0, 3.0, NAN],
            transfer_start_s=[1.0, 1.0, 3.5, NAN],
            transfer_end_s=[1.5, 1.5, 4.0, NAN],
            finish_s=[3.0, 5.0, 5.0, NAN],
            ledger=[1, 1, 1, -1],
            first_decode_step=[0, 0, 3, -1],
            last_decode_step=[2, 4, 4, -1],
        ),
        groups=(
            group(pool="p", busy_s=2.0, num_steps=2, peak_kv_frac=0.4),
            group([2.0, 3.0, 4.0, 5.0], [2, 2, 1, 2], pool="d", busy_s=3.5, peak_kv_frac=0.6),
        ),
        pools=(
            pool("p", "prefill", num_npus=2.0, num_dies=4),
            pool("d", "decode", num_npus=3.0, num_dies=6, mean_slots_frac=0.5, mean_kv_frac=0.2),
        ),
        steps=steps(
            [
                {"start_s": 0.0, "end_s": 1.0, "prefill_tokens": 200, "parts": {"attention": 1.0}},
                {"start_s": 2.0, "end_s": 3.0, "prefill_tokens": 100, "parts": {"ffn": 1.0}},
                {
                    "group": 1,
                    "num_steps": 2,
                    "start_s": 1.5,
                    "end_s": 3.0,
                    "decode_seqs": 2,
                    "slot_seqs": 3,
                    "parts": {"attention": 0.5, "experts": 1.0},
                },
                {"group": 1, "start_s": 3.0, "end_s": 4.0, "decode_seqs": 1, "parts": {"ffn": 1}},
                {"group": 1, "start_s": 4.0, "end_s": 5.0, "decode_seqs": 2, "parts": {"ffn": 1}},
            ]
        ),
    )


def test_pool_use_by_hand() -> None:
    records = small_run()
    window = measure(records.requests, 0.0, 0.0)
    use = pool_use(records, records.pools[0], window)
    assert use.busy_frac == pytest.approx(2.0 / 5.0)
    assert use.peak_kv_frac == 0.4
    assert pool_use(records, records.pools[1], window).slots_frac == pytest.approx(3 * 1.5 / 5 / 8)


def test_step_breakdown_by_hand() -> None:
    records = small_run()
    window = measure(records.requests, 0.0, 0.0)
    prefill = step_breakdown(records, records.pools[0], window)
    assert (prefill.num_steps, prefill.mean_step_s, prefill.mean_prefill_tokens) == (2, 1.0, 150)
    assert prefill.share_frac["attention"] == prefill.share_frac["ffn"] == 0.5
    assert np.isnan(prefill.mean_decode_step_s)
    decode = step_breakdown(records, records.pools[1], window)
    assert decode.num_steps == 4
    assert decode.mean_decode_step_s == pytest.approx(3.5 / 4)
    assert decode.mean_decode_seqs == pytest.approx(7 / 4)
    assert decode.mean_s["experts"] == pytest.approx(0.25)
    assert sum(decode.mean_s.values()) == pytest.approx(decode.mean_step_s)
    assert sum(decode.share_frac.values()) == pytest.approx(1.0)
    assert tuple(decode.mean_s) == STEP_PARTS


def test_steps_count_while_throughput_does() -> None:
    """Batches fill before the first finish counted, from 4 on, and drain after the last, at 9."""
    like = {"decode_seqs": 4, "slot_seqs": 4, "parts": {"ffn": 9.0}}
    drain = {"decode_seqs": 1, "slot_seqs": 1, "parts": {"ffn": 0.5}}
    rows = [
        {"num_steps": 9, "start_s": 0.0, "end_s": 9.0, **like},
        {"num_steps": 2, "start_s": 9.0, "end_s": 10.0, **drain},
    ]
    records = run(
        requests(np.arange(4.0), finish_s=[6.0, 4.0, 9.0, 10.0]),
        pools=(pool("main", "decode", max_num_seqs=5, mean_slots_frac=0.74),),
        steps=steps(rows),
    )
    window = measure(records.requests, 0.25, 0.25)
    breakdown = step_breakdown(records, records.pools[0], window)
    assert breakdown.num_steps == pytest.approx(5.0)
    assert breakdown.mean_step_s == breakdown.mean_s["ffn"] == pytest.approx(1.0)
    assert breakdown.mean_decode_seqs == pytest.approx(4.0)
    assert pool_use(records, records.pools[0], window).slots_frac == pytest.approx(0.8)


def test_pool_without_steps() -> None:
    records = run(requests([0.0, 1.0]))
    breakdown = step_breakdown(records, records.pools[0], measure(records.requests, 0.0, 0.0))
    assert breakdown.num_steps == 0
    assert np.isnan(breakdown.mean_s["attention"])


def test_summary_by_hand() -> None:
    slo = Slo(ttft_s=1.0, tpot_s=1.0)
    got = summary(
        small_run(), slo=slo, window_rule=Measure(warmup_frac=0, drain_frac=0), metadata=HEADER
    )
    expected = {
        "model_id": "deepseek-r1",
        "arrived": 4,
        "finished": 3,
        "refused": 1,
        "live": 0,
        "measured": 4,
        "duration": 5.0,
        "completed": 3,
        "failed": 1,
        "total_input_tokens": 600,
        "total_output_tokens": 10,
        "request_throughput": 0.6,
        "request_goodput": 0.4,
        "output_throughput": 2.0,
        "total_token_throughput": 122.0,
        "max_output_tokens_per_s": 3,  # in the second from 3 on: two by step 2, one first token
        "max_concurrent_requests": 3,
        "output_throughput_per_npu": 0.4,
        "num_npus": 5.0,
        "slo_attainment": 0.5,  # of four sent: one refused, one late
        "prefix_hit_frac": 0.5,
        "preemptions": 0,
        "num_steps": 6,
        "simulated_s": 5.0,
    }
    assert got["slo_attainment_by_metric"] == {"ttft": 0.5, "tpot": 0.5}
    assert {key: got[key] for key in expected} == pytest.approx(expected)
    assert got["mean_ttft_ms"] == pytest.approx(1000 * (1.0 + 0.5 + 2.0) / 3)
    assert got["median_e2el_ms"] == pytest.approx(4000)
    # gaps: request 0: 1, 1; request 1: 1, 1, 1, 1; request 2: 2
    assert got["mean_itl_ms"] == pytest.approx(1000 * 8 / 7)
    assert got["p99_itl_ms"] == pytest.approx(1000 * np.percentile([1] * 6 + [2], 99))
    assert got["mean_tpot_ms"] == pytest.approx(1000 * (1 + 1 + 2) / 3)


def numbers(value: object) -> Iterator[object]:
    """Every leaf of a JSON value."""
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    else:
        yield value


@pytest.mark.parametrize(
    "records",
    [
        small_run(),
        run(requests([]), groups=(), pools=()),
        run(requests([0.0], status=[LIVE], first_token_s=[NAN]), end_s=3.0),
        run(requests([0.0, 0.0, 0.0])),
    ],
    ids=["small", "empty", "nothing_finished", "burst"],
)
def test_summary_is_json_and_every_key_is_documented(records: RunRecords) -> None:
    got = summary(
        records, slo=Slo(), window_rule=Measure(warmup_frac=0.1, drain_frac=0.1), metadata=HEADER
    )
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert set(got) == set(SUMMARY_KEYS)
    allowed = (int, float, str, bool, type(None))
    assert all(type(leaf) in allowed for leaf in numbers(got))
    assert got["arrived"] == got["finished"] + got["refused"] + got["live"]


def test_every_key_has_one_line() -> None:
    assert all(line and "\n" not in line for line in SUMMARY_KEYS.values())


def test_without_targets_there_is_no_goodput() -> None:
    got = summary(small_run(), slo=Slo(), window_rule=Measure(warmup_frac=0, drain_frac=0))
    assert got["request_goodput"] is None
    assert got["slo_attainment"] is None
    assert got["slo_attainment_by_metric"] == {}


def test_metadata_may_not_hide_a_result() -> None:
    with pytest.raises(ConfigError, match="metadata: completed"):
        summary(small_run(), slo=Slo(), metadata={"completed": 5})


def test_a_prefill_pool_alone_counts_one_token_a_request() -> None:
    records = run(requests([0.0, 1.0], output_tokens=[50, 60]), pools=(pool("p", "prefill"),))
    got = summary(records, slo=Slo())
    assert got["total_output_tokens"] == 2
    assert got["mean_tpot_ms"] is None
    assert got["mean_itl_ms"] is None
    assert got["utilization"]["p"]["output_tokens_per_s_per_npu"] is None
    assert got["utilization"]["p"]["prompt_tokens_per_s_per_npu"] == pytest.approx(100.0)


def test_same_records_same_summary() -> None:
    first, second = (summary(small_run(), slo=Slo(ttft_s=1.0)) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


def test_slots_of_a_whole_run_are_those_that_the_engine_counted() -> None:
    records = in_memory().records
    window = measure(records.requests, 0.0, 0.0)
    lasted_s = records.end_s - records.requests.arrival_s.min()
    for each in records.pools:
        held = pool_use(records, each, window).slots_frac * window.duration_s / lasted_s
        assert held == pytest.approx(each.mean_slots_frac, rel=1e-9)
