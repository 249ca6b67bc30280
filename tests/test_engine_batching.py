"""Continuous batching the way vLLM v1 does it, every step kept by hand; a step takes 1 s."""

from dataclasses import replace

import numpy as np
import pytest
from engine_cases import (
    EVERY_STEP_1S,
    LinearPricer,
    at,
    chained,
    each_step,
    pool_inputs,
    pool_spec,
    run_inputs,
    simulate,
)

from simpod.engine import Simulation
from simpod.errors import PolicyError
from simpod.policies import BatchPlan, BatchView
from simpod.records.columns import FINISHED, LIVE, REFUSED

NAN = float("nan")


@pytest.fixture(params=[True, False], ids=["skip_ahead", "every_step"])
def run(request):
    """Options of a run, with and without the fast path."""
    return {"skip_ahead": request.param}


def test_chunked_prefill_of_three_requests(run) -> None:
    """Budget 10: 4+6 of the prompts, then 1 decode + 6+3, then all three decode."""
    records = simulate(at([0.0, 0.0, 0.0], [4, 12, 3], [3, 2, 2]), max_step_tokens=10, run=run)
    assert each_step(records, "prefill_tokens") == [10, 9, 0]
    assert each_step(records, "decode_seqs") == [0, 1, 3]
    assert each_step(records, "context_tokens") == [0, 4, 5 + 12 + 3]
    requests = records.requests
    assert requests.scheduled_s.tolist() == [0.0, 0.0, 1.0]
    assert requests.prefill_end_s.tolist() == [1.0, 2.0, 2.0]
    assert requests.first_token_s.tolist() == [1.0, 2.0, 2.0]
    assert requests.finish_s.tolist() == [3.0, 3.0, 3.0]
    assert requests.num_preemptions.tolist() == [0, 0, 0]


def test_draft_tokens_count_in_the_budget(run) -> None:
    """As in vLLM: with two draft tokens a decode takes three of the ten, seven are left."""
    drafts = {"mtp_layers": 2, "mtp_acceptance": 0.0}
    records = simulate(at([0.0, 0.5], [4, 16], [5, 1]), max_step_tokens=10, mtp=drafts, run=run)
    assert each_step(records, "prefill_tokens") == [4, 7, 7, 2, 0]
    assert each_step(records, "decode_seqs") == [0, 1, 1, 1, 1]


def test_one_long_prompt_is_cut_into_steps(run) -> None:
    records = simulate(at([0.0], 25, 1), max_step_tokens=10, run=run)
    assert each_step(records, "prefill_tokens") == [10, 10, 5]
    assert records.requests.finish_s.tolist() == [3.0]
    assert records.requests.ledger.tolist() == [-1]  # one token: it never decodes


def test_prefill_first_stalls_decodes(run) -> None:
    """The second prompt takes the step at 2 alone; the first request's tokens wait for it."""
    requests = at([0.0, 1.5], [4, 6], [4, 2])
    stalled = simulate(requests, run=run | {"batching": "prefill_first"})
    assert each_step(stalled, "decode_seqs") == [0, 1, 0, 2, 1]
    assert each_step(stalled, "prefill_tokens") == [4, 0, 6, 0, 0]
    assert stalled.requests.finish_s.tolist() == [5.0, 4.0]
    assert stalled.groups[0].decode_end_s.tolist() == [2.0, 4.0, 5.0]
    chunked = simulate(requests, run=run)
    assert chunked.requests.finish_s.tolist() == [4.0, 4.0]


def test_no_more_sequences_than_slots(run) -> None:
    records = simulate(at([0.0] * 4, 1, [3, 1, 2, 2]), max_num_seqs=2, run=run)
    assert records.requests.scheduled_s.tolist() == [0.0, 0.0, 1.0, 3.0]
    assert records.requests.finish_s.tolist() == [3.0, 1.0, 3.0, 5.0]


def test_blocks_run_out_and_the_newest_is_recomputed(run) -> None:
    """4 blocks of 4: at 8 tokens each both need a third block; the newer one makes way.

    It has 5 tokens (1 at the prompt's end, 4 decoded), so it recomputes 4 + 5 = 9 of them when the
    older one is done at 8 s, gets its sixth token then, and two more.
    """
    records = simulate(at([0.0, 0.0], 4, 8), block_tokens=4, kv_blocks=4, run=run)
    requests = records.requests
    assert requests.finish_s.tolist() == [8.0, 11.0]
    assert requests.num_preemptions.tolist() == [0, 1]
    assert requests.first_token_s.tolist() == [1.0, 1.0]
    assert each_step(records, "prefill_tokens") == [8] + [0] * 7 + [9, 0, 0]
    assert each_step(records, "decode_seqs") == [0, 2, 2, 2, 2, 1, 1, 1, 0, 1, 1]
    assert records.segments.tolist() == [[1, 0, 0, 4]]
    assert (requests.first_decode_step[1], requests.last_decode_step[1]) == (7, 9)
    assert records.groups[0].num_preemptions == 1
    assert records.groups[0].peak_kv_frac == 1.0


def test_a_preempted_sequence_goes_before_those_that_wait(run) -> None:
    """As above, with a third prompt of two blocks that has waited since 2 s: it starts at 11 s."""
    records = simulate(
        at([0.0, 0.0, 2.0], [4, 4, 8], [8, 8, 1]), block_tokens=4, kv_blocks=4, run=run
    )
    assert records.requests.finish_s.tolist() == [8.0, 11.0, 12.0]
    assert records.requests.scheduled_s.tolist() == [0.0, 0.0, 11.0]


def test_a_sequence_preempted_before_it_decodes_keeps_its_token(run) -> None:
    """Both prompts fill their blocks; only one of them finds a block for its next token."""
    records = simulate(at([0.0, 0.0], 4, 3), block_tokens=4, kv_blocks=3, run=run)
    requests = records.requests
    assert requests.first_token_s.tolist() == [1.0, 1.0]
    assert requests.finish_s.tolist() == [3.0, 5.0]
    assert each_step(records, "prefill_tokens") == [8, 0, 0, 5, 0]


def test_a_long_prompt_in_part_is_preempted_for_an_older_decode(run) -> None:
    """The second prompt is computed in chunks of 3 while the first decodes into the same blocks.

    Where only chunks must fit: at 3 s its last chunk finds no block, so it makes way for itself. At
    4 s its first chunk fits again, the second at 5 s does not; from 6 s on it is alone.
    """
    requests = at([0.0, 1.0], [3, 9], [6, 1])
    limits = {"block_tokens": 2, "kv_blocks": 6, "max_step_tokens": 4, "run": run}
    waits = simulate(requests, **limits)  # for room for all of it
    assert waits.requests.scheduled_s.tolist() == [0.0, 6.0]
    assert waits.requests.num_preemptions.tolist() == [0, 0]
    records = simulate(requests, reserve_full_prompt=False, **limits)
    requests = records.requests
    assert requests.num_preemptions.tolist() == [0, 2]
    assert each_step(records, "prefill_tokens") == [3, 3, 3, 0, 3, 0, 4, 4, 1]
    assert each_step(records, "decode_seqs") == [0, 1, 1, 1, 1, 1, 0, 0, 0]
    assert requests.finish_s.tolist() == [6.0, 9.0]
    assert requests.status.tolist() == [FINISHED, FINISHED]


def test_prefix_hits_are_not_computed_and_share_blocks(run) -> None:
    """Blocks and hash blocks of 4: the second prompt of 12 finds 8 of its tokens, one is left."""
    requests = at(
        [0.0, 2.0, 2.0],
        [12, 12, 12],
        [4, 4, 2],
        **chained([1, 2, 3], [1, 2, 3], [1, 9, 10], block_tokens=4),
    )
    # at 4 s the three hold 15, 13 and 13 tokens in 4 blocks each, of which 2 and 1 are shared
    limits = {"block_tokens": 4, "kv_blocks": 4 + (4 - 2) + (4 - 1), "run": run}
    records = simulate(requests, prefix_caching=True, **limits)
    assert records.requests.cached_tokens.tolist() == [0, 8, 4]
    assert each_step(records, "prefill_tokens") == [12, 0, 4 + 8, 0, 0, 0]
    assert records.requests.num_preemptions.tolist() == [0, 0, 0]
    apart = simulate(requests, prefix_caching=False, **limits)
    assert apart.requests.cached_tokens.tolist() == [0, 0, 0]
    assert apart.requests.scheduled_s[2] > 2.0  # 4 + 3 blocks are taken, it needs 3


def test_prefix_stays_after_its_user_left_until_room_is_needed(run) -> None:
    requests = at(
        [0.0, 10.0, 20.0, 30.0],
        [8, 8, 16, 8],
        1,
        **chained([1, 2], [1, 2], [5, 6, 7, 8], [1, 2], block_tokens=4),
    )
    records = simulate(requests, block_tokens=4, kv_blocks=5, prefix_caching=True, run=run)
    # the third needs 4 of 5 blocks: the tail of the first prefix goes, its head stays
    assert records.requests.cached_tokens.tolist() == [0, 4, 0, 4]


@pytest.mark.parametrize(
    ("arrival_s", "scheduled_s"), [(2.0, 2.0), (2.0000001, 3.0), (1.9, 2.0), (8.0, 8.0)]
)
def test_an_arrival_joins_the_step_that_starts_then(run, arrival_s, scheduled_s) -> None:
    records = simulate(at([0.0, arrival_s], 1, [9, 1]), run=run)
    assert records.requests.scheduled_s[1] == scheduled_s
    assert records.requests.finish_s.tolist() == [9.0, scheduled_s + 1.0]


def test_finishes_come_before_arrivals_of_the_same_instant(run) -> None:
    """At 2 s the second instance is free again, so the shortest queue is there."""
    records = simulate(
        at([0.0, 0.0, 2.0], 1, [9, 2, 1]), instances=2, router="least_requests", run=run
    )
    assert records.requests.prefill_target.tolist() == [0, 1, 1]
    assert records.requests.finish_s.tolist() == [9.0, 2.0, 3.0]


def test_too_long_requests_are_refused_at_once(run) -> None:
    records = simulate(at([0.0, 1.0, 2.0], [5, 6, 90], [5, 5, 11]), max_model_len=10, run=run)
    assert records.requests.status.tolist() == [FINISHED, REFUSED, REFUSED]
    assert np.isnan(records.requests.finish_s[1:]).all()
    assert records.end_s == 5.0
    by_blocks = simulate(at([0.0, 0.0], [12, 13], 4), block_tokens=4, kv_blocks=4, run=run)
    assert by_blocks.requests.status.tolist() == [FINISHED, REFUSED]


def test_the_run_stops_at_its_duration(run) -> None:
    records = simulate(at([0.0, 3.0, 20.0], 1, [3, 30, 1]), run=run | {"duration_s": 10.5})
    assert records.end_s == 10.5
    assert records.requests.status.tolist() == [FINISHED, LIVE]  # the third was never sent
    assert records.requests.finish_s[0] == 3.0
    assert np.isnan(records.requests.finish_s[1])
    assert records.requests.first_token_s[1] == 4.0
    assert records.groups[0].decode_end_s.tolist() == [2, 3, 5, 6, 7, 8, 9, 10]
    assert records.groups[0].busy_s == 10.0


@pytest.mark.parametrize(("others", "need"), [(0, 1), (0, 7), (0, 20), (3, 7), (4, 20)])
def test_draft_tokens_come_in_an_even_pattern(run, others, need) -> None:
    """1.9 tokens a step: V(s) = floor(1.9 s); who joins after n steps counts from V(n)."""
    mtp = {"mtp_layers": 1, "mtp_acceptance": 0.9}
    requests = at([0.0, others], 1, [60, need + 1])
    records = simulate(requests, mtp=mtp, run=run)
    # its prompt shares the step that ends at others + 1, the group's decode step number `others`
    given = [(19 * s) // 10 for s in range(200)]
    steps = next(s for s in range(100) if given[others + s] - given[others] >= need)
    assert records.requests.finish_s[1] == others + 1 + steps
    assert records.groups[0].tokens_per_decode_step == (19, 10)


def test_a_conversation_waits_for_its_answer(run) -> None:
    requests = at(
        [0.0, NAN, NAN],
        1,
        [3, 2, 1],
        after=np.array([-1, 0, 1]),
        think_s=np.array([0.0, 5.0, 0.25]),
        session_id=np.array([7, 7, 7]),
    )
    records = simulate(requests, run=run)
    assert records.requests.arrival_s.tolist() == [0.0, 8.0, 10.25]
    assert records.requests.finish_s.tolist() == [3.0, 10.0, 11.25]
    assert records.requests.session_id.tolist() == [7, 7, 7]


def test_who_follows_a_refused_request_is_sent_all_the_same(run) -> None:
    requests = at([1.0, NAN], [50, 1], 1, after=np.array([-1, 0]), think_s=np.array([0.0, 2.0]))
    records = simulate(requests, max_model_len=10, run=run)
    assert records.requests.status.tolist() == [REFUSED, FINISHED]
    assert records.requests.arrival_s.tolist() == [1.0, 3.0]


def test_closed_loop_keeps_its_clients_busy_and_no_more(run) -> None:
    """3 clients, 4 steps a request, slots for all: one cycle takes 4 s, 12 requests take 16 s."""
    records = simulate(at([NAN] * 12, 1, 4, concurrency=3), run=run)
    assert records.requests.arrival_s.tolist() == [0.0] * 3 + [4.0] * 3 + [8.0] * 3 + [12.0] * 3
    assert records.end_s == 16.0


def test_ranks_of_a_group_step_together_and_wait_for_the_slowest(run) -> None:
    """0.1 s a prompt token: 100 and 20 tokens on two ranks of a group both take 10 s."""
    pricer = LinearPricer(base_s=0.0, s_per_prompt_token=0.1)
    records = simulate(at([0.0, 0.0], [100, 20], 1), pricer, dp=2, run=run)
    np.testing.assert_allclose(records.requests.prefill_end_s, [10.0, 10.0])
    np.testing.assert_allclose(records.requests.barrier_wait_s, [0.0, 8.0])
    apart = simulate(at([0.0, 0.0], [100, 20], 1), pricer, instances=2, run=run)
    np.testing.assert_allclose(apart.requests.prefill_end_s, [10.0, 2.0])
    np.testing.assert_allclose(apart.requests.barrier_wait_s, [0.0, 0.0])


def test_steps_lengthen_with_the_context_by_hand(run) -> None:
    """1 s + 0.01 s a resident token: 1 for the prompt's step, then 1.05, 1.06, 1.07."""
    records = simulate(at([0.0], 5, 4), LinearPricer(s_per_context_token=0.01), run=run)
    np.testing.assert_allclose(records.groups[0].decode_end_s, [2.05, 3.11, 4.18])


def test_another_rank_becomes_the_slowest_in_mid_run(run) -> None:
    """Two sequences grow past a longer one: a step takes the larger of 22 + g and 20 + 2g."""
    pricer = LinearPricer(base_s=0.0, s_per_prompt_token=0.0, s_per_context_token=1.0)
    requests = at([0.0, 0.0, 0.0], [22, 10, 10], 6)
    target_of = [0, 1, 1]
    records = simulate(
        requests, pricer, dp=2, router=lambda view, seq: target_of[seq.seq_id], run=run
    )
    steps_s = np.diff(records.groups[0].decode_end_s, prepend=0.0)
    np.testing.assert_allclose(steps_s, [max(22 + g, 20 + 2 * g) for g in range(5)])


# --- decisions that the engine refuses ------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "rule"),
    [
        (BatchPlan({0: 11}), "chunks of 11 tokens in all; 10 of 10 are left"),
        (BatchPlan({0: 9}), "chunk of 9 tokens for sequence 0; 8 are uncomputed"),
        (BatchPlan({0: 0}), "chunk of 0 for sequence 0; allowed: an integer >= 1"),
        (BatchPlan({5: 1}), "chunk for sequence 5, which has no prompt to compute here"),
        (BatchPlan({0: 1, 1: 1}), "2 prompts in one step; 1 slots are free"),
        ({0: 1}, "not a BatchPlan"),
    ],
)
def test_a_scheduler_that_breaks_its_contract_is_named(plan, rule) -> None:
    with pytest.raises(PolicyError) as caught:
        simulate(
            at([0.0, 0.0], 8, 2),
            max_step_tokens=10,
            max_num_seqs=1,
            run={"batching": lambda: lambda view: plan},
        )
    assert caught.value.policy == "test"
    assert rule in caught.value.rule


@pytest.mark.parametrize("target", [-1, 2, 0.5, None])
def test_a_router_that_breaks_its_contract_is_named(target) -> None:
    with pytest.raises(PolicyError, match="allowed: 0 to 1"):
        simulate(at([0.0]), instances=2, router=lambda view, seq: target)


def test_what_policies_raise_is_blamed_on_them() -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("oops")

    with pytest.raises(PolicyError, match="raised ZeroDivisionError"):
        simulate(at([0.0]), instances=2, router=broken)
    with pytest.raises(PolicyError, match="raised ZeroDivisionError"):
        simulate(at([0.0]), run={"batching": lambda: broken})


def test_held_requests_are_the_waiting_and_the_running() -> None:
    seen = []

    def router(view, seq) -> int:
        seen.append((view.held_seqs.copy(), view.waiting_seqs + view.running_seqs))
        return int(view.held_seqs.argmin())

    load = at(0.1 * np.arange(200), 5, np.arange(200) % 23 + 1)
    records = simulate(load, instances=3, router=router, max_num_seqs=4, kv_blocks=20)
    assert records.groups[0].num_preemptions > 0
    assert max(held.max() for held, _ in seen) > 4
    for held, both in seen:
        np.testing.assert_array_equal(held, both)


def test_views_cannot_be_written_to() -> None:
    def cheat(view, seq) -> int:
        view.running_seqs[0] = 99
        return 0

    with pytest.raises(PolicyError, match="read-only"):
        simulate(at([0.0]), instances=2, router=cheat)


def test_progress_ends_with_all_requests() -> None:
    calls: list[tuple[int, int, float]] = []
    inputs = run_inputs(
        at(np.arange(400.0), 1, 1),
        pool_inputs(pool_spec()),
        on_progress=lambda *call: calls.append(call),
    )
    Simulation(inputs).run()
    assert calls[-1] == (400, 400, 400.0)
    assert [ended for ended, _, _ in calls] == sorted({ended for ended, _, _ in calls})


def test_a_scheduler_that_never_serves_is_blamed(run) -> None:
    inputs = run_inputs(at([0.0], 4, 2), pool_inputs(pool_spec(), EVERY_STEP_1S), **run)
    lazy = replace(inputs, make_batching=lambda: lambda view: BatchPlan(), batching_name="lazy")
    with pytest.raises(PolicyError, match=r"lazy: idles for ever while 1 prompts wait"):
        Simulation(lazy).run()


def test_a_batch_view_cannot_be_written_to(run) -> None:
    views = []

    def watch(view: BatchView) -> BatchPlan:
        views.append(view)
        return BatchPlan({seq.seq_id: seq.uncached_tokens for seq in view.prefilling})

    inputs = run_inputs(at([0.0], 4, 2), pool_inputs(pool_spec(), EVERY_STEP_1S), **run)
    Simulation(replace(inputs, make_batching=lambda: watch)).run()
    for name in ("max_step_tokens", "block_tokens", "num_decoding", "free_blocks"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(views[0], name, 5)


def test_use_of_slots_and_kv_is_an_exact_time_average(run) -> None:
    """4 tokens are computed to 1 s, two decode steps last to 3 s; idle until the next at 5 s.

    KV: a block of 4 while the prompt is computed, then 4 growing to 6 tokens; of 16.
    """
    records = simulate(at([0.0, 5.0], 4, [3, 1]), block_tokens=4, kv_blocks=4, run=run)
    pool = records.pools[0]
    assert pool.mean_slots_frac == pytest.approx((3 + 1) / 6 / pool_spec().max_num_seqs)
    assert pool.mean_kv_frac == pytest.approx((4 + 5 * 2 + 4) / 6 / 16)
    assert records.groups[0].peak_kv_frac == 6 / 16
    assert pool.mean_waiting_seqs == 0.0


def test_a_prefill_pool_alone_ends_with_the_first_token(run) -> None:
    for first_from_decode in (True, False):
        records = simulate(
            at([0.0, 0.0], 4, 9),
            role="prefill",
            run=run | {"first_token_from_decode": first_from_decode},
        )
        assert records.requests.status.tolist() == [FINISHED, FINISHED]
        assert records.requests.first_token_s.tolist() == records.requests.finish_s.tolist()
        assert records.requests.finish_s.tolist() == [1.0, 1.0]
