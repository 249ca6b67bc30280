"""The product itself: what it refuses, how it is described, written and read again."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from simpod.errors import ConfigError
from simpod.workload import (
    ClosedLoopArrivals,
    ConstantLengths,
    ExponentialThink,
    GammaArrivals,
    GeometricLengths,
    LognormalLengths,
    MooncakeTrace,
    PoissonArrivals,
    Requests,
    SessionsSpec,
    SharedPrefixSpec,
    WorkloadSpec,
    build,
    make_requests,
    read_trace,
    stats,
    streams,
    write_mooncake,
)

COLUMNS = (
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "after",
    "think_s",
    "session_id",
    "hash_offsets",
    "hash_ids",
)


def test_one_number_stands_for_a_column() -> None:
    requests = make_requests([0.0, 1.5], 100, 7)
    assert len(requests) == 2
    assert requests.prompt_tokens.tolist() == [100, 100]
    assert requests.after.tolist() == [-1, -1]
    assert requests.prefix_ids(1).tolist() == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt_tokens": [1, 0, 1]}, "request 1: prompt_tokens 0; allowed: >= 1"),
        ({"output_tokens": [1, 1, -3]}, "request 2: output_tokens -3; allowed: >= 1"),
        ({"arrival_s": [0, 2, 1]}, "arrival_s descends"),
        ({"arrival_s": [-1, 2, 3]}, "negative or infinite"),
        ({"arrival_s": [0, 1, math.inf]}, "negative or infinite"),
        ({"arrival_s": [0, math.nan, 3]}, "request 1: arrival_s must be NaN exactly where"),
        ({"after": np.array([-1, 0, -1])}, "request 1: arrival_s must be NaN exactly where"),
        ({"after": np.array([0, -1, -1])}, "request 0: after 0; allowed: -1, or an earlier"),
        ({"after": np.array([-1, -2, -1])}, "request 1: after -2"),
        ({"concurrency": 0, "arrival_s": math.nan}, "concurrency must be >= 1"),
        ({"think_s": np.array([0, math.nan, 0])}, "think_s holds"),
        ({"session_id": np.zeros(2, dtype=np.int64)}, "session_id has 2 values; allowed: 3"),
        ({"hash_offsets": np.zeros(3, dtype=np.int64)}, "hash_offsets has 3 values; allowed: 4"),
        ({"hash_offsets": np.array([0, 1, 1, 1])}, "hash_offsets must ascend from 0"),
        (
            {"hash_offsets": np.array([0, 1, 1, 1]), "hash_ids": np.array([4])},
            "hash_block_tokens 0; allowed: >= 1",
        ),
    ],
)
def test_impossible_requests_are_refused(columns, message: str) -> None:
    base = {"arrival_s": [0.0, 1.0, 2.0], "prompt_tokens": [1, 1, 1], "output_tokens": [1, 1, 1]}
    with pytest.raises(ConfigError, match=message):
        make_requests(**(base | columns))


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        make_requests([1.0, 0.0], [0, 1], [1, 0])
    assert len(error.value.problems) == 3


def test_stats_by_hand() -> None:
    requests = make_requests(
        [0, 10, 20, 60, 70],
        [10, 20, 30, 40, 50],
        [1, 1, 1, 1, 6],
        session_id=np.array([0, -1, 0, 1, 0]),
        hash_offsets=np.array([0, 2, 4, 5, 9, 10]),
        hash_ids=np.array([1, 2, 1, 3, 7, 1, 3, 4, 5, 1]),
        hash_block_tokens=8,
        skipped_rows=3,
    )
    summary = stats(requests)
    assert summary["num_requests"] == 5
    assert summary["skipped_rows"] == 3
    assert summary["duration_s"] == 70
    assert summary["mean_rate_per_s"] == 4 / 70
    assert summary["peak_requests_per_minute"] == 3  # 0 <= t < 60
    gaps = np.array([10, 10, 40, 10])
    assert summary["interarrival_cv"] == pytest.approx(gaps.std() / gaps.mean())
    assert summary["prompt_tokens"] == {
        "mean": 30,
        "p50": 30,
        "p90": 46,
        "p99": 49.6,
        "max": 50,
        "total": 150,
    }
    assert summary["output_tokens"]["total"] == 10
    assert summary["num_sessions"] == 2
    assert summary["mean_turns"] == 2
    assert summary["prefix_hit_frac"] == (0 + 8 + 0 + 16 + 8) / 150
    assert summary["named_frac"] == (10 + 16 + 8 + 32 + 8) / 150
    assert json.loads(json.dumps(summary)) == summary


def test_stats_of_a_closed_loop_have_no_times() -> None:
    summary = stats(make_requests(math.nan, [5, 5], 1, concurrency=1))
    assert summary["duration_s"] is None
    assert summary["mean_rate_per_s"] is None
    assert summary["peak_requests_per_minute"] is None
    assert summary["concurrency"] == 1


def test_hit_of_a_partly_filled_block_is_at_most_the_prompt() -> None:
    requests = make_requests(
        [0, 1],
        [700, 700],
        1,
        hash_offsets=np.array([0, 2, 4]),
        hash_ids=np.array([1, 2, 1, 2]),
        hash_block_tokens=512,
    )
    assert stats(requests)["prefix_hit_frac"] == 0.5


def workloads() -> dict[str, Requests]:
    base = {
        "arrivals": GammaArrivals(rate_per_s=3, cv=2),
        "prompt_tokens": LognormalLengths(mean=300, cv=1),
        "output_tokens": LognormalLengths(mean=100, cv=1),
        "num_requests": 300,
    }
    sessions = SessionsSpec(turns=GeometricLengths(mean=3), think_s=ExponentialThink(mean_s=4))
    prefix = SharedPrefixSpec(num_prefixes=3, tokens=100, share_frac=0.7)
    return {
        "plain": build(WorkloadSpec(**base), streams(0)),
        "prefix": build(WorkloadSpec(**base, shared_prefix=prefix), streams(0)),
        "sessions": build(WorkloadSpec(**base, sessions=sessions), streams(0)),
        "both": build(WorkloadSpec(**base, sessions=sessions, shared_prefix=prefix), streams(0)),
    }


@pytest.mark.parametrize("name", ["plain", "prefix", "sessions", "both"])
def test_mooncake_round_trip_loses_nothing(tmp_path: Path, name: str) -> None:
    requests = workloads()[name]
    path = tmp_path / "out.jsonl"
    write_mooncake(requests, path)
    spec = MooncakeTrace(path=str(path), hash_block_tokens=16)
    again = read_trace(spec, streams(0)("jitter"))
    for column in COLUMNS:
        got, wanted = getattr(again, column), getattr(requests, column)
        if column in ("arrival_s", "think_s"):
            np.testing.assert_allclose(got, wanted, rtol=1e-14)
        else:
            np.testing.assert_array_equal(got, wanted)
    assert again.hash_block_tokens == requests.hash_block_tokens
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]  # no partial file left


def test_mooncake_rows_are_as_others_write_them(tmp_path: Path) -> None:
    write_mooncake(make_requests([0.0, 1.25, 1.2505], 9, 3), tmp_path / "t")
    rows = (tmp_path / "t").read_text().splitlines()
    assert rows[1] == '{"timestamp": 1250, "input_length": 9, "output_length": 3}'
    assert json.loads(rows[2])["timestamp"] == 1250.5


def test_closed_loop_cannot_be_written(tmp_path: Path) -> None:
    spec = WorkloadSpec(
        arrivals=ClosedLoopArrivals(concurrency=2),
        prompt_tokens=ConstantLengths(value=1),
        output_tokens=ConstantLengths(value=1),
        num_requests=3,
    )
    with pytest.raises(ConfigError, match="closed_loop requests have no arrival times"):
        write_mooncake(build(spec, streams(0)), tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_a_tree_of_requests_cannot_be_written(tmp_path: Path) -> None:
    nan = math.nan
    fork = make_requests(
        [0, nan, nan], 1, 1, after=np.array([-1, 0, 0]), session_id=np.array([0, 0, 0])
    )
    with pytest.raises(ConfigError, match="request 2 waits for request 0, which is not the one"):
        write_mooncake(fork, tmp_path / "t")


def test_unwritable_path_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    requests = make_requests([0.0], 1, 1)
    with pytest.raises(ConfigError, match="cannot be written: No such file or directory"):
        write_mooncake(requests, tmp_path / "none" / "t")
    (tmp_path / "t").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_mooncake(requests, tmp_path / "t")
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


def test_a_million_requests_last_as_long_as_their_rate_says() -> None:
    spec = WorkloadSpec(
        arrivals=PoissonArrivals(rate_per_s=100),
        prompt_tokens=LognormalLengths(mean=13_000, cv=1.2, max=65_536),
        output_tokens=LognormalLengths(mean=2_100, cv=1.0),
        num_requests=1_000_000,
    )
    requests = build(spec, streams(0))
    assert len(requests) == 1_000_000
    assert requests.arrival_s[-1] == pytest.approx(10_000, rel=0.005)
