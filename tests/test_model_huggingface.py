"""HuggingFace configurations: read right, or refused with the reason."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from simpod.errors import ConfigError
from simpod.model import ModelSpec, from_hf, read_hf, weight_bytes
from simpod.model.huggingface import FAMILIES

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SIMPOD_SHARED", ROOT.parent / "shared")) / "models"

# billions of parameters and of active ones (Hub counts or papers), KV elements a token, MTP layers,
# data type of the linear layers
READ = {
    "DeepSeek-R1": (671.0, 37.6, 35_136, 1, "fp8"),
    "DeepSeek-V2-Lite": (15.7, 2.7, 15_552, 0, "bf16"),
    "DeepSeek-V3": (671.0, 37.6, 35_136, 1, "fp8"),
    "GLM-4.5": (352.8, 33.6, 188_416, 1, "bf16"),
    "GLM-4.5-Air": (106.9, 13.4, 94_208, 1, "bf16"),
    "Kimi-K2-Instruct": (1026.4, 32.9, 35_136, 0, "fp8"),
    "Kimi-K2.5": (1026.4, 32.9, 35_136, 0, "int4"),
    "Meta-Llama-3.1-405B": (405.9, 405.9, 258_048, 0, "bf16"),
    "Meta-Llama-3.1-70B": (70.6, 70.6, 163_840, 0, "bf16"),
    "Meta-Llama-3.1-8B": (8.0, 8.0, 65_536, 0, "bf16"),
    "MiniMax-M2.5": (228.7, 11.0, 126_976, 3, "fp8"),
    "Mixtral-8x7B-v0.1": (46.7, 12.9, 65_536, 0, "bf16"),
    "Qwen3-235B-A22B": (235.1, 22.2, 96_256, 0, "bf16"),
    "Qwen3-30B-A3B": (30.5, 3.4, 49_152, 0, "bf16"),
    "Qwen3-32B": (32.8, 32.8, 131_072, 0, "bf16"),
    "Qwen3-8B": (8.2, 8.2, 73_728, 0, "bf16"),
    "Qwen3-Coder-480B-A35B-Instruct": (480.2, 35.5, 126_976, 0, "bf16"),
    "gpt-oss-120b": (116.8, 5.7, 18_432, 0, "fp4"),
    "gpt-oss-20b": (20.9, 4.2, 12_288, 0, "fp4"),
    "Qwen3-VL-235B-A22B-Instruct": (235.1, 22.2, 96_256, 0, "bf16"),
}
REFUSED = {
    "DeepSeek-V3.2": {"index_topk"},
    "DeepSeek-V4-Flash": {"index_topk", "compress_ratios", "hc_mult", "sliding_window"},
    "DeepSeek-V4-Pro": {"index_topk", "compress_ratios", "hc_mult", "sliding_window"},
    "GLM-5": {"index_topk"},
    "GLM-5.2": {"index_topk"},
    "Kimi-K3": {"linear_attn_config", "latent_moe_use_norm", "routed_expert_hidden_size"},
    "Llama-4-Maverick-17B-128E-Instruct": {"attention_chunk_size", "interleave_moe_layer_step"},
    "Qwen3-Next-80B-A3B": {"full_attention_interval"},
    "Qwen3.5-397B-A17B": {"full_attention_interval", "attn_output_gate", "layer_types"},
}
SHIPPED = {
    "deepseek-r1": "DeepSeek-R1",
    "deepseek-v2-lite": "DeepSeek-V2-Lite",
    "deepseek-v3": "DeepSeek-V3",
    "glm-4.5": "GLM-4.5",
    "glm-4.5-air": "GLM-4.5-Air",
    "gpt-oss-120b": "gpt-oss-120b",
    "gpt-oss-20b": "gpt-oss-20b",
    "kimi-k2": "Kimi-K2-Instruct",
    "kimi-k2.5": "Kimi-K2.5",
    "llama-3.1-405b": "Meta-Llama-3.1-405B",
    "llama-3.1-70b": "Meta-Llama-3.1-70B",
    "llama-3.1-8b": "Meta-Llama-3.1-8B",
    "minimax-m2.5": "MiniMax-M2.5",
    "mixtral-8x7b": "Mixtral-8x7B-v0.1",
    "qwen3-235b-a22b": "Qwen3-235B-A22B",
    "qwen3-30b-a3b": "Qwen3-30B-A3B",
    "qwen3-8b": "Qwen3-8B",
    "qwen3-coder-480b-a35b": "Qwen3-Coder-480B-A35B-Instruct",
    "qwen3-32b": "Qwen3-32B",
}
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"no model configurations in {SHARED}: set SIMPOD_SHARED"
)

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 1024,
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
    "num_key_value_heads": 2,
    "torch_dtype": "bfloat16",
    "vocab_size": 1000,
}
MOE = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}


def read(config: dict[str, Any], **changes: Any) -> ModelSpec:
    return from_hf({**config, **changes}, "m", "m.json")


def problems(config: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(config, **changes)
    assert all(problem.startswith("m.json: ") for problem in caught.value.problems)
    return str(caught.value)


@needs_shared
def test_every_configuration_has_an_expectation() -> None:
    assert {path.stem for path in SHARED.glob("*.json")} == {*READ, *REFUSED}


@needs_shared
@pytest.mark.parametrize("stem", READ)
def test_configuration_is_read(stem: str) -> None:
    billions, active, kv, mtp, dtype = READ[stem]
    spec = read_hf(SHARED / f"{stem}.json")
    assert spec.name == stem
    assert spec.parameters / 1e9 == pytest.approx(billions, abs=0.06)
    assert spec.active_parameters / 1e9 == pytest.approx(active, abs=0.06)
    found = (spec.kv_elements_per_token, spec.num_mtp_layers, spec.weight_dtype)
    assert found == (kv, mtp, dtype)


@needs_shared
@pytest.mark.parametrize("stem", REFUSED)
def test_configuration_is_refused_with_every_reason(stem: str) -> None:
    path = SHARED / f"{stem}.json"
    with pytest.raises(ConfigError) as caught:
        read_hf(path)
    found = caught.value.problems
    assert {problem.removeprefix(f"{path}: ").split(":")[0] for problem in found} == REFUSED[stem]
    assert all("not modelled" in problem and "got " in problem for problem in found)


@needs_shared
def test_shipped_models_are_what_the_published_files_say() -> None:
    for name, stem in SHIPPED.items():
        document = yaml.safe_load((ROOT / "models" / f"{name}.yaml").read_text())
        shipped = TypeAdapter(ModelSpec).validate_python(document)
        published = read_hf(SHARED / f"{stem}.json")
        for field in ModelSpec.__dataclass_fields__:
            if field not in ("name", "source"):
                assert getattr(shipped, field) == getattr(published, field), f"{name}: {field}"


def test_shipped_models_are_listed_and_point_to_their_schema() -> None:
    paths = sorted((ROOT / "models").glob("*.yaml"))
    assert {path.stem for path in paths} == set(SHIPPED)
    for path in paths:
        text = path.read_text()
        assert text.startswith("# yaml-language-server: $schema=../docs/schema/model.schema.json\n")
        spec = TypeAdapter(ModelSpec).validate_python(yaml.safe_load(text))
        assert spec.name == path.stem
        header = text.splitlines()[1]
        assert f"{spec.parameters / 1e9:,.1f} B parameters" in header
        assert f"{spec.active_parameters / 1e9:.1f} B active" in header


@needs_shared
def test_int4_checkpoint_keeps_attention_and_shared_experts() -> None:
    """Only routed experts are quantised; checkpoints of this layout take about 595 GB."""
    spec = read_hf(SHARED / "Kimi-K2.5.json")
    assert spec.bf16_parts == ("attention", "dense_ffn", "shared_experts")
    assert spec.weight_group_size == 32
    assert weight_bytes(spec) == pytest.approx(595e9, rel=0.005)
    ungrouped = replace(spec, weight_group_size=None)
    scales = 60 * 384 * spec.expert_parameters / 32 * 2  # one bf16 scale for 32 numbers
    assert weight_bytes(spec) - weight_bytes(ungrouped) == scales
    assert spec.parameters == ungrouped.parameters


def test_plain_decoder() -> None:
    spec = read(LLAMA)
    assert spec.attention.head_dim == 8
    assert (spec.moe, spec.num_dense_layers, spec.tie_word_embeddings) == (None, 6, False)
    assert spec.source == "m.json"


def test_attention_without_groups_and_with_its_own_head_dim() -> None:
    without = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    assert read(without).attention.num_kv_heads == 8
    assert read(LLAMA, head_dim=32).attention.head_dim == 32


@pytest.mark.parametrize(
    ("model_type", "fields", "qkv", "output", "qk_norm"),
    [
        ("llama", {"attention_bias": True}, True, True, False),
        ("qwen2", {}, True, False, False),
        ("qwen3", {}, False, False, True),
        ("glm4_moe", {"attention_bias": True, "use_qk_norm": True}, True, False, True),
        ("minimax_m2", {"use_qk_norm": True, "qk_norm_type": "per_layer"}, False, False, True),
    ],
)
def test_biases_and_norms_that_only_the_family_tells(
    model_type: str, fields: dict[str, Any], qkv: bool, output: bool, qk_norm: bool
) -> None:
    attention = read(MOE, model_type=model_type, **fields).attention
    assert (attention.has_qkv_bias, attention.has_output_bias) == (qkv, output)
    assert attention.has_qk_norm is qk_norm
    assert attention.qk_norm_per_head is (model_type != "minimax_m2")


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        ({}, 6),
        ({"first_k_dense_replace": 2}, 4),
        ({"first_k_dense_replace": 1, "moe_layer_freq": 2}, 2),  # layers 2 and 4
        ({"decoder_sparse_step": 2}, 3),  # layers 1, 3, 5
        ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, 2),
        ({"mlp_layer_types": ["dense", "dense", "sparse", "sparse", "sparse", "sparse"]}, 4),
        ({"moe_layer_freq": [0, 1, 1, 1, 1, 1]}, 5),
        ({"first_k_dense_replace": 6}, 0),
    ],
)
def test_rules_for_dense_layers(fields: dict[str, Any], layers: int) -> None:
    spec = read(MOE, **fields)
    assert spec.num_moe_layers == layers
    assert (spec.moe is None) == (layers == 0)


@pytest.mark.parametrize(
    ("fields", "shared"),
    [
        ({"n_shared_experts": 2}, 64),
        ({"num_shared_experts": 1}, 32),
        ({"shared_expert_intermediate_size": 48}, 48),
        ({"n_shared_experts": None, "shared_expert_intermediate_size": 0}, 0),
    ],
)
def test_shared_experts(fields: dict[str, Any], shared: int) -> None:
    moe = read(MOE, **fields).moe
    assert moe is not None
    assert moe.shared_intermediate_size == shared


def test_expert_width_without_a_key_of_its_own() -> None:
    """Mixtral and MiniMax: `intermediate_size` is the expert's."""
    fields = {"num_local_experts": 4, "num_experts_per_tok": 2, "model_type": "mixtral"}
    moe = read(LLAMA, **fields).moe
    assert moe is not None
    assert (moe.num_experts, moe.expert_intermediate_size) == (4, 128)


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        ({"num_nextn_predict_layers": 1}, 1),
        ({"num_mtp_modules": 3, "use_mtp": True, "mtp_transformer_layers": 1}, 3),
        ({"num_mtp_modules": 3, "use_mtp": False}, 0),
        ({"num_nextn_predict_layers": 0}, 0),
    ],
)
def test_mtp_layers(fields: dict[str, Any], layers: int) -> None:
    assert read(MOE, **fields).num_mtp_layers == layers


def _groups(bits: int, kind: str, **more: Any) -> dict[str, Any]:
    group = {"weights": {"num_bits": bits, "type": kind, **more}}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("quantisation", "dtype"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        (_groups(8, "int"), "int8"),
        (_groups(8, "float"), "fp8"),
        (_groups(4, "float"), "fp4"),
    ],
)
def test_quantisation(quantisation: dict[str, Any], dtype: str) -> None:
    assert read(LLAMA, quantization_config=quantisation).weight_dtype == dtype


@pytest.mark.parametrize(
    ("quantisation", "group_size"),
    [
        ({"quant_method": "fp8"}, None),
        ({"quant_method": "fp8", "weight_block_size": [128, 64]}, 128 * 64),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, None),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, None),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 16),
        ({"quant_method": "mxfp4"}, 32),
        (_groups(4, "int", group_size=32), 32),
        (_groups(8, "int", group_size=None), None),
        (_groups(8, "float", block_structure="128x128"), 16384),
        (_groups(8, "float", block_structure=[128, 128]), 16384),
    ],
)
def test_groups_that_share_a_scale(quantisation: dict[str, Any], group_size: int | None) -> None:
    assert read(LLAMA, quantization_config=quantisation).weight_group_size == group_size


@pytest.mark.parametrize(
    "quantisation",
    [
        {"quant_method": "fp8", "weight_block_size": [128, 0]},
        {"quant_method": "fp8", "weight_block_size": []},
        {"quant_method": "awq", "bits": 4, "group_size": 12.5},
        _groups(8, "float", block_structure="wide"),
    ],
)
def test_groups_that_cannot_be_read_are_refused(quantisation: dict[str, Any]) -> None:
    assert "one group_size for all weights" in problems(LLAMA, quantization_config=quantisation)


def test_two_group_sizes_are_refused() -> None:
    quantisation = _groups(4, "int", group_size=32)
    other = _groups(4, "int", group_size=64)["config_groups"]["group_0"]
    quantisation["config_groups"]["group_1"] = other
    assert "got 32, 64" in problems(LLAMA, quantization_config=quantisation)


def test_quantisation_that_is_a_word_is_not_passed_over() -> None:
    assert "quantization_config: must be a mapping" in problems(LLAMA, quantization_config="fp8")


@pytest.mark.parametrize(
    "quantisation",
    [
        {"quant_method": "quip"},
        {"quant_method": "gptq", "bits": 3},
        _groups(2, "int"),
        {"quant_method": "compressed-tensors"},
    ],
)
def test_unknown_quantisation_is_refused(quantisation: dict[str, Any]) -> None:
    message = problems(LLAMA, quantization_config=quantisation)
    assert "quantization_config" in message
    assert quantisation["quant_method"] in message


@pytest.mark.parametrize(
    ("ignored", "kept"),
    [
        (["lm_head", "gate", "model.layers.0.mlp.gate"], ()),
        (["re:.*self_attn.*"], ("attention",)),
        (["model.layers.0.self_attn.q_proj"], ()),  # one layer of six
        ([f"model.layers.{i}.self_attn.q_proj" for i in range(6)], ("attention",)),
        (["model.layers.*.mlp.shared_experts.up_proj"], ("shared_experts",)),
        (["model.layers.*.mlp.experts.*.up_proj"], ()),
    ],
)
def test_parts_that_are_not_quantised(ignored: list[str], kept: tuple[str, ...]) -> None:
    config = {"quant_method": "fp8", "modules_to_not_convert": ignored}
    assert read(MOE, quantization_config=config).bf16_parts == kept


def test_text_part_of_a_multimodal_model() -> None:
    inner = {key: value for key, value in LLAMA.items() if key != "torch_dtype"}
    outer = {"model_type": "llava", "text_config": inner, "dtype": "float16", "vision_config": {}}
    spec = from_hf(outer, "m", "m.json")
    assert (spec.hidden_size, spec.weight_dtype) == (64, "fp16")
    assert "encoder is not counted" in spec.source


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"sliding_window": 512}, "sliding_window"),
        ({"layer_types": ["full_attention"] * 5 + ["linear_attention"]}, "1 of 6"),
        ({"layer_types": ["sliding_attention"] * 6}, "6 of 6"),
        ({"index_topk": 2048}, "2048"),
        ({"attn_type_list": [1, 0, 1]}, "attn_type_list"),
        ({"is_encoder_decoder": True}, "decoders"),
        ({"mamba_d_state": 128}, "unknown"),
        ({"kv_shared_layers": 3}, "unknown"),
        ({"moe_latent_dim": 3}, "unknown"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"num_experts": 8}, "num_experts_per_tok"),
    ],
)
def test_what_is_not_modelled_is_refused(fields: dict[str, Any], word: str) -> None:
    assert word in problems(LLAMA, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"sliding_window": None},
        {"sliding_window": 512, "use_sliding_window": False, "max_window_layers": 6},
        {"sliding_window": 1024},  # as long as the longest context: never cuts
        {"layer_types": ["full_attention"] * 6},
        {"sliding_window": 512, "layer_types": ["full_attention", "sliding_attention"] * 3},
        {"attn_type_list": [1] * 6},
        {"attention_dropout": 0.1, "mamba_d_state": 0, "cross_attention_hidden_size": None},
    ],
)
def test_what_changes_nothing_is_read(fields: dict[str, Any]) -> None:
    assert read(LLAMA, **fields).parameters == read(LLAMA).parameters


def test_every_mistake_is_reported_at_once() -> None:
    wrong = {**LLAMA, "hidden_size": "64", "vocab_size": 0, "num_hidden_layers": True}
    del wrong["max_position_embeddings"]
    message = problems(wrong)
    for part in ("hidden_size: must be a whole number", "got '64'", "vocab_size", "got True"):
        assert part in message
    assert "max_position_embeddings is missing" in message


def test_numbers_that_do_not_fit_each_other_are_refused() -> None:
    assert "3" in problems(LLAMA, num_key_value_heads=3)
    assert "num_hidden_layers" in problems(MOE, mlp_layer_types=["sparse"] * 5)
    assert "experts_per_token 9 exceeds num_experts 8" in problems(MOE, num_experts_per_tok=9)
    assert "not whole" in problems(LLAMA, num_attention_heads=6)


def test_unknown_family_is_refused_with_the_known_ones_and_a_way_on() -> None:
    message = problems(LLAMA, model_type="foo", tie_word_embeddings=True)
    for part in ("model_type: unknown architecture; got 'foo'", "llama, mistral", "YAML"):
        assert part in message
    without = {key: value for key, value in LLAMA.items() if key != "model_type"}
    assert "model_type: is missing; allowed: llama" in problems(without)


@pytest.mark.parametrize("family", FAMILIES)
def test_known_families_are_read(family: str) -> None:
    assert read(MOE, model_type=family).head_parameters == 64 * 1000
    assert read(MOE, model_type=family, tie_word_embeddings=True).head_parameters == 0


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda path: None, "cannot be read"),
        (lambda path: path.write_text('{"hidden_size": 1,\n}'), ":2:1: is not JSON"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "UTF-8"),
        (lambda path: path.write_text("[1]"), "got list"),
        (lambda path: path.write_text("9" * 5000), "is not JSON of a model: .*digits"),
        (lambda path: path.write_text("[" * 5000), "is not JSON of a model: .*recursion"),
    ],
)
def test_unreadable_files(make: Callable[[Path], Any], word: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    make(path)
    with pytest.raises(ConfigError, match=word) as caught:
        read_hf(path)
    assert str(path) in str(caught.value)


def test_a_sparse_model_without_its_experts_is_no_dense_one() -> None:
    assert "the number of experts is missing" in problems(LLAMA, model_type="deepseek_v3")


def test_config_json_is_named_after_its_folder(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    path = tmp_path / "my-model" / "config.json"
    path.write_text(json.dumps(LLAMA))
    assert read_hf(path).name == "my-model"
