"""`--set`, aliases, and where each value of an experiment came from."""

import json

import pytest

from simpod.config import explain, load_experiment, names
from simpod.errors import ConfigError

GOOD = """\
name: tiny
model: llama-3.1-8b
hardware: h100
workload:
  arrivals:
    process: mmpp
    states: [{rate_per_s: 1, mean_dwell_s: 5}, {rate_per_s: 9, mean_dwell_s: 2}]
  prompt_tokens: {distribution: constant, value: 500}
  output_tokens: {distribution: constant, value: 50}
  num_requests: 10
deployment:
  server: {tensor_parallel_size: 2, max_num_seqs: 64}
policies:
  batching: fcfs
slo: mlperf/llama3.1-8b-server
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp.yaml").write_text(GOOD)

    def load(*overrides):
        return load_experiment("exp.yaml", overrides)

    return load


@pytest.fixture
def problems_of(load):
    def problems(*overrides):
        with pytest.raises(ConfigError) as caught:
            load(*overrides)
        return caught.value.problems

    return problems


def test_a_new_balancer_keeps_the_slots_that_there_are() -> None:
    experts = "policies.experts={use: eplb, num_slices: 3, redundant_slots: 288}"
    changed = load_experiment("xdeepserve-colocated-288", (experts, "policies.experts.use=none"))
    assert changed.policies["experts"].params == {}
    assert changed.document["policies"]["experts"]["redundant_slots"] == 288


def test_values_are_yaml(load):
    got = load("seed=7", "name='12'", "slo.ttft_s=1e-1", "deployment.server.prefix_caching=false")
    assert (got.seed, got.name, got.slo.ttft_s) == (7, "12", 0.1)
    assert not got.pools[0].prefix_caching


def test_the_last_one_wins_and_the_file_stays_as_it_is(load, tmp_path):
    assert load("seed=1", "seed=2").seed == 2
    assert (tmp_path / "exp.yaml").read_text() == GOOD


def test_mappings_lists_and_items_of_lists(load):
    got = load(
        "workload.arrivals={process: poisson, rate_per_s: 3}", "workload.prompt_tokens.value=7"
    )
    assert got.workload.arrivals.rate_per_s == 3.0
    assert got.workload.prompt_tokens.value == 7
    states = load("workload.arrivals.states.1.rate_per_s=4").workload.arrivals.states
    assert [state.rate_per_s for state in states] == [1.0, 4.0]


def test_a_new_section_is_made_and_an_empty_one_is_as_good_as_none(load):
    assert load("measure.warmup_frac=0.2").measure.warmup_frac == 0.2
    assert load("slo=").slo.is_empty
    assert load("slo=null", "slo.e2e_s=5").slo.e2e_s == 5.0


def test_one_number_of_a_named_model_or_profile(load):
    plain = load()
    got = load("model.num_layers=16", "hardware.die.hbm_bytes=200e9", "hardware.name=big")
    assert got.model.num_layers == 16
    assert got.model.hidden_size == plain.model.hidden_size
    assert got.hardware["server"].die.hbm_bytes == 200e9
    assert got.origins["model.num_layers"] == "--set"
    assert got.memory["server"].weight_bytes < plain.memory["server"].weight_bytes
    other = load("model=qwen3-32b", "model.num_layers=8").model
    assert (other.name, other.num_layers) == ("qwen3-32b", 8)


def test_a_die_with_other_rates_is_no_longer_the_one_that_was_measured(load, tmp_path):
    (tmp_path / "fast.yaml").write_text("base: h100\nname: fast\ndie: {hbm_bytes_per_s: 5e12}\n")
    (tmp_path / "same.yaml").write_text("base: h100\nname: s\ndie: {hbm_bytes_per_s: 3.35e12}\n")
    for override, calibrated in (
        ("hardware.die.hbm_bytes_per_s=5e12", False),
        ("hardware.die.peak_flops_per_s.bf16=2e15", False),
        ("hardware=fast.yaml", False),
        ("hardware=same.yaml", True),
        ("hardware.die.hbm_bytes=9e10", True),
        ("hardware.die.num_cores=132", True),
    ):
        got = load(override).hardware["server"]
        assert got.die.name == "NVIDIA H100 SXM" + " (changed)" * (not calibrated)
        fits = got.kernels.statuses(got.die.name, got.family)
        assert ("calibrated" in fits) is calibrated
    twice = load("hardware.die.l2_bytes=6e7", "hardware.die.num_cores=140")
    assert twice.hardware["server"].die.name == "NVIDIA H100 SXM (changed)"
    changes = ("hardware.die.hbm_bytes_per_s=5e12", "hardware.die.name=mine")
    for named in (load(*changes), load(*reversed(changes))):
        assert named.hardware["server"].die.name == "mine"


def test_a_workload_by_name_or_path(load, tmp_path):
    """A trace that a workload file names lies beside that file."""
    named = load("workload=bursty-chat", "workload.num_requests=30")
    assert named.workload.arrivals.states[1].rate_per_s == 40
    assert named.workload.num_requests == 30
    (tmp_path / "loads").mkdir()
    (tmp_path / "loads" / "t.csv").write_text("num_prefill_tokens,num_decode_tokens\n5,6\n")
    (tmp_path / "loads" / "mine.yaml").write_text(
        "arrivals: {process: burst}\nnum_requests: 4\ntrace: {format: lengths, path: t.csv}\n"
    )
    mine = load("workload=loads/mine.yaml")
    assert mine.workload.trace.path == str(tmp_path / "loads" / "t.csv")
    with pytest.raises(ConfigError, match='unknown workload "bursty"; did you mean "bursty-chat"'):
        load("workload=bursty")


@pytest.mark.parametrize("name", names("workloads"))
def test_every_shipped_workload_can_be_used(load, name):
    assert load(f"workload={name}").workload.num_requests


def test_a_policy_in_short_form_can_be_set_below(load, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from simpod.policies.roles import BatchPlan, BatchView\n\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    chunk: int = 3\n"
        "    def __call__(self, view: BatchView) -> BatchPlan:\n"
        "        return BatchPlan()\n"
    )
    ref = load("policies.batching.use=./mine.py:Mine", "policies.batching.chunk=5").policies[
        "batching"
    ]
    assert ref.use == f"{tmp_path / 'mine.py'}:Mine"
    assert ref.params == {"chunk": 5}


def test_another_policy_starts_without_the_parameters_of_the_old_one(load):
    first = load("policies.router={use: least_kv, reserve_tokens: 100}")
    assert first.policies["router"].params == {"reserve_tokens": 100}
    second = load(
        "policies.router={use: least_kv, reserve_tokens: 100}", "policies.router.use=random"
    )
    assert second.policies["router"].params == {}


@pytest.mark.parametrize("key", ["tp", "tp_size", "tensor_parallel_size"])
def test_an_override_replaces_every_spelling(load, key):
    assert load(f"deployment.server.{key}=4").pools[0].layout.tp == 4


@pytest.mark.parametrize(
    ("alias", "value", "field", "expected"),
    [
        ("max_running_requests", 32, "max_num_seqs", 32),
        ("max_seqs_per_rank", 32, "max_num_seqs", 32),
        ("max_num_batched_tokens", 4096, "max_step_tokens", 4096),
        ("chunked_prefill_size", 4096, "max_step_tokens", 4096),
        ("max_prefill_tokens", 4096, "max_step_tokens", 4096),
        ("context_length", 2048, "max_model_len", 2048),
        ("block_size", 32, "block_tokens", 32),
        ("page_size", 64, "block_tokens", 64),
        ("num_gpu_blocks_override", 100, "kv_blocks", 100),
        ("enable_prefix_caching", "false", "prefix_caching", False),
        ("disable_radix_cache", "true", "prefix_caching", False),
        ("disable_radix_cache", "false", "prefix_caching", True),
    ],
)
def test_aliases(load, alias, value, field, expected):
    assert getattr(load(f"deployment.server.{alias}={value}").pools[0], field) == expected


def test_aliases_of_the_layout_and_of_data_types(load):
    got = load(
        "deployment.server={dp_size: 2, tp_size: 2, kv_cache_dtype: fp8_e4m3,"
        " mem_fraction_static: 0.8}"
    )
    layout = got.pools[0].layout
    assert (layout.dies, layout.dp, layout.tp, layout.kv_dtype) == (4, 2, 2, "fp8")
    assert got.document["deployment"]["server"]["memory_frac"] == 0.8


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "deployment.servr.tp=2",
            "--set deployment.servr.tp=2: deployment.servr: no such pool; allowed: server; did",
        ),
        (
            "workload.max_tokens=word",
            '--set workload.max_tokens=word: workload.max_tokens: wrong type (got "word"); allowed',
        ),
        (
            "model=null",
            "--set model=null: model: wrong type (got null); allowed: a name, a path or a mapping",
        ),
        (
            "deployment.server.role=mix",
            '--set deployment.server.role=mix: deployment.server.role: unknown value (got "mix");'
            " allowed: mixed, prefill, decode, attention, expert",
        ),
        (
            "deployment.server.tpp=3",
            "--set deployment.server.tpp=3: deployment.server.tpp: unknown key (got 3); allowed",
        ),
        (
            "depoyment.server.tp=3",
            "--set depoyment.server.tp=3: depoyment: unknown key; allowed: name,",
        ),
        ("seed=-1", "--set seed=-1: seed: too small (got -1); allowed: a number >= 0"),
        ("seed='1'", "--set seed='1': seed: wrong type (got \"1\"); allowed: an integer"),
        ("name.x=1", '--set name.x=1: name.x: name is not a mapping, it has no keys (got "tiny")'),
        (
            "workload.arrivals.states.2.rate_per_s=4",
            "no item 2 in this list; allowed: an index from 0 to 1",
        ),
        ("workload.arrivals.states.first=4", "no item first in this list"),
        ("model.nam=x", '--set model.nam=x: model.nam: unknown key (got "x"); allowed: name,'),
        ("model=lama", '--set model=lama: model: unknown model "lama"'),
        ("seed", "--set seed: not an override; allowed: --set key.below=value"),
        ("=3", "--set =3: not an override"),
        ("a..b=3", "--set a..b=3: not an override"),
        ("seed=[1", "--set seed=[1: seed: not YAML: while parsing a flow sequence"),
    ],
)
def test_mistakes_in_overrides(problems_of, override, expected):
    (problem,) = problems_of(override)
    assert expected in problem
    assert "\n" not in problem


def test_origins(load):
    got = load("seed=3", "deployment.server.max_model_len=4096")
    origins = got.origins
    assert origins["seed"] == "--set"
    assert origins["name"] == "exp.yaml:1"
    assert origins["deployment.server.tp"] == "exp.yaml:12"
    assert origins["deployment.server.dies"] == "derived: dp 1 x tp 2"
    assert origins["deployment.server.block_tokens"] == "default"
    assert origins["deployment.server.max_model_len"] == "--set"
    assert origins["deployment.server.weight_dtype"].startswith("derived: as llama-3.1-8b")
    assert origins["policies.batching.use"] == "exp.yaml:14"
    assert origins["policies.router.use"] == "default"
    assert origins["slo.ttft_s"] == "exp.yaml:15"
    assert origins["workload.arrivals.states.1.rate_per_s"] == "exp.yaml:7"
    assert origins["model.hidden_size"].endswith("models/llama-3.1-8b.yaml:5")


def test_explain_covers_the_document_and_the_memory(load):
    got = load()
    rows = {row.key: row for row in explain(got)}
    assert set(got.origins) < set(rows)
    assert rows["slo.tpot_s"].value == 0.1
    assert rows["memory.server.weight_bytes"].value == got.memory["server"].weight_bytes
    assert all(row.origin for row in rows.values())


def test_the_name_is_the_file_name_when_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(GOOD.replace("name: tiny\n", ""))
    got = load_experiment("mine.yaml")
    assert (got.name, got.origins["name"]) == ("mine", "derived: the file's name")


def test_the_document_loaded_again_is_the_same_experiment(load, tmp_path):
    got = load(
        "deployment.server.mtp={layers: 0}", "policies.router={use: least_kv, reserve_tokens: 9}"
    )
    (tmp_path / "again.yaml").write_text(json.dumps(got.document))
    again = load_experiment("again.yaml")
    assert again.document == got.document
    assert again.pools == got.pools
    assert again.policies == got.policies
    assert again.workload == got.workload
