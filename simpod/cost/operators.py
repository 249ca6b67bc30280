"""The operators of a transformer: counts of one die in one layer, no seconds.

A matrix product of [tokens, rows] by [rows, cols] is 2 * tokens * rows * cols operations. It reads
its weights once, its input in the data type of the product and writes its output in bf16.
Counts hold for one die of a rank of `layout.tp` dies, which all see the rank's tokens.
`kernels` are the launches of a fused production implementation (vLLM, CANN), counted per operator.
"""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from simpod.cost.layout import Layout
from simpod.cost.work import Amount, Work
from simpod.model.spec import AttentionSpec, ModelSpec
from simpod.model.weights import bytes_per_weight
from simpod.units import BYTES_PER_ELEMENT, PRODUCT_DTYPE

BF16_BYTES = BYTES_PER_ELEMENT["bf16"]
FP32_BYTES = BYTES_PER_ELEMENT["fp32"]

NORM_FLOPS = 10  # square, sum, scale, weight, add and conversions, per element of a fused add-norm
ROPE_FLOPS = 6  # two products and a sum for each half, per rotated element
ACTIVATION_FLOPS = 8  # sigmoid, two products, conversions, per element of silu(gate) * up
SAMPLING_FLOPS = 10  # temperature, softmax and search, per logit
SAMPLING_PASSES = 3  # reads of the fp32 logits
SAMPLING_KERNELS = 5


@dataclass(frozen=True, slots=True)
class Matrix:
    """`count` products a token (one per head, if batched) of [rows, cols] on one die."""

    rows: int
    cols: int
    count: int = 1

    @property
    def parameters(self) -> int:
        """Weights on this die."""
        return self.rows * self.cols * self.count


def part_dtype(model: ModelSpec, part: str, weight_dtype: str) -> str:
    """Data type in which a part is held and multiplied (as `model.weights` counts it)."""
    narrower = BYTES_PER_ELEMENT[weight_dtype] < BF16_BYTES
    return "bf16" if narrower and part in model.bf16_parts else weight_dtype


def input_bytes(dtype: str) -> float:
    """Of one activation that enters a product: 8 bits with products in 8 bits, else 16 bits."""
    return 1.0 if BYTES_PER_ELEMENT[PRODUCT_DTYPE.get(dtype, dtype)] == 1.0 else BF16_BYTES


def matmul(
    tokens: Amount, matrix: Matrix, dtype: str = "bf16", weight_bytes: float | None = None
) -> Work:
    """One product of [tokens, rows] by [rows, cols], or `count` of them in one kernel.

    weight_bytes: of one weight, where scales add to those of its data type.
    """
    each = BYTES_PER_ELEMENT[dtype] if weight_bytes is None else weight_bytes
    flops_per_row = 2.0 * matrix.parameters
    activations = matrix.count * (matrix.rows * input_bytes(dtype) + matrix.cols * BF16_BYTES)
    return Work(
        unit="matmul",
        flops=tokens * flops_per_row,
        hbm_bytes=tokens * activations + matrix.parameters * each,
        row_flops=flops_per_row,
        dtype=dtype,
    )


def heads_per_die(attention: AttentionSpec, tp: int) -> int:
    """Query heads that one die computes."""
    return ceil(attention.num_heads / tp)


def kv_heads_per_die(attention: AttentionSpec, tp: int) -> int:
    """KV heads that one die holds: with more dies than heads, dies hold copies (gqa only)."""
    return ceil(attention.num_kv_heads / tp)


def kv_elements_per_die(attention: AttentionSpec, tp: int) -> int:
    """Cached numbers of one token in one layer on each die.

    gqa: keys and values of its KV heads. mla: the whole latent, copied to every die of the rank.
    """
    if attention.kind == "mla":
        return attention.kv_elements_per_token
    return 2 * kv_heads_per_die(attention, tp) * attention.head_dim


def attention_matrices(model: ModelSpec, tp: int) -> tuple[Matrix, ...]:
    """The projections of one layer on one die.

    mla: the down-projections of query and latent are copied to every die, all else is split.
    The up-projection of the latent is counted in its absorbed form, [nope, kv_lora] to the left and
    [kv_lora, v] to the right of attention (DeepSeek-V2, section 2.1.2): the same weights and
    operations a token as the plain form that prefill runs.
    """
    a, hidden = model.attention, model.hidden_size
    heads = heads_per_die(a, tp)
    if a.kind == "gqa":
        qkv = (heads + 2 * kv_heads_per_die(a, tp)) * a.head_dim
        return Matrix(hidden, qkv), Matrix(heads * a.head_dim, hidden)
    latent = a.kv_lora_rank + a.qk_rope_head_dim
    queries = heads * a.head_dim
    if a.q_lora_rank is None:
        down: tuple[Matrix, ...] = (Matrix(hidden, queries + latent),)
    else:
        down = Matrix(hidden, a.q_lora_rank + latent), Matrix(a.q_lora_rank, queries)
    up = (
        Matrix(a.qk_nope_head_dim, a.kv_lora_rank, heads),
        Matrix(a.kv_lora_rank, a.v_head_dim, heads),
    )
    return *down, *up, Matrix(heads * a.v_head_dim, hidden)


def attention_projections(model: ModelSpec, layout: Layout, tokens: Amount) -> tuple[Work, ...]:
    """Everything in attention that multiplies weights.

    Input and output of the absorbed matrices stay on chip or are counted with attention (queries).
    """
    dtype = part_dtype(model, "attention", layout.weight_dtype)
    each = bytes_per_weight(model, "attention", layout.weight_dtype)
    works = []
    for matrix in attention_matrices(model, layout.tp):
        work = matmul(tokens, matrix, dtype, each)
        if matrix.count > 1:
            work = replace(work, hbm_bytes=matrix.parameters * each)
        works.append(work)
    return tuple(works)


def decode_attention(model: ModelSpec, layout: Layout, kv_tokens: Amount, queries: Amount) -> Work:
    """Attention of `queries` new tokens over `kv_tokens` cached ones, summed over sequences.

    A sequence's `layout.tokens_per_decode` queries share one pass over its cache; the masked corner
    among them is computed, as kernels do. gqa: scores and values, 4 * head_dim operations a pair
    and head. mla (absorbed): 2 * (2 * kv_lora + rope); the latent is read once for all heads.
    """
    a = model.attention
    heads = heads_per_die(a, layout.tp)
    cached = kv_elements_per_die(a, layout.tp) * BYTES_PER_ELEMENT[layout.kv_dtype]
    if a.kind == "mla":
        key, value = a.kv_lora_rank + a.qk_rope_head_dim, a.kv_lora_rank
    else:
        key = value = a.head_dim
    pairs = kv_tokens * layout.tokens_per_decode
    return Work(
        unit="decode_attention",
        flops=pairs * (2.0 * heads * (key + value)),
        hbm_bytes=kv_tokens * cached + queries * (heads * (key + value) * BF16_BYTES),
        kernels=2,  # split over the cache, then merged
    )


def prefill_attention(
    model: ModelSpec, layout: Layout, pairs: Amount, kv_tokens: Amount, queries: Amount
) -> Work:
    """Attention of prompt chunks: `pairs` of query and key under the causal mask.

    kv_tokens: tokens whose KV is read (resident and chunk); queries: tokens of the chunks.
    mla runs un-absorbed (keys nope + rope wide, values v wide), so the latents of resident tokens
    are projected up again, written and read in bf16.
    """
    a = model.attention
    heads = heads_per_die(a, layout.tp)
    key, value = a.head_dim, a.value_dim
    flops = pairs * (2.0 * heads * (key + value))
    hbm_bytes = queries * (heads * (key + value) * BF16_BYTES) + kv_tokens * (
        kv_elements_per_die(a, layout.tp) * BYTES_PER_ELEMENT[layout.kv_dtype]
    )
    if a.kind == "mla":
        up = a.kv_lora_rank * heads * (a.qk_nope_head_dim + value)
        flops = flops + (kv_tokens - queries) * (2.0 * up)
        hbm_bytes = hbm_bytes + kv_tokens * (2 * heads * (key + value) * BF16_BYTES)
    return Work(unit="prefill_attention", flops=flops, hbm_bytes=hbm_bytes)


def layer_elementwise(model: ModelSpec, layout: Layout, tokens: Amount) -> Work:
    """Two fused add-norms, rotary embedding and the write into the cache; 8-bit: two quantisations.

    A fused add-norm reads input and residual and writes both: 4 passes over the hidden state.
    """
    a = model.attention
    rotated = (heads_per_die(a, layout.tp) + kv_heads_per_die(a, layout.tp)) * a.head_dim
    if a.kind == "mla":
        rotated = (heads_per_die(a, layout.tp) + 1) * a.qk_rope_head_dim + a.kv_lora_rank
    cached = kv_elements_per_die(a, layout.tp) * BYTES_PER_ELEMENT[layout.kv_dtype]
    elements = 8 * model.hidden_size + 2 * rotated
    quantised = input_bytes(layout.weight_dtype) == 1.0
    return Work(
        unit="vector",
        flops=tokens * (2.0 * NORM_FLOPS * model.hidden_size + ROPE_FLOPS * rotated),
        hbm_bytes=tokens * (elements * BF16_BYTES + cached),
        kernels=6 if quantised else 4,
    )


def gated_ffn(
    tokens: Amount, hidden: int, intermediate: int, dtype: str, weight_bytes: float
) -> tuple[Work, Work, Work]:
    """Gate and up in one product, silu(gate) * up, down. intermediate: columns on this die."""
    return (
        matmul(tokens, Matrix(hidden, 2 * intermediate), dtype, weight_bytes),
        activation(tokens, intermediate),
        matmul(tokens, Matrix(intermediate, hidden), dtype, weight_bytes),
    )


def activation(rows: Amount, width: int) -> Work:
    """silu(gate) * up of [rows, 2 * width]."""
    return Work(
        unit="vector",
        flops=rows * float(ACTIVATION_FLOPS * width),
        hbm_bytes=rows * (3 * width * BF16_BYTES),
    )


def dense_ffn(model: ModelSpec, layout: Layout, tokens: Amount) -> tuple[Work, ...]:
    """Feed-forward of a dense layer, split over the rank's dies."""
    dtype = part_dtype(model, "dense_ffn", layout.weight_dtype)
    each = bytes_per_weight(model, "dense_ffn", layout.weight_dtype)
    width = ceil(model.intermediate_size / layout.tp)
    return gated_ffn(tokens, model.hidden_size, width, dtype, each)


def shared_experts(model: ModelSpec, layout: Layout, tokens: Amount) -> tuple[Work, ...]:
    """Shared experts, which each rank runs on its own tokens, split over its dies."""
    if model.moe is None or model.moe.shared_intermediate_size == 0:
        return ()
    dtype = part_dtype(model, "shared_experts", layout.weight_dtype)
    width = ceil(model.moe.shared_intermediate_size / layout.tp)
    each = bytes_per_weight(model, "shared_experts", layout.weight_dtype)
    return gated_ffn(tokens, model.hidden_size, width, dtype, each)


def router(model: ModelSpec, tokens: Amount) -> tuple[Work, ...]:
    """Scores of all experts in bf16 and the choice among them, on every die of the rank."""
    if model.moe is None:
        return ()
    experts = model.moe.num_experts
    scores = matmul(tokens, Matrix(model.hidden_size, experts))
    choice = Work(
        unit="vector",
        flops=tokens * float(SAMPLING_FLOPS * experts),
        hbm_bytes=tokens * (2 * experts * FP32_BYTES),
    )
    return scores, choice


def expert_slots(model: ModelSpec, layout: Layout) -> int:
    """Expert slots of one die; ep * slots beyond num_experts hold second copies."""
    return ceil(model.moe.num_experts / layout.ep) if model.moe else 0


def distinct_experts_hit(model: ModelSpec, layout: Layout, group_tokens: Amount) -> Amount:
    """Expected number of a die's expert slots that get at least one token, routing balanced.

    Each token visits a given slot with probability k / (ep * slots), independently of others.
    """
    if model.moe is None:
        return 0.0
    slots = expert_slots(model, layout)
    missed = 1.0 - model.moe.experts_per_token / (layout.ep * slots)
    return slots * (1.0 - np.power(missed, group_tokens))


def routed_experts(model: ModelSpec, layout: Layout, group_tokens: Amount) -> tuple[Work, ...]:
    """Grouped products of one die for all tokens of the group, spread evenly.

    Only the weights of experts that are hit are read.
    """
    if model.moe is None:
        return ()
    dtype = part_dtype(model, "experts", layout.weight_dtype)
    each = bytes_per_weight(model, "experts", layout.weight_dtype)
    width = ceil(model.moe.expert_intermediate_size / layout.moe_tp)
    copies = group_tokens * (model.moe.experts_per_token / layout.ep)
    hit = distinct_experts_hit(model, layout, group_tokens)

    def grouped(rows: int, cols: int) -> Work:
        one = matmul(0.0, Matrix(rows, cols), dtype, each)
        activations = rows * input_bytes(dtype) + cols * BF16_BYTES
        return Work(
            unit="grouped_matmul",
            flops=copies * one.row_flops,
            hbm_bytes=copies * activations + hit * one.hbm_bytes,
            row_flops=hit * one.row_flops,
            dtype=dtype,
        )

    up, down = grouped(model.hidden_size, 2 * width), grouped(width, model.hidden_size)
    return up, activation(copies, width), down


def embedding(model: ModelSpec, tokens: Amount) -> Work:
    """Look-up of [tokens, hidden] rows."""
    return Work(unit="vector", flops=0.0, hbm_bytes=tokens * (2 * model.hidden_size * BF16_BYTES))


def lm_head(model: ModelSpec, layout: Layout, rows: Amount) -> Work:
    """Logits of the rows that sample, vocabulary split over the rank's dies."""
    return matmul(rows, Matrix(model.hidden_size, ceil(model.vocab_size / layout.tp)))


def sampling(model: ModelSpec, rows: Amount) -> Work:
    """Softmax and choice over gathered fp32 logits."""
    return Work(
        unit="vector",
        flops=rows * float(SAMPLING_FLOPS * model.vocab_size),
        hbm_bytes=rows * (SAMPLING_PASSES * model.vocab_size * FP32_BYTES),
        kernels=SAMPLING_KERNELS,
    )


def mtp_join(model: ModelSpec, tokens: Amount) -> Work:
    """The MTP layer's product of [embedding, hidden state] by [2 * hidden, hidden], in bf16."""
    return matmul(tokens, Matrix(2 * model.hidden_size, model.hidden_size))
