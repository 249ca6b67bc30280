"""What one transfer achieves: laws of the profile against published measurements."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from fabric_cases import GB, damaged, fabric, profile

from simpod.cluster.fabric import Flow, FlowTable, transfer_law, with_ssd
from simpod.errors import ConfigError

SHARED = Path(os.environ.get("SIMPOD_SHARED", Path(__file__).parents[2] / "shared"))


def simulated_s(operation: str, size_bytes: float, *, same_node: bool) -> float:
    """Start-up, then the bytes over the idle fabric; dies of different NPUs."""
    law = transfer_law(profile(), operation)
    table = FlowTable(fabric())
    table.start(
        law.start_s(same_node=same_node),
        Flow(
            source=0,
            destination=2 if same_node else 16,
            size_bytes=size_bytes,
            plane=law.plane,
            bytes_per_s=law.bytes_per_s(same_node=same_node),
        ),
    )
    first = table.next_completion()
    assert first is not None
    assert first[0] == pytest.approx(law.alone_s(size_bytes, same_node=same_node), rel=1e-12)
    return first[0]


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize(
    ("operation", "one", "two"),
    [
        # GB/s at 8 MiB, HIXL's published table: one node, two nodes
        ("hixl/p2p_read/ub", 148.104, 143.184),
        ("hixl/p2p_write/ub", 123.518, 119.732),
        ("hixl/p2p_write/rdma", 22.665, 22.653),
    ],
)
def test_hixl_at_8_mib(operation: str, one: float, two: float, nodes: int) -> None:
    size = 8 * 2**20
    got = size / simulated_s(operation, size, same_node=nodes == 1)
    assert got / GB == pytest.approx((one, two)[nodes - 1], rel=0.03)


def test_hixl_as_measured_within_5_percent() -> None:
    path = SHARED / "measured" / "collectives.csv"
    if not path.is_file():
        pytest.skip(f"needs {path}: set SIMPOD_SHARED")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kernel"] == "hixl"]
    assert len(rows) >= 10
    for row in rows:
        size = float(row["message_bytes"])
        law = f"hixl/{row['operation']}/{row['plane']}"
        got = size / simulated_s(law, size, same_node=row["nodes"] == "1")
        assert got / GB == pytest.approx(float(row["measured"]), rel=0.05), row["id"]


@pytest.mark.parametrize(
    ("operation", "us"),
    [("read_die", 1.9), ("write_die", 2.1), ("read_cpu", 1.7), ("write_cpu", 1.9)],
)
def test_small_transfers_take_the_published_latency(operation: str, us: float) -> None:
    assert simulated_s(operation, 512, same_node=False) == pytest.approx(us * 1e-6, rel=0.005)


def test_leaving_the_node_costs_less_than_3_percent_and_a_microsecond() -> None:
    for operation in ("read_die", "write_die", "read_cpu", "write_cpu"):
        law = transfer_law(profile(), operation)
        assert 0.97 < law.inter_node_bytes_per_s / law.intra_node_bytes_per_s < 1
        assert 0 < law.inter_node_start_s - law.intra_node_start_s < 1e-6


def test_laws_stay_below_their_links() -> None:
    for name, law in profile().topology.transfers.items():
        rate = profile().planes[law.plane].bytes_per_s
        assert max(law.intra_node_bytes_per_s, law.inter_node_bytes_per_s) < rate, name


def test_a_plane_is_a_law_of_its_own() -> None:
    law = transfer_law(profile("h100-pod"), "scale_out")
    assert law.bytes_per_s(same_node=False) == pytest.approx(0.8 * 50 * GB)
    assert law.start_s(same_node=False) == 5e-6


def test_unknown_operations_are_told_what_there_is() -> None:
    with pytest.raises(ConfigError, match="no transfer 'teleport'; it has scale_up, scale_out"):
        transfer_law(profile("h100-pod"), "teleport")


# --- writes to SSD --------------------------------------------------------------------------------


def test_a_fabric_with_ssd_has_the_same_links_otherwise() -> None:
    plain, more = fabric(num_nodes=3), with_ssd(fabric(num_nodes=3), "vpc", 5 * GB)
    new = [f"vpc/ssd/{node}" for node in range(3)]
    assert [name for name in more.link_names if name not in new] == list(plain.link_names)
    assert [more.link_names[link] for link in more.ssd_links] == new
    assert (np.diff(more.link_plane) >= 0).all()
    rates = dict(zip(more.link_names, more.link_bytes_per_s.tolist(), strict=True))
    assert rates == dict(
        zip(plain.link_names, plain.link_bytes_per_s.tolist(), strict=True)
    ) | dict.fromkeys(new, 5 * GB)
    for plane in ("scale_up", "scale_out", "vpc"):
        for ends in ((0, 1), (3, 40), (plain.cpu(2), 33)):
            names = [f.link_names[link] for f in (plain, more) for link in f.route(*ends, plane)]
            assert names[: len(names) // 2] == names[len(names) // 2 :]


def test_writes_share_the_card_of_their_node_and_its_ssd() -> None:
    """By hand. Two sockets of node 1 write, and one sends to a die of node 0, over its card (50).

    SSD of 30: 15 each for the writes, what the card has left, 20, for the other; when one write has
    ended, after 1 s, the card is shared by two, 25 each.
    """
    f = with_ssd(fabric(num_nodes=3), "vpc", 30 * GB)
    assert [f.link_names[k] for k in f.route(f.cpu(5), f.ssd(1), "vpc")] == [
        "vpc/up/53",
        "vpc/ssd/1",
        "vpc/domain_up/1",
    ]
    table = FlowTable(f)
    ends = [(f.cpu(4), f.ssd(1)), (f.cpu(5), f.ssd(1)), (f.cpu(6), 0)]
    sizes = (15.0, 40.0, 85.0)
    ids = [
        table.start(0.0, Flow(source=a, destination=b, size_bytes=size * GB, plane="vpc"))
        for (a, b), size in zip(ends, sizes, strict=True)
    ]
    assert [table.rate(i) / GB for i in ids] == pytest.approx([15.0, 15.0, 20.0])
    now_s, first = table.next_completion()
    table.finish(now_s, first)
    assert (now_s, first) == (pytest.approx(1.0), ids[0])
    assert [table.rate(i) / GB for i in ids[1:]] == pytest.approx([25.0, 25.0])


def test_ssd_behind_a_lost_card_is_not_reached() -> None:
    f = with_ssd(damaged({"cpu/0--vpc/*": 0.0}, num_nodes=2), "vpc", GB)
    with pytest.raises(ConfigError, match="no path from cpu/0 to its SSD"):
        f.way(f.cpu(0), f.ssd(0), "vpc")
    assert f.way(f.cpu(1), f.ssd(0), "vpc")[1]
    with pytest.raises(ConfigError, match="no plane 'ether'"):
        with_ssd(fabric(num_nodes=2), "ether", GB)
