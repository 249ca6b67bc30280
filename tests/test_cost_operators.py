"""Counts by hand."""

from dataclasses import replace
from math import isclose

import numpy as np
import pytest
from cost_examples import DEEPSEEK_R1, LLAMA_70B, SMALL_MOE, ep_layout

from simpod.cost import Layout
from simpod.cost import operators as op
from simpod.cost.work import total_bytes, total_flops
from simpod.model.weights import weight_parts

INT8 = Layout(dies=1, weight_dtype="int8")
BF16 = Layout(dies=1)


def products(works):
    return tuple(work for work in works if work.unit in ("matmul", "grouped_matmul"))


def test_deepseek_flops_per_token_are_twice_the_37_billion():
    attention = 7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 128 * 256 + 16384 * 7168
    dense, expert, router = 3 * 7168 * 18432, 3 * 7168 * 2048, 7168 * 256
    head = 129280 * 7168
    by_hand = 2 * (61 * attention + 3 * dense + 58 * (9 * expert + router) + head)

    m = DEEPSEEK_R1
    projections = total_flops(op.attention_projections(m, INT8, 1.0))
    ffn = total_flops(products(op.dense_ffn(m, INT8, 1.0)))
    moe = products(op.routed_experts(m, INT8, 1.0))
    moe += products(op.shared_experts(m, INT8, 1.0)) + products(op.router(m, 1.0))
    counted = 61 * projections + 3 * ffn + 58 * total_flops(moe)
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


def test_absorbed_mla_reads_the_latent_once_for_all_heads():
    work = op.decode_attention(DEEPSEEK_R1, INT8, kv_tokens=1000.0, queries=0.0)
    assert work.flops == 1000 * 2 * 128 * (2 * 512 + 64)
    assert work.hbm_bytes == 1000 * 576 * 2
    tp4 = replace(INT8, dies=4, tp=4)
    split = op.decode_attention(DEEPSEEK_R1, tp4, kv_tokens=1000.0, queries=0.0)
    assert split.flops == work.flops / 4
    assert split.hbm_bytes == work.hbm_bytes  # the latent is copied to every die


def test_drafts_share_one_pass_over_the_cache():
    plain = op.decode_attention(DEEPSEEK_R1, INT8, 1000.0, 0.0)
    draft = op.decode_attention(DEEPSEEK_R1, replace(INT8, mtp_layers=1), 1000.0, 0.0)
    assert draft.flops == 2 * plain.flops
    assert draft.hbm_bytes == plain.hbm_bytes


def test_gqa_decode_attention_by_hand():
    work = op.decode_attention(LLAMA_70B, BF16, kv_tokens=1000.0, queries=4.0)
    assert work.flops == 1000 * 4 * 64 * 128
    assert work.hbm_bytes == 1000 * 2 * 8 * 128 * 2 + 4 * 64 * 2 * 128 * 2
    int8 = op.decode_attention(LLAMA_70B, replace(BF16, kv_dtype="int8"), 1000.0, 0.0)
    assert int8.hbm_bytes == 1000 * 2 * 8 * 128


def test_prefill_attention_counts_causal_pairs():
    tokens = 4096.0
    pairs = tokens * (tokens + 1) / 2
    gqa = op.prefill_attention(LLAMA_70B, BF16, pairs, tokens, tokens)
    assert gqa.flops == 4 * 64 * 128 * pairs
    mla = op.prefill_attention(DEEPSEEK_R1, INT8, pairs, tokens, tokens)
    assert mla.flops == 2 * 128 * (128 + 64 + 128) * pairs


def test_resident_latents_are_projected_up_again():
    chunk, resident = 512.0, 2048.0
    pairs = chunk * (resident + (chunk + 1) / 2)
    with_context = op.prefill_attention(DEEPSEEK_R1, INT8, pairs, resident + chunk, chunk)
    without = op.prefill_attention(DEEPSEEK_R1, INT8, pairs, chunk, chunk)
    assert with_context.flops - without.flops == resident * 2 * 512 * 128 * (128 + 128)


@pytest.mark.parametrize("model", [DEEPSEEK_R1, LLAMA_70B, SMALL_MOE], ids=lambda m: m.name)
def test_projections_hold_the_parameters_of_the_model(model):
    matrices = op.attention_matrices(model, tp=1)
    assert sum(m.parameters for m in matrices) == model.attention_matrix_parameters


def test_weights_that_a_token_reads_are_those_of_the_model():
    parts = weight_parts(DEEPSEEK_R1, "int8")
    nothing = 0.0
    dense = total_bytes(op.dense_ffn(DEEPSEEK_R1, INT8, nothing))
    shared = total_bytes(op.shared_experts(DEEPSEEK_R1, INT8, nothing))
    attention = total_bytes(op.attention_projections(DEEPSEEK_R1, INT8, nothing))
    assert dense == parts.dense_ffn_bytes
    assert shared == parts.shared_expert_bytes
    assert attention == DEEPSEEK_R1.attention_matrix_parameters


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_tensor_parallelism_divides_work(tp):
    split = Layout(dies=tp, tp=tp)
    for operator in (op.attention_projections, op.dense_ffn):
        whole = operator(LLAMA_70B, BF16, 64.0)
        part = operator(LLAMA_70B, split, 64.0)
        assert isclose(total_flops(part) * tp, total_flops(whole))
        assert total_bytes(part) < total_bytes(whole)


def test_kv_heads_are_copied_when_there_are_more_dies():
    assert op.kv_elements_per_die(LLAMA_70B.attention, 8) == 2 * 128
    assert op.kv_elements_per_die(LLAMA_70B.attention, 16) == 2 * 128


def test_expected_experts_hit_by_hand():
    one_token = op.distinct_experts_hit(DEEPSEEK_R1, Layout(dies=1), 1.0)
    assert one_token == pytest.approx(8)
    two = op.distinct_experts_hit(DEEPSEEK_R1, Layout(dies=1), 2.0)
    assert two == pytest.approx(256 * (1 - (1 - 8 / 256) ** 2))
    everyone = op.distinct_experts_hit(DEEPSEEK_R1, ep_layout(128), 1e5)
    assert everyone == pytest.approx(2)
    redundant = op.distinct_experts_hit(DEEPSEEK_R1, ep_layout(288), 1.0)
    assert redundant == pytest.approx(8 / 288)


def test_expert_work_of_all_dies_is_that_of_all_tokens():
    layout, tokens = ep_layout(64), 640.0
    up, _, down = op.routed_experts(DEEPSEEK_R1, layout, tokens)
    assert 64 * (up.flops + down.flops) == tokens * 8 * 2 * 3 * 7168 * 2048
    cut = replace(layout, ep=32)  # each expert over two dies
    up, _, down = op.routed_experts(DEEPSEEK_R1, cut, tokens)
    assert 64 * (up.flops + down.flops) == tokens * 8 * 2 * 3 * 7168 * 2048


def test_quantised_parts_keep_bf16_where_the_model_says_so():
    kept = replace(DEEPSEEK_R1, bf16_parts=("attention",))
    assert op.part_dtype(kept, "attention", "int8") == "bf16"
    assert op.part_dtype(kept, "dense_ffn", "int8") == "int8"
    assert op.attention_projections(kept, INT8, 1.0)[0].dtype == "bf16"


def test_scales_of_groups_are_read_with_their_weights():
    """int4 with a bf16 scale for 32 numbers: 0.5625 bytes each, in memory and in traffic."""
    grouped = replace(DEEPSEEK_R1, weight_dtype="int4", weight_group_size=32)
    plain = replace(grouped, weight_group_size=None)
    layout = replace(INT8, weight_dtype="int4")
    experts = 256 * grouped.expert_parameters
    for parameters, works_of in (
        (grouped.dense_ffn_parameters, lambda m: op.dense_ffn(m, layout, 5.0)),
        (grouped.shared_expert_parameters, lambda m: op.shared_experts(m, layout, 5.0)),
        (grouped.attention_matrix_parameters, lambda m: op.attention_projections(m, layout, 5.0)),
        (experts, lambda m: op.routed_experts(m, layout, 1e6)),  # every expert is hit
    ):
        read, without = (sum(w.hbm_bytes for w in works_of(m)) for m in (grouped, plain))
        assert read - without == pytest.approx(parameters * 2 / 32, rel=1e-6)


def test_operators_take_arrays():
    tokens = np.arange(1.0, 5.0)
    for works in (
        op.attention_projections(DEEPSEEK_R1, INT8, tokens),
        op.dense_ffn(DEEPSEEK_R1, INT8, tokens),
        op.routed_experts(DEEPSEEK_R1, INT8, tokens),
        (op.layer_elementwise(DEEPSEEK_R1, INT8, tokens), op.sampling(DEEPSEEK_R1, tokens)),
    ):
        for work in works:
            assert np.all(np.diff(work.flops) > 0)
