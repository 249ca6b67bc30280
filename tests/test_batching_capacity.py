"""Who is let into the KV cache: SGLang's and TensorRT-LLM's rules, by hand; blocks of 16 tokens."""

from dataclasses import replace

import numpy as np
import pytest
from engine_cases import at, each_step, in_two_stages, pool_inputs, pool_spec, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_cases import chunks_of, decoding, make, prompt, rank

from simpod.errors import ConfigError, PolicyError
from simpod.policies import BatchPlan, resolve
from simpod.policies.batching.token_reserve import TokenReserve
from simpod.policies.roles import PolicyRef
from simpod.records.columns import FINISHED
from simpod.workload import Requests, WorkloadSpec, build, make_requests, streams
from simpod.workload.arrivals import ClosedLoopArrivals
from simpod.workload.lengths import UniformLengths


def limited(requests: Requests, limit, *, ignores_eos: bool = False) -> Requests:
    limits = np.broadcast_to(np.asarray(limit, dtype=np.int64), requests.output_tokens.shape)
    return replace(requests, max_tokens=limits, ignores_eos=ignores_eos)


# --- TensorRT-LLM ---------------------------------------------------------------------------------


def test_no_evict_starts_what_finds_room_to_the_end():
    """The one that decodes may need 3 more blocks, a new one 1 + 3: two fit into 11, not three."""
    runs = decoding(9, 16, context=32, prompt_tokens=16, max_tokens=64)
    new = [prompt(k, 16, max_tokens=48) for k in (1, 2, 3)]
    view = rank(*new, decodes=(runs,), blocks=11)
    assert chunks_of(make("batching", "in_flight")(view)) == [(1, 16), (2, 16)]
    both = make("batching", "in_flight", capacity="max_utilization")(view)
    assert chunks_of(both) == [(1, 16), (2, 16), (3, 16)]


def test_no_evict_sets_prompts_under_way_aside_first():
    part = prompt(1, 16, prompt_tokens=48, context_tokens=32, is_running=True, max_tokens=16)
    view = rank(part, prompt(2, 16, max_tokens=16), blocks=3)
    assert chunks_of(make("batching", "in_flight")(view)) == [(1, 16)]


def test_one_alone_starts_whatever_it_was_allowed():
    view = rank(prompt(1, 16, max_tokens=10**6), prompt(2, 16, max_tokens=8), blocks=20)
    assert chunks_of(make("batching", "in_flight")(view)) == [(1, 16)]


def test_without_limits_only_prompts_count():
    view = rank(prompt(1, 16), prompt(2, 16), decodes=(decoding(9, 16),), blocks=2)
    assert chunks_of(make("batching", "in_flight")(view)) == [(1, 16), (2, 16)]


def test_another_capacity_rule_is_refused():
    with pytest.raises(ConfigError, match="'all'; allowed: guaranteed_no_evict, max_utilization"):
        make("batching", "in_flight", capacity="all")


@pytest.mark.parametrize(("batching", "ignores_eos"), [("in_flight", False), ("sglang", True)])
def test_nobody_makes_way_where_limits_are_kept(batching, ignores_eos):
    """Five blocks of 4 tokens hold one request of 4 + 10 tokens; without limits more start."""
    requests = at([0.0, 0.0, 0.0], [4, 4, 4], [10, 10, 10])
    run = {"batching": batching}
    free = simulate(requests, kv_blocks=5, block_tokens=4, run=run)
    assert sum(free.requests.num_preemptions) > 0
    kept = limited(requests, 10, ignores_eos=ignores_eos)
    records = simulate(kept, kv_blocks=5, block_tokens=4, run=run)
    assert sum(records.requests.num_preemptions) == 0
    assert max(each_step(records, "decode_seqs")) == 1
    assert (records.requests.finish_s > 0).all()


# --- SGLang ---------------------------------------------------------------------------------------


def test_a_new_request_reserves_its_answer_and_running_ones_a_share():
    """Free: 640 tokens. Running: 0.7 x 100. New: 100 + 200 + 16 each, and 640 - 70 - 300 < 316."""
    runs = decoding(9, 100, context=200, max_tokens=200)
    new = [prompt(k, 100, max_tokens=200) for k in (1, 2)]
    view = rank(*new, decodes=(runs,), blocks=40, budget=1000)
    policy = make("batching", "sglang")
    assert chunks_of(policy(view)) == [(1, 100)]
    more = rank(*new, decodes=(runs,), blocks=45, budget=1000)
    assert chunks_of(make("batching", "sglang")(more)) == [(1, 100), (2, 100)]
    more = rank(new[1], decodes=(runs, replace(runs, seq_id=1)), blocks=90, budget=1000)
    assert policy(more) == BatchPlan()  # nobody has ended since it was full
    ended = rank(new[1], decodes=(runs,), blocks=90, budget=1000)
    assert chunks_of(policy(ended)) == [(2, 100)]


def test_prompts_of_sglang_pause_decodes():
    plan = make("batching", "sglang")(rank(prompt(1, 70), prompt(2, 50), decoding=20))
    assert chunks_of(plan) == [(1, 70), (2, 30)]
    assert not plan.decode
    assert make("batching", "sglang")(rank(decoding=20)) == BatchPlan(decode=True)


def test_sglang_looks_for_prompts_at_its_interval():
    policy = make("batching", "sglang", receive_interval=10)
    first = policy(rank(prompt(1, 70), decode_steps=0))
    assert chunks_of(first) == [(1, 70)]  # nothing decodes: it looks at once
    late = policy(rank(prompt(2, 70), decoding=1, decode_steps=4))
    assert late == BatchPlan(review_steps=6)
    assert policy(rank(prompt(2, 70), prompt(3, 9), decoding=1, decode_steps=7)).review_steps == 3
    due = policy(rank(prompt(2, 70), prompt(3, 9), decoding=1, decode_steps=10))
    assert chunks_of(due) == [(2, 70), (3, 9)]
    after = policy(rank(prompt(4, 5), decoding=3, decode_steps=10))
    assert chunks_of(after) == [(4, 5)]  # a step of prompts is followed by a look
    assert policy(rank(prompt(5, 5), decoding=3, decode_steps=11)).review_steps == 9


def test_the_expected_share_falls_with_steps_and_rises_with_a_retraction():
    reserve = TokenReserve(0.7)
    runs = tuple(decoding(k, 50, context=200, max_tokens=100) for k in (8, 9))
    for steps, frac in ((0, 0.7), (300, 0.7 - 0.5 * (0.7 - 0.098)), (900, 0.098)):
        reserve.admitted(rank(decodes=runs, decode_steps=steps), [])
        assert reserve.frac == pytest.approx(frac)
    back = prompt(3, 40, emitted_tokens=10, max_tokens=100)
    reserve.admitted(rank(back, decodes=runs, decode_steps=900), [back])
    assert reserve.frac == pytest.approx((100 + 2 * 20) / 201)
    reserve.admitted(rank(back, decodes=runs, decode_steps=901), [back])  # the same one
    assert reserve.frac == pytest.approx(140 / 201 - 0.602 / 600)
    reserve.admitted(rank(), [])
    assert reserve.frac == 0.7


def test_who_ignores_eos_counts_on_what_others_give_back():
    """64 free tokens, 48 with the prompt in: both write 8, one gives 40 back, 32 more come."""
    runs = decoding(9, 8, context=40, prompt_tokens=32, max_tokens=16, ignores_eos=True)
    new = prompt(1, 16, max_tokens=40, ignores_eos=True)
    tight = rank(new, decodes=(runs,), blocks=4, budget=1000)
    assert chunks_of(make("batching", "sglang")(tight)) == [(1, 16)]
    tighter = rank(new, decodes=(runs,), blocks=2, budget=1000)  # 16 - 2 x 8 leaves nothing
    assert make("batching", "sglang")(tighter) == BatchPlan()


# --- where limits come from -----------------------------------------------------------------------


def spec(**given) -> WorkloadSpec:
    return WorkloadSpec(
        arrivals=ClosedLoopArrivals(process="closed_loop", concurrency=2),
        prompt_tokens=UniformLengths(distribution="uniform", min=4, max=9),
        output_tokens=UniformLengths(distribution="uniform", min=5, max=20),
        num_requests=30,
        **given,
    )


def test_a_workload_says_what_its_clients_allow():
    assert not build(spec(), streams(0)).max_tokens.any()
    same = build(spec(max_tokens=64), streams(0))
    assert (same.max_tokens == 64).all()
    assert not same.ignores_eos
    exact = build(spec(max_tokens="output_tokens"), streams(0))
    assert exact.ignores_eos
    assert (exact.max_tokens == exact.output_tokens).all()
    with pytest.raises(ConfigError, match=r"request \d+: max_tokens 10; allowed: >= its answer"):
        build(spec(max_tokens=10), streams(0))


def test_limits_are_one_a_request():
    with pytest.raises(ConfigError, match="max_tokens has 1 values; allowed: 2"):
        make_requests([0.0, 1.0], 5, 5, max_tokens=np.array([9]))


# --- whatever comes -------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    batching=st.sampled_from(["in_flight", "sglang"]),
    dp=st.integers(1, 3),
    kv_blocks=st.integers(12, 60),
    slack=st.integers(0, 12),
    ignores_eos=st.booleans(),
)
def test_everybody_is_served_under_limits(seed, batching, dp, kv_blocks, slack, ignores_eos):
    """Limits that a lone request keeps; guaranteed ones, and exact ones, preempt nobody."""
    rng = np.random.default_rng(seed)
    num = 30
    outputs = rng.integers(1, 20, num)
    requests = limited(
        at(np.sort(rng.uniform(0.0, 40.0, num)), rng.integers(1, 24, num), outputs),
        outputs if ignores_eos else outputs + slack,
        ignores_eos=ignores_eos,
    )
    records, stepped = (
        simulate(
            requests,
            kv_blocks=kv_blocks,
            block_tokens=4,
            dp=dp,
            max_num_seqs=8,
            max_step_tokens=32,
            run={"batching": batching, "skip_ahead": skip_ahead},
        )
        for skip_ahead in (True, False)
    )
    assert (records.requests.status == FINISHED).all()
    assert records.requests.finish_s == pytest.approx(stepped.requests.finish_s, rel=1e-9)
    if batching == "in_flight" or ignores_eos:
        assert not records.requests.num_preemptions.any()


# --- decode ranks ---------------------------------------------------------------------------------


def pulled(batching, load, blocks):
    """One decode rank behind as many prefill ranks as there are requests."""
    return in_two_stages(
        load,
        prefill=pool_inputs(pool_spec(role="prefill", name="prefill", dp=len(load))),
        decode=pool_inputs(
            pool_spec(role="decode", name="decode", block_tokens=16, kv_blocks=blocks)
        ),
        transfer_s=0.25,
        batching=batching,
    ).requests


def test_no_evict_pulls_what_finds_room_to_the_end():
    """16 tokens and 32 more are three blocks: two find room in seven, the third waits."""
    load = limited(at([0.0] * 3, 16, 32), 32)
    kept = pulled("in_flight", load, blocks=7)
    assert kept.transfer_start_s[:2].tolist() == [1.0, 1.0]
    assert kept.transfer_start_s[2] == kept.finish_s[:2].min()
    assert not kept.num_preemptions.any()
    full = PolicyRef("in_flight", {"capacity": "max_utilization"})
    evicting = pulled(resolve("batching", full), load, blocks=7)
    assert evicting.transfer_start_s.tolist() == [1.0] * 3
    assert evicting.num_preemptions.any()
    unlimited = pulled("in_flight", at([0.0] * 3, 16, 32), blocks=7)
    assert unlimited.transfer_start_s.tolist() == [1.0] * 3


def test_sglang_keeps_512_tokens_free_for_each_on_a_decode_rank():
    """Of 1,600 tokens three take 48 and keep 1,536: 16 are left for a fourth."""
    load = at([0.0] * 4, 16, 32)
    kept = pulled("sglang", load, blocks=100)
    assert kept.transfer_start_s[:3].tolist() == [1.0] * 3
    assert kept.transfer_start_s[3] == kept.finish_s[:3].min()
    assert pulled("fcfs", load, blocks=100).transfer_start_s.tolist() == [1.0] * 4


def test_sglang_keeps_room_for_the_longest_to_end_alone():
    """It may come to 5,000 tokens and has 1,500: 3,500 must stay free, or 512."""
    longest = decoding(9, 16, context=1500, prompt_tokens=1000, max_tokens=4000)
    new = prompt(1, 16, max_tokens=100)
    policy = make("batching", "sglang")
    for blocks, is_let_in in ((252, True), (251, False)):  # 3,500 + 528 = 4,028 tokens
        view = rank(decodes=(longest,), blocks=blocks)
        assert policy.may_pull(view, [], new) is is_let_in


def test_what_is_on_its_way_counts():
    view = rank(blocks=5)
    policy = make("batching", "in_flight")
    coming = [prompt(k, 16, context_tokens=16, max_tokens=32) for k in (1, 2)]
    new = prompt(3, 16, max_tokens=32)
    assert policy.may_pull(view, coming[:1], new)  # 2 more of one, 3 of the new one
    assert not policy.may_pull(view, coming, new)
    assert policy.may_pull(rank(blocks=1), [], new)  # nobody is under way


def test_who_has_come_and_gone_is_not_on_its_way():
    """One after another, each with 528 tokens of 640: those before must not be counted."""
    served = pulled("sglang", at([0.0, 0.0, 0.0], 16, 3), blocks=40)
    assert served.transfer_start_s[1:].tolist() == served.finish_s[:-1].tolist()
    assert not np.isnan(served.finish_s).any()


class Refusing:
    """Pulls nothing, ever; or does not say so."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, view):
        return BatchPlan({seq.seq_id: seq.uncached_tokens for seq in view.prefilling})

    def may_pull(self, view, coming, seq):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [(False, "may_pull refuses for ever while 1 prompts wait"), ("no", "may_pull returned 'no'")],
)
def test_a_scheduler_that_starves_a_decode_rank_is_blamed(answer, said):
    with pytest.raises(PolicyError, match=said):
        pulled(lambda: Refusing(answer), at([0.0], 16, 3), blocks=40)
