"""Balancers of experts: published example, hand cases, optimum and bound, the contract."""

from typing import Any

import numpy as np
import pytest

from simpod.cluster.experts.placement import (
    ExpertPlacement,
    ExpertSlots,
    SlotsSeen,
    expert_slots,
    in_order,
)
from simpod.errors import ConfigError
from simpod.policies import PolicyRef, resolve
from simpod.policies.expert_checks import check_expert_balancer, placement_problems
from simpod.policies.expert_optimum import Optimum, load_bound
from simpod.policies.expert_packing import (
    copies_by_hottest,
    copies_by_slices,
    fullest_die,
    packed,
    tokens_per_copy,
)
from simpod.policies.experts.deepseek_eplb import DeepSeekEplb
from simpod.policies.experts.eplb import Eplb
from simpod.policies.experts.keep import keep

EXAMPLE_LOAD = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ],
    dtype=np.float64,
)
"""Loads of the example in the README of DeepSeek's EPLB: 2 layers of 12 experts."""

EXAMPLE_EXPERTS = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]
"""What it gives for 16 slots, 4 groups, 2 nodes, 8 GPUs."""


def seen(slots: ExpertSlots, layers: int, tokens: float = 0.0) -> SlotsSeen:
    placement = ExpertPlacement(slots=slots, experts=in_order(slots, layers))
    return SlotsSeen(placement=placement, tokens=tokens)


def example() -> SlotsSeen:
    return seen(expert_slots(num_dies=8, num_experts=12, redundant_slots=4, dies_per_node=4), 2)


def test_published_example_of_deepseek() -> None:
    assert DeepSeekEplb(num_groups=4)(EXAMPLE_LOAD, example()).tolist() == EXAMPLE_EXPERTS


def test_groups_that_do_not_divide_are_balanced_globally() -> None:
    view = example()
    whole = DeepSeekEplb()(EXAMPLE_LOAD, view)
    assert np.array_equal(DeepSeekEplb(num_groups=5)(EXAMPLE_LOAD, view), whole)
    limited = DeepSeekEplb(num_groups=4)(EXAMPLE_LOAD, view)
    assert (
        fullest_die(EXAMPLE_LOAD, whole, view) <= fullest_die(EXAMPLE_LOAD, limited, view)
    ).all()


def test_one_slot_a_die_keeps_experts_where_they_were() -> None:
    slots = expert_slots(num_dies=6, num_experts=4, redundant_slots=2)
    experts = DeepSeekEplb()(np.array([[8.0, 1.0, 2.0, 6.0]]), seen(slots, 1))
    assert experts.tolist() == [[0, 1, 2, 3, 0, 3]]


def test_copies_go_to_the_hottest() -> None:
    """12, 4, 2: 6 after one copy of 0, then 4 after another."""
    assert copies_by_hottest(np.array([[12.0, 4.0, 2.0]]), 5).tolist() == [[0, 1, 2, 0, 0]]


def test_copies_by_hottest_have_the_least_hottest_copy() -> None:
    """Against every other way to give three more copies."""
    rng = np.random.default_rng(0)
    for load in rng.lognormal(0.0, 1.0, (20, 1, 4)):
        best = min(
            (load[0] / (1 + np.bincount(extra, minlength=4))).max() for extra in np.ndindex(4, 4, 4)
        )
        held = copies_by_hottest(load, 7)
        assert tokens_per_copy(load, held).max() == pytest.approx(best)


def test_xdeepserve_counts_every_slice() -> None:
    """Expert 0 leads by a little in one slice, expert 1 by much in two: it gets the copy.

    Copy of 0: (9 + 20 + 20); copy of 1: (10 + 10 + 10).
    """
    slices = np.array([[[10.0, 9.0, 1.0]], [[4.0, 20.0, 1.0]], [[4.0, 20.0, 1.0]]])
    assert copies_by_slices(slices, 4, most=4).tolist() == [[0, 1, 2, 1]]


def test_no_more_copies_than_dies() -> None:
    slices = np.array([[[100.0, 1.0, 1.0]]])
    assert np.bincount(copies_by_slices(slices, 6, most=2)[0]).tolist() == [2, 2, 2]


def test_eplb_remembers_slices() -> None:
    """The second call sees the first slice too, unless it keeps but one."""
    slots = expert_slots(num_dies=4, num_experts=3, redundant_slots=1)
    first, second = np.array([[0.0, 30.0, 1.0]]), np.array([[10.0, 9.0, 1.0]])
    long, short = Eplb(), Eplb(num_slices=1)
    for balancer in (long, short):
        balancer(first, seen(slots, 1))
    copies = [np.bincount(b(second, seen(slots, 1))[0]).tolist() for b in (long, short)]
    assert copies == [[1, 2, 1], [2, 1, 1]]


def test_packing_by_hand() -> None:
    """9 and 7 first, then 5 beside 7, 4 beside 9; two of a kind go apart."""
    capacity = np.array([2, 2])
    assert packed(np.array([[5.0, 9.0, 4.0, 7.0]]), capacity).tolist() == [[3, 0, 1, 2]]
    kinds = np.array([[0, 0, 1, 1]])
    together = packed(np.array([[9.0, 1.0, 9.0, 8.0]]), capacity, kinds=kinds)
    assert (together // 2)[0, 0] != (together // 2)[0, 1]


def test_what_is_heavy_goes_where_nothing_has_to_go_with_it() -> None:
    """4 into the pack of one, 2 and 2 together: first come first would be 6 and 2."""
    assert packed(np.array([[2.0, 4.0, 2.0]]), np.array([2, 1])).tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("balancer", [DeepSeekEplb(), Eplb()], ids=["deepseek", "eplb"])
@pytest.mark.parametrize(
    ("dies", "redundant", "shared"), [(256, 32, 0), (320, 33, 32), (128, 32, 0)]
)
def test_even_loads_are_placed_evenly_where_dies_have_unlike_slots(
    balancer: Any, dies: int, redundant: int, shared: int
) -> None:
    """Two halves on dies of two slots, whole experts on those of one."""
    slots = expert_slots(
        num_dies=dies,
        num_experts=256,
        redundant_slots=redundant,
        shared_copies=shared,
        experts_per_token=8,
    )
    view, load = seen(slots, 1, tokens=0.1 * 32), np.full((1, 256), 0.1)
    experts = balancer(load, view)
    assert fullest_die(load, experts, view) == pytest.approx(load_bound(load, view))


def test_shared_copies_count_as_load_of_their_die() -> None:
    slots = expert_slots(num_dies=3, num_experts=3, redundant_slots=2, shared_copies=1)
    load = np.array([[9.0, 6.0, 3.0]])
    experts = Eplb()(load, seen(slots, 1, tokens=8.0))
    assert experts[0, 0] == 2  # the coldest, beside the shared copy


@pytest.mark.parametrize("balancer", [DeepSeekEplb(), Eplb()], ids=["deepseek", "eplb"])
def test_copies_are_on_different_dies_and_bound_is_reached(balancer: Any) -> None:
    """One slot a die: the hottest copy is the bound, and both reach it."""
    slots = expert_slots(num_dies=96, num_experts=64, redundant_slots=32, dies_per_node=16)
    load = np.random.default_rng(0).lognormal(0.0, 1.5, (4, 64))
    view = seen(slots, 4)
    experts = balancer(load, view)
    assert fullest_die(load, experts, view) == pytest.approx(load_bound(load, view))


def test_bound_is_never_beaten_and_optimum_is_best() -> None:
    slots = expert_slots(num_dies=4, num_experts=6, redundant_slots=2)
    load = np.random.default_rng(1).lognormal(0.0, 1.0, (3, 6))
    view = seen(slots, 3)
    bound = load_bound(load, view) * (1.0 - 1e-12)
    optimum = fullest_die(load, Optimum(gap_frac=0.0)(load, view), view)
    assert (optimum >= bound).all()
    for balancer in (keep, DeepSeekEplb(), Eplb()):
        assert (fullest_die(load, balancer(load, view), view) >= optimum * (1.0 - 1e-9)).all()


def test_optimum_by_hand() -> None:
    """5 + 5 | 4 + 3 + 3 is even; packing by descending load gives 5 + 4 + 3 | 5 + 3."""
    slots = ExpertSlots(
        num_experts=5,
        die_of_slot=np.array([0, 0, 1, 1, 1]),
        node_of_die=np.zeros(2, dtype=np.int64),
        shared_dies=np.zeros(0, dtype=np.int64),
    )
    load = np.array([[5.0, 5.0, 4.0, 3.0, 3.0]])
    optimum, unsolved = Optimum(gap_frac=0.0), Optimum(gap_frac=0.0, max_variables=1)
    experts = optimum(load, seen(slots, 1))
    assert sorted(experts[0, :2].tolist()) == [0, 1]
    assert optimum.note == ""
    unsolved(load, seen(slots, 1))
    assert unsolved.note.startswith("1 of 1 layers may have a better placement: their fullest die")
    assert "1.1 times a lower bound" in unsolved.note


def test_the_optimum_needs_a_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simpod.policies.expert_optimum.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs scipy: pip install 'simpod\[fit\]'"):
        resolve("experts", PolicyRef("optimum"))


def test_large_layers_fall_back_to_heuristics() -> None:
    slots = expert_slots(num_dies=96, num_experts=64, redundant_slots=96)
    load = np.random.default_rng(0).lognormal(0.0, 1.5, (1, 64))
    view = seen(slots, 1)
    best = fullest_die(load, Optimum()(load, view), view)
    assert best <= fullest_die(load, DeepSeekEplb()(load, view), view)


@pytest.mark.parametrize(
    "make",
    [lambda: keep, Eplb, lambda: Eplb(num_slices=1), DeepSeekEplb, lambda: DeepSeekEplb(4)],
    ids=["none", "eplb", "eplb-1", "deepseek", "deepseek-4"],
)
def test_contract(make: Any) -> None:
    assert check_expert_balancer(make, "mine", views=150) == []


@pytest.mark.parametrize(
    ("decide", "complaint"),
    [
        (lambda load, slots: slots.experts * 0, "no slot for expert"),
        (lambda load, slots: slots.experts - 1, "names experts -1"),
        (lambda load, slots: slots.experts[:, 1:], "returned shape"),
        (lambda load, slots: slots.experts.astype(float), "not an array of integers"),
    ],
)
def test_broken_contracts_are_told(decide: Any, complaint: str) -> None:
    problems = check_expert_balancer(lambda: decide, "mine", views=30)
    assert any(complaint in problem for problem in problems)


def test_moods_are_told() -> None:
    """Two fresh policies must agree."""

    class Moody:
        made = 0

        def __init__(self) -> None:
            Moody.made += 1
            self.turn = Moody.made % 2

        def __call__(self, load: Any, slots: Any) -> Any:
            return np.roll(slots.experts, self.turn, axis=1)

    problems = check_expert_balancer(Moody, "mine", views=30)
    assert any("other placements" in problem for problem in problems)


def test_a_good_decision_has_no_problems() -> None:
    view = example()
    assert list(placement_problems(EXAMPLE_LOAD, view, view.experts)) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: Eplb(num_slices=0),
        lambda: DeepSeekEplb(num_groups=0),
        lambda: Optimum(node_limit=0),
        lambda: Optimum(gap_frac=-1.0),
        lambda: Optimum(max_variables=0),
    ],
)
def test_bad_parameters_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="must be >="):
        make()
