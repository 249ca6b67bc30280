"""Named semantics of engines: the default of a device, its batching policy, its launches."""

from dataclasses import fields

import pytest
from cli_runs import tiny
from cost_examples import GPU_NODES, LLAMA_70B, NPU_POD, decode_batch

from simpod.config import load_experiment
from simpod.config.schema import Engine
from simpod.cost import Layout, StepPricer
from simpod.cost.semantics import SEMANTICS, default_semantics
from simpod.errors import ConfigError
from simpod.policies import BUILT_IN
from simpod.records.columns import STEP_PARTS

FEW = "workload.num_requests=5"


def test_every_semantics_is_named_sourced_and_possible():
    for name, each in SEMANTICS.items():
        assert each.name == name
        assert len(each.source) > 10
        assert each.batching in BUILT_IN["batching"]
        assert 0.0 <= each.launch_frac <= 1.0
        seconds = [f.name for f in fields(each) if f.name.endswith(("_s", "_per_token"))]
        assert len(seconds) >= 3
        assert all(0.0 <= getattr(each, field) < 0.1 for field in seconds)


def test_the_schema_allows_what_there_is():
    (allowed, _) = Engine.__annotations__["semantics"].__args__
    assert set(allowed.__args__) == set(SEMANTICS)


@pytest.mark.parametrize(
    ("family", "name"),
    [("ascend", "flowserve"), ("hopper", "vllm-v1"), ("blackwell", "vllm-v1"), ("ada", "vllm-v1")],
)
def test_default_by_family(family, name):
    assert default_semantics(family) == name


def test_an_experiment_says_whose_semantics_it_has():
    resolved = load_experiment("llama70b-h100-colocated", [FEW])
    assert resolved.semantics.name == "vllm-v1"
    assert resolved.document["engine"]["semantics"] == "vllm-v1"
    assert resolved.origins["engine.semantics"] == "derived: usual on hopper"
    ascend = load_experiment("quickstart", [FEW])
    assert ascend.semantics.name == "flowserve"
    chosen = load_experiment("quickstart", [FEW, "engine.semantics=sglang"])
    assert chosen.semantics is SEMANTICS["sglang"]
    assert chosen.origins["engine.semantics"] == "--set"


@pytest.mark.parametrize("name", sorted(SEMANTICS))
def test_semantics_bring_their_batching_policy(name, tmp_path):
    overrides = [f"engine.semantics={name}"]
    resolved = load_experiment(str(tiny(tmp_path)), overrides)
    assert resolved.document["policies"]["batching"]["use"] == SEMANTICS[name].batching
    overrides.append("policies.batching=shortest_prompt")
    given = load_experiment(str(tiny(tmp_path)), overrides)
    assert given.document["policies"]["batching"]["use"] == "shortest_prompt"


def test_an_engine_that_is_not_known_is_refused():
    with pytest.raises(ConfigError, match="flowserve"):
        load_experiment("quickstart", ["engine.semantics=vllm"])


def parts_of(hardware, name):
    prices = StepPricer(LLAMA_70B, hardware, Layout(dies=8, tp=8), name).price(decode_batch(8, 800))
    return dict(zip(STEP_PARTS, prices.parts().tolist(), strict=True))


@pytest.mark.parametrize("hardware", [GPU_NODES, NPU_POD], ids=lambda h: h.name)
def test_dependent_launches_shorten_a_step(hardware):
    """Of every part that is launched; TensorRT-LLM leaves 0.8 of each launch."""
    vllm, trtllm = (parts_of(hardware, name) for name in ("vllm-v1", "trtllm"))
    assert SEMANTICS["trtllm"].launch_frac < SEMANTICS["vllm-v1"].launch_frac
    for name in ("attention", "projections", "ffn", "elementwise", "head", "sampling"):
        assert 0.0 < trtllm[name] < vllm[name], name


def test_the_gap_of_an_engine_is_in_every_step():
    for name, semantics in SEMANTICS.items():
        assert parts_of(GPU_NODES, name)["host_gap"] == semantics.step_gap_s
