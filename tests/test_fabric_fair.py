"""Max-min fairness: known cases, the definition itself, and the same from loops and from arrays."""

from math import inf

import numpy as np
import pytest
from fabric_cases import plain_fair_rates
from hypothesis import given
from hypothesis import strategies as st

from simpod.cluster.fabric import kernel
from simpod.cluster.fabric.fair import fair_rates, first_full_level

NUM_LINKS = 6

capacities = st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, 7.0, 0.1]), min_size=6, max_size=6)
paths_of_two = st.lists(
    st.lists(st.integers(0, NUM_LINKS - 1), min_size=2, max_size=4, unique=True).map(tuple),
    min_size=1,
    max_size=24,
)
limits = st.sampled_from([inf, inf, inf, 0.3, 1.0, 2.5])


def by_kernel(
    paths: list[tuple[int, ...]], caps: list[float], capacity: list[float]
) -> list[float]:
    """Links in rows, with one more that stands for none; all of them at once."""
    table = np.full((4, len(paths)), len(capacity))
    for i, path in enumerate(paths):
        table[: len(path), i] = path
    return rates_of_table(table, np.array(caps), np.array(capacity)).tolist()


def rates_of_table(links, caps, capacity):
    num, none = links.shape[1], len(capacity)
    changed = np.unique(links[links < none])
    limits = np.append(capacity, inf)
    slots = np.stack([np.zeros(num), caps])
    reached, rates = kernel.fair_rates(np.arange(num), links, slots, limits, 0.0, changed)
    assert sorted(reached) == list(range(num))
    return rates[np.argsort(reached)]


def by_loops(paths: list[tuple[int, ...]], caps: list[float], capacity: list[float]) -> list[float]:
    used = {link for path in paths for link in path}
    return fair_rates(paths, caps, {link: capacity[link] for link in used})


WAYS = pytest.mark.parametrize("fair", [by_kernel, by_loops, plain_fair_rates])


@WAYS
def test_two_share_a_link(fair) -> None:
    assert fair([(0, 1), (0, 2)], [inf, inf], [10.0, 20.0, 20.0]) == [5.0, 5.0]


@WAYS
def test_each_of_three_has_a_bottleneck_of_its_own(fair) -> None:
    """C has its cap, 1; A gets half of link 0 with it: no: what B leaves of it. By hand:

    link 0 (9): A, B, C; link 1 (2): B; link 2 (20): A. C stops at its cap 1, B at 2, A at 6.
    """
    paths = [(0, 2), (0, 1), (0, 3)]
    assert fair(paths, [inf, inf, 1.0], [9.0, 2.0, 20.0, 9.0]) == [6.0, 2.0, 1.0]


@WAYS
def test_the_parking_lot(fair) -> None:
    """One long transfer over three links, a short one on each: Bertsekas and Gallager."""
    paths = [(0, 1, 2), (0, 3), (1, 4), (2, 5)]
    got = fair(paths, [inf] * 4, [1.0, 2.0, 4.0, 9.0, 9.0, 9.0])
    assert got == pytest.approx([0.5, 0.5, 1.5, 3.5])


@WAYS
def test_alone_on_an_idle_link(fair) -> None:
    assert fair([(0, 1)], [inf], [4.0, 3.0]) == [3.0]
    assert fair([(0, 1)], [2.0], [4.0, 3.0]) == [2.0]


@given(paths_of_two, st.data(), capacities)
def test_kernel_and_loops_agree_with_the_plainest_way(paths, data, capacity) -> None:
    caps = data.draw(st.lists(limits, min_size=len(paths), max_size=len(paths)))
    want = plain_fair_rates(paths, caps, capacity)
    assert by_kernel(paths, caps, capacity) == pytest.approx(want, rel=1e-9)
    assert by_loops(paths, caps, capacity) == pytest.approx(want, rel=1e-9)


@given(paths_of_two, st.data(), capacities)
def test_no_link_is_too_full_and_nobody_can_get_more(paths, data, capacity) -> None:
    """Every transfer is at its cap, or on a full link on which nobody has more."""
    caps = data.draw(st.lists(limits, min_size=len(paths), max_size=len(paths)))
    rates = by_kernel(paths, caps, capacity)
    on = {k: [r for r, p in zip(rates, paths, strict=True) if k in p] for k in range(NUM_LINKS)}
    assert all(sum(on[k]) <= capacity[k] * (1 + 1e-9) for k in on)
    for rate, path, cap in zip(rates, paths, caps, strict=True):
        assert rate <= cap
        stops = [
            k
            for k in path
            if sum(on[k]) >= capacity[k] * (1 - 1e-9) and max(on[k]) <= rate * (1 + 1e-9)
        ]
        assert rate == cap or stops


@given(paths_of_two, capacities, st.sampled_from([2.0, 0.25, 1024.0]))
def test_rates_scale_with_capacities(paths, capacity, factor) -> None:
    caps = [inf] * len(paths)
    want = [factor * rate for rate in by_kernel(paths, caps, capacity)]
    assert by_kernel(paths, caps, [factor * c for c in capacity]) == want  # powers of two: exactly


def test_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    links = rng.integers(0, 40, (2, 300)) + np.array([[0], [40]])
    caps, capacity = np.where(rng.random(300) < 0.3, 0.2, inf), np.full(80, 3.0)
    order = rng.permutation(300)
    shuffled = np.ascontiguousarray(links[:, order])  # else compiled anew, for another layout
    got = rates_of_table(shuffled, caps[order], capacity)
    assert got == pytest.approx(rates_of_table(links, caps, capacity)[order], rel=1e-12)


def test_only_what_a_change_can_reach_is_worked_out() -> None:
    """1 and 2 share link 0, which changed; 3 shares link 1 with 2, but is stopped at 1 elsewhere.

    4 shares no link with these, 5 only one without a limit with 4.
    """
    links = np.array([[0, 0, 0, 1, 3, 4], [0, 5, 1, 2, 4, 6]])  # slot 0 is empty
    slots = np.array([[5.0, 3, 3, 1, 9, 7], [inf] * 6])
    limits, active = np.array([8.0, 4, 1, 9, inf, 9, 9]), np.arange(1, 6)
    reached, rates = kernel.fair_rates(active, links, slots, limits, 2.0, np.array([0]))
    assert dict(zip(reached.tolist(), rates.tolist(), strict=True)) == {1: 5.0, 2: 3.0}


@pytest.mark.parametrize(
    ("room", "upto", "level"),
    [
        (10.0, [inf], 10.0),
        (10.0, [inf, inf], 5.0),
        (10.0, [2.0, inf], 8.0),
        (10.0, [2.0, 3.0], inf),
        (10.0, [4.0, 4.0, 4.0], 10 / 3),
        (10.0, [1.0, 4.0, 6.0], 5.0),
        (10.0, [], inf),
    ],
)
def test_level_at_which_a_link_fills_up(room: float, upto: list[float], level: float) -> None:
    assert first_full_level(room, upto) == pytest.approx(level)
