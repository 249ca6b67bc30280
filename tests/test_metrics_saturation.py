"""The nearest limit: by hand on linear step times, and against the departures under overload."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_cases import LinearPricer, at, chained, simulate
from hypothesis import given
from hypothesis import strategies as st
from records_builder import group, pool, requests, run, steps

from simpod.config import load_experiment
from simpod.metrics import Saturation, measure, saturation, stationarity
from simpod.metrics.saturation import covered_s
from simpod.records.columns import RunRecords
from simpod.run import run as run_experiment


def saturated(records: RunRecords, trim: float = 0.0, **options: Any) -> Saturation:
    window = measure(records.requests, trim, trim)
    return saturation(records, window, stationarity(records, window), **options)


intervals = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 10)), max_size=15
)


@given(intervals)
def test_covered_time_against_counting(parts: list[tuple[int, int, int]]) -> None:
    cells = {(lane, t) for lane, start, length in parts for t in range(start, start + length)}
    lane, start, length = (np.array([part[i] for part in parts], dtype=int) for i in range(3))
    assert covered_s(lane, start.astype(float), (start + length).astype(float)) == len(cells)


def decode_steps(*step_s: float) -> RunRecords:
    """Runs of 1, 2, 3, ... sequences over 10 s: 20 requests, one slot of four in use on average."""
    rows = [
        {"start_s": float(i), "end_s": i + 4 * length, "num_steps": 4, "decode_seqs": i + 1}
        for i, length in enumerate(step_s)
    ]
    return run(
        requests(np.linspace(0, 9, 20)),
        steps=steps(rows),
        groups=(group(pool="d"),),
        pools=(pool("d", "decode", mean_slots_frac=0.25, mean_kv_frac=0.1),),
    )


def test_the_rate_that_fills_the_slots_by_hand() -> None:
    """Steps of 0.1 s + 0.02 s a sequence: 1, 2, 3 sequences in 4 steps of each.

    20 requests take 4 x (1 + 2 + 3) = 24 places in steps, 1.2 each: m = 0.024 s. They see steps of
    (0.12 + 2 x 0.14 + 3 x 0.16) / 6 = 0.14667 s and hold 0.25 x 10 s / 20 = 0.125 of all slots for
    a second, q = 0.85227 steps. So 1 / (0.85227 x 0.1 + 0.024) = 9.155 requests/s.
    """
    limit = saturated(decode_steps(0.12, 0.14, 0.16))
    assert (limit.pool, limit.resource, limit.capacity_kind) == ("d", "slots", "estimate")
    assert limit.capacity_rate_per_s == pytest.approx(1 / (0.125 / (0.88 / 6) * 0.1 + 0.024))
    assert limit.offered_rate_per_s == pytest.approx(20 / 9)
    assert limit.load_frac == pytest.approx(20 / 9 / 9.155, rel=1e-3)
    assert limit.used_frac == 0.25


def test_steps_that_are_all_alike_only_bound_the_rate() -> None:
    """One sequence in each step of 0.1 s, 4 steps for 20 requests: all of it may be its own."""
    limit = saturated(decode_steps(0.1))
    assert limit.capacity_kind == "lower_bound"
    assert limit.capacity_rate_per_s == pytest.approx(20 / 0.4)


def test_no_steps_no_limit() -> None:
    limit = saturated(run(requests([0.0, 1.0])))
    assert (limit.pool, limit.resource, limit.capacity_kind) == (None, None, None)
    assert np.isnan(limit.load_frac)


def test_a_closed_loop_has_a_fullest_resource_and_no_capacity() -> None:
    limit = saturated(decode_steps(0.12, 0.14), is_closed_loop=True)
    assert (limit.pool, limit.resource, limit.used_frac) == ("d", "slots", 0.25)
    assert limit.capacity_kind is None
    assert np.isnan([limit.load_frac, limit.capacity_rate_per_s, limit.offered_rate_per_s]).all()


def test_a_burst_has_none_either() -> None:
    limit = saturated(run(requests([0.0, 0.0, 0.0]), pools=(pool(mean_kv_frac=1.5),)))
    assert (limit.resource, limit.capacity_kind) == ("kv", None)


def test_prefill_counts_the_time_in_which_a_rank_has_a_prompt() -> None:
    """Two ranks with a prompt half of the time each; one step seen, of one prompt's tokens."""
    records = run(
        requests(
            np.arange(5.0), prefill_end_s=np.arange(5.0) + 0.5, prefill_target=[0, 1, 0, 1, 0]
        ),
        pools=(pool("main", "prefill", ranks=2),),
        steps=steps([{"start_s": i, "end_s": i + 0.5, "prefill_tokens": 100} for i in range(5)]),
    )
    limit = saturated(records)
    assert (limit.resource, limit.capacity_kind, limit.used_frac) == (
        "prefill",
        "lower_bound",
        0.25,
    )
    # 1.25 requests/s at a quarter: 5; the steps' time would bound it by 2 only
    assert limit.capacity_rate_per_s == pytest.approx(5.0)


def test_under_a_backlog_the_departures_are_the_capacity() -> None:
    number = 1000
    start = np.arange(number, dtype=float)
    records = run(requests(start / 2.0, scheduled_s=start, finish_s=start + 1))
    limit = saturated(records, trim=0.1)
    assert limit.capacity_kind == "measured"
    assert limit.load_frac == pytest.approx(2.0, rel=0.01)
    assert limit.capacity_rate_per_s == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_linear_engine_against_its_departures_under_overload(share: float) -> None:
    """8 slots; steps of 10 ms + 2 ms a sequence + 0.1 ms a prompt token; 100 in, 20 out.

    Filled, a step has 8 sequences and 0.4 prompts: 10 + 16 + 4 ms, so 0.4 / 30 ms = 13.3/s at most.
    """
    pricer = LinearPricer(base_s=0.01, s_per_decode=0.002, s_per_prompt_token=1e-4)

    def served(rate: float) -> Saturation:
        arrivals = np.cumsum(np.random.default_rng(5).exponential(1 / rate, 600))
        records = simulate(at(arrivals, 100, 20), pricer, max_num_seqs=8, max_step_tokens=400)
        return saturated(records, trim=0.1)

    overload = served(40.0)
    assert overload.capacity_kind == "measured"
    assert overload.capacity_rate_per_s == pytest.approx(13.3, rel=0.1)
    limit = served(share * overload.capacity_rate_per_s)
    assert (limit.resource, limit.capacity_kind) == ("slots", "estimate")
    assert limit.capacity_rate_per_s == pytest.approx(overload.capacity_rate_per_s, rel=0.1)


def shipped(name: str, rate_per_s: float, *changes: str) -> dict[str, Any]:
    """Saturation of a shipped experiment at another rate."""
    changes = (f"workload.arrivals.rate_per_s={rate_per_s}", *changes)
    limit: dict[str, Any] = run_experiment(load_experiment(name, changes)).summary["saturation"]
    return limit


def errors(
    name: str, overload_per_s: float, *rates_per_s: float, num_requests: int = 3000
) -> list[tuple[str, str, float]]:
    """Kind, resource, and capacity against the departures under overload, 1 too high, at rates."""
    many = f"workload.num_requests={num_requests}"
    overload = shipped(name, overload_per_s, many)
    assert overload["capacity_kind"] == "measured"
    limits = [shipped(name, rate, many) for rate in rates_per_s]
    assert all(0 < limit["load_frac"] < 1 for limit in limits)
    true = overload["capacity_rate_per_s"]
    return [
        (each["capacity_kind"], each["resource"], each["capacity_rate_per_s"] / true - 1)
        for each in limits
    ]


def test_quickstart_is_bounded_by_its_prefill_pool() -> None:
    for kind, resource, error in errors("quickstart", 120, 10, 34, num_requests=5000):
        assert (kind, resource) == ("lower_bound", "prefill")
        assert -0.21 < error < 0.08


def test_quickstart_ends_in_a_steady_state() -> None:
    got = run_experiment(load_experiment("quickstart")).summary
    assert (got["stationarity"]["verdict"], got["finished"]) == ("STABLE", 6000)


def test_chunked_prefill_on_two_servers_is_estimated() -> None:
    """18 % too high at a tenth of the load, 13 % too low at half of it."""
    for kind, resource, error in errors("llama70b-h100-colocated", 60, 3, 14, 20):
        assert (kind, resource) == ("estimate", "slots")
        assert abs(error) < 0.2


def test_chunked_prefill_on_one_gpu_is_estimated(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(ONE_GPU, encoding="utf-8")
    for kind, resource, error in errors(str(path), 150, 5, 40):
        assert (kind, resource) == ("estimate", "slots")
        assert abs(error) < 0.1


ONE_GPU = """\
model: llama-3.1-8b
hardware: h100
workload:
  arrivals: {process: poisson, rate_per_s: 20}
  prompt_tokens: {distribution: lognormal, mean: 500, cv: 1.0, max: 4096}
  output_tokens: {distribution: lognormal, mean: 200, cv: 0.8, max: 2048}
  num_requests: 2500
deployment:
  server: {role: mixed, dies: 1, max_num_seqs: 256, max_step_tokens: 2048}
"""


def test_peak_decode_offers_no_rate() -> None:
    few = ("workload.num_requests=3000", "workload.arrivals.concurrency=1000")
    got = run_experiment(load_experiment("cloudmatrix384-deepseek-r1-peak-decode", few)).summary
    limit = got["saturation"]
    assert (limit["pool"], limit["resource"]) == ("decode", "slots")
    unknown = ("capacity_kind", "capacity_rate_per_s", "load_frac", "offered_rate_per_s")
    assert all(limit[key] is None for key in unknown)


def test_shares_in_use_stay_within_one_when_blocks_run_out() -> None:
    records = simulate(
        at(np.zeros(30), 20, 40), LinearPricer(), kv_blocks=200, max_num_seqs=16, max_step_tokens=64
    )
    assert sum(each.num_preemptions for each in records.groups) > 0
    check_shares(records)


def test_shares_in_use_stay_within_one_with_shared_prefixes() -> None:
    """Forty requests hold one prefix of 80 tokens of a pool of 200: it is counted once."""
    names = chained(*([[1, 2, 3, 4, 5]] * 40), block_tokens=16)
    records = simulate(
        at(np.arange(40) * 0.5, 85, 10, **names),
        LinearPricer(),
        kv_blocks=13,
        block_tokens=16,
        max_num_seqs=8,
        prefix_caching=True,
    )
    assert records.requests.cached_tokens.sum() > 0
    check_shares(records)


def check_shares(records: RunRecords) -> None:
    for each in records.pools:
        assert 0 < each.mean_slots_frac <= 1
        assert 0 < each.mean_kv_frac <= 1
    assert all(0 < each.peak_kv_frac <= 1 for each in records.groups)
    assert 0 < saturated(records).used_frac <= 1
