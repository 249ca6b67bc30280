"""What a summary says of the central frontend, and what an experiment may ask of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_cases import LinearPricer, at, simulate
from records_builder import pool, requests, run

from simpod.cli.render import notes
from simpod.config import load_experiment
from simpod.cost.frontend import S_PER_TOKEN, Frontend
from simpod.errors import ConfigError
from simpod.metrics import measure, saturation, stationarity, summary
from simpod.metrics.frontend import FrontendUse, frontend_use
from simpod.records.columns import FrontendRecords, RunRecords
from simpod.records.measure import Measure
from simpod.records.slo import Slo
from simpod.run import read_results, write_results
from simpod.run import run as run_experiment

TRIMMED = Measure(warmup_frac=0.1, drain_frac=0.1)


def use_of(records: RunRecords, trim: float = 0.0) -> FrontendUse:
    use = frontend_use(records, measure(records.requests, trim, trim))
    assert use is not None
    return use


def test_use_by_hand() -> None:
    """Messages of 1, 3, 2 tokens at 1, 2, 3 s, a second each token: gone at 2, 5, 7 s.

    There are 1, 3, 5, 2 tokens in the seconds from 1, 2, 3 and 5 on: 1 + 3 + 2 x 5 + 2 x 2 = 18.
    """
    records = run(
        requests([0.0, 0.0], finish_s=[5.0, 7.0]),
        frontend=FrontendRecords(
            time_s=np.array([1.0, 2.0, 3.0]),
            tokens=np.array([1, 3, 2]),
            work_s=np.array([1.0, 3.0, 2.0]),
            left_s=np.array([2.0, 5.0, 7.0]),
            s_per_token=1.0,
            s_per_message=0.0,
            processes=1,
        ),
    )
    use = use_of(records)
    assert (use.tokens, use.messages, use.max_backlog_tokens) == (6, 3, 5)
    assert use.mean_backlog_tokens == pytest.approx(18 / 6)
    assert use.mean_delay_s == pytest.approx((1 * 1 + 3 * 3 + 2 * 4) / 6)
    assert use.max_delay_s == 4.0
    assert use.busy_frac == 1.0
    assert use.load_frac == pytest.approx((3 + 2) / 2)  # of the tokens after the first second


def test_of_a_run_that_is_cut_off_only_what_was_done_counts() -> None:
    """A step a second of 1 token each, 2 s a token, cut at 10 s: 9 s at work, the fifth half."""
    records = simulate(
        at([0.0], 1, [50]),
        run={
            "frontend": Frontend(s_per_token=2.0, s_per_message=0.0, processes=1),
            "duration_s": 10.5,
        },
    )
    use = use_of(records)
    assert use.tokens == 10
    assert use.busy_frac == pytest.approx(1.0)
    assert len(records.groups[0].decode_end_s) == 3  # after the first: 5, 7 and 9 s


def loaded(rate_per_s: float, s_per_token: float, **columns: Any) -> RunRecords:
    """Requests of ten tokens, evenly; the engine has room for all."""
    num = 400
    times = np.arange(num) / rate_per_s if not columns else np.full(num, np.nan)
    law = Frontend(s_per_token=s_per_token, s_per_message=0.0, processes=1)
    rows = at(times, 1, np.full(num, 10), **columns)
    return simulate(rows, LinearPricer(base_s=0.01), run={"frontend": law})


@pytest.mark.parametrize("s_per_token", [0.02, 0.08])
def test_the_frontend_is_a_limit_like_others(s_per_token: float) -> None:
    """2 requests/s of 10 tokens: 40 % and 160 % of it; it saturates at 1 / (10 x s_per_token)."""
    records = loaded(2.0, s_per_token)
    window = measure(records.requests, 0.1, 0.1)
    state = stationarity(records, window)
    limit = saturation(records, window, state)
    assert (limit.pool, limit.resource) == (None, "frontend")
    assert use_of(records, 0.1).load_frac == pytest.approx(20 * s_per_token, rel=0.02)
    if 20 * s_per_token < 1:
        assert (state.verdict, limit.capacity_kind) == ("STABLE", "estimate")
    else:
        assert (state.verdict, limit.capacity_kind) == ("BACKLOGGED", "measured")
    assert limit.capacity_rate_per_s == pytest.approx(0.1 / s_per_token, rel=0.02)


def summary_of(records: RunRecords) -> dict[str, Any]:
    return summary(records, slo=Slo(), window_rule=TRIMMED)


def test_a_full_frontend_is_told() -> None:
    assert not any("FRONTEND" in note for note in notes(summary_of(loaded(2.0, 0.02))))
    full = summary_of(loaded(2.0, 0.08))
    told = list(notes(full))
    assert any("FRONTEND FULL" in note for note in told)
    assert any("nearest limit, the frontend" in note for note in told)
    assert full["frontend"]["load_frac"] > 1
    closed = summary_of(loaded(2.0, 0.08, concurrency=20))
    assert any("FRONTEND FULL" in note for note in notes(closed))
    assert closed["output_throughput"] == pytest.approx(1 / 0.08, rel=0.02)
    assert summary_of(simulate(at([0.0, 1.0], 1, 5)))["frontend"] is None
    assert summary(run(requests([0.0]), pools=(pool(),)), slo=Slo())["frontend"] is None


# --- experiments ----------------------------------------------------------------------------------

SMALL = (
    "workload.num_requests=60",
    "output.path=central",
)


def test_defaults_are_resolved_and_said_to_be_assumed() -> None:
    resolved = load_experiment("quickstart", SMALL)
    assert resolved.frontend == Frontend(s_per_token=S_PER_TOKEN, s_per_message=0.0, processes=1)
    assert resolved.document["output"] == {
        "path": "central",
        "s_per_token": S_PER_TOKEN,
        "s_per_message": 0.0,
        "processes": 1,
    }
    assert "assumed" in resolved.origins["output.s_per_token"]
    without = load_experiment("quickstart")
    assert without.frontend is None
    assert without.document["output"] == {"path": "shortcut"}


def test_what_is_given_is_taken() -> None:
    more = ("output.s_per_token=1e-5", "output.s_per_message=1e-4", "output.processes=3")
    resolved = load_experiment("quickstart", (*SMALL, *more))
    assert resolved.frontend == Frontend(s_per_token=1e-5, s_per_message=1e-4, processes=3)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("output.processes=4",), "output.processes: with output.path: shortcut"),
        (("output.s_per_token=1e-5",), "set output.path: central"),
        (("output.path=both",), 'got "both"); allowed: shortcut, central'),
        ((*SMALL, "output.processes=0"), "output.processes: too small (got 0)"),
        ((*SMALL, "output.s_per_token=-1"), "output.s_per_token: too small (got -1)"),
        ((*SMALL, "policies.scaling=keep"), "allowed: shortcut with policies.scaling"),
        ((*SMALL, "fabric.exchanges=shared"), "allowed: shortcut with fabric.exchanges: shared"),
        (
            (*SMALL, "deployment.decode.mtp.acceptance_std=0.1"),
            "deployment.decode.mtp.acceptance_std: with output.path: central",
        ),
    ],
)
def test_mistakes_are_told_with_key_value_and_what_is_allowed(
    overrides: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment("quickstart", overrides)
    (problem,) = caught.value.problems
    assert told in problem


def test_a_result_has_both_times_and_the_part_of_the_first_token(tmp_path: Path) -> None:
    result = run_experiment(load_experiment("quickstart", SMALL))
    folder = write_results(tmp_path / "out", result.records, result.summary, result.provenance)
    rows = read_results(folder).requests
    late_s = rows["first_token_s"] - rows["engine_first_token_s"]
    assert (late_s > 0).all()
    np.testing.assert_allclose(rows["frontend_s"], late_s)
    assert (rows["finish_s"] > rows["engine_finish_s"]).all()
    assert result.summary["ttft_attribution_ms"]["frontend"]["mean"] > 0
    assert result.summary["frontend"]["tokens"] == rows["output_tokens"].sum()
