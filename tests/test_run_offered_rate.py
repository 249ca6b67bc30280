"""`request_rate` and `burstiness` of the summary: what was asked for, as in `vllm bench serve`."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runs import tiny

from simpod.config import load_experiment
from simpod.metrics import SUMMARY_KEYS
from simpod.run import run


def noted(path: Path, *changes: str) -> tuple[Any, Any]:
    summary = run(load_experiment(str(path), changes)).summary
    return summary["request_rate"], summary["burstiness"]


@pytest.mark.parametrize(
    ("arrivals", "rate", "burstiness"),
    [
        ("{process: poisson, rate_per_s: 4}", 4.0, 1.0),
        ("{process: gamma, rate_per_s: 5, cv: 2.0}", 5.0, 0.25),
        ("{process: constant, rate_per_s: 6}", 6.0, None),
        ("{process: weibull, rate_per_s: 7, cv: 2.0}", 7.0, None),
        ("{process: diurnal, rate_per_s: 8, amplitude_frac: 0.5}", 8.0, None),
        # 10/s for 1 s, nothing for 3 s
        (
            "{process: mmpp, states: [{rate_per_s: 10, mean_dwell_s: 1},"
            " {rate_per_s: 0, mean_dwell_s: 3}]}",
            2.5,
            None,
        ),
        ("{process: burst}", "inf", None),
        ("{process: closed_loop, concurrency: 3}", None, None),
    ],
)
def test_of_each_arrival_process(
    tmp_path: Path, arrivals: str, rate: object, burstiness: float | None
) -> None:
    path = tiny(tmp_path, ("{process: poisson, rate_per_s: 4}", arrivals))
    assert noted(path) == (rate, burstiness)


def test_of_a_trace_is_the_mean_rate_that_it_has(tmp_path: Path) -> None:
    """Gaps of 1, 3 and 8 s, replayed at twice the speed: 3 gaps in 6 s."""
    rows = [
        {"timestamp": 1000 * at_s, "input_length": 40, "output_length": 5, "hash_ids": [at_s]}
        for at_s in (0, 1, 4, 12)
    ]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = tiny(tmp_path).read_text(encoding="utf-8")
    head, rest = text.split("workload:\n")
    deployment = rest[rest.index("deployment:") :]
    trace = "  trace: {format: mooncake, path: trace.jsonl, rate_scale: 2.0}\n"
    path = tmp_path / "replayed.yaml"
    path.write_text(f"{head}workload:\n{trace}{deployment}", encoding="utf-8")
    assert noted(path) == (0.5, None)


def test_every_documented_key_of_the_summary_is_there(tmp_path: Path) -> None:
    usual = SUMMARY_KEYS.keys() - {"policy_notes"}
    assert run(load_experiment(str(tiny(tmp_path)))).summary.keys() == usual
