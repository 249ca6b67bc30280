"""Public traces, read from outside the project: sizes and figures that others published."""

import os
from pathlib import Path

import numpy as np
import pytest

from simpod.workload import (
    AzureTrace,
    LengthsTrace,
    MooncakeTrace,
    read_trace,
    stats,
    streams,
)
from simpod.workload.traces.lengths import read as read_lengths

TRACES = (
    Path(os.environ.get("SIMPOD_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
    / "traces"
)


def real(name: str) -> str:
    path = TRACES / name
    if not path.is_file():
        pytest.skip(f"no public trace at {path}: set SIMPOD_SHARED to the folder that has traces/")
    return str(path)


@pytest.mark.parametrize(
    ("name", "rows", "hit_frac", "last_s"),
    [("conversation", 12_031, 0.3736, 3536.999), ("synthetic", 3_993, 0.6512, 1022.025)],
)
def test_mooncake(name: str, rows: int, hit_frac: float, last_s: float) -> None:
    trace = MooncakeTrace(path=real(f"mooncake/{name}_trace.jsonl"))
    summary = stats(read_trace(trace, streams(0)("jitter")))
    assert summary["num_requests"] == rows
    assert round(summary["prefix_hit_frac"], 4) == hit_frac
    assert summary["duration_s"] == pytest.approx(last_s)
    assert summary["named_frac"] == 1.0


def test_mooncake_conversation_with_jitter_is_smooth() -> None:
    path = real("mooncake/conversation_trace.jsonl")
    recorded = read_trace(MooncakeTrace(path=path), streams(0)("jitter"))
    spread = read_trace(MooncakeTrace(path=path, jitter_s=3.0), streams(0)("jitter"))
    assert len(np.unique(recorded.arrival_s)) == 1180
    assert stats(recorded)["interarrival_cv"] > 2.5
    assert stats(spread)["interarrival_cv"] == pytest.approx(1.0, abs=0.05)  # as good as Poisson
    assert stats(spread)["prefix_hit_frac"] == stats(recorded)["prefix_hit_frac"]


@pytest.mark.parametrize(
    ("name", "rows", "prompt", "output"),
    [("conv", 19_366, 1154.70, 211.13), ("code", 8_819, 2047.85, 27.88)],
)
def test_azure(name: str, rows: int, prompt: float, output: float) -> None:
    trace = AzureTrace(path=real(f"azure2023/AzureLLMInferenceTrace_{name}.csv"))
    requests = read_trace(trace, streams(0)("jitter"))
    summary = stats(requests)
    assert summary["num_requests"] == rows
    assert requests.arrival_s[0] == 0
    assert 3400 < summary["duration_s"] < 3600
    assert summary["prompt_tokens"]["mean"] == pytest.approx(prompt, abs=0.005)
    assert summary["output_tokens"]["mean"] == pytest.approx(output, abs=0.005)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("etalon/sharegpt_8k_filtered_stats_llama2_tokenizer.csv", 30_731),
        ("etalon/bwb_stats_llama2_tokenizer_filtered_v2.csv", 33_768),
        ("vidur/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv", 28_257),
    ],
)
def test_lengths(name: str, rows: int) -> None:
    recorded = read_lengths(LengthsTrace(path=real(name)))
    assert len(recorded.lines) == rows
    assert recorded.prompt_tokens.min() >= 1
