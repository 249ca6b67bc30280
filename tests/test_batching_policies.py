"""Batch schedulers: one exact case each, and the textbook cases of the classical ones."""

from typing import Any

import pytest
from policy_cases import chunks_of, decoding, make, prompt, rank

from simpod.policies import BatchPlan
from simpod.policies.fakes import FakeSequence


def test_fcfs_gives_decodes_their_tokens_and_cuts_the_last_prompt() -> None:
    view = rank(prompt(7, 30, is_running=True), prompt(8, 50), prompt(9, 40), decoding=4)
    plan = make("batching", "fcfs")(view)
    assert chunks_of(plan) == [(7, 30), (8, 50), (9, 16)]
    assert plan.decode


def test_fcfs_cuts_long_prompts_at_its_threshold() -> None:
    view = rank(prompt(1, 90), prompt(2, 90), prompt(3, 90))
    assert chunks_of(make("batching", "fcfs", max_chunk_tokens=40)(view)) == [
        (1, 40),
        (2, 40),
        (3, 20),
    ]


def test_fcfs_keeps_to_the_free_slots() -> None:
    view = rank(prompt(1, 5), prompt(2, 5), prompt(3, 5), slots=2)
    assert chunks_of(make("batching", "fcfs")(view)) == [(1, 5), (2, 5)]


def test_a_budget_that_decodes_use_up_leaves_no_chunk() -> None:
    for name in ("fcfs", "shortest_prompt"):
        assert make("batching", name)(rank(prompt(1, 5), budget=6, decoding=6)) == BatchPlan()


def test_prefill_first_pauses_decodes_only_for_a_prompt() -> None:
    policy = make("batching", "prefill_first")
    plan = policy(rank(prompt(1, 70), prompt(2, 50), decoding=20))
    assert chunks_of(plan) == [(1, 70), (2, 30)]
    assert not plan.decode
    assert policy(rank(decoding=20)) == BatchPlan(decode=True)


def test_in_flight_holds_prompts_until_all_ranks_have_some():
    policy = make("batching", "in_flight", balance_steps=50)
    group = {"num_ranks": 4, "ranks_decoding": 4, "decoding": 5}
    lonely = policy(rank(prompt(1, 60), ranks_prefilling=1, decode_steps=20, **group))
    assert lonely == BatchPlan(review_steps=30)
    joined = policy(rank(prompt(1, 60), ranks_prefilling=4, decode_steps=23, **group))
    assert chunks_of(joined) == [(1, 60)]
    again = policy(rank(prompt(2, 60), ranks_prefilling=2, decode_steps=30, **group))
    assert again == BatchPlan(review_steps=43)  # 50 after the last time that all had some
    timeout = policy(rank(prompt(2, 60), ranks_prefilling=2, decode_steps=73, **group))
    assert chunks_of(timeout) == [(2, 60)]
    idle = group | {"ranks_decoding": 3}
    assert policy(rank(prompt(3, 9), ranks_prefilling=1, decode_steps=80, **idle)).prefill_chunks


def test_in_flight_waits_for_enough_tokens():
    policy = make("batching", "in_flight", wait_steps=20, wait_tokens_frac=0.8)
    assert policy(rank(prompt(1, 30), decoding=5, decode_steps=7)).review_steps == 20
    assert policy(rank(prompt(1, 30), decoding=5, decode_steps=17)).review_steps == 10
    full = policy(rank(prompt(1, 30), prompt(2, 45), decoding=5, decode_steps=18))
    assert chunks_of(full) == [(1, 30), (2, 45)]
    assert policy(rank(prompt(3, 30), decoding=5, decode_steps=40)).review_steps == 20
    assert chunks_of(policy(rank(prompt(3, 30), decoding=5, decode_steps=60))) == [(3, 30)]
    assert chunks_of(policy(rank(prompt(4, 30)))) == [(4, 30)]


def test_in_flight_takes_prompts_whole():
    plan = make("batching", "in_flight")(rank(prompt(1, 50), prompt(2, 60), decoding=10))
    assert chunks_of(plan) == [(1, 50)]


def test_shortest_prompt_serves_the_least_work_after_what_runs() -> None:
    view = rank(prompt(3, 60, is_running=True), prompt(4, 30), prompt(5, 10), prompt(6, 10))
    plan = make("batching", "shortest_prompt")(view)
    assert chunks_of(plan) == [(3, 60), (5, 10), (6, 10), (4, 20)]
    assert plan.decode


# --- other batches in order of arrival ------------------------------------------------------------


def test_orca_takes_prompts_whole_or_not_at_all() -> None:
    plan = make("batching", "orca")(rank(prompt(1, 50), prompt(2, 60), prompt(3, 10), decoding=10))
    assert chunks_of(plan) == [(1, 50)]  # 2 does not fit beside it, and 3 is behind 2
    assert make("batching", "orca")(rank(prompt(1, 95), decoding=10)) == BatchPlan()
    assert chunks_of(make("batching", "orca")(rank(prompt(1, 950), decoding=10))) == [(1, 90)]


def test_splitfuse_fills_a_step_of_its_own_size_exactly() -> None:
    policy = make("batching", "splitfuse", forward_tokens=64)
    view = rank(prompt(1, 30), prompt(2, 20), prompt(3, 90), decoding=10)
    assert chunks_of(policy(view)) == [(1, 30), (2, 20), (3, 4)]


def test_decode_first_lets_a_batch_finish_before_the_next() -> None:
    static = make("batching", "decode_first")
    assert static(rank(prompt(1, 50), decoding=1)) == BatchPlan()
    assert static(rank(prompt(1, 150))) == BatchPlan({1: 100}, decode=False)
    half_way = rank(prompt(1, 50, is_running=True), prompt(2, 20), decoding=3)
    assert static(half_way) == BatchPlan({1: 50, 2: 20}, decode=False)
    refilling = make("batching", "decode_first", refill_seqs=3)
    assert refilling(rank(prompt(1, 50), decoding=4)) == BatchPlan()
    assert refilling(rank(prompt(1, 50), decoding=3)) == BatchPlan({1: 50}, decode=False)


def test_slices_send_who_has_had_one_to_the_end_of_the_queue() -> None:
    policy = make("batching", "slices", slice_tokens=8)
    full = {"slots": 0, "budget": 20}
    first = policy(rank(prompt(3, 5), decodes=(decoding(1, 4), decoding(2, 6)), **full))
    assert (first.prefill_chunks, dict(first.preempt), first.review_tokens) == ({}, {}, 8)
    later = policy(rank(prompt(3, 5), decodes=(decoding(1, 12), decoding(2, 14)), **full))
    assert later == BatchPlan({3: 5}, preempt={1: "recompute", 2: "recompute"})
    alone = policy(rank(decodes=(decoding(1, 40),), **full))
    assert alone == BatchPlan()


def test_batchllm_lets_the_first_of_a_group_compute_the_prefix() -> None:
    group = [prompt(s, 40, prefix_hashes=(7, s)) for s in (1, 3, 5)]
    other = prompt(2, 30, prefix_hashes=(8,))
    policy = make("batching", "batchllm")
    assert chunks_of(policy(rank(*group, other))) == [(1, 40), (2, 30)]
    cached = [prompt(s, 10, prompt_tokens=40, prefix_hashes=(7, s)) for s in (3, 5)]
    assert chunks_of(policy(rank(other, *cached))) == [(2, 30), (3, 10), (5, 10)]
    heavy = prompt(9, 30, prefix_hashes=(9,), predicted_tokens=60.0)
    assert chunks_of(policy(rank(other, heavy))) == [(9, 30), (2, 30)]


# --- by deadline ----------------------------------------------------------------------------------


def test_earliest_deadline_is_preemptive_and_may_put_the_late_last() -> None:
    late = prompt(1, 40, ttft_deadline_s=49.0)
    soon = prompt(2, 80, ttft_deadline_s=51.0, is_running=True)
    sooner = prompt(3, 30, ttft_deadline_s=50.5)
    some_day = prompt(4, 30)
    view = rank(some_day, soon, late, sooner)
    assert chunks_of(make("batching", "earliest_deadline")(view)) == [(1, 40), (3, 30), (2, 30)]
    patient = make("batching", "earliest_deadline", late_last=True)
    assert chunks_of(patient(view)) == [(3, 30), (2, 70)]


def test_earliest_deadline_meets_a_set_that_arrival_order_misses() -> None:
    """Liu and Layland's argument on one server: work 50 due at 52, work 100 due at 60."""
    view = rank(prompt(1, 100, ttft_deadline_s=60.0), prompt(2, 50, ttft_deadline_s=52.0))
    assert chunks_of(make("batching", "earliest_deadline")(view))[0] == (2, 50)
    assert chunks_of(make("batching", "fcfs")(view)) == [(1, 100)]


def test_least_slack_counts_the_work_and_gives_up_the_hopeless() -> None:
    long = prompt(1, 150, ttft_deadline_s=52.0)  # 0.5 s of slack at 100 tokens/s
    short = prompt(2, 10, ttft_deadline_s=51.5)  # 1.4 s
    hopeless = prompt(3, 300, ttft_deadline_s=52.0)  # -1 s
    view = rank(hopeless, short, long, prompt_tokens_per_s=100.0, budget=155)
    assert chunks_of(make("batching", "least_slack")(view)) == [(1, 150), (2, 5)]
    faster = rank(hopeless, short, long, prompt_tokens_per_s=1000.0, budget=300)
    assert chunks_of(make("batching", "least_slack")(faster))[0] == (2, 10)


def test_a_prompt_without_room_does_not_take_the_budget_of_one_under_way() -> None:
    urgent = prompt(1, 90, ttft_deadline_s=51.0)
    under_way = prompt(2, 90, ttft_deadline_s=60.0, is_running=True)
    plan = make("batching", "earliest_deadline")(rank(under_way, urgent, blocks=4))
    assert chunks_of(plan) == [(2, 90), (1, 10)]


# --- by predicted length --------------------------------------------------------------------------


def test_sjf_orders_by_predicted_output_and_preempts_nobody() -> None:
    view = rank(
        prompt(1, 40, predicted_tokens=900.0, is_running=True),
        prompt(2, 40, predicted_tokens=300.0),
        prompt(3, 40, predicted_tokens=20.0),
    )
    assert chunks_of(make("batching", "sjf")(view)) == [(1, 40), (3, 40), (2, 20)]
    assert chunks_of(make("batching", "sjf")(rank(prompt(1, 60), prompt(2, 60)))) == [
        (1, 60),
        (2, 40),
    ]


def test_trail_preempts_the_longest_remaining_unless_it_is_nearly_done() -> None:
    young = decoding(1, 10, predicted_tokens=200.0)  # 190 left, 5 % done
    old = decoding(2, 900, context=1000, predicted_tokens=1000.0)  # 100 left, but 90 % done
    short = prompt(3, 20, predicted_tokens=50.0)
    view = rank(short, decodes=(young, old), slots=0)
    plan = make("batching", "trail")(view)
    assert (chunks_of(plan), dict(plan.preempt)) == ([(3, 20)], {1: "recompute"})
    longer = rank(prompt(3, 20, predicted_tokens=195.0), decodes=(young, old), slots=0)
    assert make("batching", "trail")(longer) == BatchPlan()
    only_old = rank(prompt(3, 20, predicted_tokens=50.0), decodes=(old,), slots=0)
    assert make("batching", "trail")(only_old) == BatchPlan()
    srpt = make("batching", "trail", preemptible_frac=1.0)
    assert dict(srpt(only_old).preempt) == {2: "recompute"}


def test_ltr_orders_by_rank_until_somebody_starves() -> None:
    view = rank(
        prompt(1, 40, predicted_tokens=9.0, arrival_s=45.0),
        prompt(2, 40, predicted_tokens=3.0, arrival_s=46.0),
        prompt(3, 40, predicted_tokens=5.0, arrival_s=47.0),
    )
    assert chunks_of(make("batching", "ltr")(view)) == [(2, 40), (3, 40), (1, 20)]
    guarded = make("batching", "ltr", starvation_s=4.5)
    assert chunks_of(guarded(view)) == [(1, 40), (2, 40), (3, 20)]
    full = rank(prompt(3, 20, predicted_tokens=5.0), decodes=(decoding(1, 4),), slots=0)
    assert make("batching", "ltr")(full) == BatchPlan()
    longer = decoding(1, 4, predicted_tokens=8.0)
    full = rank(prompt(3, 20, predicted_tokens=5.0), decodes=(longer,), slots=0)
    plan = make("batching", "ltr", preemptive=True)(full)
    assert (chunks_of(plan), dict(plan.preempt)) == ([(3, 20)], {1: "recompute"})


# --- multi-level feedback queue -------------------------------------------------------------------

MLFQ: dict[str, Any] = {"quantum_tokens": 4, "ratio": 2, "num_queues": 3, "prompt_weight": 0.1}


@pytest.mark.parametrize(
    ("seq", "level", "left"),
    [
        (prompt(1, 10), 0, 3.0),  # service 1 of 4
        (prompt(1, 50), 1, 3.0),  # a prompt worth 5 skips the quantum of 4 and joins that of 8
        (prompt(1, 500), 2, 0.0),  # the lowest queue keeps it whatever it takes
        (decoding(1, 2, prompt_tokens=10), 0, 1.0),
        (decoding(1, 3, prompt_tokens=10), 1, 8.0),  # quantum used up: sinks by one
        (decoding(1, 11, prompt_tokens=10), 2, 16.0),
    ],
)
def test_fastserve_joins_and_sinks_as_told(seq: FakeSequence, level: int, left: float) -> None:
    found, rest = make("batching", "fastserve", **MLFQ).level(seq)
    assert found == level
    assert rest == pytest.approx(left) or level == 2


def test_fastserve_lets_a_new_short_one_displace_a_long_one_which_keeps_its_kv() -> None:
    policy = make("batching", "fastserve", **MLFQ)
    old = decoding(1, 11, prompt_tokens=10)
    view = rank(prompt(2, 10, arrival_s=49.0), decodes=(old,), slots=0)
    assert policy(view).preempt == {1: "keep"}
    for can_swap, how in ((True, "swap"), (False, "recompute")):
        short = rank(
            prompt(2, 10, arrival_s=49.0), decodes=(old,), slots=0, blocks=0, can_swap=can_swap
        )
        assert policy(short).preempt == {1: how}
    equal = rank(prompt(2, 10, arrival_s=49.0), decodes=(decoding(1, 1, prompt_tokens=10),))
    plan = policy(equal)
    assert (chunks_of(plan), plan.preempt, plan.review_tokens) == ([(2, 10)], {}, 2)


def test_fastserve_resumes_in_order_of_queues_and_lifts_who_starves() -> None:
    policy = make("batching", "fastserve", **MLFQ, starvation_s=20.0)
    low = decoding(1, 11, prompt_tokens=10, since_s=40.0)
    middle = decoding(2, 3, prompt_tokens=10, since_s=45.0)
    assert policy(rank(pauses=(low, middle), slots=1)).resume == (2,)
    starving = decoding(1, 11, prompt_tokens=10, since_s=29.0)
    assert policy(rank(pauses=(starving, middle), slots=1)).resume == (1,)


# --- priorities and fairness ----------------------------------------------------------------------


def test_priority_makes_the_lowest_and_latest_make_way() -> None:
    running = (decoding(1, 4, priority=1), decoding(2, 4), decoding(3, 4))
    urgent = prompt(4, 20, priority=2)
    view = rank(prompt(5, 20, priority=0), urgent, decodes=running, slots=0)
    plan = make("batching", "priority")(view)
    assert (chunks_of(plan), dict(plan.preempt)) == ([(4, 20)], {3: "recompute"})
    kept = make("batching", "priority", preempt="keep")(view)
    assert dict(kept.preempt) == {3: "keep"}
    assert make("batching", "priority", preempt="none")(view) == BatchPlan()


def test_priority_displaces_nobody_for_nothing() -> None:
    running = (decoding(1, 4, context=64),)
    view = rank(prompt(4, 99, priority=2), decodes=running, slots=0, blocks=2)
    assert make("batching", "priority")(view) == BatchPlan()  # 2 + 4 blocks, 7 are needed


def test_vtc_serves_the_tenant_that_has_got_least() -> None:
    policy = make("batching", "vtc")
    queue = [prompt(1, 40, tenant=0), prompt(2, 40, tenant=0), prompt(3, 40, tenant=1)]
    served = {0: (50, 20), 1: (30, 25)}  # 50 + 2 x 20 = 90; 30 + 2 x 25 = 80
    assert chunks_of(policy(rank(*queue, served_tokens=served))) == [(3, 40), (1, 40), (2, 20)]


def test_vtc_gives_no_credit_for_idleness() -> None:
    policy = make("batching", "vtc")
    busy = {0: (1000, 0)}
    assert chunks_of(policy(rank(prompt(1, 60, tenant=0), served_tokens=busy))) == [(1, 60)]
    queue = (prompt(2, 40, tenant=0), prompt(3, 40, tenant=1), prompt(4, 40, tenant=1))
    after = {0: (1060, 0)}
    plan = policy(rank(*queue, served_tokens=after))
    # tenant 1 is lifted to 1060, then turns alternate: 2 (1060), 3 (1060), 4 or none
    assert chunks_of(plan) == [(2, 40), (3, 40), (4, 20)]


def test_wfq_interleaves_by_weight() -> None:
    """Two tenants of weights 2 and 1 with packets of 30: finish tags 15, 30, 45 and 30, 60."""
    policy = make("batching", "wfq", weights={"0": 2.0})
    a = [prompt(s, 30, tenant=0) for s in (1, 2, 3)]
    b = [prompt(s, 30, tenant=1) for s in (4, 5)]
    assert [s for s, _ in chunks_of(policy(rank(*a, *b, budget=150)))] == [1, 2, 4, 3, 5]


def test_wfq_starts_who_comes_late_at_the_virtual_time() -> None:
    policy = make("batching", "wfq")
    first = [prompt(s, 100, tenant=0) for s in (1, 2, 3)]
    assert chunks_of(policy(rank(*first))) == [(1, 100)]  # virtual time is 100 now
    late = prompt(4, 50, tenant=1)  # tag 100 + 50; those of tenant 0 are 200 and 300
    assert chunks_of(policy(rank(*first[1:], late, budget=200))) == [(4, 50), (2, 100), (3, 50)]
