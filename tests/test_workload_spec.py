"""`workload:` as YAML gives it: choices by tag, combination rules that name the keys."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from simpod.config.described import described_schema
from simpod.workload import (
    GammaArrivals,
    LognormalLengths,
    MooncakeTrace,
    WindowSpec,
    WorkloadSpec,
    build,
    read_trace,
    stats,
    streams,
)

ADAPTER = TypeAdapter(WorkloadSpec)
SHIPPED = Path(__file__).parent.parent / "workloads"

POISSON = {"process": "poisson", "rate_per_s": 1}
ONE = {"distribution": "constant", "value": 1}
PLAIN: dict[str, Any] = {
    "arrivals": POISSON,
    "prompt_tokens": ONE,
    "output_tokens": ONE,
    "num_requests": 3,
}
TRACE = {"format": "mooncake", "path": "t.jsonl"}
LENGTHS = {"format": "lengths", "path": "t.csv"}
COLUMNS = {"format": "columns", "path": "t.csv", "prompt_tokens": "p", "output_tokens": "o"}
SESSIONS = {
    "turns": ONE,
    "think_s": {"distribution": "constant", "mean_s": 1},
}


def errors(document: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as error:
        ADAPTER.validate_python(document)
    return [(".".join(map(str, e["loc"])), e["msg"]) for e in error.value.errors()]


def test_design_example() -> None:
    spec = ADAPTER.validate_python(
        {
            "arrivals": {"process": "gamma", "rate_per_s": 120, "cv": 2.0},
            "prompt_tokens": {"distribution": "lognormal", "mean": 13000, "cv": 1.2, "max": 65536},
            "output_tokens": {"distribution": "lognormal", "mean": 2100, "cv": 1.0},
            "num_requests": 20000,
        }
    )
    assert spec.arrivals == GammaArrivals(rate_per_s=120, cv=2.0)
    assert spec.prompt_tokens == LognormalLengths(mean=13000, cv=1.2, max=65536)


def test_trace_example() -> None:
    spec = ADAPTER.validate_python(
        {"trace": TRACE | {"rate_scale": 2.0, "window": {"start_s": 5}, "jitter_s": 3}}
    )
    assert spec.trace == MooncakeTrace(
        path="t.jsonl", rate_scale=2.0, window=WindowSpec(start_s=5), jitter_s=3
    )


@pytest.mark.parametrize(
    ("document", "where", "what"),
    [
        (PLAIN | {"arrivals": {"process": "poison"}}, "arrivals", "'poison' found using 'process'"),
        (PLAIN | {"arrivals": {"rate_per_s": 1}}, "arrivals", "discriminator 'process'"),
        (
            PLAIN | {"arrivals": POISSON | {"rate_per_s": -1}},
            "arrivals.poisson.rate_per_s",
            "greater than 0",
        ),
        (PLAIN | {"arrivals": POISSON | {"cv": 1}}, "arrivals.poisson.cv", "Unexpected keyword"),
        (
            PLAIN | {"prompt_tokens": {"distribution": "zipf", "exponent": float("nan"), "max": 9}},
            "prompt_tokens.zipf.exponent",
            "finite number",
        ),
        (
            {"trace": TRACE | {"format": "moon"}},
            "trace",
            "'moon' found using 'format' does not match any of the expected tags: 'mooncake'",
        ),
        ({"trace": TRACE | {"time_unit": "min"}}, "trace.mooncake.time_unit", "'ns', 'us', 'ms'"),
        (
            {"trace": TRACE | {"window": {"start_s": 9, "end_s": 9}}},
            "trace.mooncake.window",
            "window end_s 9 is not after start_s 9; allowed: start_s < end_s",
        ),
        (
            PLAIN | {"arrivals": {"process": "weibull", "rate_per_s": 1}},
            "arrivals.weibull",
            "exactly one of shape, cv (got neither)",
        ),
        (
            PLAIN | {"arrivals": {"process": "weibull", "rate_per_s": 1, "cv": 1, "shape": 1}},
            "arrivals.weibull",
            "exactly one of shape, cv (got both)",
        ),
        (
            PLAIN
            | {
                "arrivals": {
                    "process": "mmpp",
                    "states": [{"rate_per_s": 0, "mean_dwell_s": 1}] * 2,
                }
            },
            "arrivals.mmpp",
            "every state has rate_per_s 0",
        ),
        (
            PLAIN | {"prompt_tokens": {"distribution": "uniform", "min": 5, "max": 4}},
            "prompt_tokens.uniform",
            "min 5 is above max 4",
        ),
        (
            PLAIN
            | {"prompt_tokens": {"distribution": "lognormal", "mean": 70, "cv": 1, "max": 60}},
            "prompt_tokens.lognormal",
            "mean 70 is impossible; allowed: above min 1 and below max 60",
        ),
        ({}, "", "neither trace nor arrivals is given; allowed: exactly one of them"),
        (
            {"arrivals": POISSON},
            "",
            "missing prompt_tokens, output_tokens, num_requests: required with arrivals",
        ),
        ({"trace": TRACE, "arrivals": POISSON}, "", "which has its own times"),
        ({"trace": TRACE, "prompt_tokens": ONE}, "", "prompt_tokens with a trace of format moon"),
        ({"trace": LENGTHS}, "", "a trace of format lengths without times needs arrivals"),
        ({"trace": COLUMNS}, "", "a trace of format columns without times needs arrivals"),
        (
            {"trace": COLUMNS | {"jitter_s": 1, "sort": True}, "arrivals": POISSON},
            "",
            "sort, jitter_s without an `arrival` column",
        ),
        ({"trace": TRACE, "sessions": SESSIONS}, "", "sessions with a trace that is replayed"),
        (
            PLAIN
            | {"sessions": SESSIONS, "arrivals": {"process": "closed_loop", "concurrency": 3}},
            "",
            "sessions with closed_loop arrivals",
        ),
        (
            PLAIN | {"shared_prefix": {"num_prefixes": 2, "tokens": 15}},
            "",
            "shared_prefix.tokens 15 is less than one block",
        ),
        (
            PLAIN
            | {"sessions": SESSIONS | {"max_prompt_tokens": 99}}
            | {"shared_prefix": {"num_prefixes": 2, "tokens": 99}},
            "",
            "sessions.max_prompt_tokens 99 leaves no room for a second turn",
        ),
        (PLAIN | {"num_requests": 0}, "num_requests", "greater than or equal to 1"),
    ],
)
def test_mistakes_name_the_key_and_what_is_allowed(document, where: str, what: str) -> None:
    found = errors(document)
    assert len(found) == 1
    assert found[0][0] == where
    assert what in found[0][1]


def test_several_combination_mistakes_come_together() -> None:
    ((_, message),) = errors({"trace": TRACE, "arrivals": POISSON, "output_tokens": ONE})
    assert "own times" in message
    assert "output_tokens with a trace" in message


def test_lengths_with_structure_and_arrivals_are_fine() -> None:
    spec = ADAPTER.validate_python({"trace": LENGTHS, "arrivals": POISSON, "sessions": SESSIONS})
    assert spec.sessions is not None


def test_schema_describes_every_choice() -> None:
    schema = described_schema(WorkloadSpec)
    arrivals = schema["properties"]["arrivals"]["anyOf"][0]
    assert set(arrivals["discriminator"]["mapping"]) == {
        "constant",
        "poisson",
        "gamma",
        "weibull",
        "mmpp",
        "diurnal",
        "closed_loop",
        "burst",
    }
    assert schema["$defs"]["GammaArrivals"]["properties"]["cv"]["description"].startswith("Coeff")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_workloads_build(path: Path) -> None:
    spec = ADAPTER.validate_python(yaml.safe_load(path.read_text()))
    requests = build(spec, streams(0))
    assert len(requests) == spec.num_requests


def test_shipped_trace_has_conversations_to_reuse() -> None:
    trace = MooncakeTrace(path=str(SHIPPED / "sample-mooncake.jsonl"))
    summary = stats(read_trace(trace, streams(0)("jitter")))
    assert summary["num_requests"] == 200
    assert 1 < summary["mean_turns"] < 8
    assert summary["prefix_hit_frac"] > 0.3
