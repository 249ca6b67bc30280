"""Routers: one exact case each."""

import numpy as np
import pytest
from policy_cases import make, pool, request

from simpod.errors import ConfigError
from simpod.policies.routing.max_flow import maximise_flow


def test_round_robin_goes_round() -> None:
    router = make("router", "round_robin")
    view = pool(waiting=[9, 0, 0])
    assert [router(view, request()) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_random_uses_every_target_alike() -> None:
    router, view = make("router", "random"), pool(waiting=[0] * 4)
    counts = np.bincount([router(view, request()) for _ in range(4000)], minlength=4)
    # chi-square with 3 degrees of freedom: 21.1 has a probability of 1e-4
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 21.1


def test_power_of_two_avoids_the_one_full_target_unless_it_draws_it_twice() -> None:
    router, view = make("router", "power_of_two"), pool(waiting=[9, 0, 0, 0])
    counts = np.bincount([router(view, request()) for _ in range(4800)], minlength=4)
    expected = 4800 / 16  # both draws must hit target 0
    assert abs(counts[0] - expected) < 4 * np.sqrt(expected)


def test_least_requests_counts_waiting_and_running() -> None:
    view = pool(waiting=[0, 3, 1], running=[5, 0, 1], queued=[0, 0, 10**6])
    assert make("router", "least_requests")(view, request()) == 2


def test_least_tokens_counts_prompts_to_come_and_a_token_a_decode() -> None:
    view = pool(waiting=[0, 9, 1], running=[40, 0, 1], queued=[100, 130, 139])
    assert make("router", "least_tokens")(view, request()) == 1


def test_least_kv_takes_the_emptiest_below_the_batch_limit() -> None:
    view = pool(kv=[10, 90, 50], running=[4, 1, 3], slots=4)
    assert make("router", "least_kv")(view, request()) == 2  # 0 is full
    assert make("router", "least_kv", reserve_tokens=21)(view, request()) == 1  # 111 < 113
    everyone_full = pool(kv=[10, 90, 5], running=[4, 4, 4], slots=4)
    assert make("router", "least_kv")(everyone_full, request()) == 2


def test_prefix_affinity_follows_the_longest_match_while_balanced() -> None:
    router = make("router", "prefix_affinity", max_spread_seqs=3)
    assert router(pool(waiting=[1, 0, 1]), request(1, 2, 3, 4)) == 1
    assert router(pool(waiting=[0, 3, 1]), request(1, 2, 9, 10)) == 1  # half of it matches
    assert router(pool(waiting=[0, 3, 1]), request(1, 20, 21, 22)) == 0  # a quarter does
    assert router(pool(waiting=[4, 9, 0]), request(1, 2, 3, 4)) == 2  # out of balance
    assert router(pool(waiting=[0, 0, 0]), request()) == 0  # nothing to match


@pytest.mark.parametrize("name", ["least_requests", "least_tokens", "least_kv"])
def test_equal_targets_are_taken_from_the_first(name: str) -> None:
    assert make("router", name)(pool(waiting=[1, 1, 1]), request()) == 0


# --- routers that know prefixes, sessions, speeds -------------------------------------------------


def hits(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.int64)


def test_session_affinity_stays_until_the_spread_is_too_large() -> None:
    router = make("router", "session_affinity", max_spread_seqs=5)
    assert router(pool(waiting=[1, 0]), request(session_id=7)) == 1
    assert router(pool(waiting=[0, 5]), request(session_id=7)) == 1
    assert router(pool(waiting=[0, 6]), request(session_id=7)) == 0
    assert router(pool(waiting=[5, 0]), request(session_id=7)) == 0  # it has moved for good
    assert router(pool(waiting=[5, 0]), request()) == 1


def test_preble_exploits_what_is_mostly_cached_and_explores_else() -> None:
    router = make("router", "preble", output_weight=0.0)
    cold = pool(waiting=[0, 0, 0], hits=hits(0, 0, 0))
    assert [router(cold, request(tokens=100)) for _ in range(3)] == [0, 1, 2]
    warm = pool(waiting=[0, 0, 0], hits=hits(0, 0, 60))
    assert router(warm, request(tokens=100)) == 2  # load 140 there, 100 elsewhere
    assert router(warm, request(tokens=100)) == 2  # 180
    assert router(warm, request(tokens=130)) == 0  # less than half is cached: 100 + 130
    late = pool(waiting=[0, 0, 0], hits=hits(0, 0, 0), now_s=200.0)
    assert router(late, request(tokens=1)) == 0  # all that is older than 180 s is forgotten


def test_preble_does_not_exploit_what_carries_too_much() -> None:
    router = make("router", "preble", output_weight=0.0, max_ratio=1.5)
    warm = pool(waiting=[0, 0], hits=hits(0, 60))
    assert router(pool(waiting=[0, 0], hits=hits(0, 0)), request(tokens=100)) == 0
    assert [router(warm, request(tokens=100)) for _ in range(4)] == [1, 1, 1, 1]  # 40 each
    assert router(warm, request(tokens=100)) == 0  # 160 > 1.5 x 100; 100 + 100 <= 160 + 40


def test_conductor_weighs_queues_against_cached_prefixes() -> None:
    view = pool(queued=[0, 500], hits=hits(0, 800), prompt_tokens_per_s=1000.0)
    router = make("router", "conductor")
    assert router(view, request(tokens=1000)) == 1  # 1.0 s against (500 + 200) / 1000
    busier = pool(queued=[0, 900], hits=hits(0, 800), prompt_tokens_per_s=1000.0)
    assert router(busier, request(tokens=1000)) == 0  # against 1.1 s
    fetching = make("router", "conductor", transfer_tokens_per_s=8000.0)
    assert router(view, request(tokens=1000)) == 1
    assert fetching(view, request(tokens=1000)) == 0  # 0.2 s + 800 / 8000 < 0.7 s


def test_pd_serve_takes_the_next_idle_one() -> None:
    router = make("router", "pd_serve")
    view = pool(running=[0, 1, 0], queued=[0, 50, 0])
    assert [router(view, request()) for _ in range(3)] == [0, 2, 0]
    busy = pool(running=[1, 1, 1], queued=[90, 50, 70])
    assert router(busy, request()) == 1


def test_earliest_prefill_counts_attention_and_hits() -> None:
    router = make("router", "earliest_prefill", attention_tokens=1000.0)
    # uncached 1000: 1000 x 1.5; 400 of it cached: 600 x (1 + 0.7) = 1020 and 300 queued
    view = pool(queued=[0, 300], hits=hits(0, 400))
    assert router(view, request(tokens=1000)) == 1
    both_read = pool(queued=[0, 300], hits=hits(0, 400), readable_tokens=400)  # 1020, 1320
    fresh = make("router", "earliest_prefill", attention_tokens=1000.0)
    assert fresh(both_read, request(tokens=1000)) == 0
    fuller = pool(queued=[0, 500], hits=hits(0, 400))
    assert (
        make("router", "earliest_prefill", attention_tokens=1000.0)(fuller, request(tokens=1000))
        == 0
    )


def test_earliest_prefill_waits_for_the_slowest_rank_of_an_instance() -> None:
    """Rank 1 has nothing to do, but rank 0, with which it steps, computes 500 tokens."""
    router = make("router", "earliest_prefill")
    view = pool(queued=[0, 0, 100, 200], computing=np.array([500, 0, 0, 0]), ranks_per_instance=2)
    assert router(view, request(tokens=1000)) == 2
    idle = pool(queued=[0, 9, 0, 5], ranks_per_instance=2)
    assert router(idle, request(tokens=1000)) == 2  # of equals, the instance with less to do


def test_two_levels_choose_an_instance_and_take_its_ranks_in_turn() -> None:
    router = make("router", "two_level")
    view = pool(waiting=[5, 0, 2, 2], ranks_per_instance=2)  # 5 requests against 4
    assert [router(view, request()) for _ in range(3)] == [2, 3, 2]
    busy = pool(waiting=[0, 3, 2, 2], ranks_per_instance=2)
    assert [router(busy, request()) for _ in range(2)] == [0, 1]  # though rank 1 has 3


def test_llumnix_takes_the_freest_and_counts_queues_as_usage() -> None:
    view = pool(
        running=[10, 10, 2], kv=[400, 500, 800], queued=[300, 0, 0], kv_capacity_tokens=1000
    )
    # (1000 - 700) / 10 = 30, (1000 - 500) / 10 = 50, (1000 - 800) / 2 = 100
    assert make("router", "llumnix")(view, request()) == 2
    urgent = make("router", "llumnix", headroom_tokens=250)
    assert urgent(view, request(priority=1)) == 1  # 5, 25, and none is left at the last
    assert urgent(view, request()) == 2


def test_length_split_keeps_long_prompts_to_their_targets() -> None:
    router = make("router", "length_split", split_tokens=100, long_frac=0.5)
    view = pool(queued=[5, 3, 9, 8])
    assert router(view, request(tokens=100)) == 1
    assert router(view, request(tokens=101)) == 3
    assert router(pool(queued=[5]), request(tokens=101)) == 0


def test_maximum_flow_of_a_textbook_network() -> None:
    """Ford and Fulkerson's case of an edge that must be undone; the cut is 2."""
    edges = {0: {1: 1.0, 2: 1.0}, 1: {2: 1.0, 3: 1.0}, 2: {3: 1.0}, 3: {}}
    residual = {tail: dict(heads) for tail, heads in edges.items()}
    for tail, heads in edges.items():
        for head in heads:
            residual[head].setdefault(tail, 0.0)
    assert maximise_flow(residual, 0, 3) == 2.0


def test_max_flow_deals_in_proportion_and_masks_the_full() -> None:
    router = make("router", "max_flow", rank_tokens_per_s=[3.0, 1.0])
    view = pool(kv=[0, 0], kv_capacity_tokens=100)
    assert [router(view, request()) for _ in range(8)] == [0, 0, 1, 0, 0, 0, 1, 0]
    full = pool(kv=[95, 0], kv_capacity_tokens=100)
    assert router(full, request()) == 1
    limited = make("router", "max_flow", rank_tokens_per_s=[3.0], instance_tokens_per_s=[1.0, 3.0])
    counts = np.bincount([limited(view, request()) for _ in range(400)])
    assert counts.tolist() == [100, 300]


def test_stale_load_makes_a_herd_until_the_next_report() -> None:
    router = make("router", "stale", router="least_requests", period_s=2.0)
    assert router(pool(waiting=[1, 0], now_s=0.0), request()) == 1
    assert router(pool(waiting=[1, 5], now_s=1.9), request()) == 1
    assert router(pool(waiting=[1, 6], now_s=2.0), request()) == 0


def test_stale_takes_parameters_of_the_router_in_it() -> None:
    inner = {"use": "least_kv", "reserve_tokens": 21}
    view = pool(kv=[10, 90, 50], running=[4, 1, 3], slots=4)
    assert make("router", "stale", router="least_kv")(view, request()) == 2
    assert make("router", "stale", router=inner)(view, request()) == 1  # 111 < 113


@pytest.mark.parametrize(
    ("router", "said"),
    [
        ({"use": "least_kv", "reserve": 1}, "router.reserve: least_kv has no parameter"),
        ({"use": "least_kv", "reserve_tokens": -1}, "reserve_tokens: least_kv: must be >= 0"),
        ({"reserve_tokens": 1}, "router: stale: must be a name, or {use: name}"),
        ("stale", "must be another router"),
        ("least_kw", 'did you mean "least_kv"'),
    ],
)
def test_a_wrong_router_in_stale_is_told_at_its_key(router: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make("router", "stale", router=router)
    assert said in str(caught.value)


def test_least_kv_knows_old_kv_and_what_it_sent_since() -> None:
    def at(now_s: float, kv: list[int], queued: list[int], running: list[int]) -> object:
        return pool(kv=kv, queued=queued, running=running, slots=3, now_s=now_s)

    router = make("router", "least_kv", period_s=5.0)
    assert router(at(6.0, [10, 0], [0, 15], [0, 0]), request(tokens=20)) == 0  # 10 < 15
    assert router(at(9.0, [0, 90], [0, 0], [0, 2]), request(tokens=20)) == 1  # 10 + 20 > 15
    assert router(at(9.9, [0, 90], [0, 0], [0, 3]), request(tokens=20)) == 0  # 1 is full by now
    assert router(at(10.0, [80, 70], [0, 0], [0, 0]), request(tokens=20)) == 1  # a report: 70 < 80
    router = make("router", "least_kv", period_s=5.0)
    assert router(at(12.0, [10, 0], [0, 0], [0, 0]), request(tokens=1)) == 1
    assert router(at(14.9, [0, 90], [0, 0], [0, 0]), request(tokens=1)) == 1
    assert router(at(15.0, [0, 90], [0, 0], [0, 0]), request(tokens=1)) == 0  # reports at 10 and 15
    reserving = make("router", "least_kv", period_s=5.0, reserve_tokens=30)
    assert reserving(at(0.0, [10, 0], [0, 0], [0, 1]), request(tokens=1)) == 0  # 10 < 30
    assert reserving(at(1.0, [10, 0], [0, 0], [1, 0]), request(tokens=1)) == 1  # one ended there


def test_job_executors_know_their_own_decisions_and_the_others_by_reports() -> None:
    alone = make("router", "job_executors", num_executors=1, period_s=10.0)
    view = pool(waiting=[0, 0, 0], now_s=0.0)
    assert [alone(view, request()) for _ in range(4)] == [0, 1, 2, 0]  # stale would herd: 0 0 0 0
    assert alone(pool(waiting=[9, 9, 0], now_s=9.9), request()) == 1
    assert alone(pool(waiting=[9, 9, 0], now_s=10.0), request()) == 2  # a report
    several = make("router", "job_executors", num_executors=3, period_s=10.0)
    view = pool(waiting=[0, 0], now_s=0.0, rng=np.random.default_rng(5))
    drawn = np.random.default_rng(5).integers(3, size=30)
    sent = np.array([several(view, request()) for _ in range(30)])
    for executor in range(3):  # each takes the two in turn, whatever the others do
        own = sent[drawn == executor]
        assert own.tolist() == [i % 2 for i in range(len(own))]


def test_job_executors_have_a_memory_each() -> None:
    several = make("router", "job_executors", router={"use": "round_robin"}, num_executors=2)
    view = pool(waiting=[0] * 5, rng=np.random.default_rng(3))
    drawn = np.random.default_rng(3).integers(2, size=12)
    sent = np.array([several(view, request()) for _ in range(12)])
    assert all(
        sent[drawn == i].tolist() == [n % 5 for n in range((drawn == i).sum())] for i in range(2)
    )
