"""Live migration: by hand, when it is called off, and what Llumnix moves."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from engine_cases import EVERY_STEP_1S, assert_same, at, pool_inputs, pool_spec, run_inputs
from policy_cases import decoding, make, pool

from simpod.cost import KvTransfer
from simpod.engine import Simulation
from simpod.errors import PolicyError
from simpod.policies import MigrationView, Move
from simpod.policies.fakes import FakeMigrationView
from simpod.records.columns import RunRecords


class Once:
    """Makes the given moves at the first decision, 2.25 s after the start."""

    period_s = 2.25

    def __init__(self, *moves: Move) -> None:
        self.moves: Sequence[Move] = moves

    def __call__(self, view: MigrationView) -> Sequence[Move]:
        moves, self.moves = self.moves, ()
        return moves


def run(
    requests: Any, policy: Callable[[], Any], *, skip: bool = True, **spec: Any
) -> tuple[Simulation, RunRecords]:
    """Two instances of one rank; request i goes to rank i % 2; copies take 0.1 s a token."""
    given = {"instances": 2, "kv_blocks": 100} | spec
    law = KvTransfer(latency_s=0.05, bytes_per_token=1.0, s_per_token=0.1)
    entry = pool_inputs(pool_spec(**given), EVERY_STEP_1S, lambda view, seq: seq.seq_id % 2)
    migration = {"make_migration": policy, "migration_law": law, "migration_name": "mine"}
    sim = Simulation(run_inputs(requests, entry, skip_ahead=skip, **migration))
    return sim, sim.run()


@pytest.mark.parametrize("skip", [True, False])
def test_a_sequence_decodes_on_until_it_is_copied(*, skip: bool) -> None:
    """Tokens at 1, 2, 3, 4. The copy begins at the idle destination at 2.25 s, with 10 + 1 tokens,
    and takes 1.15 s; it leaves at 4 s, two tokens more are copied in 0.25 s, and the next four
    tokens come at 5.25, 6.25, 7.25, 8.25."""
    sim, records = run(at([0.0], 10, 8), lambda: Once(Move(0, 0, 1)), skip=skip)
    assert records.requests.finish_s.tolist() == [8.25]
    assert records.requests.decode_target.tolist() == [1]
    assert records.requests.num_preemptions.tolist() == [0]
    assert records.segments.tolist() == [[0, 0, 0, 3]]
    assert sim.migrator is not None
    assert sim.migrator.num_done == 1
    assert [group.kv.used(0) for group in sim.groups] == [0, 0]


def test_both_sides_hold_the_kv_until_it_has_followed() -> None:
    seen: dict[float, list[int]] = {}

    def watch(until_s: float) -> list[int]:
        law = KvTransfer(latency_s=0.05, bytes_per_token=1.0, s_per_token=0.1)
        spec = pool_spec(instances=2, kv_blocks=100)
        entry = pool_inputs(spec, EVERY_STEP_1S, lambda view, seq: 0)
        policy = {"make_migration": lambda: Once(Move(0, 0, 1)), "migration_law": law}
        part = Simulation(run_inputs(at([0.0], 10, 8), entry, duration_s=until_s, **policy))
        part.run()
        return [group.kv.used(0) for group in part.groups]

    for until_s in (2.2, 2.5, 4.1, 4.5):
        seen[until_s] = watch(until_s)
    assert seen[2.2][1] == 0
    assert seen[2.5][1] == 11 + 3  # what is there, and three steps
    assert seen[4.1] == [13, 14]
    assert seen[4.5] == [0, 13]


def test_who_ends_on_the_way_gives_the_room_back() -> None:
    sim, records = run(at([0.0], 10, 3), lambda: Once(Move(0, 0, 1)))
    assert records.requests.finish_s.tolist() == [3.0]
    assert sim.migrator is not None
    assert sim.migrator.num_done == 0
    assert [group.kv.used(0) for group in sim.groups] == [0, 0]
    assert sim.end_s == 3.0


@pytest.mark.parametrize("spec", [{"kv_blocks": 18}, {"max_num_seqs": 1}])
def test_nobody_moves_where_there_is_no_room(spec: dict[str, int]) -> None:
    load = at([0.0, 0.0], 10, 8)
    sim, records = run(load, lambda: Once(Move(0, 0, 1)), **spec)
    assert records.requests.finish_s.tolist() == [8.0, 8.0]
    assert sim.migrator is not None
    assert sim.migrator.num_done == 0


@pytest.mark.parametrize(
    ("move", "complaint"),
    [
        (Move(0, 0, 0), "moves from 0 to 0"),
        (Move(0, 0, 2), "moves from 0 to 2"),
        (Move(1, 0, 1), "moves sequence 1, which does not decode on 0"),
    ],
)
def test_a_move_that_makes_no_sense_is_blamed(move: Move, complaint: str) -> None:
    with pytest.raises(PolicyError, match=f"policy mine: {complaint}"):
        run(at([0.0, 0.0], 10, 8), lambda: Once(move))


def test_llumnix_pairs_the_fullest_with_the_freest() -> None:
    targets = pool(running=[4, 2, 4, 1], kv=[960, 400, 940, 100], slots=8, kv_capacity_tokens=1000)
    view = FakeMigrationView(
        targets,
        {
            0: (decoding(1, 5, context=300, priority=1), decoding(2, 5, context=200)),
            2: (decoding(3, 5, context=500), decoding(4, 5, context=100)),
        },
    )
    # freeness 10, 300, 15, 900
    policy = make("migration", "llumnix", low_tokens=20.0, high_tokens=200.0)
    assert policy(view) == [Move(2, 0, 3), Move(4, 2, 1)]
    assert make("migration", "llumnix", low_tokens=12.0, high_tokens=400.0)(view) == [Move(2, 0, 3)]


def test_llumnix_makes_room_for_a_prompt_that_no_rank_has_room_for() -> None:
    """Rank 0 holds 35 of 100 tokens, rank 1 has 30 + 20, and 60 more are sent there."""
    load = at([0.0, 0.0, 0.0, 0.0, 0.0, 3.0], [35, 30, 1, 20, 1, 60], [60, 60, 1, 60, 1, 1])
    stay = run(load, Once)[1]
    policy = make("migration", "llumnix", period_s=1.0, low_tokens=10.0, high_tokens=20.0)
    sim, moved = run(load, lambda: policy)
    assert sim.migrator is not None
    assert sim.migrator.num_done == 1
    assert moved.requests.decode_target.tolist() == [0, 1, 0, 0, 0, 1]
    assert moved.requests.first_token_s[5] < 15.0 < stay.requests.first_token_s[5]
    assert_same(moved, run(load, lambda: policy, skip=False)[1])
