"""Cache policies: one exact case each, and what they do to a rank's prefix cache."""

from typing import Any

import pytest
from engine_cases import at, chained, simulate
from policy_cases import make

from simpod.cluster.ranked_prefix import RankedPrefixCache
from simpod.errors import PolicyError
from simpod.policies import PolicyRef, resolve
from simpod.policies.fakes import FakeCacheView

VIEW = FakeCacheView(
    by_last_use=(5, 3, 4), by_entry=(4, 5, 3), counts={3: 0, 4: 1, 5: 2}, depths={3: 512}
)


@pytest.mark.parametrize(("name", "victim"), [("lru", 5), ("lfu", 3), ("fifo", 4)])
def test_the_classical_ones_by_hand(name: str, victim: int) -> None:
    assert make("cache", name)(VIEW) == victim


def test_gdsf_weighs_reads_by_cost_and_ages() -> None:
    # 1 x (1 + 512 / 256) = 3 for block 3, 2 for 4, 3 for 5: 4 goes, and the age is 2 from now on
    policy = make("cache", "gdsf")
    assert policy(VIEW) == 4
    later = FakeCacheView(
        by_last_use=(1, 2, 6, 7), by_entry=(1, 2, 6, 7), counts={1: 3, 2: 3, 6: 0, 7: 1}
    )
    # used before the age rose: 4 and 4; 7 after it: 2 + 2; 6 at the same time as 2: 1
    assert policy(later) == 6


def test_marconi_trades_recency_for_saved_flops() -> None:
    assert make("cache", "marconi", alpha=0.0)(VIEW) == 5
    # recency 0, 1/2, 1; saved 0, 1, 0: 0, 1.5, 1
    assert make("cache", "marconi")(VIEW) == 5
    deep = FakeCacheView(by_last_use=(5, 3, 4), by_entry=(5, 3, 4), counts={}, depths={5: 512})
    # recency 0, 1/2, 1; saved 1, 0, 0
    assert make("cache", "marconi")(deep) == 3


# --- the cache under a policy ---------------------------------------------------------------------


def cache(name: str) -> RankedPrefixCache:
    return RankedPrefixCache(make("cache", name), name)


def test_a_cache_counts_reads_and_forgets_with_the_unit() -> None:
    kept = cache("lfu")
    for unit in (1, 2, 3):
        assert kept.add(unit, unit - 1)
        assert not kept.add(unit)
    kept.unpin([1, 2, 3])
    assert kept.pin([1]) == 1
    kept.unpin([1])
    kept.evict()  # 2 and 3 were never read; 3 rests longer, as the tail is freed first
    assert kept.match([1, 2, 3]) == 2
    kept.evict()
    assert kept.match([1, 2]) == 1
    kept.evict()
    assert not kept.match([1])
    assert (kept.hits, kept.last_use, kept.depth, kept.by_count) == ({}, {}, {}, {})


def test_lru_by_name_is_the_cache_without_a_policy() -> None:
    prefixes = [[1, 2], [3, 4], [1, 5], [6, 7], [3, 8], [1, 2], [6, 9]]
    load = at(range(0, 70, 10), 9, 2, **chained(*prefixes, block_tokens=4))
    spec: dict[str, Any] = {"block_tokens": 4, "kv_blocks": 5, "prefix_caching": True}
    plain = simulate(load, **spec)
    for name, same in (("lru", True), ("fifo", False)):
        run = {"make_eviction": resolve("prefix_eviction", PolicyRef(name)), "eviction_name": name}
        named = simulate(load, run=run, **spec)
        equal = named.requests.cached_tokens.tolist() == plain.requests.cached_tokens.tolist()
        assert equal == same or name == "fifo"
    assert plain.requests.cached_tokens.sum() > 0


def test_a_policy_that_evicts_what_is_in_use_is_blamed() -> None:
    kept = RankedPrefixCache(lambda view: 7, "odd")
    kept.add(1)
    kept.unpin([1])
    with pytest.raises(PolicyError, match="policy odd: evicts 7, which is not idle here"):
        kept.evict()
