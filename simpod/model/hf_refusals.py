"""Features of HuggingFace configurations that are refused, each with its reason."""

import re
from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

_REASONS = {
    "full_attention_interval": "hybrid linear attention: only some layers have a KV cache",
    "linear_attn_config": "hybrid linear attention: only some layers have a KV cache",
    "hybrid_override_pattern": "hybrid of attention and state-space layers",
    "layers_block_type": "hybrid of attention and other layers",
    "index_topk": "sparse attention over selected tokens (DSA)",
    "compress_ratios": "compressed attention",
    "hc_mult": "hyper-connections: several residual streams",
    "attention_chunk_size": "chunked local attention",
    "interleave_moe_layer_step": "interleaved dense and sparse layers of unlike width (Llama 4)",
    "latent_moe_use_norm": "experts in a latent space",
    "routed_expert_hidden_size": "experts in a latent space",
    "attn_output_gate": "gated attention output",
    "num_kv_shared_layers": "layers that share a KV cache",
}
"""Fields that are refused whenever they are set (not null, false or 0)."""

_READ = re.compile(
    r"(attention|qkv|mlp|use_routing)_bias|num_attention_heads|layer_types|max_window_layers"
    r"|(use_)?sliding_window|(kv|q)_lora_rank|(use_)?qk_norm(_type)?|qk_(nope_|rope_)?head_dim"
    r"|(n_routed|n_shared|num|num_local|num_routed|num_shared)_experts"
    r"|num_experts_per_tok(en)?|experts_per_token|moe_topk|moe_intermediate_size|moe_layer_freq"
    r"|shared_(expert_)?intermediate_size|mlp_layer_types|mlp_only_layers|decoder_sparse_step"
    r"|use_mtp|num_mtp_modules|mtp_transformer_layers|mtp_num_hidden_layers|attn_type_list"
)
"""Suspicious names that this reader understands."""

_HARMLESS = re.compile(
    r".*dropout|.*_pdrop|output_.*|_?attn_implementation.*|add_cross_attention"
    r"|cross_attention_hidden_size|num_expert_group|moe_router_.*|moe_renormalize|norm_topk_prob"
    r"|router_.*|chunk_size_feed_forward|mtp_use_dedicated_embeddings"
    r"|expert_dtype|.*_loss_coef"
)
"""Suspicious names that say nothing of cost."""

_SUSPICIOUS = re.compile(
    r"attn|attention|window|linear_|mamba|ssm|conv_|compress|latent|index|sparse|lora|chunk|bias|qk"
    r"|layer_types|block_type|moe_|expert|mtp|_moe|hybrid|cross|share|multi_query|per_layer|hash"
)


def refusals(config: Config) -> list[str]:
    """Every reason why this configuration (its text part) can't be priced; empty if it can."""
    found = [
        f"{key}: not modelled: {reason}; got {_short(config[key])}"
        for key, reason in _REASONS.items()
        if config.get(key)
    ]
    found += [*_layer_types(config), *_sliding_window(config), *_other_shapes(config)]
    return found or _unknown(config)


WINDOWED = "sliding_attention"


def window_layers(config: Config) -> int:
    """Layers with a sliding window, by `layer_types`; it means nothing if the window is off."""
    return (config.get("layer_types") or []).count(WINDOWED) if _has_window(config) else 0


def _layer_types(config: Config) -> list[str]:
    kinds = config.get("layer_types") or []
    known = {"full_attention", WINDOWED} if _has_window(config) else {"full_attention"}
    others = sorted({str(kind) for kind in kinds} - known)
    if not others:
        return []
    count = sum(kind in known for kind in kinds)
    return [
        f"layer_types: not modelled: layers without full attention; got {', '.join(others)}"
        f" in {len(kinds) - count} of {len(kinds)} layers"
    ]


def _has_window(config: Config) -> bool:
    """A window counts as in use unless `use_sliding_window` says otherwise (as in Qwen)."""
    window = config.get("sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return False
    reach = config.get("max_position_embeddings")
    return not (isinstance(window, int) and isinstance(reach, int) and window >= reach)


def _sliding_window(config: Config) -> list[str]:
    """Without `layer_types`, which layers have the window is each architecture's own rule."""
    if not _has_window(config) or window_layers(config):
        return []
    window = config.get("sliding_window")
    return [f"sliding_window: not modelled without layer_types; got {window!r}"]


def _other_shapes(config: Config) -> list[str]:
    found = [
        f"{key}: must be false: only decoders are modelled; got true"
        for key in ("is_encoder_decoder", "add_cross_attention")
        if config.get(key) is True
    ]
    types = config.get("attn_type_list")
    if types and any(kind != 1 for kind in types):
        found.append(f"attn_type_list: not modelled: other than 1 (full); got {_short(types)}")
    return found


def _unknown(config: Config) -> list[str]:
    """Fields that speak of attention, experts or layers and that nothing here reads."""
    return [
        f"{key}: unknown to this reader and may change the cost; got {_short(value)}"
        for key, value in config.items()
        if value
        and not key.startswith("_")
        and _SUSPICIOUS.search(key)
        and not _READ.fullmatch(key)
        and not _HARMLESS.fullmatch(key)
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
