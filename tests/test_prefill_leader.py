"""A leader gives waiting prompts to the ranks of a prefill instance: by hand, and its mistakes."""

from typing import Any

import numpy as np
import pytest
from engine_cases import (
    LinearPricer,
    at,
    chained,
    in_two_stages,
    pool_inputs,
    pool_spec,
    simulate,
)
from policy_cases import make, prompt

from simpod.config import load_experiment
from simpod.errors import ConfigError, PolicyError
from simpod.policies import BatchPlan, BatchView, LeaderView
from simpod.policies.checks import CHECKS
from simpod.policies.fakes import FakeLeaderView
from simpod.records.columns import RunRecords
from simpod.workload import Requests

TOKENS_ONLY: dict[str, Any] = {"attention_tokens": 1e12, "launch_tokens": 1}
SECOND_A_TOKEN = LinearPricer(base_s=0.0, s_per_prompt_token=1.0)


def view(*waiting: Any, **given: Any) -> FakeLeaderView:
    columns: dict[str, Any] = {"now_s": 50.0, "num_ranks": 2, "max_step_tokens": 10_000}
    columns["free_tokens"] = np.array([100_000, 100_000])
    return FakeLeaderView(waiting=waiting, **(columns | given))


def prefill(load: Requests, leader: Any = None, **spec: Any) -> RunRecords:
    """Two ranks in lock step, a token a second; the router takes them in turn."""
    run = {} if leader is None else {"make_leader": lambda: leader, "leader_name": "mine"}
    return simulate(load, SECOND_A_TOKEN, role="prefill", dp=2, run=run, **spec)


# --- the built-in ---------------------------------------------------------------------------------


def test_prompts_of_like_cost_go_together() -> None:
    leader = make("prefill_leader", "collaborative", **TOKENS_ONLY)
    short, like, long = prompt(1, 100), prompt(2, 150), prompt(3, 900)
    assert leader(view(short, like, long)) == {1: 0, 2: 1}
    assert leader(view(long)) == {3: 0}
    # 300 s for 900 tokens is more, for its cost, than 1 s for 100
    waits = prompt(3, 900, arrival_s=-250.0)
    assert leader(view(prompt(1, 100, arrival_s=49.0), waits)) == {3: 0, 1: 1}


def test_a_rank_gets_no_more_than_a_step_of_that_length() -> None:
    leader = make("prefill_leader", "collaborative", **TOKENS_ONLY)
    alike = [prompt(k, 100) for k in range(6)]
    assert leader(view(*alike)) == {0: 0, 1: 1, 2: 0, 3: 1}
    assert leader(view(*alike, max_step_tokens=100)) == {0: 0, 1: 1}
    assert leader(view(*alike, free_tokens=np.array([100, 0]))) == {0: 0}


def test_what_is_under_way_sets_the_pace() -> None:
    leader = make("prefill_leader", "collaborative", **TOKENS_ONLY)
    begun = prompt(7, 400, is_running=True, context_tokens=1000)
    waiting = (prompt(1, 100), prompt(2, 900), prompt(3, 700))
    assert leader(view(*waiting, under_way=((0, begun),))) == {1: 1, 3: 1}
    assert leader(view(prompt(2, 900), under_way=((0, begun),))) == {}


def test_hits_and_attention_count() -> None:
    leader = make("prefill_leader", "collaborative", attention_tokens=1000.0, launch_tokens=1)
    assert leader(view(prompt(1, 1000), hits=np.array([0, 600]))) == {1: 1}
    # 400 tokens behind 600: 400 x (1 + 0.8) = 720; 1000 tokens: 1000 x 1.5
    fuller = ((1, prompt(7, 500, is_running=True, context_tokens=800)),)  # 500 x 2.05 = 1025
    assert leader(view(prompt(1, 1000), hits=np.array([0, 600]), under_way=fuller)) == {1: 0}


def test_what_can_be_read_costs_no_time_but_room() -> None:
    leader = make("prefill_leader", "collaborative", **TOKENS_ONLY)
    waiting = (prompt(1, 1000), prompt(2, 1900))
    assert leader(view(*waiting)) == {1: 0, 2: 1}
    assert leader(view(*waiting, readable_tokens=900)) == {1: 0}  # 100 tokens, and 1000
    little = np.array([100_000, 900])
    assert leader(view(*waiting, readable_tokens=500, free_tokens=little)) == {1: 0}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"max_ratio": 0.9}, "max_ratio: collaborative: must be >= 1"),
        ({"attention_tokens": 0.0}, "attention_tokens: collaborative: must be > 0"),
        ({"launch_tokens": 0}, "launch_tokens: collaborative: must be >= 1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make("prefill_leader", "collaborative", **wrong)


# --- in the engine --------------------------------------------------------------------------------


def test_short_prompts_do_not_wait_in_a_step_with_long_ones() -> None:
    """Tokens: 10 and 100 at 0 s, 12 at 5 s. Unled, the first two share a step of 100 s."""
    load = at([0.0, 0.0, 5.0], [10, 100, 12])
    assert prefill(load).requests.first_token_s.tolist() == [100.0, 100.0, 112.0]
    leader = make("prefill_leader", "collaborative", **TOKENS_ONLY)
    led = prefill(load, leader).requests
    assert led.first_token_s.tolist() == [10.0, 122.0, 22.0]
    assert led.barrier_wait_s.tolist() == [0.0, 0.0, 0.0]


def test_prompts_at_one_rank_are_spread_over_all() -> None:
    load = at([0.0, 0.0], 10)
    leader = make("prefill_leader", "collaborative", **TOKENS_ONLY)
    apart = prefill(load, leader, router=lambda view, request: 0).requests
    assert apart.first_token_s.tolist() == [10.0, 10.0]
    assert apart.prefill_target.tolist() == [0, 1]


def test_a_prompt_goes_to_the_rank_that_has_its_prefix() -> None:
    """The third is sent to rank 0; 8 of its 12 tokens are on rank 1."""
    load = at([0.0, 0.0, 50.0], 12, **chained([1], [2], [2], block_tokens=8))
    leader = make("prefill_leader", "collaborative", **TOKENS_ONLY)
    led = prefill(load, leader, prefix_caching=True).requests
    assert led.prefill_target.tolist() == [0, 1, 1]
    assert led.cached_tokens.tolist() == [0, 0, 8]
    assert led.first_token_s.tolist() == [12.0, 12.0, 54.0]


def newest_first(view: BatchView) -> BatchPlan:
    prompts = sorted(view.prefilling, key=lambda prompt: -prompt.seq_id)
    return BatchPlan(prefill_chunks={each.seq_id: each.uncached_tokens for each in prompts})


def test_a_prompt_without_room_begins_where_room_comes_first() -> None:
    """KV of 100 tokens a rank: no room for the last one before a prompt is pulled.

    It is given to rank 0, whose prompt is pulled last; that of rank 1 is gone at 197 s.
    """
    leader = make("prefill_leader", "collaborative", **TOKENS_ONLY)
    led = in_two_stages(
        at([0.0, 10.0, 10.0, 90.0], [5, 70, 60, 80], [20, 30, 30, 2]),
        prefill=pool_inputs(pool_spec(role="prefill", dp=2, kv_blocks=100), SECOND_A_TOKEN),
        decode=pool_inputs(pool_spec(role="decode", max_num_seqs=1), LinearPricer(base_s=10.0)),
        transfer_s=1.0,
        batching=lambda: newest_first,
        make_leader=lambda: leader,
        leader_name="mine",
    ).requests
    assert led.prefill_target.tolist() == [0, 0, 1, 1]
    assert led.transfer_end_s.tolist() == [6.0, 499.0, 197.0, 488.0]
    assert led.scheduled_s.tolist() == [0.0, 10.0, 10.0, 197.0]


def test_a_prompt_of_many_steps_begins_where_all_of_it_finds_room() -> None:
    """Steps of 20 tokens, KV of 100: rank 0 has room for a chunk, but 60 tokens leave it late."""
    leader = make("prefill_leader", "collaborative", **TOKENS_ONLY)
    spec = pool_spec(role="prefill", dp=2, kv_blocks=100, max_step_tokens=20)
    led = in_two_stages(
        at([0.0, 70.0], [60, 80], [2, 2]),
        prefill=pool_inputs(spec, SECOND_A_TOKEN),
        decode=pool_inputs(pool_spec(role="decode")),
        transfer_s=1000.0,
        make_leader=lambda: leader,
        leader_name="mine",
    ).requests
    assert led.prefill_target.tolist() == [0, 1]
    assert led.scheduled_s.tolist() == [0.0, 70.0]


def test_prompts_wait_in_order_of_arrival() -> None:
    """A second turn comes after prompts of other conversations, though they are listed later."""
    turns = {"after": np.array([-1, 0, -1, -1]), "think_s": np.array([0.0, 2.0, 0.0, 0.0])}
    load = at([0.0, np.nan, 3.0, 4.0], 10, **turns)
    seen: list[list[int]] = []

    def leader(view: LeaderView) -> dict[int, int]:
        seen.append([prompt.seq_id for prompt in view.waiting])
        return {seen[-1][0]: 0}

    led = prefill(load, leader).requests
    assert seen == [[0], [2, 3], [3, 1], [1]]
    assert led.first_token_s.tolist() == [10.0, 40.0, 20.0, 30.0]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ([0], r"returned \[0\], no mapping"),
        ({0: 2}, "gives sequence 0 to rank 2; allowed: 0 to 1"),
        ({0: 0.5}, "gives sequence 0 to rank 0.5"),
        ({9: 0}, "gives sequence 9 to a rank, but it does not wait here"),
        ({}, "gives none of 1 prompts to a rank while nothing is under way"),
    ],
)
def test_a_leader_that_breaks_its_contract_is_blamed(answer: Any, complaint: str) -> None:
    with pytest.raises(PolicyError, match=f"mine: {complaint}"):
        prefill(at([0.0], 10), lambda view: answer)
    problems = CHECKS["prefill_leader"](lambda: lambda view: answer, "mine", views=20)
    assert problems


def test_a_leader_that_raises_is_blamed() -> None:
    with pytest.raises(PolicyError, match="mine: raised ZeroDivisionError"):
        prefill(at([0.0], 10), lambda view: 1 // 0)


def test_a_leader_without_a_prefill_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no pool with the role prefill"):
        load_experiment("llama70b-h100-colocated", ["policies.prefill_leader=collaborative"])
