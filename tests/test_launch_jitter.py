"""Pauses of hosts in runs: the slowest of all dies holds up a step, skipped or not."""

from dataclasses import replace

import numpy as np
import pytest
from pause_laws import expected_max_s, quantile_s

from simpod.config import load_experiment
from simpod.cost.pipeline.jitter import UNMITIGATED, left
from simpod.engine.pauses import StepPauses
from simpod.errors import ConfigError
from simpod.records.columns import STEP_PARTS
from simpod.run import run

SMALL = (
    "workload.num_requests=96",
    "workload.arrivals.concurrency=64",
    "workload.output_tokens={distribution: uniform, min: 50, max: 400}",
    "deployment.decode.dies=32",
    "deployment.decode.dp=32",
    "deployment.decode.ep=32",
    "deployment.decode.shared_expert_dies=0",
    "policies.experts.redundant_slots=0",
    "expert_routing=balanced",
)


def experiment(jitter: str, *more: str):
    setting = f"deployment.decode.launch_jitter={jitter}"
    return load_experiment("xdeepserve-colocated-288", (*SMALL, setting, *more))


def test_skipping_ahead_changes_nothing() -> None:
    one = experiment("{}")
    got, want = run(one).records, run(replace(one, skip_ahead=False)).records
    for name in ("first_token_s", "finish_s", "scheduled_s", "last_decode_step"):
        np.testing.assert_allclose(
            getattr(got.requests, name), getattr(want.requests, name), rtol=1e-9
        )
    np.testing.assert_allclose(got.groups[0].decode_end_s, want.groups[0].decode_end_s, rtol=1e-9)
    parts = [records.steps.parts_s.sum(axis=0) for records in (got, want)]
    np.testing.assert_allclose(*parts, rtol=1e-9)


@pytest.mark.parametrize("s_per_token", [0.0, 2e-4])
def test_paused_steps_reach_the_frontend_as_they_end(s_per_token: float) -> None:
    """Two instances, whose runs overlap; without time for a token all is as without a frontend."""
    central = ("output.path=central", f"output.s_per_token={s_per_token}")
    one = experiment("{}", "deployment.decode.instances=2", *central)
    got, stepped = run(one).records, run(replace(one, skip_ahead=False)).records
    without = run(replace(one, frontend=None)).records
    for index in (0, 1):
        ends_s = [records.groups[index].decode_end_s for records in (got, stepped, without)]
        np.testing.assert_allclose(ends_s[0], ends_s[1], rtol=1e-9)
        if not s_per_token:
            np.testing.assert_allclose(ends_s[0], ends_s[2], rtol=1e-9)
    is_late = got.requests.finish_s > got.requests.engine_finish_s
    assert is_late.all() if s_per_token else not is_late.any()


def test_steps_take_longer_by_the_longest_of_all_pauses_and_dispatch_waits_for_it() -> None:
    calm, paused = (run(experiment(jitter)).records for jitter in ("null", "{}"))
    steps = paused.groups[0].num_steps
    waits = [
        records.steps.parts_s[:, STEP_PARTS.index("dispatch_wait")].sum()
        for records in (calm, paused)
    ]
    held_s = waits[1] / steps - waits[0] / calm.groups[0].num_steps
    want_s = expected_max_s(UNMITIGATED, 32)
    assert held_s == pytest.approx(want_s, abs=5 * 0.06 / steps**0.5)  # sd below 60 ms
    busy_s = [records.groups[0].busy_s / records.groups[0].num_steps for records in (calm, paused)]
    assert busy_s[1] - busy_s[0] == pytest.approx(held_s, rel=1e-2)


def test_what_is_mitigated_does_not_happen() -> None:
    nothing = experiment("{mitigations: [gc, pinning, graph_cache]}")
    assert nothing.pools[0].pauses == ()
    without_gc = experiment("{mitigations: [gc]}").pools[0].pauses
    assert without_gc == left(UNMITIGATED, ("gc",))
    own = experiment("{causes: [{frac: 0.5, mean_s: 0.001}]}").pools[0].pauses
    assert [(cause.frac, cause.mean_s) for cause in own] == [(0.5, 0.001)]


def test_pauses_have_the_law_of_the_longest() -> None:
    pauses = StepPauses(UNMITIGATED, 288, np.random.default_rng(3))
    drawn = np.diff(pauses.sums(20_000))
    assert drawn.mean() == pytest.approx(expected_max_s(UNMITIGATED, 288), rel=0.03)
    assert np.quantile(drawn, 0.99) == pytest.approx(quantile_s(UNMITIGATED, 288, 0.99), rel=0.06)
    again = StepPauses(UNMITIGATED, 288, np.random.default_rng(3))
    assert again.before(9_000) == pauses.before(9_000)  # however far one looks ahead
    since = pauses.since(100)
    assert since(7) == pytest.approx(drawn[100:107].sum())


@pytest.mark.parametrize(
    ("jitter", "message"),
    [
        (
            "{mitigations: [hope]}",
            r"mitigations\.0: no cause .* \(got \"hope\"\); allowed: gc, pin",
        ),
        ("{mitigations: [gc, pining]}", r'mitigations\.1.*, graph_cache; did you mean "pinning"\?'),
        (
            "{causes: [{frac: 0.5, mean_s: 0.001}], mitigations: ['']}",
            r"mitigations\.0.*allowed: none, as no cause",
        ),
        (
            "{causes: [{frac: 0.5, mean_s: 0.001, mitigated_by: gcc}], mitigations: [gc]}",
            r'mitigations\.0.*allowed: gcc; did you mean "gcc"\?',
        ),
    ],
)
def test_an_unknown_remedy_is_named(jitter: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"launch_jitter\.{message}"):
        experiment(jitter)


def test_own_causes_have_remedies_of_their_own() -> None:
    numa = "{frac: 0.5, mean_s: 0.001, mitigated_by: numa}"
    causes = f"causes: [{numa}, {{frac: 0.1, mean_s: 0.002, mitigated_by: tea}}]"
    pauses = experiment(f"{{{causes}, mitigations: [numa]}}").pools[0].pauses
    assert [cause.mitigated_by for cause in pauses] == ["tea"]
