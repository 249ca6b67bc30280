"""Element-wise kernels of one layer, one by one: counts of one die, no seconds.

Counts hold as in `operators`, for the tokens of a rank. What engines on Ascend run besides what a
fused production implementation does is said by `Semantics` (docs/experts.md has the kernels).
"""

from simpod.cost.layout import Layout
from simpod.cost.operators import (
    BF16_BYTES,
    NORM_FLOPS,
    ROPE_FLOPS,
    cached_bytes_per_die,
    heads_per_die,
    input_bytes,
    kv_heads_per_die,
    own_tokens,
    part_dtype,
)
from simpod.cost.semantics import Semantics
from simpod.cost.work import Amount, Pass
from simpod.model.spec import AttentionSpec, ModelSpec

QUANTISED_BYTES = BF16_BYTES + 1.0  # 16 bits in, 8 out
BOTH_WAYS_BYTES = 2 * BF16_BYTES


def layer_passes(
    model: ModelSpec,
    layout: Layout,
    tokens: Amount,
    semantics: Semantics,
    *,
    is_fused: bool = False,
) -> tuple[Pass, ...]:
    """Two fused add-norms, rotary embedding, the write into the cache; 8-bit: two quantisations.

    Norms of queries and keys are a kernel each. is_fused: products before attention are one kernel
    with the quantisation of their input and the rotation of queries, at its end; keys are rotated
    and cached beside the products (CANN's MlaPrologV3).

    A fused add-norm reads input and residual and writes both: 4 passes over the hidden state.
    Quantising reads 16 bits and writes 8, of the hidden state and of what heads give.
    Staged: queries and the write into the cache are of all `tokens`, the rest of the die's own.
    """
    a, hidden = model.attention, model.hidden_size
    own = own_tokens(layout, tokens)
    norms = Pass(
        flops=own * (2.0 * NORM_FLOPS * hidden),
        hbm_bytes=own * (4 * BOTH_WAYS_BYTES * hidden),
        kernels=2,
    )
    found = [norms, *_rotations(a, layout, tokens, is_fused=is_fused)]
    if input_bytes(layout.weight_dtype) == 1.0:
        heads = a.num_heads if layout.is_staged else heads_per_die(a, layout.tp)
        found += [
            _quantised(own, hidden, kernels=0 if is_fused else 1),
            _quantised(own, heads * a.value_dim),
        ]
        if semantics.quantises_twice and not is_fused:
            found.append(_quantised(own, hidden))
    if not is_fused:
        found += _inner_norms(model, layout, tokens, semantics)
        if semantics.copies_heads:
            found.append(_cuts(a, layout, tokens))
    return tuple(found)


def _quantised(tokens: Amount, width: int, *, kernels: int = 1) -> Pass:
    return Pass(flops=0.0, hbm_bytes=tokens * (width * QUANTISED_BYTES), kernels=kernels)


def _rotations(
    a: AttentionSpec, layout: Layout, tokens: Amount, *, is_fused: bool
) -> tuple[Pass, ...]:
    """Queries, and beside their kernel that of keys, which norms (mla), rotates and caches them.

    gqa: keys are rotated with queries, and the other kernel writes keys and values.
    """
    heads, dim = heads_per_die(a, layout.tp), a.head_dim
    if a.kind == "mla":
        dim, keys = a.qk_rope_head_dim, a.qk_rope_head_dim + a.kv_lora_rank
    else:
        keys = kv_heads_per_die(a, layout.tp) * dim
    own = own_tokens(layout, tokens)

    def one(elements: Amount, more_bytes: Amount, *, is_rotation: bool) -> Pass:
        return Pass(
            flops=elements * float(ROPE_FLOPS),
            hbm_bytes=elements * BOTH_WAYS_BYTES + more_bytes,
            is_rotation=is_rotation,
        )

    queries = tokens * float(heads * dim)
    if is_fused:
        at_end = one(queries, 0.0, is_rotation=False)
        return (Pass(flops=at_end.flops, hbm_bytes=at_end.hbm_bytes, kernels=0),)
    cached = tokens * cached_bytes_per_die(a, layout.tp, layout.kv_dtype)
    if a.kind == "mla":
        latents = one(own * float(keys), cached, is_rotation=False)
        return one(queries, 0.0, is_rotation=True), latents
    rotated = one(queries + own * float(keys), 0.0, is_rotation=True)
    return rotated, Pass(flops=0.0, hbm_bytes=cached)


def _inner_norms(
    model: ModelSpec, layout: Layout, tokens: Amount, semantics: Semantics
) -> list[Pass]:
    """Between the projections and attention. `norms_apart`: queries and keys of gqa are read and
    written, and so is the latent of mla's queries, which is quantised for the next product.
    """
    a = model.attention
    found = []
    if a.has_qk_norm:
        heads = heads_per_die(a, layout.tp), kv_heads_per_die(a, layout.tp)
        width = BOTH_WAYS_BYTES * a.head_dim if semantics.norms_apart else 0.0
        found += [Pass(flops=0.0, hbm_bytes=tokens * (width * count)) for count in heads]
    if a.kind == "mla" and a.q_lora_rank and semantics.norms_apart:
        own, rank = own_tokens(layout, tokens), a.q_lora_rank
        found.append(
            Pass(flops=own * float(NORM_FLOPS * rank), hbm_bytes=own * (BOTH_WAYS_BYTES * rank))
        )
        if input_bytes(part_dtype(model, "attention", layout.weight_dtype)) == 1.0:
            found.append(_quantised(own, rank))
    return found


# --- copies: what they read, the kernel before left in the last cache -----------------------------


def _copy(tokens: Amount, width: int, *, kernels: int = 1) -> Pass:
    """Writes [tokens, width] in 16 bits, in all its kernels together."""
    return Pass(flops=0.0, hbm_bytes=tokens * (width * BF16_BYTES), kernels=kernels, is_copy=True)


def _cuts(a: AttentionSpec, layout: Layout, tokens: Amount) -> Pass:
    """gqa: queries, keys and values; mla: of queries the parts with and without position, and these
    rotated.
    """
    heads = heads_per_die(a, layout.tp)
    if a.kind == "gqa":
        heads += 2 * kv_heads_per_die(a, layout.tp)
    return _copy(tokens, heads * a.head_dim, kernels=3)


def prompt_copies(
    model: ModelSpec, layout: Layout, tokens: Amount, context: Amount
) -> tuple[Pass, ...]:
    """Around attention of a prompt: what `tokens` give is copied; mla: keys and values of `context`
    are cut out of the projected latents, and each head gets the rotated key.
    """
    a = model.attention
    heads = heads_per_die(a, layout.tp)
    output = _copy(tokens, heads * a.value_dim)
    if a.kind != "mla":
        return (output,)
    cut = _copy(context, heads * (a.qk_nope_head_dim + a.v_head_dim), kernels=2)
    return output, cut, _copy(context, heads * a.qk_rope_head_dim)


def expert_sum(model: ModelSpec, layout: Layout, tokens: Amount) -> tuple[Pass, ...]:
    """What routed experts give is scaled, then added to what a rank's shared ones give."""
    if model.moe is None or not model.moe.shared_intermediate_size or layout.shared_expert_dies:
        return ()
    return (_copy(tokens, 2 * model.hidden_size, kernels=2),)
