"""The laws with everything on: shared links, layer-wise sending, the shared memory, lost links."""

from collections.abc import Sequence as ReadOnly
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from engine_cases import assert_same, at, digest, pool_inputs, pool_spec, run_inputs
from engine_random import (
    EXAMPLES,
    HASH_BLOCK_TOKENS,
    Experiment,
    Watched,
    inputs_of,
    random_experiment,
)
from exchange_cases import exchanging
from fabric_cases import GB, damaged, fabric
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simpod.cluster import KvRoutes, Placement, place_in_order
from simpod.cluster.fabric import Fabric, with_ssd
from simpod.cluster.shared_memory import SharedMemorySpec
from simpod.cost import KvTransfer
from simpod.engine import CacheInputs, KvPath, RunInputs, Simulation
from simpod.engine.facades import SequenceFacade, reusable_of
from simpod.engine.prefix_reads import PrefixReads
from simpod.engine.sequence import Sequence
from simpod.hardware import TransferLaw
from simpod.policies import PolicyRef, resolve
from simpod.records.columns import FINISHED, REFUSED, TRANSFER_KINDS, RunRecords

law = settings(max_examples=EXAMPLES)
NUM_LAYERS = 4
KV, CACHE_READ, WRITE_BACK = range(3)
DEMOTION = TRANSFER_KINDS.index("demotion")
LOSSES: tuple[dict[str, float], ...] = (
    {},
    {"scale_up/spine/3/*": 0.0},
    {"scale_up/*/2/*": 0.0, "die/0--scale_up/leaf/*": 0.25},
)


def transfer_law(plane: str, bytes_per_s: float, start_s: float) -> TransferLaw:
    return TransferLaw(
        plane=plane,
        intra_node_start_s=start_s / 2,
        inter_node_start_s=start_s,
        intra_node_bytes_per_s=1.1 * bytes_per_s,
        inter_node_bytes_per_s=bytes_per_s,
    )


@dataclass(frozen=True)
class Case:
    """A random deployment, its fabric and its shared memory."""

    experiment: Experiment
    layerwise: bool
    loss: int
    reads: str  # none, before_step, async or layerwise
    eviction: str
    dram_blocks: int
    ssd_blocks: int
    replication: int
    local_blocks: int
    moving_frac: float  # of the steps, exchanges on the same links; 0: none


def case_of(number: int) -> Case:
    rng = np.random.default_rng(number)
    shape = str(rng.choice(["split", "split", "mixed"]))
    fixed = {"shape": shape, "block_tokens": int(rng.choice([1, 4])), "real_prices": False}
    reads = str(rng.choice(["none", "before_step", "async", "layerwise"]))
    return Case(
        experiment=random_experiment(number, fixed),
        layerwise=bool(rng.integers(2)),
        loss=int(rng.integers(len(LOSSES))),
        reads="async" if reads == "before_step" and shape == "mixed" else reads,
        eviction=str(rng.choice(["lru", "lfu", "fifo", "cached_attention"])),
        dram_blocks=int(rng.integers(1, 12)),
        ssd_blocks=int(rng.integers(0, 3)),
        replication=int(rng.integers(1, 3)),
        local_blocks=int(rng.choice([0, 0, 2, 5])),
        moving_frac=float(rng.choice([0.0, 0.3, 0.6])),
    )


cases = st.integers(0, 2**32 - 1).map(case_of)


def fabric_of(case: Case) -> Fabric:
    links = damaged(LOSSES[case.loss], num_nodes=2) if case.loss else fabric(num_nodes=2)
    return with_ssd(links, "vpc", 10 * GB) if case.ssd_blocks else links


def inputs(case: Case, **changes: Any) -> RunInputs:
    """A token's KV takes about 0.05 s of a die's link, a step about a second."""
    base = inputs_of(case.experiment, **changes)
    pools = [pool.spec for pool in (base.entry, base.decode) if pool is not None]
    placements = place_in_order(pools)
    more: dict[str, Any] = {"fabric": fabric_of(case)}
    if base.decode is not None:
        more["transfer"] = KvTransfer(latency_s=0.1, bytes_per_token=8 * GB, s_per_token=0.05)
        more["kv_path"] = KvPath(
            plane="scale_up",
            routes=KvRoutes(prefill=placements[0], decode=placements[1]),
            law=transfer_law("scale_up", 150 * GB, 0.1),
            layerwise=case.layerwise,
            num_layers=NUM_LAYERS,
        )
    if case.moving_frac:
        base = with_exchanges(base, placements, case.moving_frac)
    if base.migration_law is not None:
        more["migration_law"] = replace(base.migration_law, bytes_per_token=8 * GB)
        more["migration_over"] = transfer_law("scale_up", 150 * GB, 0.1)
    if case.reads != "none":
        split = base.decode is not None
        block_tokens = max(HASH_BLOCK_TOKENS, case.experiment.block_tokens)
        more["cache"] = CacheInputs(
            spec=SharedMemorySpec(
                hosts=2,
                sockets_per_host=4,
                dram_bytes_per_host=4.0 * case.dram_blocks,
                ssd_bytes=8.0 * case.ssd_blocks,
                block_bytes=1.0,
                block_tokens=block_tokens,
                replication=case.replication,
                virtual_nodes=8,
                local_bytes_per_host=float(case.local_blocks),
            ),
            make_policy=resolve("eviction", PolicyRef(case.eviction)),
            policy_name=case.eviction,
            read_law=transfer_law("scale_up", 147 * GB, 0.02),
            write_law=transfer_law("scale_up", 107 * GB, 0.02),
            ssd_law=transfer_law("vpc", 20 * GB, 0.2),
            placement=placements[0],
            die_bytes_per_token=8 * GB,
            local_law=transfer_law("scale_up", 120 * GB, 0.01) if case.local_blocks else None,
            waits_for_reads=case.reads == "before_step" or (case.reads == "layerwise" and split),
            num_layers=NUM_LAYERS if case.reads == "layerwise" else None,
        )
    return replace(base, **more)


def with_exchanges(base: RunInputs, placements: ReadOnly[Placement], frac: float) -> RunInputs:
    """Steps that need 120 GB/s of the 196 GB/s of a die while they are moving."""
    pools = [pool for pool in (base.entry, base.decode) if pool is not None]
    entry, *decode = (
        exchanging(pool, placement, 120 * GB, frac)
        for pool, placement in zip(pools, placements, strict=True)
    )
    return replace(base, entry=entry, decode=decode[0] if decode else None)


def run(case: Case, **changes: Any) -> tuple[Watched, RunRecords]:
    sim = Watched(inputs(case, **changes))
    return sim, sim.run()


def assert_nothing_is_left(sim: Simulation) -> None:
    assert not sim.live
    for group in sim.groups:
        assert not group.kv.used_everywhere(100).any()
        for rank in group.ranks:
            held = (rank.inbox, rank.waiting, rank.partial, rank.running, rank.pinned, rank.chunks)
            assert not any((*held, rank.reserved))
            assert rank.reads is None or not (rank.reads.under_way or rank.reads.streams)
    for pool in sim.pools:
        for name in ("waiting_seqs", "running_seqs", "held_seqs", "queued_tokens", "kv_tokens"):
            assert not np.asarray(getattr(pool.dispatch, name)).any(), name
    assert not sim.kv._early
    assert sim.network is not None
    assert not any(sim.network._users)
    assert not any(sim.network._promised)


@law
@given(cases)
def test_everything_is_conserved(case: Case) -> None:
    sim, records = run(case)
    requests, moved = records.requests, records.transfers
    done = requests.status == FINISHED
    assert done.sum() + (requests.status == REFUSED).sum() == case.experiment.num_requests
    assert_nothing_is_left(sim)
    # tokens: what was not found was computed; who had to make way may find more at the next start
    uncached = (requests.prompt_tokens - requests.cached_tokens)[done].sum()
    if not requests.num_preemptions.any():
        assert records.steps.prefill_tokens.sum() == uncached
    assert (requests.dram_tokens + requests.ssd_tokens <= requests.cached_tokens).all()
    # bytes: every row is on the links, every pulled prompt in the rows
    assert sim.network is not None
    is_up = sim.network.fabric.link_kind == 0
    carried = sim.network.carried_bytes(sim.clock.now)[is_up].sum()  # demotions end after the run
    assert carried == pytest.approx(moved.size_bytes.sum(), rel=1e-9)
    pulled = ~np.isnan(requests.transfer_end_s)
    kv = moved.kind == KV
    expected = 8 * GB * requests.prompt_tokens[pulled & (requests.prefill_target >= 0)].sum()
    if case.experiment.shape == "split":
        assert moved.size_bytes[kv].sum() == pytest.approx(expected, rel=1e-9)
    # blocks: in the pool, moved down, or gone
    if sim.cache is not None and records.shared_memory is not None:
        pool = records.shared_memory
        written = moved.size_bytes[moved.kind == WRITE_BACK].sum() / (8 * GB)
        blocks = written / sim.cache.unit_tokens
        held = pool.dram_held_blocks + pool.ssd_held_blocks + pool.local_held_blocks
        lost = pool.lost_blocks + pool.local_lost_blocks
        assert held + lost == pytest.approx(blocks, rel=1e-9)
        assert pool.local_held_blocks <= pool.local_capacity_blocks
        assert pool.dram_held_blocks <= pool.dram_capacity_blocks
        demoted = moved.size_bytes[moved.kind == DEMOTION].sum() / (8 * GB)
        demoted_blocks = pool.ssd_written_bytes / pool.block_bytes
        assert demoted / sim.cache.unit_tokens == pytest.approx(demoted_blocks, rel=1e-9)
        assert not any(sim.cache.memory._arriving)
        read = pool.dram_read_bytes + pool.ssd_read_bytes + pool.local_read_bytes
        assert read == pytest.approx(moved.size_bytes[moved.kind == CACHE_READ].sum(), rel=1e-9)
        ours = set(range(place_in_order([sim.entry.spec])[0].num_dies))
        assert set(moved.destination_die[moved.kind == CACHE_READ].tolist()) <= ours
        assert set(moved.source_die[moved.kind == WRITE_BACK].tolist()) <= ours
        assert not sim.cache._under_way
        assert not sim.cache._local_under_way


@law
@given(cases)
def test_causes_come_before_effects_on_the_fabric(case: Case) -> None:
    _, records = run(case)
    requests, moved = records.requests, records.transfers
    done = requests.status == FINISHED
    chain = ["arrival_s", "scheduled_s", "prefill_end_s", "first_token_s", "finish_s"]
    times_s = np.array([getattr(requests, name)[done] for name in chain])
    assert (np.diff(times_s, axis=0) >= 0).all()
    pulled = done & ~np.isnan(requests.transfer_start_s)
    chain = ["prefill_end_s", "transfer_start_s", "transfer_end_s", "finish_s"]
    times_s = np.array([getattr(requests, name)[pulled] for name in chain])
    assert (np.diff(times_s, axis=0) >= 0).all()
    assert (moved.wait_s >= 0).all()
    assert (np.diff(moved.start_s) >= 0).all()
    lasted_s = moved.end_s - moved.start_s
    few = moved.kind == KV  # a part of an operation may end before the whole of it
    assert (lasted_s[few] >= moved.alone_s[few] * (1 - 1e-9)).all()
    row = np.searchsorted(requests.request_id, moved.request_id)
    reads = moved.kind == CACHE_READ
    assert (moved.start_s[reads] >= requests.arrival_s[row[reads]]).all()
    kept = reads & (requests.num_preemptions[row] == 0)
    by_then = requests.prefill_end_s if case.reads == "layerwise" else requests.scheduled_s
    assert (moved.end_s[kept] <= by_then[row[kept]]).all()
    first_write_s = moved.end_s[moved.kind == WRITE_BACK].min(initial=np.inf)
    assert (moved.start_s[reads] >= first_write_s).all()
    read_s = requests.cache_read_s[done]
    assert (read_s <= (requests.scheduled_s - requests.arrival_s)[done] + 1e-9).all() or (
        requests.num_preemptions.any()
    )


@law
@given(cases)
@example(case_of(320))  # prompts are announced at the very boundary of a decode step
@example(case_of(116449))
@example(case_of(28612296))  # one that was paused in place has most of its context in shared blocks
def test_same_bytes_and_skip_ahead_on_the_fabric(case: Case) -> None:
    fast = run(case)[1]
    assert digest(fast) == digest(run(case)[1])
    assert_same(fast, run(case, skip_ahead=False)[1])


@law
@given(cases.filter(lambda case: case.reads != "none"))
def test_policies_are_told_what_a_rank_would_reuse(case: Case) -> None:
    """Whenever a rank looks a prompt up, it gets what a router or leader would have been told."""
    start = PrefixReads._start

    def watched(reads: PrefixReads, seq: Sequence) -> bool:
        rank = reads._rank
        told = reusable_of(rank.group.dispatch.ranks, SequenceFacade(seq))[rank.target]
        own = rank.hit_tokens(seq.prefix_hashes, seq.prompt_tokens)
        found_room = start(reads, seq)
        if seq.goal_tokens == seq.prompt_tokens:  # else what it said before is computed again
            if seq.seq_id in reads.under_way:
                assert told == seq.resident_tokens > own
            elif found_room:
                assert told == own
        return found_room

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrefixReads, "_start", watched)
        run(case)


def test_random_runs_meet_every_kind_of_transfer() -> None:
    seen = set()
    waits = contended = 0
    wanted = {"kv", "cache_read", "write_back", "demotion", "scale_up", "vpc"}
    for number in range(36):
        if wanted <= seen and waits and contended > 20:
            break
        moved = run(case_of(number))[1].transfers
        seen |= {TRANSFER_KINDS[kind] for kind in moved.kind.tolist()}
        seen |= {moved.plane_names[plane] for plane in moved.plane.tolist()}
        waits += int((moved.wait_s > 0).sum())
        contended += int((moved.end_s - moved.start_s > 1.001 * moved.alone_s).sum())
    assert wanted <= seen
    assert waits > 0
    assert contended > 20


# --- by hand --------------------------------------------------------------------------------------


def two_stages(requests: Any, *, layerwise: bool = False, **changes: Any) -> RunRecords:
    """Two prefill dies and two decode dies in different nodes; 1 GB a token, up to 100 GB/s."""
    prefill = pool_spec(role="prefill", name="prefill", dp=2, **changes.pop("prefill", {}))
    decode = pool_spec(role="decode", name="decode", dp=2, **changes.pop("decode", {}))
    placements = place_in_order([prefill, decode])
    far = replace(placements[1], first_die=16)
    inputs = run_inputs(
        requests,
        pool_inputs(prefill, router="round_robin"),
        decode=pool_inputs(decode, router=changes.pop("router", "round_robin")),
        transfer=KvTransfer(latency_s=0.0, bytes_per_token=GB, s_per_token=0.01),
        kv_path=KvPath(
            plane="scale_up",
            routes=KvRoutes(prefill=placements[0], decode=far),
            law=transfer_law("scale_up", 100 * GB, 0.5),
            layerwise=layerwise,
            num_layers=10,
        ),
        fabric=changes.pop("where", fabric(num_nodes=2)),
    )
    return Simulation(inputs).run()


def test_a_transfer_by_hand() -> None:
    """A step of 1 s, then 0.5 s of start-up and 100 GB at 100 GB/s."""
    records = two_stages(at([0.0], 100, 3))
    assert records.requests.transfer_start_s.tolist() == [1.0]
    assert records.requests.transfer_end_s.tolist() == [2.5]
    moved = records.transfers
    assert (moved.source_die.tolist(), moved.destination_die.tolist()) == ([0], [16])
    assert (moved.alone_s.tolist(), moved.wait_s.tolist()) == ([1.5], [0.0])


def test_two_prompts_into_one_decode_die_share_its_link() -> None:
    """Both at 98 GB/s; a third party's links are not theirs."""
    records = two_stages(at([0.0, 0.0], 98, 3), router=lambda view, seq: 0)
    np.testing.assert_allclose(records.requests.transfer_end_s, 2.5)
    np.testing.assert_allclose(records.transfers.alone_s, 1.48)


def test_layers_go_while_the_prompt_is_computed() -> None:
    """Nine tenths are sent in the step of 1 s after 0.5 s, which takes until 1.5; the last tenth
    after it takes 0.5 + 0.1 s."""
    records = two_stages(at([0.0], 100, 3), layerwise=True)
    requests, moved = records.requests, records.transfers
    assert requests.prefill_end_s.tolist() == requests.transfer_start_s.tolist() == [1.0]
    np.testing.assert_allclose(requests.transfer_end_s, [1.6])
    np.testing.assert_allclose(moved.size_bytes, [90 * GB, 10 * GB])
    np.testing.assert_allclose(moved.start_s, [0.0, 1.0])
    np.testing.assert_allclose(moved.end_s, [1.5, 1.6])


def test_without_room_nothing_goes_ahead() -> None:
    """The second prompt waits for the only slot of its decode rank: all of it goes then."""
    records = two_stages(
        at([0.0, 0.0, 0.0], 100, 4),
        layerwise=True,
        router=lambda view, seq: 0,
        prefill={"max_num_seqs": 1},
        decode={"max_num_seqs": 1},
    )
    requests, moved = records.requests, records.transfers
    assert (requests.status == FINISHED).all()
    assert moved.wait_s.max() > 1.0
    whole = moved.request_id[np.isclose(moved.size_bytes, 100 * GB)]
    assert len(whole) == 2


def test_a_slow_link_is_felt() -> None:
    """Half of a die's link is left: 98 GB/s."""
    where = damaged({"die/16--scale_up/leaf/*": 0.5}, num_nodes=2)
    records = two_stages(at([0.0], 98, 3), where=where)
    np.testing.assert_allclose(records.requests.transfer_end_s, 2.5)
