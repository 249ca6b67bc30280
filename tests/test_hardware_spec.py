"""Profiles that can't be are refused with the numbers; profiles are laid over their base."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from simpod.config.described import described_schema
from simpod.hardware import HardwareProfile, merge_base

PLANE = {
    "name": "scale_up",
    "scope": "node",
    "bytes_per_s": 1e9,
    "intra_node_latency_s": 1e-6,
    "inter_node_latency_s": 1e-6,
}
DOCUMENT: dict[str, Any] = {
    "name": "x",
    "source": "test",
    "family": "ada",
    "die": {
        "name": "d",
        "peak_flops_per_s": {"bf16": 1e14},
        "vector_flops_per_s": 1e13,
        "hbm_bytes": 1e10,
        "hbm_bytes_per_s": 1e12,
        "l2_bytes": 1e7,
        "num_cores": 4,
    },
    "dies_per_npu": 2,
    "npus_per_node": 8,
    "num_nodes": 1,
    "planes": {"scale_up": PLANE},
    "host": {"num_cpus": 2, "dram_bytes": 1e12, "dram_bytes_per_s": 1e11},
    "calibration": {"hbm_frac": 0.5, "vector_frac": 0.5, "kernel_overhead_s": 0},
}

keys = st.sampled_from(["a", "b", "c", "base"])
documents = st.recursive(
    st.dictionaries(keys, st.integers(0, 9)),
    lambda inner: st.dictionaries(keys, inner | st.integers(0, 9) | st.lists(st.integers(0, 9))),
    max_leaves=8,
)


def validate(**changes: Any) -> HardwareProfile:
    return TypeAdapter(HardwareProfile).validate_python(merge_base(changes, DOCUMENT))


def test_counts_of_dies() -> None:
    spec = validate()
    assert (spec.dies_per_node, spec.num_dies) == (16, 16)
    pod = {**PLANE, "name": "scale_out", "scope": "pod"}
    assert validate(num_nodes=3, planes={"scale_out": pod}).num_dies == 48


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"die": {"peak_flops_per_s": {"bf61": 1e12}}}, "bf61"),
        ({"planes": {"scale_up": {"name": "nvlink"}}}, "scale_up is called nvlink"),
        ({"num_nodes": 4}, "4 nodes, but no plane of scope pod"),
        ({"calibration": {"network_frac": {"vpc": 0.5}}}, "vpc"),
        ({"calibration": {"hbm_frac": 1.5}}, "less than or equal to 1"),
        ({"calibration": {"hbm_frac": 0.0}}, "greater than 0"),
        ({"die": {"hbm_bytes": float("nan")}}, "finite"),
        ({"die": {"hbm_bytes_per_s": -1.0}}, "greater than 0"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_impossible_profiles_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        validate(**changes)


def test_profile_needs_bf16_and_scale_up() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["die"]["peak_flops_per_s"] = {"int8": 1e14}
    with pytest.raises(ValidationError, match=r"has int8: .* bf16 is needed"):
        TypeAdapter(HardwareProfile).validate_python(document)
    document = {**DOCUMENT, "planes": {}}
    with pytest.raises(ValidationError, match="has nothing: scale_up is needed"):
        TypeAdapter(HardwareProfile).validate_python(document)


def test_every_field_is_documented_in_the_schema() -> None:
    schema = described_schema(HardwareProfile)
    properties = {
        key: value
        for part in (schema, *schema["$defs"].values())
        for key, value in part["properties"].items()
    }
    assert {key for key, value in properties.items() if "description" not in value} == set()


def test_merge_replaces_leaves_and_keeps_the_rest() -> None:
    base = {"name": "b", "die": {"name": "x", "peak": {"bf16": 1, "int8": 2}}, "list": [1, 2]}
    child = {"base": "b", "name": "c", "die": {"peak": {"bf16": 9}}, "list": [3], "new": {"k": 1}}
    assert merge_base(child, base) == {
        "name": "c",
        "die": {"name": "x", "peak": {"bf16": 9, "int8": 2}},
        "list": [3],
        "new": {"k": 1},
    }


@given(child=documents, base=documents)
def test_laws_of_merging(child: dict[str, Any], base: dict[str, Any]) -> None:
    """Empty is neutral, twice is once, and neither argument changes."""
    before = copy.deepcopy((child, base))
    merged = merge_base(child, base)
    assert merge_base(child, merged) == merged
    assert merge_base({}, merged) == merged
    assert merge_base(merged, {}) == merged
    assert set(merged) == (set(child) | set(base)) - {"base"}
    assert (child, base) == before


@given(child=documents, base=documents)
def test_merged_documents_share_nothing_with_their_origins(
    child: dict[str, Any], base: dict[str, Any]
) -> None:
    merged = merge_base(child, base)
    before = copy.deepcopy((child, base))
    _wipe(merged)
    assert (child, base) == before


def _wipe(document: dict[str, Any]) -> None:
    for value in document.values():
        if isinstance(value, dict):
            _wipe(value)
        elif isinstance(value, list):
            value.clear()
    document.clear()
