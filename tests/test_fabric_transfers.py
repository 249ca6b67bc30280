"""What one transfer achieves: laws of the profile against published measurements."""

import csv
import os
from pathlib import Path

import pytest
from fabric_cases import GB, fabric, profile

from simpod.cluster.fabric import Flow, FlowTable, transfer_law
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
