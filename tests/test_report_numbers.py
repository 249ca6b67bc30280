"""The numbers behind the pictures: curves, knees, frontiers, shares, series, intervals."""

import numpy as np
import pandas as pd
import pytest
from report_cases import apart, curve, in_memory, together

from simpod.errors import ConfigError
from simpod.metrics.attribution import TTFT_PARTS
from simpod.metrics.interval import batch_interval, mean_interval, t_quantile
from simpod.records.columns import STEP_PARTS
from simpod.report.curves import by_rate, frontier, knee_rate_per_s
from simpod.report.series import count_between, timeline_of
from simpod.report.shares import DECODE, PARTS, mean_and_tail, request_parts, step_shares
from simpod.report.sources import requests_of, result_of, runs_of, varied_keys
from simpod.report.style import STEP_COLOURS, TTFT_COLOURS


@pytest.mark.parametrize(("degrees", "value"), [(1, 12.706), (2, 4.303), (4, 2.776), (30, 2.042)])
def test_t_quantiles_are_those_of_the_tables(degrees: int, value: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(value, abs=5e-4)


def test_mean_interval_by_hand() -> None:
    around = mean_interval(np.array([1.0, 2.0, 3.0]))  # standard error 1 / sqrt(3)
    assert around.mean == 2.0
    assert around.half == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    assert np.isnan(mean_interval(np.array([5.0])).low)


def test_batch_means_see_what_neighbours_share() -> None:
    rng = np.random.default_rng(0)
    independent = rng.normal(size=4000)
    slow = np.repeat(rng.normal(size=100), 40)  # the same values forty times: 100 pieces of news
    assert batch_interval(independent).half < 0.06
    assert batch_interval(slow).half > 0.12


@pytest.mark.parametrize(
    ("attainments", "knee"),
    [
        ([1.0, 0.95, 0.85], 25.0),  # halfway between 20 and 30
        ([1.0, 1.0, 1.0], 30.0),
        ([0.5, 1.0, 1.0], None),  # it must hold from the lowest rate on
        ([0.9, 0.4, 0.95], 10.0),
    ],
)
def test_knee(attainments: list[float], knee: float | None) -> None:
    found = knee_rate_per_s([10, 20, 30], attainments, 0.9)
    assert found == (None if knee is None else pytest.approx(knee))


def test_frontier_is_what_no_point_beats() -> None:
    x, y = [1, 2, 3, 2, 3], [5, 4, 1, 3, 1]
    assert frontier(x, y) == [0, 1, 2]


def test_by_rate_takes_seeds_together() -> None:
    rows = pd.DataFrame(
        {"variant": "a", "rate_per_s": [1, 1, 2], "seed": [0, 1, 0], "m": [1.0, 3.0, 7.0]}
    )
    table = by_rate(rows, "m")
    assert table["mean"].tolist() == [2.0, 7.0]
    assert table["low"].tolist()[1] == 7.0  # one seed: no band
    assert table["high"][0] - 2.0 == pytest.approx(12.706 * 1.0, rel=1e-4)


def test_runs_of_results_are_tidy() -> None:
    runs = runs_of(curve())
    assert len(runs) == 6
    assert set(runs["variant"]) == {"together"}
    assert sorted(runs["rate_per_s"].unique()) == [2.0, 20.0, 200.0]
    assert "utilization.server.busy_frac" in runs


def test_variants_of_a_sweep_are_what_was_varied_beside_the_load(tmp_path) -> None:
    rows = [
        {"run_id": "1f", "seed": s, "workload.arrivals.rate_per_s": r, "policies.batching.use": p,
         "status": "ok", "error": None, "request_rate": r, "slo_attainment": 1.0}
        for s in (0, 1) for r in (1.0, 2.0) for p in ("fcfs", "edf")
    ]  # fmt: skip
    rows.append({**rows[0], "status": "failed", "slo_attainment": None})
    pd.DataFrame(rows).to_parquet(tmp_path / "runs.parquet")
    runs = runs_of([tmp_path])
    assert len(runs) == 8
    assert set(runs["variant"]) == {"batching=fcfs", "batching=edf"}
    assert varied_keys(runs) == ["workload.arrivals.rate_per_s", "policies.batching.use"]


def test_parts_of_requests_add_up() -> None:
    rows = requests_of(apart())
    parts = request_parts(rows)
    assert np.allclose(parts[list(TTFT_PARTS)].sum(axis=1), rows["ttft_s"])
    assert np.allclose(parts.sum(axis=1), rows["e2e_s"])
    table = mean_and_tail(rows, "e2e_s")
    assert list(table.index) == list(PARTS)
    assert table["mean"].sum() == pytest.approx(rows["e2e_s"].mean())
    slowest = rows[rows["e2e_s"] >= rows["e2e_s"].quantile(0.99)]
    assert table["slowest 1 %"].sum() == pytest.approx(slowest["e2e_s"].mean())


def test_steps_add_up_to_the_time_in_steps() -> None:
    steps = result_of(apart()).steps
    table = step_shares(steps)
    for pool in ("prefill", "decode"):
        rows = steps[steps["pool"] == pool]
        took_s = (rows["end_s"] - rows["start_s"]).sum()
        assert table[pool].sum() * rows["num_steps"].sum() == pytest.approx(took_s)


def test_every_part_has_a_colour() -> None:
    assert set(TTFT_COLOURS) == set(TTFT_PARTS)
    assert list(STEP_COLOURS) == list(STEP_PARTS)
    assert DECODE not in TTFT_COLOURS


def test_counts_of_spans() -> None:
    at_s = np.array([0.0, 1.0, 1.5, 2.0, 9.0])
    starts, ends = [0.5, 1.0, np.nan, 1.0], [2.0, 1.5, 3.0, np.nan]
    assert count_between(starts, ends, at_s).tolist() == [0, 3, 2, 1, 1]


@pytest.mark.parametrize("folder", [apart, together])
def test_the_timeline_holds_every_request_and_byte(folder) -> None:
    """Little's law: the area under the counts is the time that requests spent there."""
    result = result_of(folder())
    series = timeline_of(result, num_points=4000)
    step_s = series.time_s[1] - series.time_s[0]
    rows = result.requests
    assert series.arrivals_per_s.sum() * step_s == pytest.approx(len(rows))
    waited_s = (rows["scheduled_s"] - rows["arrival_s"]).sum()
    area = series.waiting["for a first step"].sum() * step_s
    assert area == pytest.approx(waited_s, rel=0.05, abs=0.3)
    sent = series.transfer_bytes_per_s.sum() * step_s
    assert sent == pytest.approx(result.transfers["size_bytes"].sum())
    last = {"apart": "decode"}.get(result.summary["label"], "server")
    start = rows["transfer_end_s"].fillna(rows["scheduled_s"])
    ran_s = (rows["finish_s"] - start).clip(lower=0).sum()
    assert series.running[last].sum() * step_s == pytest.approx(ran_s, rel=0.05)
    assert 0 < series.kv_frac[last].max() <= 1


def test_what_is_no_source_is_said() -> None:
    with pytest.raises(ConfigError, match="a result folder is needed"):
        result_of(42)
    with pytest.raises(ConfigError, match="no result is given"):
        runs_of([])


def test_a_result_in_memory_is_the_one_of_its_files() -> None:
    """The same tables and figures, without a folder between."""
    made, files = result_of(in_memory()), result_of(apart())
    for name in ("requests", "steps", "transfers"):
        pd.testing.assert_frame_equal(getattr(made, name), getattr(files, name))
    assert runs_of([in_memory()])["mean_ttft_ms"].tolist() == [files.summary["mean_ttft_ms"]]
