"""Where the memory of a die goes, and how many tokens of KV cache are left."""

from dataclasses import dataclass, replace
from math import ceil

from simpod.cost.collectives import (
    combine_message_bytes,
    dispatch_message_bytes,
    kv_bytes_per_token,
    meets_in_layers,
    window_kv_bytes,
)
from simpod.cost.layout import Layout
from simpod.cost.memory_rules import MemoryLimits
from simpod.cost.operators import (
    BF16_BYTES,
    attention_matrices,
    copies_sent,
    expert_slots,
    experts_per_token,
    heads_per_die,
    latent_elements,
)
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec
from simpod.model.weights import WeightBytes, bytes_per_weight, weight_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """One die. A rank's KV cache lies on all its dies alike, so the room of one die decides."""

    attention_bytes: float
    dense_ffn_bytes: float
    expert_bytes: float  # routed
    shared_expert_bytes: float
    other_bytes: float  # embedding, head, norms, routers
    mtp_bytes: float
    activation_bytes: float
    engine_bytes: float  # contexts and communicators
    exchange_bytes: float  # dispatch and combine buffers
    staging_bytes: float  # experts' weights that wait for their slots to be free
    window_kv_bytes: float  # KV of layers with a sliding window, of all sequences
    kv_bytes_per_token: float  # on one die
    kv_capacity_tokens: int  # of one rank; 0 if weights and buffers do not fit
    hbm_bytes: float
    seen_bytes: float  # what the driver leaves to programs
    usable_bytes: float  # by memory_frac: of all of it, or all but KV and a share of the rest

    @property
    def weight_bytes(self) -> float:
        """All weights on this die."""
        layers = self.attention_bytes + self.dense_ffn_bytes
        experts = self.expert_bytes + self.shared_expert_bytes
        return layers + experts + self.other_bytes + self.mtp_bytes

    @property
    def buffer_bytes(self) -> float:
        """Everything else that does not grow with the context."""
        engine = self.activation_bytes + self.engine_bytes
        return engine + self.exchange_bytes + self.staging_bytes + self.window_kv_bytes

    @property
    def kv_bytes(self) -> float:
        """Left for the KV cache; never negative."""
        return max(0.0, self.usable_bytes - self.weight_bytes - self.buffer_bytes)


def plan_memory(
    model: ModelSpec,
    hardware: HardwareProfile,
    layout: Layout,
    limits: MemoryLimits,
) -> MemoryPlan:
    """Divide a die's memory. Limits are per rank, as in a scheduler's configuration."""
    rules, max_num_seqs = limits.rules, limits.max_num_seqs
    parts = weight_parts(model, layout.weight_dtype)
    attention = _attention_bytes(model, layout, parts)
    experts = 0.0 if layout.expert_dies else _routed_expert_bytes(model, layout, parts)
    shared = _shared_expert_bytes(layout, parts)
    ends = parts.embedding_bytes / layout.ffn_tp + parts.head_bytes / layout.tp
    routers = model.num_moe_layers * parts.router_bytes
    plan = MemoryPlan(
        attention_bytes=model.num_layers * attention,
        dense_ffn_bytes=model.num_dense_layers * parts.dense_ffn_bytes / layout.ffn_tp,
        expert_bytes=model.num_moe_layers * experts,
        shared_expert_bytes=model.num_moe_layers * shared,
        other_bytes=ends + parts.final_norm_bytes + routers + model.num_layers * parts.norm_bytes,
        mtp_bytes=_mtp_bytes(model, layout, parts),
        activation_bytes=_activation_bytes(model, layout, limits),
        engine_bytes=rules.context_bytes + (rules.link_bytes if layout.dies > 1 else 0.0),
        exchange_bytes=_exchange_bytes(model, layout, limits.max_step_tokens, max_num_seqs),
        staging_bytes=_staging_bytes(layout, parts, limits.staging_slots),
        window_kv_bytes=max_num_seqs * window_kv_bytes(model, layout),
        kv_bytes_per_token=kv_bytes_per_token(model, layout),
        kv_capacity_tokens=0,
        hbm_bytes=hardware.die.hbm_bytes,
        seen_bytes=hardware.die.hbm_bytes * rules.visible_frac,
        usable_bytes=hardware.die.hbm_bytes * rules.visible_frac * limits.memory_frac,
    )
    if rules.is_frac_of_free:
        beside = (1.0 - limits.memory_frac) * (plan.weight_bytes + plan.buffer_bytes)
        plan = replace(plan, usable_bytes=plan.usable_bytes + beside)
    return replace(plan, kv_capacity_tokens=int(plan.kv_bytes // plan.kv_bytes_per_token))


def _attention_bytes(model: ModelSpec, layout: Layout, parts: WeightBytes) -> float:
    """One layer: split by head; what has no heads (mla's down-projections, norms) is copied.

    Staged: so is the output projection, which every die applies to tokens of its own.
    """
    if layout.tp == 1:
        return parts.attention_bytes
    width = bytes_per_weight(model, "attention", layout.weight_dtype)
    held = attention_matrices(model, layout.tp, is_staged=layout.is_staged)
    matrices = sum(m.parameters for m in held)
    return matrices * width + model.attention_vector_parameters * BF16_BYTES


def _routed_expert_bytes(model: ModelSpec, layout: Layout, parts: WeightBytes) -> float:
    """One sparse layer: slots of this die, each cut over `moe_tp` dies."""
    return expert_slots(model, layout) * parts.expert_bytes / layout.moe_tp


def expert_die_bytes(model: ModelSpec, layout: Layout, staging_slots: int = 0) -> float:
    """Weights on a die for experts alone, which holds neither attention nor KV; 0: there is none.

    MTP layers have as many slots as others.
    """
    if not layout.expert_dies or model.moe is None:
        return 0.0
    one = weight_parts(model, layout.weight_dtype).expert_bytes
    layers = model.num_moe_layers + min(layout.mtp_layers, model.num_mtp_layers)
    return (layers * expert_slots(model, layout) + staging_slots) * one


def _staging_bytes(layout: Layout, parts: WeightBytes, slots: int) -> float:
    """On dies that hold experts."""
    return (
        0.0 if layout.expert_dies or layout.ep == 1 else slots * parts.expert_bytes / layout.moe_tp
    )


def _shared_expert_bytes(layout: Layout, parts: WeightBytes) -> float:
    """One sparse layer, on every die; copies on dies of their own are among the slots."""
    return 0.0 if layout.shared_expert_dies else parts.shared_expert_bytes / layout.ffn_tp


def _mtp_bytes(model: ModelSpec, layout: Layout, parts: WeightBytes) -> float:
    """Loaded MTP layers; drafts beyond the checkpoint's layers use the last one again."""
    if model.moe:
        routed = 0.0 if layout.expert_dies else _routed_expert_bytes(model, layout, parts)
        ffn = routed + parts.router_bytes + _shared_expert_bytes(layout, parts)
    else:
        ffn = parts.dense_ffn_bytes / layout.ffn_tp
    layer = _attention_bytes(model, layout, parts) + parts.norm_bytes + ffn + parts.mtp_extra_bytes
    return min(layout.mtp_layers, model.num_mtp_layers) * layer


def _activation_bytes(model: ModelSpec, layout: Layout, limits: MemoryLimits) -> float:
    """Live at once at the widest point of a layer, and the fp32 logits of the rows that sample.

    bf16: residual and hidden state, and the larger of attention's (queries, keys, values, output)
    and the gated feed-forward's temporaries (gate, up, product). Experts work in pieces, or keep
    their outputs until they are summed, as `rules` say. Staged: attention has the latents of all
    tokens, everything else those of the die's own tokens.
    """
    rules = limits.rules
    if not rules.has_activations:
        return 0.0
    a, tp = model.attention, layout.tp
    attention = heads_per_die(a, tp) * (3 * a.head_dim + a.value_dim)
    ffn = 3 * ceil(model.intermediate_size / tp) if model.num_dense_layers else 0
    hidden = 2.0 * model.hidden_size
    if layout.is_staged:
        hidden /= tp
        attention += latent_elements(model)
    per_token = (hidden + max(attention, ffn)) * BF16_BYTES
    rows = limits.max_num_seqs * layout.tokens_per_decode
    if rules.has_expert_buffers and model.moe is not None:
        per_token += experts_per_token(model, layout) * model.hidden_size * BF16_BYTES
    return limits.max_step_tokens * per_token + rows * model.vocab_size * rules.bytes_per_logit


def _exchange_bytes(
    model: ModelSpec, layout: Layout, max_step_tokens: int, max_num_seqs: int
) -> float:
    """Buffers of dispatch and combine; the decode and the prefill kernels use the same memory.

    Attention dies with the experts elsewhere: two buffers of what they send and get back.
    Decode (CloudMatrix-Infer 4.2.1): ranks * local batch * min(k, experts of a die) messages are
    set aside for the worst case. Prefill: two buffers of what a balanced step brings to a die.
    """
    if model.moe is None or not meets_in_layers(model, layout):
        return 0.0
    top_k = copies_sent(model, layout)
    message = dispatch_message_bytes(model, layout) + combine_message_bytes(model)
    seqs = min(max_num_seqs * layout.tokens_per_decode, max_step_tokens)
    decode_tokens = ceil(seqs / layout.tp)
    if layout.expert_dies:
        return float(2 * decode_tokens * top_k * message)
    decode = layout.dies * decode_tokens * min(top_k, expert_slots(model, layout)) * message
    prefill = 2 * ceil(max_step_tokens / layout.tp) * top_k * message
    return max(decode, prefill)
