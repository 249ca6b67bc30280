"""Transfers under way: cases by hand, conservation, and every state against the plainest way."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from fabric_cases import GB, damaged, fabric, plain_fair_rates
from hypothesis import given, settings
from hypothesis import strategies as st

from simpod.cluster.fabric import LINK_KINDS, Fabric, Flow, FlowTable
from simpod.cluster.fabric import plane as plane_module
from simpod.errors import ConfigError, InvariantError

CM = "cloudmatrix384"


WAYS = {"loops": (10**9, 0), "kernel": (0, -1), "loops, then kernel": (8, 60)}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch) -> str:
    """All ways of working out rates, whatever the number of transfers."""
    few, load = WAYS[request.param]
    monkeypatch.setattr(plane_module, "FEW", few)
    monkeypatch.setattr(plane_module, "LOAD_TRANSFERS", load)
    return request.param


def flow(source: int, destination: int, size_gb: float, **more) -> Flow:
    return Flow(source=source, destination=destination, size_bytes=size_gb * GB, **more)


def drain(table: FlowTable) -> dict[int, float]:
    """Let everything end; when each did."""
    ended = {}
    while (first := table.next_completion()) is not None:
        now_s, flow_id = first
        table.finish(now_s, flow_id)
        ended[flow_id] = now_s
    return ended


def test_one_transfer_alone(way) -> None:
    table = FlowTable(fabric(CM, 2))
    flow_id = table.start(1.0, flow(0, 16, 196.0))
    assert table.rate(flow_id) == pytest.approx(196 * GB)
    assert table.next_completion() == (pytest.approx(2.0), flow_id)
    assert table.finish(2.0, flow_id) == 196.0 * GB
    assert len(table) == 0
    assert table.next_completion() is None


def test_two_on_a_link_take_twice_as_long(way) -> None:
    table = FlowTable(fabric(CM, 2))
    ids = [table.start(0.0, flow(0, there, 98.0)) for there in (16, 17)]
    assert [table.rate(i) for i in ids] == [98 * GB, 98 * GB]
    assert drain(table) == {ids[0]: 1.0, ids[1]: 1.0}


def test_three_with_a_bottleneck_each(way) -> None:
    """B and C share die 16's port with A; C goes no faster than 28, B than die 2's other load.

    Into die 16: A, B, C. Out of die 2: B and D, E, F. Out of die 2 is filled at 49 each, C stops
    at its cap of 28, A gets what is left of 196: 119.
    """
    table = FlowTable(fabric(CM, 2))
    a = table.start(0.0, flow(0, 16, 100.0))
    b = table.start(0.0, flow(2, 16, 100.0))
    c = table.start(0.0, flow(4, 16, 100.0, bytes_per_s=28 * GB))
    others = [table.start(0.0, flow(2, there, 100.0)) for there in (18, 20, 22)]
    assert [table.rate(i) / GB for i in (a, b, c)] == [119.0, 49.0, 28.0]
    assert [table.rate(i) / GB for i in others] == [49.0] * 3


def test_one_that_ends_early_leaves_its_share(way) -> None:
    """Two of 98 GB/s each; the first, 49 GB, ends at 0.5 s; the second has 98 of 147 left: 1 s."""
    table = FlowTable(fabric(CM, 2))
    short = table.start(0.0, flow(0, 16, 49.0))
    long = table.start(0.0, flow(0, 17, 147.0))
    assert table.next_completion() == (0.5, short)
    assert table.completion_s(long) == 1.5
    table.finish(0.5, short)
    assert table.completion_s(long) == 1.0
    assert drain(table) == {long: 1.0}


def test_one_that_starts_later_takes_its_share(way) -> None:
    table = FlowTable(fabric(CM, 2))
    first = table.start(0.0, flow(0, 16, 196.0))
    second = table.start(0.5, flow(0, 17, 196.0))
    assert table.completion_s(first) == 1.5
    assert drain(table) == {first: 1.5, second: 2.0}


def test_one_that_is_given_up_moved_a_part(way) -> None:
    table = FlowTable(fabric(CM, 2))
    first, second = (table.start(0.0, flow(0, there, 98.0)) for there in (16, 17))
    assert table.finish(0.25, first) == pytest.approx(24.5 * GB)
    assert drain(table) == {second: pytest.approx(0.625)}


def test_a_cap_leaves_the_rest_to_others(way) -> None:
    table = FlowTable(fabric(CM, 2))
    slow = table.start(0.0, flow(0, 16, 1.0, bytes_per_s=50 * GB))
    quick = table.start(0.0, flow(0, 17, 1.0))
    assert (table.rate(slow), table.rate(quick)) == (50 * GB, 146 * GB)


def test_directions_do_not_share(way) -> None:
    table = FlowTable(fabric(CM, 2))
    ids = [table.start(0.0, flow(*ends, 196.0)) for ends in ((0, 16), (16, 0))]
    assert drain(table) == dict.fromkeys(ids, pytest.approx(1.0))


def test_planes_do_not_share(way) -> None:
    table = FlowTable(fabric(CM, 2))
    ids = [table.start(0.0, flow(0, 16, 1.0, plane=p)) for p in ("scale_up", "scale_out", "vpc")]
    assert [table.rate(i) / GB for i in ids] == pytest.approx([196.0, 25.0, 50.0])


def test_dies_of_an_npu_talk_past_the_switches(way) -> None:
    table = FlowTable(fabric(CM, 2))
    inner, outer = table.start(0.0, flow(0, 1, 1.0)), table.start(0.0, flow(0, 2, 1.0))
    assert (table.rate(inner), table.rate(outer)) == (270 * GB, pytest.approx(196 * GB))
    assert table.sent_bytes(0.001) == pytest.approx(
        {"scale_up": 0.196 * GB, "scale_out": 0.0, "vpc": 0.0, "peer": 0.27 * GB}
    )


def test_a_node_shares_its_vpc_card(way) -> None:
    table = FlowTable(fabric(CM, 3))
    ids = [table.start(0.0, flow(die, 16 + die, 1.0, plane="vpc")) for die in range(4)]
    ids += [table.start(0.0, flow(40, 20, 1.0, plane="vpc"))]
    assert [table.rate(i) / GB for i in ids] == pytest.approx([10.0] * 5)  # into node 1: 50 GB/s


def test_cpus_and_dies_of_a_node_share_its_uplinks(way) -> None:
    """16 x 196 + 4 x 160 = 3,776 GB/s want to leave through 3,136: 20 ways, the CPUs' at most 160.

    All get 156.8: no CPU reaches its 160.
    """
    f = fabric(CM, 3)
    table = FlowTable(f)
    ids = [table.start(0.0, flow(die, 16 + die, 1.0)) for die in range(16)]
    assert [table.rate(i) / GB for i in ids] == pytest.approx([196.0] * 16)
    ids += [table.start(0.0, flow(f.cpu(c), 32 + c, 1.0)) for c in range(4)]
    assert [table.rate(i) / GB for i in ids] == pytest.approx([156.8] * 20)
    table.finish(0.001, ids.pop())
    table.finish(0.001, ids.pop())
    got = [table.rate(i) / GB for i in ids]
    assert got == pytest.approx([3136 / 18 if 3136 / 18 < 160 else 176.0] * 16 + [160.0] * 2)


def test_uplinks_fill_up_one_transfer_after_the_other(way) -> None:
    """The same when every transfer has its port to itself and is settled before the next comes."""
    f = fabric(CM, 3)
    table = FlowTable(f)
    sources = [*range(16), *(f.cpu(c) for c in range(4))]
    for n, source in enumerate(sources):
        table.start(0.0, flow(source, 16 + n, 1.0))
        table.next_completion()
    assert [table.rate(i) / GB for i in range(20)] == pytest.approx([156.8] * 20)


def test_two_that_end_at_once_leave_room_at_different_levels(way) -> None:
    table = FlowTable(fabric(CM, 2))
    two = [table.start(0.0, flow(0, there, 9.0)) for there in (16, 17)]
    four = [table.start(0.0, flow(2, there, 9.0)) for there in (18, 19, 20, 21)]
    assert [table.rate(i) / GB for i in (*two, *four)] == pytest.approx([98.0] * 2 + [49.0] * 4)
    table.finish(0.01, two.pop())
    table.finish(0.01, four.pop())
    assert [table.rate(i) / GB for i in (*two, *four)] == pytest.approx([196.0] + [196 / 3] * 3)


def test_losses_slow_transfers_down(way) -> None:
    f = damaged({"scale_up/spine/3/*": 0.0}, num_nodes=2)
    table = FlowTable(f)
    away, near = table.start(0.0, flow(0, 16, 1.0)), table.start(0.0, flow(2, 4, 1.0))
    assert (table.rate(away), table.rate(near)) == pytest.approx((168 * GB, 196 * GB))


def test_nothing_to_move_takes_no_time(way) -> None:
    table = FlowTable(fabric(CM, 2))
    flow_id = table.start(3.0, flow(0, 16, 0.0))
    assert table.next_completion() == (3.0, flow_id)
    assert table.finish(3.0, flow_id) == 0.0


def test_started_and_given_up_at_once(way) -> None:
    table = FlowTable(fabric(CM, 2))
    other = table.start(0.0, flow(0, 17, 196.0))
    flow_id = table.start(0.5, flow(0, 16, 1.0))
    assert table.finish(0.5, flow_id) == 0.0
    assert drain(table) == {other: pytest.approx(1.0)}


def test_equal_ends_come_oldest_first(way) -> None:
    table = FlowTable(fabric(CM, 2))
    early = table.start(0.0, flow(0, 16, 1.0))
    table.finish(0.0, early)  # the next one takes its slot, those after it lower ones
    ids = [table.start(0.0, flow(2 * die, 16 + 2 * die, 1.0)) for die in range(8)]
    assert list(drain(table)) == ids


def test_what_links_have_carried(way) -> None:
    f = fabric(CM, 2)
    table = FlowTable(f)
    a, b = table.start(1.0, flow(0, 16, 98.0)), table.start(1.0, flow(0, 17, 196.0))
    up, down, *across = f.route(0, 16, "scale_up")
    assert table.carried_bytes(1.5)[[up, down, *across]] == pytest.approx(
        np.array([98.0, 49.0, 98.0, 98.0]) * GB
    )
    assert table.link_rates()[[up, down]] == pytest.approx(np.array([196.0, 98.0]) * GB)
    assert table.busy_s(1.5)[[up, down]].tolist() == [0.5, 0.5]
    table.finish(2.0, a)
    assert table.next_completion() == (2.5, b)
    table.finish(2.5, b)
    assert table.carried_bytes(9.0)[[up, down, *across]].tolist() == [
        294.0 * GB, 98.0 * GB, 294.0 * GB, 294.0 * GB,
    ]  # fmt: skip
    assert table.busy_s(9.0)[[up, down]].tolist() == [1.5, 1.0]
    assert table.carried_bytes(9.0).sum() == 4 * 294 * GB
    assert table.sent_bytes(9.0)["scale_up"] == 294 * GB


def test_questions_do_not_change_anything() -> None:
    asked, left_alone = (FlowTable(fabric(CM, 2)) for _ in range(2))
    for table in (asked, left_alone):
        for i in range(12):
            table.start(0.0, flow(i % 5, 16 + i % 7, 1.0 + i))
            if table is asked:
                table.next_completion()
                table.carried_bytes(0.0)
    asked.busy_s(0.001)
    asked.sent_bytes(0.002)
    assert drain(asked) == pytest.approx(drain(left_alone), rel=1e-12)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (flow(0, 16, -1.0), "size_bytes >= 0"),
        (flow(0, 16, float("nan")), "size_bytes >= 0"),
        (flow(0, 16, 1.0, bytes_per_s=0.0), "bytes_per_s > 0"),
        (flow(0, 0, 1.0), "to itself"),
    ],
)
def test_flows_that_make_no_sense(bad: Flow, message: str) -> None:
    table = FlowTable(fabric(CM, 2))
    with pytest.raises(ConfigError, match=message):
        table.start(0.0, bad)
    assert len(table) == 0


def test_time_does_not_go_back() -> None:
    table = FlowTable(fabric(CM, 2))
    table.start(1.0, flow(0, 16, 1.0))
    with pytest.raises(InvariantError, match="time goes back"):
        table.start(0.5, flow(0, 16, 1.0))


class Watched:
    """A table beside a plain record of what is under way."""

    def __init__(self, of: Fabric) -> None:
        self.table = FlowTable(of)
        self.live: dict[int, Flow] = {}
        self.moved: list[tuple[Flow, float]] = []
        self.now_s = 0.0

    def start(self, new: Flow) -> None:
        self.live[self.table.start(self.now_s, new)] = new

    def finish(self, flow_id: int) -> None:
        moved = self.table.finish(self.now_s, flow_id)
        self.moved.append((self.live.pop(flow_id), moved))

    def check_rates(self) -> None:
        f = self.table.fabric
        flows = list(self.live.values())
        ends = [(x.source, x.destination, x.plane) for x in flows]
        caps = [
            min(x.bytes_per_s, f.path_bytes_per_s(*e)) for x, e in zip(flows, ends, strict=True)
        ]
        paths = [f.route(*e) for e in ends]
        want = plain_fair_rates(paths, caps, f.link_bytes_per_s.tolist())
        assert [self.table.rate(i) for i in self.live] == pytest.approx(want, rel=1e-8)
        rates = self.table.link_rates()
        assert (rates <= f.link_bytes_per_s * (1 + 1e-8)).all()
        is_domain = f.link_kind >= LINK_KINDS.index("domain_up")
        kept = np.concatenate([plane._domain_rate[:-1] for plane in self.table._planes])
        assert kept[is_domain] == pytest.approx(rates[is_domain], rel=1e-9, abs=1.0)

    def check_bytes(self) -> None:
        f = self.table.fabric
        carried = self.table.carried_bytes(self.now_s)
        want = np.zeros(f.num_links)
        for of, moved in self.moved:
            want[list(f.route(of.source, of.destination, of.plane))] += moved
        assert carried == pytest.approx(want, rel=1e-12)
        assert (carried <= f.link_bytes_per_s * self.table.busy_s(self.now_s) * (1 + 1e-7)).all()


ends = st.integers(0, 3 * 20 - 1)
flows = st.builds(
    lambda a, b, size, cap, plane: flow(
        a, b if b != a else (a + 1) % 60, size, bytes_per_s=cap, plane=plane
    ),
    ends,
    ends,
    st.floats(0.01, 3.0),
    st.sampled_from([inf, 164 * GB, 20 * GB, 3 * GB]),
    st.sampled_from(["scale_up", "scale_up", "vpc"]),
)
steps = st.lists(
    st.one_of(
        st.lists(flows, min_size=1, max_size=12),  # start these at once
        st.integers(1, 5),  # let so many end
        st.floats(1e-4, 1e-2),  # wait
        st.just("give up"),
    ),
    min_size=1,
    max_size=12,
)
LOSSES = {"scale_up/spine/3/*": 0.0, "die/0--scale_up/leaf/0/0": 0.0, "scale_up/leaf/1/2": 0.3}


@settings(max_examples=60)
@given(steps, st.sampled_from(list(WAYS.values())), st.booleans())
def test_rates_are_fair_in_every_state_and_bytes_are_conserved(script, way, is_damaged) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plane_module, "FEW", way[0])
        patch.setattr(plane_module, "LOAD_TRANSFERS", way[1])
        patch.setattr(plane_module, "MANY_NEW", 8)
        of = damaged(LOSSES, num_nodes=3) if is_damaged else fabric(CM, 3)
        watched = Watched(of)
        for step in script:
            if isinstance(step, list):
                for new in step:
                    watched.start(new)
            elif isinstance(step, int):
                for _ in range(min(step, len(watched.live))):
                    first = watched.table.next_completion()
                    watched.now_s = first[0]
                    watched.finish(first[1])
            elif isinstance(step, float):
                first = watched.table.next_completion()
                watched.now_s = min(watched.now_s + step, first[0] if first else inf)
            elif watched.live:
                watched.finish(min(watched.live))
            watched.check_rates()
        while watched.live:
            watched.now_s, flow_id = watched.table.next_completion()
            watched.finish(flow_id)
        watched.check_bytes()
        assert watched.table.link_rates().max() == 0.0


def test_hundreds_of_transfers_stay_fair_through_churn(way) -> None:
    """Enough of them for domains to be watched and let go."""
    rng = np.random.default_rng(3)
    watched = Watched(fabric(CM, 3))

    def new(last: int) -> Flow:
        a, b = rng.choice(last, 2, replace=False).tolist()
        cap = rng.choice([inf, 30 * GB])
        return flow(a, b, float(rng.uniform(0.1, 1.0)), bytes_per_s=float(cap))

    for phase, last in enumerate((60, 48, 60)):
        for _ in range(120):
            watched.start(new(last))
        for turn in range(150):
            watched.now_s, flow_id = watched.table.next_completion()
            watched.finish(flow_id)
            if turn % 3 and phase < 2:
                watched.start(new(last))
            if turn % 30 == 0:
                watched.check_rates()
    while watched.live:
        watched.now_s, flow_id = watched.table.next_completion()
        watched.finish(flow_id)
    watched.check_bytes()
    for of, moved in watched.moved:
        assert moved == of.size_bytes


def test_groups_that_share_nothing_do_not_disturb_each_other() -> None:
    """The same transfers in two nodes; those of one node end as they do alone."""
    rng = np.random.default_rng(4)
    pairs = [rng.choice(8, 2, replace=False) * 2 for _ in range(60)]
    sizes = rng.uniform(0.1, 1.0, 60)
    alone, together = (FlowTable(fabric(CM, 2)) for _ in range(2))
    mine = []
    for (a, b), size in zip(pairs, sizes, strict=True):
        own = flow(int(a), int(b), float(size))
        alone.start(0.0, own)
        mine.append(together.start(0.0, own))
        together.start(0.0, replace(own, source=own.source + 16, destination=own.destination + 16))
    ended, want = drain(together), drain(alone)
    assert [ended[i] for i in mine] == pytest.approx([want[i] for i in sorted(want)])
