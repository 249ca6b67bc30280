"""The pool without a clock: placement, tiers, eviction, exact counts; models in it."""

import json
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from measured_tables import table

from simpod.cluster.shared_memory import (
    DRAM,
    SSD,
    Demotion,
    HashRing,
    ModelCache,
    SharedMemory,
    SharedMemorySpec,
    Tier,
)
from simpod.errors import ConfigError, PolicyError
from simpod.policies import PolicyRef, resolve


def policy(name: str):
    return resolve("eviction", PolicyRef(name))()


def memory(name: str = "lru", **changes) -> SharedMemory:
    given = {
        "hosts": 2,
        "sockets_per_host": 2,
        "dram_bytes_per_host": 8.0,
        "ssd_bytes": 8.0,
        "block_bytes": 1.0,
        "block_tokens": 128,
        "replication": 1,
        "virtual_nodes": 16,
    }
    return SharedMemory(
        SharedMemorySpec(**(given | changes)), resolve("eviction", PolicyRef(name)), name
    )


def put(pool: SharedMemory, block: int) -> None:
    for socket in pool.homes(block):
        pool.write(block, socket)


def settle(pool: SharedMemory) -> None:
    """All that is on its way to SSD arrives."""
    for demotion in pool.take_demotions():
        pool.arrive(demotion)


# --- the ring -------------------------------------------------------------------------------------


def test_blocks_are_spread_evenly() -> None:
    ring = HashRing(range(16), virtual_nodes=256, replication=1)
    share = Counter(ring.holders(block)[0] for block in range(16_000))
    assert set(share) == set(range(16))
    assert 700 < min(share.values()) <= max(share.values()) < 1300


def test_copies_lie_on_different_hosts() -> None:
    ring = HashRing([0, 0, 1, 1, 2, 2], virtual_nodes=8, replication=3)
    for block in range(500):
        assert sorted(shard // 2 for shard in ring.holders(block)) == [0, 1, 2]
    with pytest.raises(ConfigError, match="replication 4 takes as many hosts"):
        HashRing([0, 0, 1, 2], virtual_nodes=8, replication=4)


def test_a_new_memory_takes_blocks_from_all_and_moves_no_others() -> None:
    few, more = (HashRing(range(n), virtual_nodes=128, replication=1) for n in (9, 10))
    moved = [b for b in range(10_000) if few.holders(b) != more.holders(b)]
    assert all(more.holders(block) == (9,) for block in moved)
    assert 700 < len(moved) < 1300


# --- eviction -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "gone"), [("lru", 2), ("fifo", 1), ("lfu", 3)])
def test_who_goes_first(name: str, gone: int) -> None:
    """Blocks 1, 2, 3 come in this order; reads: 2, 2, 1, 3 last. Then 4 comes."""
    tier = Tier(3, policy(name), name)
    for block in (1, 2, 3):
        assert tier.put(block) == []
    for block in (2, 2, 1, 1, 3):
        tier.touch(block)
    assert tier.put(4) == [gone]
    assert (tier.held, tier.free) == (3, 0)


def test_a_policy_that_evicts_what_is_not_there_is_blamed() -> None:
    tier = Tier(1, lambda view: 99, "mine")
    tier.put(1)
    with pytest.raises(PolicyError, match="evicts 99, which is not held"):
        tier.put(2)


def test_what_dram_gives_up_goes_to_ssd_and_comes_back() -> None:
    pool = memory(hosts=1, sockets_per_host=1, dram_bytes_per_host=2.0, ssd_bytes=1.0)
    for block in (1, 2, 3):
        put(pool, block)
    assert pool.homes(1) == ()
    assert [b in pool for b in (1, 2, 3)] == [False, True, True]  # 1 is on its way
    assert pool.shards[0][SSD].free == 0
    settle(pool)
    assert [pool.find(block).tier for block in (1, 2, 3)] == [SSD, DRAM, DRAM]
    pool.read(pool.find(1))
    settle(pool)
    assert [pool.find(block).tier for block in (1, 2, 3)] == [DRAM, SSD, DRAM]
    put(pool, 4)  # 3 is unused for the longest now; 2 leaves the SSD for it
    settle(pool)
    assert [b in pool for b in (1, 2, 3, 4)] == [True, False, True, True]
    assert (pool.num_lost_blocks, pool.num_demoted_blocks, pool.num_promoted_blocks) == (1, 3, 1)


def test_a_block_that_is_given_up_on_its_way_does_not_arrive() -> None:
    """Nor does it arrive early when it is on its way once more."""
    pool = memory(hosts=1, sockets_per_host=1, dram_bytes_per_host=1.0, ssd_bytes=1.0)
    for block in (1, 2, 3):  # 1 goes to SSD; 2 takes its place there
        put(pool, block)
    first, second = pool.take_demotions()
    assert (first.block, second.block, pool.num_lost_blocks) == (1, 2, 1)
    for block in (1, 4):  # 3, then 1 again
        put(pool, block)
    pool.arrive(first)
    assert 1 not in pool
    third, again = pool.take_demotions()
    assert (third.block, again.block) == (3, 1)
    for demotion in (second, third, again):
        pool.arrive(demotion)
    assert pool.find(1).tier == SSD
    assert not any(pool._arriving)


def test_the_readers_own_host_is_preferred() -> None:
    pool = memory(replication=2)
    put(pool, 5)
    assert [pool.find(5, near_host=host).host for host in (0, 1)] == [0, 1]
    assert len(pool.find_prefix([5, 6, 5])) == 1


def test_no_room_for_a_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="hold no block"):
        memory(dram_bytes_per_host=1.5)


class SharedMemoryMachine(RuleBasedStateMachine):
    """Against a plain count of copies: nothing is lost, nothing is made."""

    @initialize(
        name=st.sampled_from(["lru", "lfu", "fifo"]),
        hosts=st.integers(1, 3),
        dram=st.integers(1, 4),
        ssd=st.integers(0, 3),
        copies=st.integers(1, 2),
    )
    def begin(self, name: str, hosts: int, dram: int, ssd: int, copies: int) -> None:
        self.pool = memory(
            name,
            hosts=hosts,
            dram_bytes_per_host=2.0 * dram,
            ssd_bytes=2.0 * hosts * ssd,
            replication=min(copies, hosts),
        )
        self.written = 0
        self.on_the_way: list[Demotion] = []
        self.arrived: set[tuple[int, int]] = set()  # socket and block, since it was last in DRAM

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        self.on_the_way += self.pool.take_demotions()
        if self.on_the_way:
            at = data.draw(st.integers(0, len(self.on_the_way) - 1))
            demotion = self.on_the_way.pop(at)
            self.pool.arrive(demotion)
            self.arrived.add((demotion.socket, demotion.block))

    @rule(block=st.integers(0, 30))
    def write(self, block: int) -> None:
        homes = self.pool.homes(block)
        self.written += len(homes)
        put(self.pool, block)
        assert all(block in self.pool.shards[home][DRAM] for home in homes), (
            "what has just come is there"
        )

    @rule(block=st.integers(0, 30), host=st.integers(0, 2))
    def read(self, block: int, host: int) -> None:
        found = self.pool.find(block, host)
        if found is not None:
            assert found.tier == DRAM or (found.socket, block) in self.arrived
            self.pool.read(found)
            assert block in self.pool.shards[found.socket][DRAM]

    @invariant()
    def counts_are_exact(self) -> None:
        held = 0
        for dram, ssd in self.pool.shards:
            for tier in (dram, ssd):
                assert tier.free >= 0
                assert tier.free + tier.held == tier.capacity_blocks
                assert tier.held == len(tier.entered) == sum(map(len, tier.by_count.values()))
                held += tier.held
            assert not set(dram.used) & set(ssd.used)
        for socket, (arriving, (_, ssd)) in enumerate(
            zip(self.pool._arriving, self.pool.shards, strict=True)
        ):
            assert set(arriving) <= set(ssd.used)
            self.arrived -= {(socket, block) for block in arriving}
        assert held + self.pool.num_lost_blocks == self.written


TestSharedMemory = SharedMemoryMachine.TestCase
TestSharedMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- traces ---------------------------------------------------------------------------------------


def prompts(name: str) -> Iterator[tuple[int, list[int]]]:
    with table(f"traces/mooncake/{name}_trace.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["input_length"], row["hash_ids"]


@pytest.mark.parametrize(("name", "share"), [("conversation", 0.374), ("synthetic", 0.651)])
def test_infinite_cache_hits_the_published_share_of_a_trace(name: str, share: float) -> None:
    pool = memory(hosts=2, dram_bytes_per_host=1e7, ssd_bytes=0.0)
    hit = total = 0
    for tokens, blocks in prompts(name):
        hit += min(512 * len(pool.find_prefix(blocks)), tokens)
        total += tokens
        for block in blocks:
            put(pool, block)
    assert round(hit / total, 3) == share
    assert pool.num_lost_blocks == 0


def test_a_small_cache_keeps_more_by_use_than_by_age() -> None:
    """Hits of a skewed stream: a cache of a tenth of the blocks."""
    rng = np.random.default_rng(3)
    stream = (rng.zipf(1.2, 20_000) % 2000).tolist()
    hits = {}
    for name in ("lru", "lfu", "fifo"):
        tier = Tier(200, policy(name), name)
        hits[name] = 0
        for block in stream:
            if block in tier:
                tier.touch(block)
                hits[name] += 1
            else:
                tier.put(block)
    assert hits["fifo"] < hits["lru"] < hits["lfu"]


# --- models ---------------------------------------------------------------------------------------


def test_model_starts_and_switches_are_as_published() -> None:
    """CloudMatrix-Infer table 2: 671 GB, 8 instances, 2.5 GB/s."""
    cache = ModelCache(weight_bytes=671e9, num_instances=8, num_models=8)
    none, local, pool = (cache.figures(kind) for kind in ("none", "local", "pool"))
    assert none.cold_start_s == local.cold_start_s == pytest.approx(2560, rel=0.01)
    assert pool.cold_start_s == pytest.approx(320, rel=0.01)
    assert none.warm_start_s is None
    assert local.warm_start_s == pool.warm_start_s == pytest.approx(5, rel=0.1)
    assert [f.dram_bytes / 671e9 for f in (none, local, pool)] == [0, 8, 1]
    assert [f.switch_hit_frac for f in (none, local, pool)] == [0, 0.125, 1]
    means = [f.mean_switch_s for f in (none, local, pool)]
    assert means == pytest.approx([320, 281, 5], rel=0.1)
    with pytest.raises(ConfigError, match="num_models must be positive"):
        ModelCache(weight_bytes=1.0, num_instances=1, num_models=0)
