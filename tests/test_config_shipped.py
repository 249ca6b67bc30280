"""The files that we ship: they load, quickly; their schemas are current and accept them."""

import json
import os
from pathlib import Path

import pytest

from simpod import config
from simpod.config import SCHEMAS, explain_hardware, explain_model, kind_of, load_experiment, names
from simpod.config.json_schema import schema_text
from simpod.config.references import load_hardware
from simpod.config.validate import allowed_keys
from simpod.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SIMPOD_SHARED", REPOSITORY.parent / "shared"))
TRACE = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'


@pytest.fixture
def overrides(tmp_path):
    """What an experiment cannot do without."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text(TRACE)
    return {"mooncake-conversation": [f"workload.trace.path={trace}"]}


def test_everything_exported_is_there():
    assert sorted(config.__all__, key=lambda name: (not name.isupper(), name)) == config.__all__
    assert all(hasattr(config, name) for name in config.__all__)


@pytest.mark.parametrize("name", names("experiments"))
def test_experiment_loads_under_its_own_name_and_again_from_its_document(name, overrides, tmp_path):
    got = load_experiment(name, overrides.get(name, ()))
    assert got.name == name
    (tmp_path / "again.yaml").write_text(json.dumps(got.document))
    assert load_experiment(str(tmp_path / "again.yaml")).document == got.document


def test_every_published_result_has_its_experiment():
    assert {
        "cloudmatrix-infer-decode",
        "cloudmatrix-infer-prefill",
        "xdeepserve-colocated-288",
        "xdeepserve-disaggregated-768",
        "xdeepserve-production",
        "eplb-sharegpt",
        "microbatching",
        "mtp",
    } <= set(names("experiments"))


def test_the_experiments_of_the_first_release_are_there():
    assert {
        "quickstart",
        "cloudmatrix384-deepseek-r1-production",
        "cloudmatrix384-deepseek-r1-peak-decode",
        "llama70b-h100-colocated",
        "qwen3-235b-h200-disaggregated",
        "mooncake-conversation",
    } <= set(names("experiments"))


@pytest.mark.parametrize("name", names("experiments"))
def test_experiment_starts_with_schema_and_question(name):
    lines = (REPOSITORY / "experiments" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=../docs/schema/experiment.schema.json"
    assert lines[1].startswith("# ")
    assert "?" in lines[1]


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_file_is_current(name):
    path = REPOSITORY / "docs" / "schema" / f"{name}.schema.json"
    assert json.loads(path.read_text()) == json.loads(schema_text(name))


def test_schema_accepts_short_forms_and_aliases():
    schema = SCHEMAS["experiment"]()
    pool = allowed_keys(schema, ("deployment", "x"))
    assert {"tp", "tensor_parallel_size", "disable_radix_cache"} <= set(pool)
    assert {"type": "string"} in schema["properties"]["model"]["anyOf"]
    assert {"type": "string"} in schema["$defs"]["Policies"]["properties"]["router"]["anyOf"]
    assert "mlperf/deepseek-r1-interactive" in schema["properties"]["slo"]["anyOf"][1]["enum"]
    assert all("description" in field for field in schema["properties"].values())
    assert all("description" in field for field in schema["$defs"]["Pool"]["properties"].values())


def test_schema_of_hardware_allows_a_base():
    schema = SCHEMAS["hardware"]()
    assert schema["anyOf"][0] == {"required": ["base"]}
    assert "die" in schema["anyOf"][1]["required"]


def test_explain_model():
    counts = explain_model("deepseek-r1")
    assert counts["parameters"] == pytest.approx(671.0e9, rel=1e-3)
    assert counts["active_parameters"] == pytest.approx(37.6e9, rel=2e-3)
    assert counts["kv_elements_per_token"] == 35_136
    assert counts["weight_bytes"] == pytest.approx(counts["parameters"], rel=0.02)  # fp8
    assert counts["attention"]["kind"] == "mla"


def test_explain_hardware_merges_the_base():
    counts = explain_hardware("cloudmatrix384")
    assert (counts["num_dies"], counts["num_npus"], counts["dies_per_node"]) == (768, 384, 16)
    node, pod = explain_hardware("h100"), explain_hardware("h100-pod")
    assert pod["die"] == node["die"]
    assert pod["num_nodes"] > node["num_nodes"] == 1


def test_kind_of(tmp_path):
    assert kind_of("quickstart") == "experiment"
    assert kind_of("deepseek-r1") == "model"
    assert kind_of("h100") == "hardware"
    assert kind_of(str(REPOSITORY / "experiments" / "quickstart.yaml")) == "experiment"
    assert kind_of(str(REPOSITORY / "hardware_profiles" / "h100-pod.yaml")) == "hardware"
    assert kind_of(str(REPOSITORY / "models" / "qwen3-32b.yaml")) == "model"
    (tmp_path / "x.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match="neither an experiment"):
        kind_of(str(tmp_path / "x.yaml"))
    with pytest.raises(ConfigError, match='did you mean "quickstart"'):
        kind_of("quickstat")


def test_profiles_in_a_circle(tmp_path):
    (tmp_path / "a.yaml").write_text("base: ./b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: ./a.yaml\n")
    with pytest.raises(ConfigError, match="leads back to this profile"):
        explain_hardware(str(tmp_path / "a.yaml"))


def test_a_profile_of_ones_own_on_a_shipped_one(tmp_path):
    (tmp_path / "fast.yaml").write_text("base: h100\nname: fast\ndie: {hbm_bytes_per_s: 6.7e12}\n")
    got = explain_hardware(str(tmp_path / "fast.yaml"))
    assert got["die"]["hbm_bytes_per_s"] == 6.7e12
    assert got["die"]["hbm_bytes"] == explain_hardware("h100")["die"]["hbm_bytes"]


def test_kernels_of_another_profile(tmp_path):
    """Its own constants win over those named, those named over its base's; links keep theirs."""
    (tmp_path / "own.yaml").write_text(
        "base: h100\nkernels_of: a100\nname: own\ndie: {name: Mine}\nfamily: ampere\n"
        "kernels: {decode_mla: {bf16: {constants: {launch_s: 9.0e-06}}}}\n"
    )
    own, a100, h100 = (
        load_hardware(name).kernels for name in (str(tmp_path / "own.yaml"), "a100", "h100")
    )
    assert own.decode_mla["bf16"].constants.launch_s == 9.0e-6
    assert own.decode_mla["bf16"].constants.block_s == a100.decode_mla["bf16"].constants.block_s
    assert own.prefill_attention["bf16"] == a100.prefill_attention["bf16"]
    assert own.prefill_attention["fp8/fused"] == h100.prefill_attention["fp8/fused"]
    assert own.collective == h100.collective != a100.collective
    status = explain_hardware(str(tmp_path / "own.yaml"))["kernel_status"]
    assert (status["decode_mla"]["bf16"], status["collective"]["nccl/all_gather"]) == (
        "family",
        "assumed",
    )
    assert explain_hardware("a100")["kernel_status"]["decode_mla"]["bf16"] == "calibrated"


def test_mistakes_in_kernels_of(tmp_path):
    def refusal(text):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_hardware(str(tmp_path / "x.yaml"))
        return str(caught.value)

    assert 'did you mean "h100"' in refusal("base: a100\nkernels_of: h1000\n")
    assert "x.yaml:2:13: kernels_of: takes the name" in refusal("base: a100\nkernels_of: 3\n")
    (tmp_path / "y.yaml").write_text("kernels_of: ./x.yaml\nbase: h100\n")
    assert "kernels_of: leads back" in refusal("base: a100\nkernels_of: ./y.yaml\n")
    (tmp_path / "bare.yaml").write_text("name: bare\n")
    assert "bare.yaml has no constants" in refusal("base: a100\nkernels_of: ./bare.yaml\n")
    unknown = refusal("base: a100\nkernels_of: h100\nkernels: {decode_mla: {bf16: {row: 3}}}\n")
    assert "x.yaml:3" in unknown
    assert "unknown key" in unknown


@pytest.mark.parametrize(
    ("name", "of"), [("rtx-4090", "a100"), ("l40s", "a100"), ("rtx-pro-6000", "b200")]
)
def test_profiles_without_fits_take_those_of_a_relative(name, of):
    own, other = load_hardware(name).kernels, load_hardware(of).kernels
    assert own.prefill_attention == other.prefill_attention
    assert own.collective == own.exchange == {}  # PCIe is no NVLink


def test_a_huggingface_config_is_a_model(tmp_path):
    shared = SHARED / "models" / "DeepSeek-R1.json"
    if not shared.is_file():
        pytest.skip(f"needs {shared}: set SIMPOD_SHARED")
    folder = tmp_path / "My-R1"
    folder.mkdir()
    (folder / "config.json").write_bytes(shared.read_bytes())
    assert kind_of(str(shared)) == "model"
    got = load_experiment("quickstart", [f"model={folder}"])
    assert (got.model.name, got.model.kv_elements_per_token) == ("My-R1", 35_136)
    assert got.origins["model.hidden_size"] == str(folder / "config.json")
    changed = load_experiment("quickstart", [f"model={shared}", "model.num_layers=60"])
    assert changed.model.num_layers == 60
