"""The operators of a transformer: counts of one die in one layer, no seconds.

Counts hold for one die of a rank of `layout.tp` dies, which all see the rank's tokens; staged
(`Layout.is_staged`) each die has its share of them but between the down-projections and the output.
`kernels` are the launches of a fused production implementation (vLLM, CANN), counted per operator.
"""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from simpod.cost.kernels.pricer import ExpertWork, mla_dims
from simpod.cost.layout import Layout
from simpod.cost.work import Amount, Floats, Pass, Product, Work
from simpod.model.spec import AttentionSpec, ModelSpec
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


def product(tokens: Amount, matrix: Matrix, dtype: str = "bf16") -> Product:
    """One product with a matrix, or with `count` of them side by side in one kernel."""
    return Product(
        tokens=tokens,
        n=matrix.cols * matrix.count,
        k=matrix.rows,
        dtype=dtype,
        is_per_head=matrix.count > 1,
    )


def heads_per_die(attention: AttentionSpec, tp: int) -> int:
    """Query heads that one die computes."""
    return ceil(attention.num_heads / tp)


def kv_heads_per_die(attention: AttentionSpec, tp: int) -> int:
    """KV heads that one die holds: with more dies than heads, dies hold copies (gqa only)."""
    return ceil(attention.num_kv_heads / tp)


def cached_bytes_per_die(attention: AttentionSpec, tp: int, kv_dtype: str) -> float:
    """Cache of one token in one layer on each die.

    gqa: keys and values of its KV heads. mla: the whole latent, copied to every die of the rank.
    """
    if attention.kind == "mla":
        return mla_dims(attention).cached_bytes(kv_dtype)
    elements = 2 * kv_heads_per_die(attention, tp) * attention.head_dim
    return elements * BYTES_PER_ELEMENT[kv_dtype]


def own_tokens(layout: Layout, tokens: Amount) -> Amount:
    """Of a rank's tokens, those that a die works on outside attention; staged: of the fullest."""
    return np.ceil(tokens / layout.tp) if layout.is_staged else tokens


def attention_matrices(model: ModelSpec, tp: int, *, is_staged: bool = False) -> tuple[Matrix, ...]:
    """The projections of one layer on one die, in the order in which they run.

    mla: the down-projections of query and latent are copied to every die, all else is split;
    is_staged: the output projection, the last, is copied as well.
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
    joined = a.num_heads if is_staged else heads
    return *down, *up, Matrix(joined * a.v_head_dim, hidden)


def projection_names(attention: AttentionSpec) -> tuple[str, ...]:
    """Of `attention_matrices`, in their order."""
    if attention.kind == "gqa":
        return "queries, keys, values", "output"
    queries = () if attention.q_lora_rank is None else ("queries up",)
    return "latents down", *queries, "keys absorbed", "values up", "output"


def attention_projections(
    model: ModelSpec, layout: Layout, tokens: Amount, *, is_fused: bool = False
) -> tuple[Product, ...]:
    """Everything in attention that multiplies weights, for `tokens` of the rank.

    Staged: first and last on the die's own tokens, those between on all of them.
    is_fused: those before attention are one kernel (`has_prolog`), and those per head are bf16: so
    CANN's MlaProlog takes them, and CANN's recipes quantise all projections but these.
    """
    dtype = part_dtype(model, "attention", layout.weight_dtype)
    first, *between, last = attention_matrices(model, layout.tp, is_staged=layout.is_staged)
    own = own_tokens(layout, tokens)
    middle = [product(tokens, matrix, dtype) for matrix in between]
    if is_fused:
        middle = [replace(work, dtype="bf16") if work.is_per_head else work for work in middle]
        middle[:-1] = [replace(work, is_joined=True) for work in middle[:-1]]
    return product(own, first, dtype), *middle, product(own, last, dtype)


PROLOG_TOKENS = 1024  # most that the kernel takes (sgl-kernel-npu, mla_preprocess)


def has_prolog(model: ModelSpec, layout: Layout) -> bool:
    """mla: what comes before attention can be one kernel, as dies exchange nothing there."""
    return model.attention.kind == "mla" and not layout.is_staged


def latent_elements(model: ModelSpec) -> int:
    """mla: what the down-projections make of a token, of query and key-value latent together."""
    a = model.attention
    return (a.q_lora_rank or 0) + a.kv_lora_rank + a.qk_rope_head_dim


def latent_gather_bytes(model: ModelSpec, tokens: Amount) -> Amount:
    """Staged: latents of all `tokens` of a rank in bf16, which every die gets (all-gather)."""
    return tokens * (latent_elements(model) * BF16_BYTES)


def head_exchange_bytes(model: ModelSpec, layout: Layout, tokens: Amount) -> Amount:
    """Staged: what a die sends (all-to-all) of attention's output, its heads of all `tokens`.

    In bf16: the output projection's input is quantised by token, over all heads.
    """
    a = model.attention
    return tokens * (heads_per_die(a, layout.tp) * a.v_head_dim * BF16_BYTES)


def resident_projection(model: ModelSpec, layout: Layout, tokens: Amount) -> tuple[Product, ...]:
    """mla: latents of resident tokens are projected up again for a chunk that runs un-absorbed."""
    a = model.attention
    if a.kind != "mla":
        return ()
    up = heads_per_die(a, layout.tp) * (a.qk_nope_head_dim + a.v_head_dim)
    dtype = part_dtype(model, "attention", layout.weight_dtype)
    return (product(tokens, Matrix(a.kv_lora_rank, up), dtype),)


def gated_ffn(
    tokens: Amount, hidden: int, intermediate: int, dtype: str
) -> tuple[Product, Pass, Product]:
    """Gate and up in one product, silu(gate) * up, down. intermediate: columns on this die."""
    return (
        product(tokens, Matrix(hidden, 2 * intermediate), dtype),
        activation(tokens, intermediate),
        product(tokens, Matrix(intermediate, hidden), dtype),
    )


def activation(rows: Amount, width: int) -> Pass:
    """silu(gate) * up of [rows, 2 * width]."""
    return Pass(
        flops=rows * float(ACTIVATION_FLOPS * width),
        hbm_bytes=rows * (3 * width * BF16_BYTES),
    )


def dense_ffn(model: ModelSpec, layout: Layout, tokens: Amount) -> tuple[Work, ...]:
    """Feed-forward of a dense layer, split over the rank's dies by columns, or by tokens."""
    dtype = part_dtype(model, "dense_ffn", layout.weight_dtype)
    tokens = own_tokens(layout, tokens)
    width = ceil(model.intermediate_size / layout.ffn_tp)
    return gated_ffn(tokens, model.hidden_size, width, dtype)


def shared_experts(model: ModelSpec, layout: Layout, tokens: Amount) -> tuple[Work, ...]:
    """Shared experts, which each rank runs on its own tokens, split over its dies likewise."""
    if model.moe is None or model.moe.shared_intermediate_size == 0:
        return ()
    if layout.shared_expert_dies:
        return ()  # reached by dispatch, in slots like those of routed experts
    dtype = part_dtype(model, "shared_experts", layout.weight_dtype)
    width = ceil(model.moe.shared_intermediate_size / layout.ffn_tp)
    return gated_ffn(own_tokens(layout, tokens), model.hidden_size, width, dtype)


def router(model: ModelSpec, tokens: Amount) -> tuple[Work, ...]:
    """Scores of all experts in bf16 and the choice among them, of a die's `tokens`."""
    if model.moe is None:
        return ()
    experts = model.moe.num_experts
    scores = product(tokens, Matrix(model.hidden_size, experts))
    choice = Pass(
        flops=tokens * float(SAMPLING_FLOPS * experts),
        hbm_bytes=tokens * (2 * experts * FP32_BYTES),
    )
    return scores, choice


def expert_slots(model: ModelSpec, layout: Layout) -> int:
    """Expert slots of one die: routed, redundant and shared copies, as even as they go."""
    if model.moe is None:
        return 0
    slots = model.moe.num_experts + layout.redundant_slots + layout.shared_expert_dies
    return ceil(slots / layout.ep)


def experts_per_token(model: ModelSpec, layout: Layout) -> int:
    """Slots that a token is sent to: its routed experts, and a shared copy if it lies elsewhere."""
    routed = model.moe.experts_per_token if model.moe else 0
    return routed + (1 if layout.shared_expert_dies else 0)


def copies_sent(model: ModelSpec, layout: Layout) -> int:
    """Messages of a token: one to each of its slots, but none to a shared copy on its own die.

    Where every die has a copy, as each rank of CloudMatrix-Infer's prefill (5.1: 1 shared, 8 routed
    and 1 redundant expert), a token's is at home.
    """
    is_home = layout.shared_expert_dies >= layout.dies and not layout.expert_dies
    return experts_per_token(model, layout) - (1 if is_home else 0)


def expert_work(model: ModelSpec, layout: Layout, group_tokens: Floats) -> ExpertWork:
    """Routed experts of one die for all tokens of the group [n], spread evenly.

    Where ranks meet, a die gets the tokens that chose an expert of its; a rank alone has them all.
    """
    moe = model.moe
    if moe is None:
        raise ValueError(f"{model.name} has no experts")
    slots = expert_slots(model, layout)
    share = 1.0
    if layout.has_tokens_apart:
        share = 1.0 - (1.0 - 1.0 / layout.ep) ** experts_per_token(model, layout)
    return ExpertWork(
        group_tokens=group_tokens,
        arriving_tokens=group_tokens * share,
        num_experts=layout.ep * slots,
        top_k=experts_per_token(model, layout),
        num_slots=slots,
        hidden_size=model.hidden_size,
        inter_size=ceil(moe.expert_intermediate_size / layout.moe_tp),
    )


def embedding(model: ModelSpec, tokens: Amount) -> Pass:
    """Look-up of [tokens, hidden] rows."""
    return Pass(flops=0.0, hbm_bytes=tokens * (2 * model.hidden_size * BF16_BYTES))


def lm_head(model: ModelSpec, layout: Layout, rows: Amount) -> Product:
    """Logits of the rows that sample, vocabulary split over the rank's dies."""
    return product(rows, Matrix(model.hidden_size, ceil(model.vocab_size / layout.tp)))


def sampling(model: ModelSpec, rows: Amount) -> Pass:
    """Softmax and choice over gathered fp32 logits."""
    return Pass(
        flops=rows * float(SAMPLING_FLOPS * model.vocab_size),
        hbm_bytes=rows * (SAMPLING_PASSES * model.vocab_size * FP32_BYTES),
        kernels=SAMPLING_KERNELS,
    )


def mtp_join(model: ModelSpec, tokens: Amount) -> Product:
    """The MTP layer's product of [embedding, hidden state] by [2 * hidden, hidden], in bf16."""
    return product(tokens, Matrix(2 * model.hidden_size, model.hidden_size))
