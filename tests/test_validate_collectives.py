"""`simpod validate --collectives`: points and tables of exchanges, refusals with their reasons."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from cli_runs import call

from simpod.errors import ConfigError
from simpod.validate.collectives import request_of, validate_collectives
from simpod.validate.names import hardware_of, short_name
from simpod.validate.report import Report
from simpod.validate.sources import Sources, sources_in
from tests.measured_tables import table

HEADER = (
    "id,system,kernel,operation,ep,nodes,tokens_per_rank,hidden,topk,dispatch_dtype,combine_dtype,"
    "message_bytes,aiv_cores,plane,metric,measured,source"
)
EXCHANGE = (
    "{system},{kernel},{operation},{ep},,{tokens},7168,8,int8,bf16,,,ub,{metric},{measured},x"
)


def points(tmp_path: Path, *rows: str) -> Report:
    file = tmp_path / "points.csv"
    file.write_text("\n".join([HEADER, *rows]) + "\n")
    return validate_collectives(file)


def exchange(**changes: object) -> str:
    values = {
        "system": "cloudmatrix384",
        "kernel": "fused_push",
        "operation": "dispatch",
        "ep": 128,
        "tokens": 128,
        "metric": "latency_us",
        "measured": 152,
    }
    return "p," + EXCHANGE.format(**{**values, **changes})


def reason(report: Report) -> str:
    assert report.points == []
    (refusal,) = report.refusals
    return refusal.reason


def test_a_point_is_priced_and_grouped(tmp_path: Path) -> None:
    """CloudMatrix-Infer, table 7: 152 us at EP 128."""
    report = points(tmp_path, exchange())
    (point,) = report.points
    assert (point.id, point.group) == ("p", "collectives/cloudmatrix384/fused_push/dispatch")
    assert point.simulated == pytest.approx(152, rel=0.05)
    assert (point.metric, point.source) == ("latency_us", "x")
    assert report.groups()[0].errors is not None


def test_bandwidth_counts_every_message_once(tmp_path: Path) -> None:
    """128 x 8 messages of 7.5 KiB over the latency; its error is that of a rate."""
    late, fast = points(
        tmp_path, exchange(), exchange(metric="bandwidth_gb_per_s", measured=50)
    ).points
    assert fast.simulated == pytest.approx(1024 * 7680 / 1e9 / (late.simulated * 1e-6))


def test_transfers_by_library_plane_and_cores(tmp_path: Path) -> None:
    report = points(
        tmp_path,
        "a,cloudmatrix384,hixl,p2p_read,,1,,,,,,1048576,,ub,bandwidth_gb_per_s,124.1,x",
        "b,cloudmatrix384,hixl,p2p_read,,2,,,,,,1048576,,ub,bandwidth_gb_per_s,104.5,x",
        "c,cloudmatrix384,hixl,p2p_read,,1,,,,,,1048576,,rdma,bandwidth_gb_per_s,22.6,x",
        "d,cloudmatrix384,xccl,p2p,,2,,,,,,1048576,2,ub,latency_us,20,x",
        "e,cloudmatrix384,XCCL,p2p_write,,2,,,,,,1048576,48,ub,latency_us,12,x",
    )
    assert report.refusals == []
    inside, between, rdma, two, many = (point.simulated for point in report.points)
    assert (inside, between, rdma) == pytest.approx((124.1, 104.5, 22.6), rel=0.01)
    assert many < two < 20


def test_the_naive_a2e_is_slower(tmp_path: Path) -> None:
    rows = [exchange(kernel=name, operation="a2e", ep=288) for name in ("trampoline", "naive")]
    better, naive = points(tmp_path, *rows).points
    assert naive.simulated > 1.2 * better.simulated


def test_libraries_collectives(tmp_path: Path) -> None:
    row = "a,h100,nccl,allreduce,8,1,,,,,,1048576,,nvlink,latency_us,29,x"
    assert points(tmp_path, row).points[0].simulated == pytest.approx(29, rel=0.15)
    many = row.replace("allreduce,8", "allreduce,64")
    assert "one scale-up domain only: 8 dies" in reason(points(tmp_path, many))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"system": "tpu"}, "no hardware profile for 128 dies of 'tpu'"),
        ({"kernel": "magic"}, "no model of dispatch by kernel 'magic'; allowed: fused_push"),
        ({"kernel": "deepep_normal"}, "cloudmatrix384 has no constants of deepep_normal"),
        ({"operation": "shuffle"}, "no model of operation 'shuffle'; allowed: dispatch"),
        ({"ep": 1024}, "no hardware profile for 1024 dies"),
        ({"ep": ""}, "dispatch needs a number of ranks"),
        ({"ep": "many"}, "ep is 'many', not a number"),
        ({"ep": 2.5}, "ep is 2.5, not a whole number"),
        ({"tokens": 0}, "dispatch needs tokens a rank"),
        ({"metric": "speed"}, "unknown metric 'speed'; allowed: latency_us, bandwidth_gb_per_s"),
        ({"measured": ""}, "measured is empty"),
        ({"measured": "inf"}, "measured is empty, or not above 0"),
        ({"kernel": "naive", "operation": "a2e", "ep": 700}, "no hardware profile for 860 dies"),
    ],
)
def test_rows_are_refused_with_a_reason(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    assert expected in reason(points(tmp_path, exchange(**changes)))


def test_other_rows_are_still_priced(tmp_path: Path) -> None:
    report = points(tmp_path, exchange(system="tpu"), exchange())
    assert (len(report.points), len(report.refusals)) == (1, 1)


def test_a_send_needs_its_cores(tmp_path: Path) -> None:
    row = "a,cloudmatrix384,xccl,p2p,,2,,,,,,1048576,,ub,latency_us,20,x"
    assert "p2p_send needs a number of vector cores" in reason(points(tmp_path, row))


def test_a_row_without_an_id_is_called_by_its_line(tmp_path: Path) -> None:
    (point,) = points(tmp_path, exchange().removeprefix("p")).points
    assert point.id == "points.csv:2"


def test_names_of_kernels_and_operations() -> None:
    def named(kernel: str, operation: str) -> tuple[str, str]:
        request = request_of({"kernel": kernel, "operation": operation})
        return request.kernel, request.operation

    assert named("DeepEP-LL", "Dispatch") == ("deepep_low_latency", "dispatch")
    assert named("nvlinktwosided", "alltoall_combine") == ("NVLinkTwoSided", "combine")
    assert named("nccl", "alltoall") == ("nccl", "all_to_all")
    assert named("xccl", "combine") == ("xccl_pull", "combine")
    assert named("hixl", "write") == ("hixl", "p2p_write")


def test_names_of_devices() -> None:
    assert short_name("NVIDIA GB200") == "gb200"
    assert hardware_of("NVIDIA GB200", 64).name == "gb200-nvl72"
    assert hardware_of("gb200_nvl72").name == "gb200-nvl72"
    assert hardware_of("NVIDIA H100", 64).name == "h100-pod"
    with pytest.raises(ConfigError, match="73 dies"):
        hardware_of("gb300", 73)


LOW_LATENCY = {
    "device": "NVIDIA H100",
    "node_num": 1,
    "hidden_size": 7168,
    "num_token": 128,
    "num_topk": 8,
    "num_experts": 256,
    "dispatch_avg_t_us": 40.0,
    "combine_avg_t_us": 60.0,
}


def low_latency(tmp_path: Path, *changes: dict[str, object]) -> Report:
    file = tmp_path / "t.csv"
    pd.DataFrame([{**LOW_LATENCY, **each} for each in changes]).to_csv(file, index=False)
    return validate_collectives(file)


def test_a_large_table_comes_as_groups(tmp_path: Path) -> None:
    report = low_latency(tmp_path, {}, {"node_num": 8})
    assert [(each.group, each.errors and each.errors.rows) for each in report.groups()] == [
        ("collectives/h100/deepep_low_latency/dispatch", 2),
        ("collectives/h100/deepep_low_latency/combine", 2),
    ]


def test_rows_of_a_large_table_are_refused_with_a_reason(tmp_path: Path) -> None:
    report = low_latency(
        tmp_path,
        {},
        {"num_token": "few"},
        {"dispatch_avg_t_us": 0.0},
        {"combine_avg_t_us": float("nan")},
        {"node_num": 1000},
        {"device": "TPU"},
    )
    assert report.groups()[0].errors is not None
    assert report.groups()[0].errors.rows == 1
    reasons = {reason: rows for (_, reason), rows in report.reasons().items()}
    assert reasons == {
        "a cell is empty, no number, or not above 0": 3,
        "no hardware profile for 8000 dies of 'h100'": 1,
        "no hardware profile for 8 dies of 'tpu'": 1,
    }


def test_a_device_without_constants_is_refused(tmp_path: Path) -> None:
    report = low_latency(tmp_path, {"device": "NVIDIA A100"})
    assert {each.errors for each in report.groups()} == {None}
    assert "a100 has no constants" in report.refusals[0].reason


def test_uneven_routing_and_unknown_types_are_refused(tmp_path: Path) -> None:
    row = {
        "device": "NVIDIA GB200",
        "op_name": "alltoall_dispatch",
        "kernel_source": "NVLinkTwoSided",
        "moe_dtype": "fp8",
        "num_tokens": 64,
        "hidden_size": 7168,
        "topk": 8,
        "num_experts": 256,
        "moe_ep_size": 8,
        "distribution": "balanced",
        "latency": 0.015,
    }
    rows = [row, {**row, "distribution": "power_law"}, {**row, "moe_dtype": "fp3"}]
    file = tmp_path / "t.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    report = validate_collectives(file)
    assert sum(refusal.rows for refusal in report.refusals) == 2
    assert "unknown data type 'fp3'" in [refusal.reason for refusal in report.refusals]
    in_us = pd.DataFrame([row]).rename(columns={"latency": "latency_us"})
    in_us["latency_us"] *= 1e3
    in_us.to_csv(file, index=False)
    (again,) = validate_collectives(file).groups()
    assert again.errors == report.tables[0].errors


def test_a_file_that_is_none_of_them(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="not a table of collectives") as caught:
        validate_collectives(file)
    assert "published points: system, kernel, operation, metric, measured" in str(caught.value)
    file.write_text('a\n"')
    with pytest.raises(ConfigError, match="cannot be read as CSV"):
        validate_collectives(file)


def test_the_command_takes_several_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text(f"{HEADER}\n{exchange()}\n")
    shutil.copy(one, two)
    arguments = ("validate", "--collectives", one, "--collectives", two)
    found = json.loads(call(*arguments, "--json").stdout)
    assert [group["rows"] for group in found["groups"]] == [2]
    assert "fused_push/dispatch" in call(*arguments).stdout
    assert call("validate", "--collectives", tmp_path / "none.csv").exit_code == 2


def test_a_data_folder_has_its_collectives(tmp_path: Path) -> None:
    (tmp_path / "measured").mkdir()
    file = tmp_path / "measured" / "collectives.csv"
    file.write_text(f"{HEADER}\n{exchange()}\n")
    sources = sources_in(tmp_path)
    assert sources.collectives == (file,)
    assert not sources.is_bare
    assert sources.only(["collectives/cloudmatrix384"]).collectives == (file,)
    assert sources.only(["kernels"]).collectives == ()
    with pytest.raises(ConfigError, match=r"nowhere\.csv: not found"):
        Sources(collectives=(Path("nowhere.csv"),))


def median(name: str) -> dict[str, float]:
    report = validate_collectives(table(f"measured/{name}"))
    assert report.refusals == []
    return {
        each.group: each.errors.median_abs_error_frac for each in report.groups() if each.errors
    }


def test_published_points_stay_within_what_is_asked() -> None:
    """Dispatch, combine, A2E, E2A within 8 %, bulk copies within 5 %."""
    report = validate_collectives(table("measured/collectives.csv"))
    assert len(report.points) == 26
    for point in report.points:
        assert abs(point.error_frac) < (0.05 if "/hixl/" in point.group else 0.08)


@pytest.mark.parametrize(
    "name",
    [
        "deepep_ll_h100_1to8nodes.csv",
        "deepep_normal_h100_1to8nodes.csv",
        "alltoall_gb200_ep2to64.csv",
    ],
)
def test_large_tables_stay_within_what_is_asked(name: str) -> None:
    found = median(name)
    assert found
    assert max(found.values()) < 0.08
