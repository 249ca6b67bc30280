"""Named semantics of engines: the default of a device, its batching policy, its launches."""

from dataclasses import fields, replace

import pytest
from cli_runs import tiny
from cost_examples import GPU_NODES, LLAMA_70B, NPU_POD, decode_batch

from simpod.config import load_experiment
from simpod.config.schema import Engine
from simpod.cost import Layout, StepPricer, step_pricer
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


def test_an_experiment_may_have_times_of_its_own():
    times = {"step_gap_s": 5e-3, "launch_skew_s": 2e-3, "eager_launch_s": 1e-6}
    own = load_experiment("quickstart", [FEW, *(f"engine.{k}={v}" for k, v in times.items())])
    assert own.semantics == replace(SEMANTICS["flowserve"], **times)
    pricer = step_pricer(own.model, NPU_POD, Layout(dies=8, dp=8, ep=8), own.semantics)
    parts = pricer.price(decode_batch([8] * 8, 800)).parts()
    assert parts[STEP_PARTS.index("host_gap")] == 5e-3
    assert parts[STEP_PARTS.index("dispatch_wait")] >= 2e-3
    none = load_experiment("quickstart", [FEW, "engine.launch_skew_s=0"])
    assert none.semantics == replace(SEMANTICS["flowserve"], launch_skew_s=0.0)


def test_a_skew_that_no_dispatch_waits_for_is_refused():
    for name in ("llama70b-h100-colocated", "xdeepserve-disaggregated-768"):
        with pytest.raises(
            ConfigError, match=r"engine\.launch_skew_s: dies wait .* first dispatch"
        ):
            load_experiment(name, [FEW, "engine.launch_skew_s=1e-3"])


@pytest.mark.parametrize("pipeline", [{}, {"micro_batches": 2}, {"expert_dies": 8}])
def test_mtp_layers_that_are_launched_apart_have_a_gap_each(pipeline):
    """CloudMatrix-Infer 4.2.4: k layers need k + 1 dispatches of graphs."""
    settings = ["deployment.decode.mtp={layers: 2, pipelined: false}", "engine.step_gap_s=0.7e-3"]
    found = load_experiment("quickstart", [FEW, *settings])
    apart = replace(found.pools[-1].layout, dies=8, dp=8, ep=8, **pipeline)
    steps = [
        step_pricer(found.model, found.hardware["decode"], layout, found.semantics)
        .price(decode_batch([40] * 8, 40_000))
        .parts()
        for layout in (replace(apart, pipelines_mtp=True), apart)
    ]
    longer_s = steps[1] - steps[0]
    assert longer_s[STEP_PARTS.index("host_gap")] == pytest.approx(2 * 0.7e-3)
    assert longer_s.sum() == pytest.approx(2 * 0.7e-3)


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
