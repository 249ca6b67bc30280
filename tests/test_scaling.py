"""Scaling: by hand, what it costs, and its laws under any policy."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from engine_cases import assert_same, at, chained, pool_inputs, pool_spec, run_inputs
from engine_random import EXAMPLES, Experiment, assert_all_tokens, experiments, random_experiment
from engine_random import run as run_case
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scaling_cases import Script, inputs, run_by_lot, run_script

from simpod.cost import KvTransfer
from simpod.engine import Simulation
from simpod.errors import PolicyError
from simpod.policies import AddInstance, RemoveInstance, SwitchInstance
from simpod.records.columns import FINISHED, REFUSED, RunRecords

ADD, REMOVE = AddInstance("pool"), RemoveInstance("pool")
law = settings(max_examples=EXAMPLES)
SKIPS = pytest.mark.parametrize("skip", [True, False])


def series(records: RunRecords, *names: str) -> list[Any]:
    assert records.timeseries is not None
    columns = [getattr(records.timeseries, name).tolist() for name in names]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


# --- by hand --------------------------------------------------------------------------------------


@SKIPS
def test_an_instance_that_is_added_serves_when_its_weights_are_there(*, skip: bool) -> None:
    """Asked for at 1 s, there at 3 s; until then all goes to the one that serves."""
    load = at([0.0, 2.5, 3.5, 4.5], 10, 4)
    _, records, _ = run_script(load, {1.0: [ADD]}, skip=skip)
    assert records.requests.decode_target.tolist() == [0, 0, 0, 1]
    assert records.requests.finish_s.tolist() == [4.0, 7.0, 8.0, 8.5]
    assert series(records, "serving", "draining", "loading")[:4] == [
        (1, 0, 0),
        (1, 0, 1),
        (2, 0, 0),
        (2, 0, 0),
    ]
    scaling = records.scaling
    assert scaling is not None
    assert scaling.load_s == (2.0,)
    assert scaling.die_s == {"pool": {"serving": 8.5 + 5.5, "draining": 0.0, "loading": 2.0}}
    assert scaling.spare_die_s == 1.0


@SKIPS
def test_an_instance_that_drains_finishes_what_runs_and_gives_the_rest_away(*, skip: bool) -> None:
    """Two instances of one slot; at 2 s the last one drains: its queue goes to the other, its
    running request ends at 5 s, where the controller sees it."""
    load = at([0.0, 0.0, 0.5, 0.5], 10, 5)
    sim, records, _ = run_script(
        load, {2.0: [REMOVE]}, start=2, spare=0, skip=skip, spec={"max_num_seqs": 1}
    )
    assert records.requests.decode_target.tolist() == [0, 1, 0, 0]
    assert records.requests.finish_s.tolist() == [5.0, 5.0, 10.0, 15.0]
    assert series(records, "serving", "draining")[1:6] == [(2, 0), (1, 1), (1, 1), (1, 0), (1, 0)]
    scaling = records.scaling
    assert scaling is not None
    assert scaling.drain_s == (3.0,)
    assert scaling.die_s["pool"] == {"serving": 15.0 + 2.0, "draining": 3.0, "loading": 0.0}
    assert scaling.spare_die_s == 10.0
    assert [group.kv.used(0) for group in sim.groups] == [0, 0]


@SKIPS
def test_what_runs_can_be_computed_again_elsewhere(*, skip: bool) -> None:
    """It has 2 tokens at 2.25 s and gets its third at 3 s, where it is taken out; at 4.5 s it is
    sent to the other, whose next step begins at 5 s and gives it the fourth."""
    load = at([0.0, 0.0], 10, [9, 4])
    _, records, _ = run_script(
        load,
        {2.25: [REMOVE]},
        start=2,
        spare=0,
        skip=skip,
        every_s=2.25,
        sample_s=2.25,
        window_s=9.0,
        recomputes=True,
    )
    assert records.requests.finish_s.tolist() == [9.0, 6.0]
    assert records.requests.num_preemptions.tolist() == [0, 1]
    assert records.requests.decode_target.tolist() == [0, 0]
    assert records.scaling is not None
    assert records.scaling.drain_s == (2.25,)


def test_a_switch_moves_the_dies_and_loses_the_prefix_cache() -> None:
    """Two prefill ranks and a decode rank; the second prefill rank becomes a decode rank. Its
    cached prefix is gone when, later, it is a prefill rank again."""
    prefixes = chained([7], [7], [7], [7], block_tokens=8)
    load = at([0.0, 0.0, 20.25, 20.25], 10, 3, **prefixes)
    script = Script(
        {6.0: [SwitchInstance("prefill", "decode")], 12.0: [SwitchInstance("decode", "prefill")]}
    )
    given = {"kv_blocks": 100, "instances": 2}
    entry = pool_inputs(pool_spec(name="prefill", role="prefill", prefix_caching=True, **given))
    decode = pool_inputs(pool_spec(name="decode", role="decode", **given))
    law = KvTransfer(latency_s=0.25, bytes_per_token=2.0, s_per_token=0.0)
    scaling = inputs(script, (2, 1), 0)
    run = run_inputs(load, entry, decode=decode, transfer=law, scaling=scaling)
    records = Simulation(run).run()
    assert records.requests.prefill_target.tolist() == [0, 1, 0, 1]
    assert records.requests.cached_tokens.tolist() == [0, 0, 8, 0]
    pools = np.array(series(records, "pool", "time_s", "serving"))
    at_7, at_9, at_15 = (pools[pools[:, 1] == t][:, 2].tolist() for t in (7.0, 9.0, 15.0))
    assert (at_7, at_9, at_15) == ([1, 1], [1, 2], [2, 1])
    assert records.scaling is not None
    assert records.scaling.num_switched == 2
    assert records.scaling.drain_s == (0.0, 0.0)


def test_a_switch_between_pools_that_hold_the_same_weights_keeps_them() -> None:
    load = at([0.0, 6.0], 10, 3)
    for keeps, load_s in ((True, 0.5), (False, 2.5)):
        script = Script({2.0: [SwitchInstance("prefill", "decode")]})
        spec = {"kv_blocks": 100, "instances": 2}
        entry = pool_inputs(pool_spec(name="prefill", role="prefill", **spec))
        decode = pool_inputs(pool_spec(name="decode", role="decode", **spec))
        law = KvTransfer(latency_s=0.25, bytes_per_token=2.0, s_per_token=0.0)
        scaling = inputs(script, (2, 1), 0, keeps_weights=keeps, start_s=0.5)
        run = run_inputs(load, entry, decode=decode, transfer=law, scaling=scaling)
        records = Simulation(run).run()
        assert records.scaling is not None
        assert records.scaling.load_s == (load_s,)


@SKIPS
def test_the_view_holds_the_window_and_nothing_else(*, skip: bool) -> None:
    """Steps end at 1.25, 2.25, 3.25, ... s: request 1 ends with the second, 0 with the third, and
    2 begins then."""
    load = at([0.25, 0.5, 2.75], 10, [3, 1, 4])
    _, records, script = run_script(load, {}, skip=skip, window_s=3.0, run={"ttft_target_s": 2.0})
    view = script.seen[3]
    (pool,) = view.pools
    assert view.now_s == 4.0
    assert pool.running_seqs.tolist() == [2.0, 1.0, 1.0]
    assert pool.waiting_seqs.tolist() == [0.0, 1.0, 0.0]
    assert view.arrivals_per_s.tolist() == [0.0, 1.0, 0.0]
    assert view.arrived_tokens_per_s.tolist() == [0.0, 10.0, 0.0]
    assert view.ttft_target_s == 2.0
    done = records.requests.finish_s <= 4.0
    assert sorted(view.ttft_s) == sorted(
        (records.requests.first_token_s - records.requests.arrival_s)[done]
    )


@pytest.mark.parametrize(
    ("action", "complaint"),
    [
        (RemoveInstance("pool"), "pool has 1 serving instance, which stays"),
        (AddInstance("other"), "allowed: pool"),
        (SwitchInstance("pool", "pool"), "two different ones in a switch"),
        ("add", "'add', not an action"),
    ],
)
def test_an_action_that_can_not_be_is_blamed(action: Any, complaint: str) -> None:
    with pytest.raises(PolicyError, match=complaint):
        run_script(at([0.0], 10, 8), {2.0: [action]})


def test_more_instances_than_dies_are_blamed() -> None:
    with pytest.raises(PolicyError, match="needs 1 more dies than are spare"):
        run_script(at([0.0], 10, 8), {2.0: [ADD, ADD]})


# --- laws -----------------------------------------------------------------------------------------


@law
@given(experiments(), st.booleans())
@example(random_experiment(5123, {}), True)  # a chunk preempts a prompt further down in the plan
def test_no_request_token_block_or_die_is_lost(case: Experiment, recomputes: bool) -> None:
    sim, records = run_by_lot(case, recomputes=recomputes)
    requests = records.requests
    assert requests.request_id.tolist() == list(range(case.num_requests))
    assert np.isin(requests.status, [FINISHED, REFUSED]).all()
    for group in sim.groups:
        assert not group.kv.used_everywhere().any()
        assert not any(rank.waiting or rank.inbox or rank.running for rank in group.ranks)
    for pool in sim.pools:
        counts = pool.dispatch
        names = ("waiting_seqs", "running_seqs", "held_seqs", "queued_tokens")
        assert not any(any(getattr(counts, name)) for name in names)
    assert_all_tokens(case, sim, records)


@law
@given(experiments(), st.booleans())
def test_skipping_ahead_changes_nothing(case: Experiment, recomputes: bool) -> None:
    (_, fast), (_, slow) = (
        run_by_lot(case, recomputes=recomputes, skip_ahead=skip) for skip in (True, False)
    )
    assert_same(fast, slow)
    assert fast.timeseries is not None
    assert slow.timeseries is not None
    for field in fields(fast.timeseries):
        mine, other = (getattr(rows, field.name) for rows in (fast.timeseries, slow.timeseries))
        if field.name != "pool_names":
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9, err_msg=field.name)


@law
@given(experiments())
def test_dies_are_with_a_pool_or_spare(case: Experiment) -> None:
    sim, records = run_by_lot(case, recomputes=False)
    scaling, rows = records.scaling, records.timeseries
    given_inputs = sim.inputs.scaling
    assert scaling is not None
    assert rows is not None
    assert given_inputs is not None
    sizes = np.array(given_inputs.dies_per_instance)
    total = given_inputs.spare_dies + sizes @ np.array(given_inputs.start_instances)
    used = sum(sum(states.values()) for states in scaling.die_s.values())
    assert used + scaling.spare_die_s == pytest.approx(total * records.end_s)
    held = (rows.serving + rows.draining + rows.loading) * sizes[rows.pool]
    by_sample = held.reshape(-1, len(sizes)).sum(axis=1) + rows.spare_dies[:: len(sizes)]
    assert (by_sample <= total).all()  # the rest waits for the dies of one that drains
    assert (rows.serving >= 1).all()


@law
@given(experiments())
def test_the_same_run_twice_is_the_same(case: Experiment) -> None:
    first, second = (run_by_lot(case, recomputes=True)[1] for _ in range(2))
    assert_same(first, second, rtol=0.0)
    assert first.scaling == second.scaling


def test_a_policy_that_keeps_all_changes_nothing() -> None:
    load = at(np.arange(30) * 0.7, np.arange(30) % 9 + 1, 8)
    plain = Simulation(run_inputs(load, pool_inputs(pool_spec(kv_blocks=100)))).run()
    _, kept, _ = run_script(load, {}, spare=0)
    assert_same(plain, kept, rtol=0.0)


# --- watching without scaling ---------------------------------------------------------------------


@pytest.mark.parametrize("skip", [True, False])
def test_the_load_can_be_watched_without_a_policy(*, skip: bool) -> None:
    """Steps of 1 s from 0.25 s on: request 0 has tokens at 1.25, 2.25 and 3.25 s, request 1, which
    comes at 0.5 s, one at 2.25 s."""
    load = at([0.25, 0.5], 10, [3, 1])
    inputs = run_inputs(load, pool_inputs(pool_spec(kv_blocks=100)), samples_s=1.0, skip_ahead=skip)
    records = Simulation(inputs).run()
    plain = Simulation(run_inputs(load, pool_inputs(pool_spec(kv_blocks=100)))).run()
    assert_same(records, plain, rtol=0.0)
    assert series(records, "time_s", "serving", "waiting_seqs", "running_seqs") == [
        (1.0, 1, 1, 1),
        (2.0, 1, 0, 2),
        (3.0, 1, 0, 1),
        (4.0, 1, 0, 0),
    ]
    assert series(records, "arrivals_per_s") == [2.0, 0.0, 0.0, 0.0]
    assert sum(series(records, "output_tokens_per_s")) == 4
    assert sum(series(records, "prompt_tokens_per_s")) == 20
    assert records.scaling is None


@law
@given(experiments(), st.floats(0.1, 9.0))
def test_watching_changes_nothing(case: Experiment, sample_s: float) -> None:
    plain, watched = (run_case(case, samples_s=each)[1] for each in (None, sample_s))
    assert_same(plain, watched, rtol=0.0)
    rows = watched.timeseries
    assert rows is not None
    if len(rows.time_s) and rows.time_s[-1] >= plain.end_s:
        done = plain.requests.status == FINISHED
        total = rows.output_tokens_per_s.sum() * sample_s
        wanted = plain.requests.output_tokens[done].sum()
        assert total == pytest.approx(wanted, rel=1e-9)
    assert (rows.kv_frac <= 1.0 + 1e-9).all()
