"""Tenants and priorities: drawn for any workload, or named by a trace."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runs import call
from pydantic import TypeAdapter

from simpod.errors import ConfigError
from simpod.workload import Requests, WorkloadSpec, build, make_requests, streams

ADAPTER = TypeAdapter(WorkloadSpec)
ONE = {"distribution": "constant", "value": 1}


def workload(**more: Any) -> Requests:
    given = {
        "arrivals": {"process": "poisson", "rate_per_s": 1},
        "prompt_tokens": ONE,
        "output_tokens": ONE,
        "num_requests": 3000,
    }
    return build(ADAPTER.validate_python(given | more), streams(3))


def test_without_tenants_all_are_alike() -> None:
    plain = workload()
    assert not plain.tenant.any()
    assert not plain.priority.any()


def test_tenants_have_their_shares_and_priorities_and_shift_nothing_else() -> None:
    drawn = workload(tenants=[{"share": 3}, {"share": 1, "priority": 2}])
    # four standard errors of a share of 1/4 in 3000: 0.032
    assert (drawn.tenant == 1).mean() == pytest.approx(0.25, abs=0.032)
    np.testing.assert_array_equal(drawn.priority, 2 * drawn.tenant)
    np.testing.assert_array_equal(drawn.arrival_s, workload().arrival_s)


def test_a_conversation_belongs_to_one_tenant() -> None:
    think = {"distribution": "constant", "mean_s": 1}
    turns = {"distribution": "constant", "value": 3}
    drawn = workload(sessions={"turns": turns, "think_s": think}, tenants=[{}, {}, {}])
    for session in range(50):
        assert len(set(drawn.tenant[drawn.session_id == session])) == 1
    assert set(drawn.tenant) == {0, 1, 2}


def trace(tmp_path: Path, *rows: str) -> Requests:
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["at,in,out,who,urgency", *rows]) + "\n")
    columns = {"arrival": "at", "prompt_tokens": "in", "output_tokens": "out"}
    spec = {"format": "columns", "path": str(path), "tenant": "who", "priority": "urgency"}
    return build(ADAPTER.validate_python({"trace": spec | columns}), streams(0))


def test_a_trace_names_tenants_and_priorities(tmp_path: Path) -> None:
    found = trace(tmp_path, "0,5,5,zoe,1", "1,5,5,adam,-2", "2,5,5,zoe,0")
    assert found.tenant.tolist() == [0, 1, 0]
    assert found.priority.tolist() == [1, -2, 0]


def test_a_priority_that_is_no_whole_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine.csv:3: urgency is 1.5; allowed: a whole number"):
        trace(tmp_path, "0,5,5,zoe,1", "1,5,5,adam,1.5")


def test_columns_of_another_length_and_negative_tenants_are_refused() -> None:
    with pytest.raises(ConfigError, match="tenant has 1 values; allowed: 2"):
        make_requests([0.0, 1.0], 1, 1, tenant=np.array([0]))
    with pytest.raises(ConfigError, match="tenant holds negative numbers"):
        make_requests([0.0, 1.0], 1, 1, tenant=np.array([0, -1]))


# --- the whole way from the file ------------------------------------------------------------------


def test_an_experiment_with_every_kind_of_policy_runs() -> None:
    settings = [
        "workload.num_requests=60",
        "workload.tenants=[{share: 2}, {share: 1, priority: 1}]",
        "policies.length_predictor={use: proxy, cost_s: 0.01}",
        "policies.batching.use=fastserve",
        "policies.admission={use: token_bucket, tokens_per_s: 100000, burst_tokens: 100000}",
        "policies.prefix_eviction=gdsf",
        "policies.migration={use: llumnix, period_s: 0.5}",
    ]
    done = call(
        "run",
        "llama70b-h100-colocated",
        "--json",
        "-s",
        settings[0],
        *(part for text in settings[1:] for part in ("-s", text)),
        "-s",
        "deployment.server.host_bytes_per_s=5e10",
    )
    assert done.exit_code == 0, done.stderr


def test_the_oracle_is_refused_in_an_experiment_unless_asked_for() -> None:
    done = call("run", "quickstart", "-s", "policies.length_predictor=oracle")
    assert done.exit_code == 2
    assert "allow_oracle: must be true" in done.stderr
