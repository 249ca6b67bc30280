"""Reads a HuggingFace `config.json`: right, or refused with the reason; never guessed.

Three guards: fields that are known to change attention or experts in a way that is not modelled
are refused by name; any other field whose name speaks of attention, experts or layers and that this
reader does not know is refused as unknown; so is a `model_type` whose code nobody has compared with
what is read here, as such a file leaves much unsaid.
Not counted, as they are less than 1e-5 of the weights: gates of shared experts, attention sinks.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simpod.errors import ConfigError
from simpod.model.hf_fields import Fields, text_part
from simpod.model.hf_quantisation import published_weights
from simpod.model.hf_refusals import refusals, window_layers
from simpod.model.spec import AttentionSpec, ModelSpec, MoeSpec

Config = Mapping[str, Any]

_QK_NORM_FAMILIES = ("qwen3", "qwen3_moe", "qwen3_vl_text", "qwen3_vl_moe_text")
_QKV_BIAS_FAMILIES = ("qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl", "qwen2_5_vl_text")
FAMILIES = (
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2_moe",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen2_5_vl_text",
    "qwen3",
    "qwen3_moe",
    "qwen3_vl_text",
    "qwen3_vl_moe_text",
    "deepseek_v2",
    "deepseek_v3",
    "kimi_k2",
    "glm4_moe",
    "gpt_oss",
    "minimax_m2",
)
"""Values of `model_type` that are read; all leave embeddings untied unless the file says so."""


_SPARSE_FAMILIES = (
    *("mixtral", "qwen2_moe", "qwen3_moe", "qwen3_vl_moe_text", "deepseek_v3", "kimi_k2"),
    *("glm4_moe", "gpt_oss", "minimax_m2"),
)
"""Families that have experts; deepseek_v2 without `n_routed_experts` is a dense model."""


def read_hf(path: Path) -> ModelSpec:
    """Read the model from a file; its name is the file's, or the folder's of a `config.json`."""
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error.reason}") from error
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise ConfigError(f"{where}: is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting
        raise ConfigError(f"{path}: is not JSON of a model: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: must be a mapping of fields, got {type(config).__name__}")
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return from_hf(config, name, str(path))


def from_hf(config: Config, name: str, source: str) -> ModelSpec:
    """Read the text part of a HuggingFace configuration.

    source: what error messages call the file; kept in the spec. Raises ConfigError with every
    problem: fields that are missing or wrong, and features that are not modelled.
    """
    text, note = text_part(config)
    problems = refusals(text) or _unknown_family(text)
    if problems:
        raise ConfigError([f"{source}: {problem}" for problem in problems])
    fields = Fields(text)
    try:
        spec = _read(fields, name, source + note)
    except ValueError as error:
        spec = None
        if not fields.problems:  # else the numbers were wrong already
            fields.problems.append(str(error))
    if fields.problems or spec is None:
        raise ConfigError([f"{source}: {problem}" for problem in fields.problems])
    return spec


def _unknown_family(config: Config) -> list[str]:
    family = config.get("model_type")
    if family in FAMILIES:
        return []
    given = "is missing" if family is None else f"unknown architecture; got {family!r}"
    return [
        f"model_type: {given}; allowed: {', '.join(FAMILIES)}; describe any other model in a YAML"
        " file as those of models/ (`simpod schema model` says what may stand in it)"
    ]


def _read(fields: Fields, name: str, source: str) -> ModelSpec:
    moe, num_moe_layers = _moe(fields)
    published = published_weights(fields)
    _check_activation(fields)
    return ModelSpec(
        name=name,
        hidden_size=fields.count("hidden_size"),
        num_layers=fields.count("num_hidden_layers"),
        num_moe_layers=num_moe_layers,
        intermediate_size=_dense_width(fields),
        vocab_size=fields.count("vocab_size"),
        attention=_attention(fields),
        moe=moe,
        num_window_layers=window_layers(fields.config),
        num_mtp_layers=_mtp_layers(fields),
        tie_word_embeddings=fields.flag("tie_word_embeddings"),
        max_position_tokens=fields.count("max_position_embeddings"),
        weight_dtype=published.weight_dtype,
        weight_group_size=published.weight_group_size,
        bf16_parts=published.bf16_parts,
        source=source,
    )


def _attention(fields: Fields) -> AttentionSpec:
    """MLA if and only if there is a `kv_lora_rank`; `head_dim` then means nothing."""
    num_heads = fields.count("num_attention_heads")
    if fields.has("kv_lora_rank"):
        if fields.flag("attention_bias"):
            fields.wrong("attention_bias", "false; biases in MLA are not counted")
        nope, rope = fields.count("qk_nope_head_dim"), fields.count("qk_rope_head_dim")
        return AttentionSpec(
            kind="mla",
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=nope + rope,
            q_lora_rank=fields.count("q_lora_rank") if fields.has("q_lora_rank") else None,
            kv_lora_rank=fields.count("kv_lora_rank"),
            qk_nope_head_dim=nope,
            qk_rope_head_dim=rope,
            v_head_dim=fields.count("v_head_dim"),
        )
    model_type = fields.model_type
    bias = fields.flag("attention_bias") or fields.flag("qkv_bias")
    has_bias = bias or model_type in _QKV_BIAS_FAMILIES
    only_qkv = fields.flag("qkv_bias") or model_type in ("glm4_moe", *_QKV_BIAS_FAMILIES)
    return AttentionSpec(
        kind="gqa",
        num_heads=num_heads,
        num_kv_heads=fields.count("num_key_value_heads", default=num_heads),
        head_dim=_head_dim(fields, num_heads),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias and not only_qkv,
        has_qk_norm=fields.flag("use_qk_norm") or model_type in _QK_NORM_FAMILIES,
        qk_norm_per_head=fields.get("qk_norm_type") != "per_layer",
        window_tokens=fields.count("sliding_window") if window_layers(fields.config) else None,
    )


def _head_dim(fields: Fields, num_heads: int) -> int:
    if fields.has("head_dim"):
        return fields.count("head_dim")
    hidden = fields.count("hidden_size")
    if hidden % num_heads:
        fields.problems.append(
            f"head_dim is missing, and hidden_size {hidden} / num_attention_heads {num_heads}"
            " is not whole"
        )
    return max(hidden // num_heads, 1)


def _moe(fields: Fields) -> tuple[MoeSpec | None, int]:
    experts = fields.first(
        "n_routed_experts", "num_experts", "num_local_experts", "num_routed_experts"
    )
    if experts is None:
        if fields.model_type in _SPARSE_FAMILIES:
            fields.problems.append(
                f"the number of experts is missing; a {fields.model_type} has n_routed_experts,"
                " num_experts or num_local_experts"
            )
        return None, 0
    num_moe_layers = _moe_layers(fields)
    if num_moe_layers == 0:
        return None, 0
    width = "moe_intermediate_size" if fields.has("moe_intermediate_size") else "intermediate_size"
    inner = fields.count(width)
    top_k = fields.first("num_experts_per_tok", "num_experts_per_token", "moe_topk")
    shared = fields.first("n_shared_experts", "num_shared_experts")
    shared_key = fields.first("shared_expert_intermediate_size", "shared_intermediate_size")
    moe = MoeSpec(
        num_experts=fields.count(experts),
        experts_per_token=fields.count(top_k or "num_experts_per_tok"),
        expert_intermediate_size=inner,
        shared_intermediate_size=fields.count(shared) * inner
        if shared
        else (fields.count(shared_key) if shared_key else 0),
        has_router_bias=fields.get("topk_method") == "noaux_tc"
        or fields.flag("use_routing_bias")
        or fields.model_type in ("glm4_moe", "gpt_oss"),
        has_expert_bias=fields.model_type == "gpt_oss",
    )
    return moe, num_moe_layers


def _moe_layers(fields: Fields) -> int:
    """How many layers are sparse, by whichever rule the file has; all of them without one."""
    num_layers = fields.count("num_hidden_layers")
    kinds = fields.get("mlp_layer_types")
    if isinstance(kinds, list):
        return _sparse_of(fields, "mlp_layer_types", kinds, {"sparse": 1, "dense": 0})
    freq = fields.get("moe_layer_freq")
    if isinstance(freq, list):
        return _sparse_of(fields, "moe_layer_freq", freq, {1: 1, 0: 0})
    first = fields.count("first_k_dense_replace", default=0, least=0)
    freq = fields.count("moe_layer_freq", default=1)
    step = fields.count("decoder_sparse_step", default=1)
    dense = fields.get("mlp_only_layers") or []
    layers = range(num_layers)
    return sum(
        i >= first and i % freq == 0 and (i + 1) % step == 0 and i not in dense for i in layers
    )


def _sparse_of(fields: Fields, key: str, kinds: list[Any], sparse: Mapping[Any, int]) -> int:
    num_layers = fields.count("num_hidden_layers")
    strange = [kind for kind in kinds if kind not in sparse]
    if strange or len(kinds) != num_layers:
        allowed = " or ".join(map(str, sparse))
        fields.problems.append(
            f"{key}: must be {num_layers} entries (num_hidden_layers), each {allowed};"
            f" got {len(kinds)}" + (f", among them {strange[0]!r}" if strange else "")
        )
        return 0
    return sum(sparse[kind] for kind in kinds)


def _dense_width(fields: Fields) -> int:
    """Purely sparse models may leave it out: the number of an expert stands in, nothing uses it."""
    is_moe = fields.has("moe_intermediate_size") and not fields.has("intermediate_size")
    if is_moe and _moe_layers(fields) == fields.count("num_hidden_layers"):
        return fields.count("moe_intermediate_size")
    return fields.count("intermediate_size")


def _mtp_layers(fields: Fields) -> int:
    if fields.get("use_mtp") is False:
        return 0
    key = fields.first("num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers")
    per_module = fields.count("mtp_transformer_layers", default=1)
    if per_module != 1:
        fields.wrong("mtp_transformer_layers", "1; deeper MTP modules are not modelled")
    return fields.count(key) if key else 0


_GATED = ("silu", "swiglu", "swish")


def _check_activation(fields: Fields) -> None:
    """Feed-forwards are counted with three matrices; a plain GELU or ReLU network has two."""
    activation = fields.first("hidden_act", "hidden_activation", "activation_function")
    if activation is None:
        fields.problems.append("hidden_act is missing: must be silu (a gated feed-forward)")
    elif fields.get(activation) not in _GATED:
        fields.wrong(
            activation, "silu: only feed-forwards with a gate (three matrices) are modelled"
        )
    if fields.flag("mlp_bias"):
        fields.wrong("mlp_bias", "false; biases of the feed-forward are not counted")
