"""Counts by hand."""

from dataclasses import replace
from math import isclose

import numpy as np
import pytest
from cost_examples import DEEPSEEK_R1, LLAMA_70B, SMALL_MOE, ep_layout, total_flops

from simpod.cost import Layout
from simpod.cost import operators as op
from simpod.cost.work import Product
from simpod.model.weights import weight_parts

INT8 = Layout(dies=1, weight_dtype="int8")
BF16 = Layout(dies=1)


def products(works):
    return tuple(work for work in works if isinstance(work, Product))


def parameters(works):
    return sum(work.n * work.k for work in products(works))


def expert_flops(model, layout, tokens):
    """Of one die, with tokens * top_k pairs spread evenly over the group's dies."""
    work = op.expert_work(model, layout, np.array([tokens]))
    pairs = work.group_tokens * work.top_k * work.num_slots / work.num_experts
    return (pairs * 2 * 3 * work.hidden_size * work.inter_size).item()


def test_deepseek_flops_per_token_are_twice_the_37_billion():
    attention = 7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 128 * 256 + 16384 * 7168
    dense, expert, router = 3 * 7168 * 18432, 3 * 7168 * 2048, 7168 * 256
    head = 129280 * 7168
    by_hand = 2 * (61 * attention + 3 * dense + 58 * (9 * expert + router) + head)

    m = DEEPSEEK_R1
    projections = total_flops(op.attention_projections(m, INT8, 1.0))
    ffn = total_flops(products(op.dense_ffn(m, INT8, 1.0)))
    moe = products(op.shared_experts(m, INT8, 1.0)) + products(op.router(m, 1.0))
    routed = expert_flops(m, INT8, 1.0)
    counted = 61 * projections + 3 * ffn + 58 * (total_flops(moe) + routed)
    counted += op.lm_head(m, INT8, 1.0).flops

    assert counted == pytest.approx(by_hand, rel=1e-12)
    assert counted == pytest.approx(2 * 36.62e9, rel=1e-3)
    embedding = m.embedding_parameters
    assert counted / 2 == pytest.approx(m.active_parameters - embedding, rel=1e-4)  # norms


def test_llama_flops_per_token_are_twice_its_matrices():
    m = LLAMA_70B
    works = op.attention_projections(m, BF16, 1.0) + products(op.dense_ffn(m, BF16, 1.0))
    counted = 80 * total_flops(works) + op.lm_head(m, BF16, 1.0).flops
    by_hand = 80 * (8192 * (8192 + 2048) + 8192 * 8192 + 3 * 8192 * 28672) + 128256 * 8192
    assert counted == 2 * by_hand
    assert counted / 2 == pytest.approx(m.parameters - m.embedding_parameters, rel=1e-4)


@pytest.mark.parametrize("model", [DEEPSEEK_R1, LLAMA_70B, SMALL_MOE], ids=lambda m: m.name)
def test_projections_hold_the_parameters_of_the_model(model):
    matrices = op.attention_matrices(model, tp=1)
    assert sum(m.parameters for m in matrices) == model.attention_matrix_parameters


def test_resident_latents_are_projected_up_again():
    """Only in MLA: keys and values of 128 heads from the latent."""
    (again,) = op.resident_projection(DEEPSEEK_R1, INT8, 2048.0)
    assert again.flops == 2048 * 2 * 512 * 128 * (128 + 128)
    tp4 = replace(INT8, dies=4, tp=4)
    assert op.resident_projection(DEEPSEEK_R1, tp4, 2048.0)[0].flops == again.flops / 4
    assert op.resident_projection(LLAMA_70B, BF16, 2048.0) == ()


def test_weights_that_a_token_reads_are_those_of_the_model():
    parts = weight_parts(DEEPSEEK_R1, "int8")
    assert parameters(op.dense_ffn(DEEPSEEK_R1, INT8, 1.0)) == parts.dense_ffn_bytes
    assert parameters(op.shared_experts(DEEPSEEK_R1, INT8, 1.0)) == parts.shared_expert_bytes
    attention = parameters(op.attention_projections(DEEPSEEK_R1, INT8, 1.0))
    assert attention == DEEPSEEK_R1.attention_matrix_parameters


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_tensor_parallelism_divides_work(tp):
    split = Layout(dies=tp, tp=tp)
    for operator in (op.attention_projections, op.dense_ffn):
        whole = products(operator(LLAMA_70B, BF16, 64.0))
        part = products(operator(LLAMA_70B, split, 64.0))
        assert isclose(total_flops(part) * tp, total_flops(whole))
        assert parameters(part) * tp == parameters(whole)


def test_passes_move_what_they_must():
    """silu(gate) * up: two in, one out."""
    tokens = 3.0
    assert op.activation(tokens, 2048).hbm_bytes == tokens * 3 * 2048 * 2
    assert op.embedding(LLAMA_70B, tokens).hbm_bytes == tokens * 2 * 8192 * 2


def test_kv_heads_are_copied_when_there_are_more_dies():
    assert op.cached_bytes_per_die(LLAMA_70B.attention, 8, "bf16") == 2 * 128 * 2
    assert op.cached_bytes_per_die(LLAMA_70B.attention, 16, "fp8") == 2 * 128


def test_quantised_parts_keep_bf16_where_the_model_says_so():
    kept = replace(DEEPSEEK_R1, bf16_parts=("attention",))
    assert op.part_dtype(kept, "attention", "int8") == "bf16"
    assert op.part_dtype(kept, "dense_ffn", "int8") == "int8"
    assert op.attention_projections(kept, INT8, 1.0)[0].dtype == "bf16"


def test_expert_work_of_all_dies_is_that_of_all_tokens():
    layout, tokens = ep_layout(64), 640.0
    by_hand = tokens * 8 * 2 * 3 * 7168 * 2048
    assert 64 * expert_flops(DEEPSEEK_R1, layout, tokens) == by_hand
    cut = replace(layout, ep=32)  # each expert over two dies
    assert 64 * expert_flops(DEEPSEEK_R1, cut, tokens) == by_hand


def test_tokens_that_arrive_at_a_die_chose_one_of_its_experts():
    tokens = np.array([1000.0])
    met = op.expert_work(DEEPSEEK_R1, ep_layout(64), tokens)
    assert met.arriving_tokens == pytest.approx(1000 * (1 - (1 - 1 / 64) ** 8))
    assert (met.num_experts, met.num_slots) == (256, 4)
    alone = op.expert_work(DEEPSEEK_R1, Layout(dies=8, tp=8, ep=8, weight_dtype="int8"), tokens)
    assert alone.arriving_tokens == 1000  # a rank alone has its tokens on all its dies
    redundant = op.expert_work(DEEPSEEK_R1, ep_layout(288), tokens)
    assert (redundant.num_experts, redundant.num_slots) == (288, 1)
    with pytest.raises(ValueError, match="no experts"):
        op.expert_work(LLAMA_70B, BF16, tokens)


def test_operators_take_arrays():
    tokens = np.arange(1.0, 5.0)
    for works in (
        op.attention_projections(DEEPSEEK_R1, INT8, tokens),
        op.dense_ffn(DEEPSEEK_R1, INT8, tokens),
        op.shared_experts(DEEPSEEK_R1, INT8, tokens),
        (op.sampling(DEEPSEEK_R1, tokens),),
    ):
        for work in works:
            assert np.all(np.diff(work.flops) > 0)


# --- one kernel before attention ------------------------------------------------------------------


def test_a_fused_prolog_has_one_launch_and_matrices_per_head_in_16_bits():
    apart = op.attention_projections(DEEPSEEK_R1, INT8, 8.0)
    fused = op.attention_projections(DEEPSEEK_R1, INT8, 8.0, is_fused=True)
    assert [work.is_joined for work in fused] == [False, True, True, False, False]
    assert [work.dtype for work in fused] == ["int8", "int8", "bf16", "bf16", "int8"]
    assert {work.dtype for work in apart} == {"int8"}
    assert parameters(fused) == parameters(apart)
    assert not any(work.is_joined for work in apart)


def test_only_latents_that_stay_on_their_die_have_a_prolog():
    assert op.has_prolog(DEEPSEEK_R1, INT8)
    assert not op.has_prolog(LLAMA_70B, INT8)
    assert not op.has_prolog(DEEPSEEK_R1, Layout(dies=4, tp=4, attention_parallelism="sp_tp_sp"))
