"""The shipped profiles: valid, sourced, and saying what vendors and papers say."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from simpod.config import load_experiment, load_hardware
from simpod.errors import ConfigError
from simpod.hardware import HardwareProfile, merge_base

FOLDER = Path(__file__).parents[1] / "hardware_profiles"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
GPUS = (
    "a100",
    "a100-40gb",
    "b200",
    "b300",
    "h100",
    "h20",
    "h200",
    "h800",
    "l40s",
    "rtx-4090",
    "rtx-pro-6000",
)
RACKS = ("gb200", "gb300")  # a tray of 4, and a rack of trays


@cache
def document(name: str) -> dict[str, Any]:
    own: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return merge_base(own, document(own["base"]) if "base" in own else {})


@cache
def profile(name: str) -> HardwareProfile:
    return TypeAdapter(HardwareProfile).validate_python(document(name))


def test_every_device_has_a_node_and_a_pod() -> None:
    ascend = ["cloudmatrix384", *(name for name in NAMES if name.startswith("atlas-"))]
    pods = [f"{gpu}-pod" for gpu in GPUS] + [f"{rack}-nvl72" for rack in RACKS]
    assert sorted([*GPUS, *RACKS, *pods, *ascend]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_profile_is_valid_and_sourced(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=../docs/schema/hardware.schema.json\n")
    spec = profile(name)
    assert spec.name == name
    assert spec.source
    links = [line for line in text.splitlines() if " bytes_per_s:" in line]
    assert all("unidirectional" in line for line in links)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_in_si_units(name: str) -> None:
    """A slipped power of ten (GB for bytes, TFLOPS for FLOP/s) falls out of these ranges."""
    spec = profile(name)
    assert all(1e14 < peak < 2e16 for peak in spec.die.peak_flops_per_s.values())
    assert 1e13 < spec.die.vector_flops_per_s < spec.die.peak_flops_per_s["bf16"]
    assert 2e10 < spec.die.hbm_bytes < 1e12
    assert 5e11 < spec.die.hbm_bytes_per_s < 1e13
    for plane in spec.planes.values():
        assert 1e9 < plane.bytes_per_s < 1e12
        assert 1e-7 < plane.intra_node_latency_s <= plane.inter_node_latency_s < 1e-4
    assert spec.die.hbm_bytes < spec.host.dram_bytes < 1e13
    assert 1e-6 <= spec.calibration.kernel_overhead_s < 1e-5


@pytest.mark.parametrize("gpu", GPUS)
def test_pod_is_its_node_many_times_joined(gpu: str) -> None:
    node, pod = profile(gpu), profile(f"{gpu}-pod")
    assert (pod.die, pod.host, pod.family) == (node.die, node.host, node.family)
    assert (node.num_dies, pod.num_dies) == (8, 8 * pod.num_nodes)
    assert pod.num_nodes >= 16
    assert (pod.planes["scale_up"].scope, pod.planes["scale_out"].scope) == ("node", "pod")
    assert pod.planes["scale_out"].bytes_per_s < pod.planes["scale_up"].bytes_per_s


def test_cloudmatrix384_adds_up_to_its_published_totals() -> None:
    spec = profile("cloudmatrix384")
    assert (spec.num_dies, spec.dies_per_node) == (768, 16)
    npus = spec.num_dies // spec.dies_per_npu
    assert npus == 384
    assert npus * 128 * 2**30 == spec.num_dies * spec.die.hbm_bytes
    hbm = spec.num_dies * spec.die.hbm_bytes_per_s
    assert hbm == pytest.approx(1229e12, rel=0.001)
    both_ways = 2 * spec.num_dies * spec.planes["scale_up"].bytes_per_s
    assert both_ways / 1e12 == pytest.approx(301, abs=1)  # 7 x 224 Gb/s each way
    node_vpc = spec.dies_per_node * spec.planes["vpc"].bytes_per_s
    assert 8 * node_vpc == 400e9
    assert set(spec.die.peak_flops_per_s) == {"bf16", "int8"}


def test_cloudmatrix384_dispatch_constants_are_near_the_published_latencies() -> None:
    """CMI table 7: 128 tokens to 8 experts each; 7.5 KB out, 14 KB back; one copy in EP stays."""
    spec = profile("cloudmatrix384")
    fit = spec.calibration
    rate = spec.planes["scale_up"].bytes_per_s * fit.network_frac["scale_up"]
    measured_us = {7680: {8: 116, 32: 133, 128: 152}, 14336: {8: 118, 32: 146, 128: 150}}
    errors = []
    for size, row in measured_us.items():
        for ep, latency_us in row.items():
            copies = 128 * 8 * (ep - 1) / ep
            fixed = fit.dispatch_latency_s + ep * fit.dispatch_latency_per_rank_s
            errors.append(abs((fixed + copies * size / rate) / (latency_us * 1e-6) - 1))
    assert sorted(errors)[2:4] == pytest.approx([0.15] * 2, abs=0.02)  # the middle two of six
    assert max(errors) < 0.19


@pytest.mark.parametrize(
    ("name", "bf16", "eight_bit", "hbm_tb_per_s", "gib", "scale_up_gb_per_s"),
    [
        ("a100", 312, 624, 2.039, 80, 300),
        ("h100", 989, 1979, 3.35, 80, 450),
        ("h800", 989, 1979, 3.35, 80, 200),
        ("h200", 989, 1979, 4.8, 141, 450),
        ("h20", 148, 296, 4.0, 96, 450),
        ("b200", 2250, 4500, 7.7, 180, 900),
        ("gb200", 2500, 5000, 8.0, 186, 900),
        ("gb300", 2500, 165, 8.0, 277.5, 900),
        ("l40s", 362.05, 733, 0.864, 48, 31.5),
        ("rtx-pro-6000", 503.8, 1007.6, 1.792, 96, 63),
        ("rtx-4090", 165.2, 660.6, 1.008, 24, 31.5),
    ],
)
def test_data_sheet_numbers(
    name: str,
    bf16: float,
    eight_bit: float,
    hbm_tb_per_s: float,
    gib: float,
    scale_up_gb_per_s: float,
) -> None:
    spec = profile(name)
    assert spec.die.peak_flops_per_s["bf16"] == pytest.approx(bf16 * 1e12)
    assert spec.die.peak_flops_per_s["int8"] == pytest.approx(eight_bit * 1e12)
    assert spec.die.hbm_bytes_per_s == pytest.approx(hbm_tb_per_s * 1e12)
    assert spec.die.hbm_bytes == gib * 2**30
    assert spec.planes["scale_up"].bytes_per_s == pytest.approx(scale_up_gb_per_s * 1e9)


@pytest.mark.parametrize("rack", RACKS)
def test_a_rack_is_one_domain_of_18_trays(rack: str) -> None:
    tray, whole = profile(rack), profile(f"{rack}-nvl72")
    assert (tray.num_dies, whole.num_dies) == (4, 72)
    assert whole.die == tray.die
    assert (tray.planes["scale_up"].scope, whole.planes["scale_up"].scope) == ("node", "pod")
    assert 72 * whole.die.hbm_bytes_per_s == pytest.approx(576e12)


@cache
def loaded(name: str) -> HardwareProfile:
    """With the kernels of another profile, where one is named."""
    return load_hardware(name)


def statuses(name: str) -> dict[str, int]:
    spec = loaded(name)
    return dict(spec.kernels.statuses(spec.die.name, spec.family))


def test_relatives_share_constants_but_do_not_claim_their_own_fit() -> None:
    h100 = profile("h100")
    assert statuses("h100")["calibrated"] > 30
    for name in ("h200", "h20", "h100-pod"):
        assert profile(name).kernels == h100.kernels
    assert set(statuses("h200")) == set(statuses("h20")) == {"family"}
    assert set(statuses("h800")) == {"calibrated", "family"}  # some tables are of the H800
    assert statuses("h100-pod") == statuses("h100")


@pytest.mark.parametrize("name", NAMES)
def test_every_fit_says_where_it_is_from(name: str) -> None:
    spec = loaded(name)
    for operator, variant, fit in spec.kernels.each():
        assert fit.source, (operator, variant)
        assert fit.device, (operator, variant)
        if fit.rows == 0:  # derived, as the source says: no fit has left an error
            assert fit.median_abs_error_frac is None
        status = fit.status(spec.die.name, spec.family)
        assert (status == "calibrated") == (fit.device == spec.die.name and fit.rows > 0)


SERVED = ("gemm", "grouped_gemm", "prefill_attention", "decode_attention", "prefill_mla")
SERVED += ("decode_mla",)
"""Collectives aside: without constants of a library, links and latencies price an all-reduce."""


@pytest.mark.parametrize("name", NAMES)
def test_profile_prices_every_operator_that_is_served(name: str) -> None:
    kernels = loaded(name).kernels
    assert [operator for operator in SERVED if not getattr(kernels, operator)] == []


def test_exchanges_need_a_plane_beyond_the_node(tmp_path: Path) -> None:
    """Servers whose scale_up ends at the node, with nothing but vpc between them."""
    servers = document("cloudmatrix384") | {"name": "servers"}
    planes = servers["planes"]
    servers["planes"] = {"scale_up": planes["scale_up"] | {"scope": "node"}, "vpc": planes["vpc"]}
    servers["calibration"] = servers["calibration"] | {"network_frac": {"scale_up": 0.8}}
    del servers["topology"]
    path = tmp_path / "servers.yaml"
    path.write_text(yaml.safe_dump(servers))
    with pytest.raises(ConfigError, match="joins the 16 of a node, and it has no scale_out"):
        load_experiment("xdeepserve-colocated-288", [f"hardware={path}"])
