"""Exchanges by name, and `simpod explain --collective`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_runs import call

from simpod.config.references import load_hardware
from simpod.cost.exchange.collective import collective_time
from simpod.cost.exchange.named import fabric_of, kernels_on, priced
from simpod.cost.exchange.requests import KERNELS, OPERATIONS, Request
from simpod.cost.kernels.collective import CollectiveShape, collective_s
from simpod.errors import ConfigError
from simpod.validate.calibrate import calibrate, rows
from simpod.validate.fit import split
from simpod.validate.kernels import find_tables, validate_kernels
from simpod.validate.tables.kinds import KINDS
from tests.measured_tables import table

POD = load_hardware("cloudmatrix384")


def request(**changes: Any) -> Request:
    usual = {
        "operation": "dispatch",
        "kernel": "fused_push",
        "num_ranks": 320,
        "tokens": 96,
        "hidden_size": 7168,
        "top_k": 8,
    }
    return Request(**{**usual, **changes})


def explained(*options: object) -> dict[str, Any]:
    done = call("explain", "--collective", *options, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_parts_make_the_total_and_the_rate() -> None:
    found = priced(POD, request())
    assert sum(found.parts_s.values()) == pytest.approx(found.total_s)
    assert found.payload_bytes == 96 * 8 * 7680
    assert found.bytes_per_s == pytest.approx(found.payload_bytes / found.total_s)
    assert found.fit.status(POD.die.name, POD.family) == "calibrated"


def test_pinned_memory_is_that_of_the_printed_example() -> None:
    """CloudMatrix-Infer 4.2.1: 320 ranks, 96 tokens: 645 MiB a die."""
    held = priced(POD, request()).buffers
    assert held is not None
    assert held.total_bytes == 645 * 2**20
    four_a_die = priced(POD, request(num_ranks=64)).buffers  # 256 experts on 64 ranks
    assert four_a_die is not None
    assert four_a_die.total_bytes == 645 * 2**20 * 4 * 64 / 320


def test_pinned_memory_of_split_and_send() -> None:
    sent = request(operation="a2e", kernel="trampoline", num_ranks=288, num_domains=3)
    held = priced(POD, sent).buffers
    assert held is not None
    carried = 96 * 8 * 160 / 288 * 2 * 3  # own and one die's behind it, of three domains
    assert held.dispatch_bytes == pytest.approx(carried * 7680)
    assert held.metadata_bytes == 4 * 2**20 + 32 * (288 + 3 * 160)
    ring = request(operation="p2p_send", kernel="xccl_point_to_point", size_bytes=1e6, num_cores=2)
    assert priced(POD, ring).buffers.dispatch_bytes == 2 * 524288
    assert priced(POD, request(operation="p2p_read", kernel="hixl", size_bytes=1)).buffers is None


def test_every_kernel_prices_what_it_is_listed_for() -> None:
    seen = set()
    for name in ("cloudmatrix384", "h100", "gb200-nvl72"):
        hardware = load_hardware(name)
        for operation in OPERATIONS:
            for kernel in kernels_on(hardware, operation):
                asked = request(
                    operation=operation, kernel=kernel, num_ranks=8, size_bytes=1e6, num_cores=2
                )
                found = priced(hardware, asked)
                assert 1e-7 < found.total_s < 1e-2
                assert min(found.parts_s.values()) >= 0
                seen.add((operation, kernel))
    assert {operation for operation, _ in seen} == set(OPERATIONS)
    missing = {(o, k) for o, kernels in KERNELS.items() for k in kernels} - seen
    unmeasured = {("prepare", "NVLinkOneSided"), ("combine_low_precision", "NVLinkOneSided")}
    custom = {(o, k) for o in OPERATIONS for k in ("custom_graph", "custom_eager")}
    assert missing <= unmeasured | custom | {("all_to_all", "hccl")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operation": "scatter"}, "no model of operation 'scatter'"),
        ({"kernel": "nccl"}, "no model of dispatch by kernel 'nccl'"),
        ({"num_ranks": 769}, "769 dies are needed, hardware cloudmatrix384 has only 768"),
        ({"dtype": "int3"}, "unknown data type 'int3'"),
        ({"top_k": 999}, "a token goes to 999 of 320 experts"),
        ({"hidden_size": 0}, "needs a hidden size"),
        ({"operation": "all_gather", "kernel": "hccl"}, "needs a size in bytes"),
        (
            {"operation": "a2e", "kernel": "naive", "num_attention_dies": 0},
            "needs a number of attention dies",
        ),
        (
            {"operation": "p2p_read", "kernel": "hixl", "size_bytes": 8.0, "plane": "vpc"},
            "no constants of hixl for p2p_read",
        ),
    ],
)
def test_impossible_requests(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        priced(POD, request(**changes))


def test_what_scale_up_does_not_join_is_refused() -> None:
    servers = replace(load_hardware("atlas-a2-376t"), num_nodes=96)
    copied = request(operation="p2p_read", kernel="hixl", size_bytes=8.0)
    with pytest.raises(ConfigError, match="give 1 node, or plane rdma"):
        priced(servers, copied)
    assert priced(servers, replace(copied, is_inter_node=False)).total_s > 0.0
    assert priced(servers, replace(copied, plane="rdma")).total_s > 0.0
    with pytest.raises(ConfigError, match=r"one scale-up domain only: 8 dies .* not 448"):
        priced(servers, request(operation="a2e", kernel="trampoline", num_ranks=288))


def test_deepep_takes_a_rack_for_its_node() -> None:
    assert fabric_of(load_hardware("gb200-nvl72"), "deepep_low_latency").dies_per_node == 72
    assert fabric_of(load_hardware("h100-pod"), "deepep_low_latency").dies_per_node == 8
    assert fabric_of(POD, "fused_push").dies_per_node == 16


@pytest.mark.parametrize("operation", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
def test_parts_of_a_collective_make_its_price(operation: Any) -> None:
    fits = load_hardware("h100").kernels.collective
    constants = fits.get(f"nccl/{operation}", fits.get(f"nccl/{operation}/bf16")).constants
    sizes = np.logspace(1, 10, 60)
    shape = CollectiveShape(size_bytes=sizes, num_dies=np.full(60, 8.0))
    time = collective_time(450e9, constants, operation, shape)
    assert time.total_s == pytest.approx(collective_s(450e9, constants, shape, operation))
    for part in (time.start_up_s, time.message_s, time.bytes_s):
        assert (np.asarray(part) >= 0).all()


def test_the_command_of_the_issue() -> None:
    arguments = ("dispatch", "--hardware", "cloudmatrix384", "--ep", 288, "--tokens", 60)
    found = explained(*arguments)
    assert (found["kernel"], found["request"]["hidden_size"]) == ("fused_push", 7168)
    assert found["total_s"] == pytest.approx(sum(found["parts_s"].values()))
    assert found["pinned_bytes"]["total_bytes"] == 288 * 60 * (7680 + 14336)
    assert found["constants"]["status"] == "calibrated"
    assert list(found["others"]) == ["xccl_pull"]
    table = call("explain", "--collective", *arguments).stdout
    for text in ("quantise", "Pinned on each die", "362.8 MiB", "fused_push (calibrated)"):
        assert text in table
    assert f"{found['total_s'] * 1e6:.1f}" in table


def test_naive_a2e_says_why_it_loses() -> None:
    found = explained("a2e", "--hardware", "cloudmatrix384", "--kernel", "naive")
    better = found["others"]["trampoline"]
    assert found["total_s"] > 1.2 * better["total_s"]
    assert better["total_s"] == pytest.approx(172e-6, rel=0.08)
    assert "metadata" in found["why"]
    assert "a field to each of 288 dies" in found["why"]
    table = call("explain", "--collective", "a2e", "--hardware", "cloudmatrix384").stdout
    assert "trampoline" in table
    assert "naive takes +" in table
    equal = ("--attention-dies", 288, "--ep", 288, "--domains", 1)
    same = explained("e2a", "--hardware", "cloudmatrix384", *equal)
    assert same["why"].startswith("no more expert dies than attention dies")


def test_transfers_and_collectives_on_the_command_line() -> None:
    pod = ("--hardware", "cloudmatrix384")
    two, many = (explained("p2p-send", *pod, "--cores", n, "--bytes", 9437184) for n in (2, 48))
    assert two["total_s"] > 2.5 * many["total_s"]
    far, near = (explained("p2p_read", *pod, "--nodes", n) for n in (2, 1))
    assert far["total_s"] > near["total_s"]
    assert call("explain", "--collective", "p2p_read", *pod).exit_code == 0
    ring = explained("all_reduce", "--hardware", "h100", "--dies", 4, "--bytes", 65536)
    assert ring["request"]["num_ranks"] == 4
    assert (
        "among 8 dies" in call("explain", "--collective", "all_reduce", "--hardware", "b200").stdout
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--collective", "dispatch"), "needs --hardware"),
        (("--collective", "shuffle", "--hardware", "h100"), "no such operation; allowed: dispatch"),
        (
            ("--collective", "a2e", "--hardware", "h100"),
            "h100 has no constants of any kernel for a2e",
        ),
        (
            ("--collective", "dispatch", "--hardware", "h100", "--kernel", "fused_push"),
            "h100 has for dispatch: deepep_low_latency, deepep_normal",
        ),
        (
            ("--collective", "dispatch", "--hardware", "h100", "--ep", 64),
            "64 dies are needed, hardware h100 has only 8",
        ),
        (("quickstart", "--ep", 8, "--bytes", 3), "--ep, --bytes: only with --collective"),
        (("quickstart", "--collective", "dispatch"), "stands alone"),
        ((), "give an experiment, a model or a profile"),
    ],
)
def test_mistakes_on_the_command_line(arguments: tuple[object, ...], message: str) -> None:
    done = call("explain", *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_deepep_tables_are_kernel_tables(tmp_path: Path) -> None:
    """Priced on the pod that their nodes make; fitted constants know only the nodes they saw."""
    one_node = pd.read_parquet(table("kernels/h100_sxm.deepep_normal.parquet")).iloc[::5]
    one_node.to_parquet(tmp_path / "h100_sxm.deepep_normal.parquet")
    low = pd.read_csv(table("measured/deepep_ll_h100_1to8nodes.csv"))
    low.to_csv(tmp_path / "h100.deepep_low_latency.csv", index=False)
    report = validate_kernels(tmp_path)
    assert report.refusals == []
    assert {each.group.count("/") for each in report.groups()} == {2, 5}
    for each in report.groups():
        assert each.errors is not None
        assert each.errors.median_abs_error_frac < 0.08
    node = load_hardware("h100")
    fitted = calibrate(node, find_tables(tmp_path), lambda _: None)["exchange"]
    assert set(fitted) == {
        f"{kernel}/{operation}"
        for kernel in ("deepep_low_latency", "deepep_normal")
        for operation in ("dispatch/fp8", "combine/bf16")
    }
    for variant, fit in fitted.items():
        assert fit.median_abs_error_frac < 0.09
        assert fit.device == node.die.name
        known = node.kernels.exchange[variant].constants
        if variant.startswith("deepep_normal"):
            assert fit.constants.notify_node_s == known.notify_node_s  # no row has two nodes


def test_rows_of_a_shape_in_a_shape() -> None:
    frame = pd.DataFrame(
        {
            "node_num": [1, 2, 4],
            "hidden_size": 7168,
            "num_token": [1, 2, 3],
            "num_topk": 8,
            "num_experts": 256,
            "dispatch_sms": [20, 24, 28],
            "combine_sms": 20,
            "dispatch_transmit_us": 1.0,
            "dispatch_notify_us": 0.0,
            "combine_transmit_us": 1.0,
            "combine_notify_us": 0.0,
        }
    )
    group = KINDS["deepep_normal"].read(frame)[0]
    kept = rows(group, np.array([True, False, True]))
    assert kept.shape.num_sms.tolist() == [20, 28]
    assert kept.shape.exchange.tokens.tolist() == [1, 3]
    assert [len(kept.measured_s), *split(3)[0].shape] == [2, 3]
