"""Bytes of a model's weights, part by part: one answer for capacity, load time and step traffic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from simpod.model.spec import ModelSpec
from simpod.units import BYTES_PER_ELEMENT

_UNQUANTISED = BYTES_PER_ELEMENT["bf16"]

SCALE_BYTES: Final[Mapping[str, float]] = {"fp8": 4.0, "int8": 2.0, "int4": 2.0, "fp4": 1.0}
"""Scale of one group: fp32 in block-wise fp8 (DeepSeek-V3's `weight_scale_inv`), bf16 or fp16 in
compressed-tensors, AWQ and GPTQ (whose zero points, half a byte a group, are left out), 8 bits in
MXFP4 (OCP Microscaling 1.0, 5.1: e8m0) and NVFP4 (e4m3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBytes:
    """Bytes of each part, of one layer where it has layers; with the scales of groups."""

    attention_bytes: float
    norm_bytes: float
    dense_ffn_bytes: float
    expert_bytes: float  # one routed expert
    shared_expert_bytes: float
    router_bytes: float
    embedding_bytes: float
    head_bytes: float
    final_norm_bytes: float
    mtp_extra_bytes: float  # one MTP layer without its transformer layer


def bytes_per_weight(model: ModelSpec, part: str, weight_dtype: str) -> float:
    """Bytes of one number of a linear layer, its share of the group's scale included.

    `part` stays bf16 where weight_dtype is narrower and the model says that it is not quantised.
    Groups are those of the published checkpoint: weights brought to another type have a scale a
    row, which does not count.
    """
    width = BYTES_PER_ELEMENT[weight_dtype]
    if part in model.bf16_parts and width < _UNQUANTISED:
        return _UNQUANTISED
    if model.weight_group_size is None or weight_dtype != model.weight_dtype:
        return width
    return width + SCALE_BYTES.get(weight_dtype, 0.0) / model.weight_group_size


def weight_parts(model: ModelSpec, weight_dtype: str) -> WeightBytes:
    """Bytes of the parts when linear layers are held in `weight_dtype`.

    Attention projections, feed-forwards and experts take `weight_dtype` unless it is narrower than
    bf16 and the model says that the part is not quantised; biases, norms, router, embedding, head
    and the joining matrix of MTP stay bf16, as published checkpoints have them.
    """

    def linear(parameters: int, part: str) -> float:
        return parameters * bytes_per_weight(model, part, weight_dtype)

    return WeightBytes(
        attention_bytes=linear(model.attention_matrix_parameters, "attention")
        + model.attention_vector_parameters * _UNQUANTISED,
        norm_bytes=model.norm_parameters * _UNQUANTISED,
        dense_ffn_bytes=linear(model.dense_ffn_parameters, "dense_ffn"),
        expert_bytes=linear(model.expert_parameters, "experts"),
        shared_expert_bytes=linear(model.shared_expert_parameters, "shared_experts"),
        router_bytes=model.router_parameters * _UNQUANTISED,
        embedding_bytes=model.embedding_parameters * _UNQUANTISED,
        head_bytes=model.head_parameters * _UNQUANTISED,
        final_norm_bytes=model.hidden_size * _UNQUANTISED,
        mtp_extra_bytes=model.mtp_extra_parameters * _UNQUANTISED,
    )


def weight_bytes(model: ModelSpec, weight_dtype: str | None = None, mtp_layers: int = 0) -> float:
    """Bytes of the whole model, all ranks together, with `mtp_layers` MTP layers.

    weight_dtype: of the linear layers; by default as published.
    """
    parts = weight_parts(model, weight_dtype or model.weight_dtype)
    num_experts = model.moe.num_experts if model.moe else 0
    sparse = parts.router_bytes + parts.shared_expert_bytes + num_experts * parts.expert_bytes
    every = parts.attention_bytes + parts.norm_bytes
    mtp_ffn = sparse if model.moe else parts.dense_ffn_bytes
    return (
        model.num_layers * every
        + model.num_dense_layers * parts.dense_ffn_bytes
        + model.num_moe_layers * sparse
        + parts.embedding_bytes
        + parts.head_bytes
        + parts.final_norm_bytes
        + mtp_layers * (every + mtp_ffn + parts.mtp_extra_bytes)
    )
