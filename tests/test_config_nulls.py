"""`null` stands for every optional mapping that is not there."""

import dataclasses
import types
import typing

import pytest
from pydantic import BaseModel

from simpod.config import load_experiment
from simpod.config.aliases import OPTIONAL_MAPPINGS
from simpod.config.schema import Experiment
from simpod.policies import BUILT_IN

CHANGES = {
    "kv_transfer": "kv_transfer={first_token_from: prefill}",
    "output": "output={path: central, processes: 3}",
    "fabric": "fabric={exchanges: shared}",
    "fabric.degrade": "fabric.degrade={'*': 0.5}",
    "slo": "slo={e2e_s: 1}",
    "measure": "measure={warmup_frac: 0.3}",
    "engine": "engine={skip_ahead: false}",
    "deployment.decode.mtp": "deployment.decode.mtp={layers: 1, acceptance: 0.5}",
}


@pytest.mark.parametrize("key", CHANGES)
def test_null_takes_a_section_back_to_its_default(key):
    bare = load_experiment("quickstart", [f"{key}=null"])
    changed = load_experiment("quickstart", [CHANGES[key]])
    again = load_experiment("quickstart", [CHANGES[key], f"{key}=null"])
    assert again.document == bare.document != changed.document


def test_a_key_below_null_starts_from_the_default():
    key = "deployment.decode.mtp"
    below = load_experiment("quickstart", [f"{key}=null", f"{key}.layers=1"])
    assert below.document == load_experiment("quickstart", [f"{key}={{layers: 1}}"]).document


def test_the_eviction_of_a_shared_memory_may_be_null():
    memory = "shared_memory={dram_bytes_per_host: 1e9, eviction: null}"
    shared = ["workload.shared_prefix={num_prefixes: 2, tokens: 512}", memory]
    shared += ["workload.hash_block_tokens=128"]
    got = load_experiment("quickstart", shared).document["shared_memory"]["eviction"]
    assert got["use"] in BUILT_IN["cache"]


OTHERWISE = {"shared_memory", "hardware.kernels.*", "deployment.*.hardware.kernels.*"}
"""Null by its type, and what stands for many keys."""


def members(kind):
    """The members of a union, markers taken off."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return members(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return [each for arm in typing.get_args(kind) for each in members(arm)]
    return [kind]


def is_mapping(kind):
    origin = typing.get_origin(kind)
    return is_section(kind) or (isinstance(origin, type) and issubclass(origin, typing.Mapping))


def is_section(kind):
    return isinstance(kind, type) and (
        issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)
    )


def has_default(kind, name):
    if issubclass(kind, BaseModel):
        return not kind.model_fields[name].is_required()
    field = {each.name: each for each in dataclasses.fields(kind)}[name]
    return (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)


def without_null(kind, path=""):
    """Paths of mappings that have a default and take no null by their type."""
    names = kind.model_fields if issubclass(kind, BaseModel) else kind.__dataclass_fields__
    hints = typing.get_type_hints(kind, include_extras=True)
    for name in names:
        found = members(hints[name])
        if any(map(is_mapping, found)) and types.NoneType not in found and has_default(kind, name):
            yield path + name
        for each in found:
            deeper = f"{path}{name}."
            if is_section(each):
                yield from without_null(each, deeper)
            elif typing.get_origin(each) is dict and is_section(typing.get_args(each)[1]):
                yield from without_null(typing.get_args(each)[1], f"{deeper}*.")


def test_every_optional_mapping_takes_null():
    found = set(without_null(Experiment))
    operators = {path for path in found if ".kernels." in path}  # `kernels.*`
    assert len(operators) > 10
    assert found - operators == set(OPTIONAL_MAPPINGS) - OTHERWISE
