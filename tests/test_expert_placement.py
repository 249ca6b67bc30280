"""Experts on slots of dies, and the change from one placement to the next."""

import numpy as np
import pytest

from simpod.cluster.experts.placement import (
    EMPTY,
    ExpertPlacement,
    ExpertSlots,
    SlotsSeen,
    expert_slots,
    imbalance,
    in_order,
)
from simpod.cluster.experts.reconfiguration import aligned, reconfiguration
from simpod.cluster.fabric import Flow, FlowTable, build_graph, freeze
from simpod.config import load_hardware
from simpod.errors import ConfigError


def placed(slots: ExpertSlots, *layers: list[int]) -> ExpertPlacement:
    return ExpertPlacement(slots=slots, experts=np.array(layers))


def test_expert_parallelism_wider_than_the_experts() -> None:
    """CloudMatrix-Infer: 256 routed + 32 redundant + 32 shared copies on 320 dies of one slot."""
    slots = expert_slots(num_dies=320, num_experts=256, redundant_slots=32, shared_copies=32)
    assert slots.num_slots == 288
    assert np.bincount(slots.slots_of_die).tolist() == [32, 288]
    assert (slots.slots_of_die[slots.shared_dies] == 0).all()


def test_two_slots_a_die() -> None:
    """xDeepServe: 256 dies have 1 routed + 1 redundant, 32 have 1 shared + 1 redundant."""
    slots = expert_slots(num_dies=288, num_experts=256, redundant_slots=288, shared_copies=32)
    assert np.bincount(slots.slots_of_die).tolist() == [0, 32, 256]
    assert (slots.slots_of_die[slots.shared_dies] == 1).all()


def test_a_slot_more_is_where_no_shared_copy_is_unless_that_has_little_to_do() -> None:
    full, light = (
        expert_slots(num_dies=10, num_experts=9, shared_copies=2, experts_per_token=chosen)
        for chosen in (4, 8)
    )
    assert full.slots_of_die.tolist() == [0, 2, 1, 1, 1, 0, 1, 1, 1, 1]
    assert light.slots_of_die.tolist() == [1, 1, 1, 1, 1, 0, 1, 1, 1, 1]


def test_ten_experts_a_rank() -> None:
    """CloudMatrix-Infer prefill: each of 32 ranks has 1 shared + 8 routed + 1 redundant."""
    slots = expert_slots(num_dies=32, num_experts=256, redundant_slots=32, shared_copies=32)
    assert (slots.slots_of_die == 9).all()


@pytest.mark.parametrize(
    ("experts", "spare", "shared"), [(3, 0, 1), (10, 3, 0), (2, 0, 0), (9, 1, 7)]
)
def test_slots_are_spread_evenly(experts: int, spare: int, shared: int) -> None:
    slots = expert_slots(
        num_dies=7, num_experts=experts, redundant_slots=spare, shared_copies=shared
    )
    assert slots.num_slots == experts + spare
    all_slots = slots.slots_of_die + np.bincount(slots.shared_dies, minlength=7)
    assert np.ptp(all_slots) <= 1
    assert slots.slots_of_die.min() >= 0


def test_impossible_slots_are_refused() -> None:
    with pytest.raises(ConfigError, match="shared_copies"):
        expert_slots(num_dies=4, num_experts=8, shared_copies=5)
    with pytest.raises(ConfigError, match="expert 1 of layer 0 has no slot"):
        placed(expert_slots(num_dies=2, num_experts=2), [0, 0])
    with pytest.raises(ConfigError, match="has shape"):
        placed(expert_slots(num_dies=2, num_experts=2), [0, 1, 0])


def test_tokens_of_dies_by_hand() -> None:
    """Expert 0 has two copies, of 6 tokens each; the shared copy on die 0 gets all 10."""
    slots = expert_slots(num_dies=3, num_experts=3, redundant_slots=2, shared_copies=1)
    assert slots.slots_of_die.tolist() == [1, 2, 2]
    placement = placed(slots, [2, 0, 1, 0, 2])
    load = np.array([[12.0, 5.0, 3.0]])
    assert placement.copies.tolist() == [[2, 1, 2]]
    assert placement.slot_tokens(load).tolist() == [[1.5, 6.0, 5.0, 6.0, 1.5]]
    assert placement.die_tokens(load, 10.0).tolist() == [[11.5, 11.0, 7.5]]
    assert placement.table(placement.slot_tokens(load), 10.0).tolist() == [
        [[1.5, 0.0, 10.0], [6.0, 5.0, 0.0], [6.0, 1.5, 0.0]]
    ]
    assert imbalance(placement.die_tokens(load, 10.0)) == pytest.approx([11.5 / 10.0])


def test_a_slot_out_of_service_leaves_its_tokens_to_other_copies() -> None:
    slots = expert_slots(num_dies=3, num_experts=2, redundant_slots=1)
    placement = placed(slots, [0, 1, 0]).without(np.array([[True, False, False]]))
    assert placement.experts.tolist() == [[EMPTY, 1, 0]]
    assert placement.die_tokens(np.array([[8.0, 4.0]])).tolist() == [[0.0, 4.0, 8.0]]


def test_what_a_balancer_sees() -> None:
    slots = expert_slots(
        num_dies=4, num_experts=4, redundant_slots=2, shared_copies=2, dies_per_node=2
    )
    seen = SlotsSeen(placement=placed(slots, [0, 1, 2, 3, 0, 1]), tokens=8.0)
    assert seen.resident_tokens.tolist() == [4.0, 0.0, 4.0, 0.0]
    assert seen.node_of_die.tolist() == [0, 0, 1, 1]
    assert seen.num_dies == 4


def test_experts_that_stay_on_their_die_keep_their_slot() -> None:
    slots = expert_slots(num_dies=2, num_experts=4)
    old = placed(slots, [0, 1, 2, 3])
    assert aligned(old, np.array([[1, 2, 3, 0]])).experts.tolist() == [[2, 1, 0, 3]]


def test_no_change_moves_nothing() -> None:
    old = placed(expert_slots(num_dies=4, num_experts=4), [0, 1, 2, 3])
    change = reconfiguration(old, old, 1e6)
    assert change.transfers.total_bytes == 0.0
    assert change.waves == ()


def test_weights_come_from_the_copies_in_turn() -> None:
    slots = expert_slots(num_dies=5, num_experts=2, redundant_slots=3)
    old, new = placed(slots, [0, 0, 1, 1, 1]), placed(slots, [0, 0, 1, 0, 0])
    change = reconfiguration(old, new, 44e6)
    assert list(change.transfers.by_pair()) == [(0, 3, 44e6), (1, 4, 44e6)]
    assert change.transfers.total_bytes == 88e6
    (wave,) = change.waves
    assert wave.during is not None
    assert wave.during.experts.tolist() == [[0, 0, 1, EMPTY, EMPTY]]
    assert change.local_bytes(wave) == 44e6


def test_a_die_that_has_the_expert_reads_nothing() -> None:
    slots = expert_slots(num_dies=2, num_experts=2, redundant_slots=2)
    change = reconfiguration(placed(slots, [0, 1, 0, 1]), placed(slots, [0, 0, 1, 1]), 1.0)
    assert change.transfers.total_bytes == 0.0


def test_a_chain_of_single_copies_takes_several_waves() -> None:
    """0 -> its new slot first, then 1 into the slot that 0 had."""
    slots = expert_slots(num_dies=3, num_experts=2, redundant_slots=1)
    change = reconfiguration(placed(slots, [0, 1, 1]), placed(slots, [1, 1, 0]), 1.0)
    assert [wave.slots.tolist() for wave in change.waves] == [
        [[False, False, True]],
        [[True, False, False]],
    ]


def test_a_ring_of_single_copies_leaves_nothing_to_serve() -> None:
    slots = expert_slots(num_dies=2, num_experts=2)
    change = reconfiguration(placed(slots, [0, 1]), placed(slots, [1, 0]), 44e6)
    (wave,) = change.waves
    assert wave.during is None
    assert wave.after.experts.tolist() == [[1, 0]]
    assert list(wave.transfers.by_pair()) == [(0, 1, 44e6), (1, 0, 44e6)]
    assert change.transfers.staged_bytes == 44e6


def test_a_wave_reads_what_the_ones_before_it_left() -> None:
    """0 moves to die 2, then 1 into the slot that 0 had, from die 1."""
    slots = expert_slots(num_dies=3, num_experts=2, redundant_slots=1)
    change = reconfiguration(placed(slots, [0, 1, 1]), placed(slots, [1, 1, 0]), 1.0)
    assert [list(wave.transfers.by_pair()) for wave in change.waves] == [
        [(0, 2, 1.0)],
        [(1, 0, 1.0)],
    ]
    assert sum(wave.transfers.total_bytes for wave in change.waves) == change.transfers.total_bytes


def test_every_expert_is_served_in_every_wave() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        slots = expert_slots(num_dies=6, num_experts=8, redundant_slots=int(rng.integers(0, 6)))
        old, new = (
            ExpertPlacement(slots=slots, experts=rng.permuted(in_order(slots, 2), axis=1))
            for _ in range(2)
        )
        now = old
        for wave in reconfiguration(old, new, 1.0).waves:
            if wave.during is not None:  # made, so each expert has a slot
                assert np.array_equal(wave.during.experts == EMPTY, wave.slots)
            now = wave.after
        assert np.array_equal(now.experts, new.experts)


def test_weights_cross_the_fabric() -> None:
    """Two dies of one node exchange an expert: each reads the other's at the rate of its links."""
    fabric = freeze(build_graph(load_hardware("cloudmatrix384")))
    slots = expert_slots(num_dies=16, num_experts=16)
    swapped = np.arange(16)
    swapped[[0, 5]] = swapped[[5, 0]]
    old = ExpertPlacement(slots=slots, experts=in_order(slots, 1))
    change = reconfiguration(old, ExpertPlacement(slots=slots, experts=swapped[np.newaxis]), 44e6)
    flows = FlowTable(fabric)
    for source, destination, size_bytes in change.transfers.by_pair():
        flows.start(0.0, Flow(source=source, destination=destination, size_bytes=size_bytes))
    first = flows.next_completion()
    assert first is not None
    assert first[0] == pytest.approx(44e6 / 196e9, rel=0.01)
