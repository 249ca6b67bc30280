"""Tiers of a context cache by hand: layer-wise preload, layer-wise saving, the host's own DRAM."""

from typing import Any

import pytest
from engine_cases import EVERY_STEP_1S, at, chained, pool_inputs, pool_spec, run_inputs
from fabric_cases import GB, fabric
from policy_cases import make
from test_fabric_runs import transfer_law

from simpod.cluster import place_in_order
from simpod.cluster.shared_memory import SharedMemorySpec
from simpod.config import load_experiment
from simpod.engine import CacheInputs, Simulation
from simpod.errors import ConfigError
from simpod.policies import PolicyRef, resolve
from simpod.policies.fakes import FakeCacheView
from simpod.records.columns import STEP_PARTS, RunRecords
from simpod.run import run

READ, WRITE = 1, 2
BLOCK = 10
"""Tokens; 1 GB of KV a token."""


def serve(
    requests: Any,
    *,
    layers: int | None,
    read_s: float = 0.5,
    local_blocks: int = 0,
    dram_blocks: int = 100,
    waits: bool = False,
    router: Any = "round_robin",
    **spec: Any,
) -> tuple[Simulation, RunRecords]:
    """One die with steps of 1 s and no prefix cache of its own; reads of 100 GB/s from a pool in
    its own node, after a start-up."""
    given = pool_spec(role="prefill", **spec)
    cache = CacheInputs(
        spec=SharedMemorySpec(
            hosts=1,
            sockets_per_host=4,
            dram_bytes_per_host=4.0 * dram_blocks,
            ssd_bytes=0.0,
            block_bytes=1.0,
            block_tokens=BLOCK,
            local_bytes_per_host=float(local_blocks),
        ),
        make_policy=resolve("eviction", PolicyRef("lru")),
        policy_name="lru",
        read_law=transfer_law("scale_up", 100 * GB / 1.1, 2 * read_s),
        write_law=transfer_law("scale_up", 100 * GB / 1.1, 0.0),
        local_law=transfer_law("scale_up", 125 * GB / 1.1, 0.0) if local_blocks else None,
        placement=place_in_order([given])[0],
        die_bytes_per_token=GB,
        waits_for_reads=waits,
        num_layers=layers,
    )
    inputs = run_inputs(
        requests,
        pool_inputs(given, EVERY_STEP_1S, router),
        fabric=fabric(num_nodes=2),
        cache=cache,
    )
    sim = Simulation(inputs)
    return sim, sim.run()


def twice(tokens: int, when_s: float) -> Any:
    """The same prompt at 0 s and at `when_s`; all blocks but the last token's are found then."""
    ids = list(range(tokens // BLOCK))
    return at([0.0, when_s], tokens, 1, **chained(ids, ids, block_tokens=BLOCK))


def test_layers_come_while_the_step_is_computed() -> None:
    """90 of 100 tokens are read: whole, 0.5 + 0.9 s, then a step of 1 s. Of 10 layers the first
    takes 0.5 + 0.09 s and the others 0.81 s, which end within the step."""
    load = twice(100, 10.0)
    whole = serve(load, layers=None)[1].requests
    assert whole.first_token_s[1] == pytest.approx(12.4)
    _, records = serve(load, layers=10)
    requests, moved = records.requests, records.transfers
    assert requests.scheduled_s[1] == pytest.approx(10.59)
    assert requests.first_token_s[1] == pytest.approx(11.59)
    assert requests.cache_read_s[1] == pytest.approx(0.59)
    assert requests.dram_tokens.tolist() == [0, 90]
    reads = moved.kind == READ
    assert moved.size_bytes[reads].sum() == pytest.approx(90 * GB)
    assert moved.end_s[reads].max() == pytest.approx(11.4)


def test_a_step_waits_for_its_last_layer() -> None:
    """190 of 200 tokens: the first layer after 0.5 + 0.19 s, the last after 1.71 s more, and a
    tenth of the step of 1 s follows it: 2.5 s in all, a stall of 0.81 s in the step."""
    _, records = serve(twice(200, 10.0), layers=10)
    requests, steps = records.requests, records.steps
    assert requests.scheduled_s[1] == pytest.approx(10.69)
    assert requests.first_token_s[1] == pytest.approx(10.0 + 0.69 + 1.71 + 0.1)
    assert (steps.end_s - steps.start_s).tolist() == pytest.approx([1.0, 1.81])
    parts = dict(zip(STEP_PARTS, steps.parts_s[1], strict=True))
    assert parts["host_gap"] == pytest.approx(1.81)
    assert steps.parts_s.sum(axis=1) == pytest.approx(steps.end_s - steps.start_s)


def test_what_is_computed_is_saved_behind_the_layers() -> None:
    """Ten blocks of 10 GB: whole, 1 s after the step of 1 s; layer by layer they go out during the
    step and a tenth of it more, at the rate of that time."""
    load = twice(100, 30.0)
    for layers, start_s, end_s in ((None, 1.0, 2.0), (10, 0.0, 1.1)):
        moved = serve(load, layers=layers)[1].transfers
        writes = moved.kind == WRITE
        assert moved.size_bytes[writes].sum() == pytest.approx(100 * GB)
        assert moved.start_s[writes].min() == start_s
        assert moved.end_s[writes].max() == pytest.approx(end_s)


def test_a_later_chunk_finds_its_prefix_there() -> None:
    """30 of 100 tokens are left, 10 a step: three steps, the first one held up."""
    ids = list(range(10))
    load = at([0.0, 30.0], 100, 1, **chained(ids, [*ids[:7], 90, 91, 92], block_tokens=BLOCK))
    _, records = serve(load, layers=10, max_step_tokens=10, read_s=2.0)
    steps = records.steps
    mine = steps.start_s >= 30.0
    lasted_s = (steps.end_s - steps.start_s)[mine]
    assert lasted_s.tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert records.requests.first_token_s[1] == pytest.approx(30.0 + 2.07 + 3.0)


def test_the_hosts_own_dram_comes_before_the_pool() -> None:
    """Written to both; read at 125 GB/s without a start-up from the host's own, and again after
    the pool has lost it."""
    _, near = serve(twice(100, 10.0), layers=None, local_blocks=20)
    assert near.requests.cache_read_s[1] == pytest.approx(90 / 125)
    pool = near.shared_memory
    assert pool is not None
    assert (pool.local_held_blocks, pool.local_capacity_blocks) == (10, 40)
    assert pool.local_read_bytes == pytest.approx(90 * GB)
    assert pool.dram_read_bytes == 0.0
    assert pool.local_written_bytes == pytest.approx(100 * GB)


def test_what_the_host_lacks_comes_from_the_pool_and_stays() -> None:
    """A host tier of 4 blocks keeps the last ones; a prefix begins with the first, so all but the
    kept ones come from the pool, and are kept in turn."""
    ids = list(range(10))
    load = at([0.0, 10.0, 20.0], 100, 1, **chained(ids, ids, ids, block_tokens=BLOCK))
    _, records = serve(load, layers=None, local_blocks=4)
    pool = records.shared_memory
    assert pool is not None
    assert pool.local_held_blocks == 4
    assert pool.local_lost_blocks > 0
    assert pool.dram_read_bytes + pool.local_read_bytes == pytest.approx(180 * GB)
    assert records.requests.dram_tokens.tolist() == [0, 90, 90]
    held_and_lost = pool.local_held_blocks + pool.local_lost_blocks
    assert pool.local_written_bytes == pytest.approx(held_and_lost * BLOCK * GB)


def test_cached_attention_keeps_what_the_queue_needs() -> None:
    view = FakeCacheView(
        by_last_use=(5, 3, 4), by_entry=(4, 5, 3), counts={3: 0, 4: 1, 5: 2}, wanted={5: 0.0}
    )
    policy = make("cache", "cached_attention")
    assert policy(view) == 3
    all_wanted = FakeCacheView(
        by_last_use=(5, 3, 4), by_entry=(4, 5, 3), counts={}, wanted={5: 0.0, 3: 1.0, 4: 2.0}
    )
    assert policy(all_wanted) == 4
    assert make("cache", "cached_attention", candidates=1)(view) == 5


def test_the_queue_is_looked_at_when_a_tier_is_full() -> None:
    """Prompts A and B are computed and A is asked for again, last of a queue behind three new ones,
    whose blocks overfill the pool: others make room, under LRU A does, and is computed again."""
    a, b, c, d, e = ([10 * k + i for i in range(4)] for k in range(5))
    columns = chained(a, b, c, d, e, a, block_tokens=BLOCK)
    load = at([0.0, 5.0, 10.0, 10.0, 10.0, 10.0], 41, 1, **columns)
    hits = {}
    for name in ("lru", "cached_attention"):
        given = pool_spec(role="prefill", max_num_seqs=1)
        cache = CacheInputs(
            spec=SharedMemorySpec(
                hosts=1,
                sockets_per_host=1,
                dram_bytes_per_host=12.0,
                ssd_bytes=0.0,
                block_bytes=1.0,
                block_tokens=BLOCK,
            ),
            make_policy=resolve("eviction", PolicyRef(name)),
            policy_name=name,
            read_law=transfer_law("scale_up", 100 * GB, 0.1),
            write_law=transfer_law("scale_up", 100 * GB, 0.1),
            placement=place_in_order([given])[0],
            die_bytes_per_token=GB / 100,
        )
        inputs = run_inputs(load, pool_inputs(given), fabric=fabric(num_nodes=2), cache=cache)
        hits[name] = Simulation(inputs).run().requests.dram_tokens.tolist()
    assert hits == {"lru": [0] * 6, "cached_attention": [0] * 5 + [40]}


def test_routers_are_told_what_the_own_host_of_a_rank_has() -> None:
    """The pool has no block of the prompt any more, the host of the first 16 ranks has all."""
    told = []

    def router(view: Any, request: Any) -> int:
        told.append(view.reusable_tokens(request).tolist())
        return 0

    ids, others = list(range(10)), list(range(100, 400))
    columns = chained(ids, others, ids, block_tokens=BLOCK)
    load = at([0.0, 10.0, 100.0], [100, 3000, 100], 1, **columns)
    serve(load, layers=None, local_blocks=1000, dram_blocks=1, router=router, dp=17)
    assert told == [[0] * 17, [0] * 17, [90] * 16 + [0]]


CACHING = ("workload.num_requests=1536",)


@pytest.mark.slow
def test_preloading_hides_a_slow_network() -> None:
    """Half of each prompt from the pool: over VPC whole reads take 68 ms before each step, the
    first of 61 layers 1 ms, and the others cost nothing."""
    ttft_ms = {}
    for plane in ("scale_up", "vpc"):
        for reads in ("before_step", "layerwise"):
            keys = (f"shared_memory.plane={plane}", f"shared_memory.reads={reads}")
            result = run(load_experiment("cloudmatrix-infer-context-caching", (*CACHING, *keys)))
            ttft_ms[plane, reads] = result.summary["mean_ttft_ms"]
    assert ttft_ms["vpc", "before_step"] > ttft_ms["scale_up", "before_step"] + 50
    assert abs(ttft_ms["vpc", "layerwise"] - ttft_ms["scale_up", "layerwise"]) < 5
    assert ttft_ms["scale_up", "layerwise"] <= ttft_ms["scale_up", "before_step"]


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (["shared_memory.local_bytes_per_host=1.0e+12"], "local_bytes_per_host: a node of cloudm"),
        (["shared_memory.local_bytes_per_host=10"], "less than one block of"),
    ],
)
def test_a_host_tier_that_can_not_be_is_told(keys: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_experiment("cloudmatrix-infer-context-caching", keys)


def test_a_host_tier_in_an_experiment() -> None:
    keys = ("shared_memory.local_bytes_per_host=1.0e+11", "shared_memory.reads=layerwise")
    result = run(load_experiment("cloudmatrix-infer-context-caching", (*CACHING, *keys)))
    memory, moved = result.summary["shared_memory"], result.records.transfers
    assert memory["local"]["read_bytes"] > 0
    read = memory["local"]["read_bytes"] + memory["read_bytes"]["dram"]
    assert read == pytest.approx(moved.size_bytes[moved.kind == READ].sum())
    assert memory["local"]["held_blocks"] <= memory["local"]["capacity_blocks"]
