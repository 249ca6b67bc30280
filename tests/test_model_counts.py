"""Parameter and KV counts against sums written out by hand, and what must hold for any model."""

from dataclasses import replace

import pytest
from cost_examples import DEEPSEEK_R1
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from simpod.config import load_model
from simpod.config.described import described_schema
from simpod.model import (
    AttentionSpec,
    ModelSpec,
    MoeSpec,
    bytes_per_weight,
    weight_bytes,
    weight_parts,
)


def gqa(**changes: object) -> AttentionSpec:
    fields: dict[str, object] = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, **changes}
    return AttentionSpec(kind="gqa", **fields)  # type: ignore[arg-type]


def mla(**changes: object) -> AttentionSpec:
    fields: dict[str, object] = {
        "num_heads": 4,
        "num_kv_heads": 4,
        "head_dim": 12,
        "q_lora_rank": 10,
        "kv_lora_rank": 6,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 5,
        **changes,
    }
    return AttentionSpec(kind="mla", **fields)  # type: ignore[arg-type]


def dense(attention: AttentionSpec | None = None) -> ModelSpec:
    return ModelSpec(
        name="tiny",
        hidden_size=16,
        num_layers=3,
        num_moe_layers=0,
        intermediate_size=20,
        vocab_size=100,
        attention=attention or gqa(),
        moe=None,
        num_mtp_layers=0,
        tie_word_embeddings=False,
        max_position_tokens=128,
        weight_dtype="bf16",
    )


def sparse() -> ModelSpec:
    moe = MoeSpec(
        num_experts=8,
        experts_per_token=2,
        expert_intermediate_size=7,
        shared_intermediate_size=9,
        has_router_bias=True,
    )
    return replace(dense(mla()), num_moe_layers=2, moe=moe, num_mtp_layers=1)


def test_gqa_attention_by_hand() -> None:
    model = dense()
    assert model.attention_parameters == 16 * 32 + 2 * 16 * 16 + 32 * 16
    assert model.kv_elements_per_layer == 2 * 2 * 8
    assert model.kv_elements_per_token == 3 * 2 * 2 * 8


@pytest.mark.parametrize(
    ("attention", "vectors"),
    [
        (gqa(), 0),
        (gqa(has_qkv_bias=True), 32 + 16 + 16),
        (gqa(has_qkv_bias=True, has_output_bias=True), 32 + 16 + 16 + 16),
        (gqa(has_qk_norm=True), 8 + 8),
        (gqa(has_qk_norm=True, qk_norm_per_head=False), 32 + 16),
        (mla(), 10 + 6),
        (mla(q_lora_rank=None), 6),
    ],
)
def test_biases_and_inner_norms_by_hand(attention: AttentionSpec, vectors: int) -> None:
    assert dense(attention).attention_vector_parameters == vectors


def test_scales_of_groups_count_in_every_linear_layer_as_published() -> None:
    """fp8 in blocks of 16 with an fp32 scale: 1.25 bytes a number; other types have no groups."""
    model = replace(sparse(), weight_dtype="fp8", weight_group_size=16, bf16_parts=("attention",))
    plain, grouped = (
        weight_parts(replace(model, weight_group_size=None), "fp8"),
        weight_parts(model, "fp8"),
    )
    assert grouped.expert_bytes == plain.expert_bytes * 1.25 == model.expert_parameters * 1.25
    assert grouped.shared_expert_bytes == plain.shared_expert_bytes * 1.25
    assert grouped.dense_ffn_bytes == plain.dense_ffn_bytes * 1.25
    assert grouped.attention_bytes == plain.attention_bytes
    assert grouped.router_bytes == plain.router_bytes
    assert weight_parts(model, "int8").expert_bytes == model.expert_parameters
    assert bytes_per_weight(replace(model, weight_dtype="bf16"), "experts", "bf16") == 2.0


def test_mla_attention_by_hand() -> None:
    compressed = 16 * 10 + 10 * 4 * 12
    kv = 16 * (6 + 4) + 6 * 4 * (8 + 5)
    out = 4 * 5 * 16
    assert dense(mla()).attention_matrix_parameters == compressed + kv + out
    assert dense(mla(q_lora_rank=None)).attention_matrix_parameters == 16 * 4 * 12 + kv + out
    assert dense(mla()).kv_elements_per_token == 3 * (6 + 4)


def test_dense_model_by_hand() -> None:
    layer = (512 + 512 + 512) + 2 * 16 + 3 * 16 * 20
    assert dense().parameters == 3 * layer + 2 * 100 * 16 + 16
    assert dense().active_parameters == dense().parameters
    tied = replace(dense(), tie_word_embeddings=True)
    assert dense().parameters - tied.parameters == 100 * 16


def test_sparse_model_by_hand() -> None:
    model = sparse()
    expert, shared, router = 3 * 16 * 7, 3 * 16 * 9, 16 * 8 + 8
    assert model.expert_parameters == expert
    assert model.shared_expert_parameters == shared
    assert model.router_parameters == router
    every = model.attention_parameters + 2 * 16
    total = 3 * every + 3 * 16 * 20 + 2 * (router + shared + 8 * expert) + 2 * 1600 + 16
    assert model.parameters == total
    assert model.active_parameters == total - 2 * 6 * expert
    assert model.mtp_parameters == every + router + shared + 8 * expert + 2 * 16 * 16 + 3 * 16


def test_deepseek_v3_parts_are_those_of_its_checkpoint() -> None:
    model = DEEPSEEK_R1
    assert model.attention_parameters == 187_107_328  # the shapes of model.layers.0.self_attn
    assert model.expert_parameters == 3 * 7168 * 2048
    assert model.parameters == 671_026_419_200
    assert model.kv_elements_per_token == 35_136
    assert round(model.active_parameters / 1e9, 1) == 37.6
    assert round(model.mtp_parameters / 1e9, 1) == 11.6  # its README: 11.5 B, without the copies


def test_weight_bytes_of_deepseek_v3() -> None:
    """FP8 holds linear layers in 1 byte; embedding, head, router and norms keep 2."""
    kept = 2 * 129280 * 7168 + 58 * 257 * 7168  # upper bound: with a little for the bias
    one_byte = weight_bytes(DEEPSEEK_R1) - DEEPSEEK_R1.parameters
    assert one_byte == pytest.approx(kept, rel=0.01)
    assert weight_bytes(DEEPSEEK_R1, "bf16") == 2 * DEEPSEEK_R1.parameters
    with_mtp = weight_bytes(DEEPSEEK_R1, "bf16", mtp_layers=1)
    assert with_mtp - weight_bytes(DEEPSEEK_R1, "bf16") == 2 * DEEPSEEK_R1.mtp_parameters


def test_parts_that_are_kept_in_bf16_keep_their_bytes() -> None:
    model = replace(sparse(), bf16_parts=("attention", "shared_experts"))
    int4, bf16 = weight_parts(model, "int4"), weight_parts(model, "bf16")
    assert int4.attention_bytes == bf16.attention_bytes
    assert int4.shared_expert_bytes == bf16.shared_expert_bytes
    assert int4.expert_bytes == bf16.expert_bytes / 4
    assert int4.dense_ffn_bytes == bf16.dense_ffn_bytes / 4
    assert weight_parts(model, "fp32").attention_bytes > bf16.attention_bytes


@given(
    heads=st.integers(1, 8),
    group=st.integers(1, 4),
    hidden=st.integers(1, 64),
    experts=st.integers(2, 16),
    layers=st.integers(1, 6),
    data=st.data(),
)
def test_laws_of_counting(
    heads: int, group: int, hidden: int, experts: int, layers: int, data: st.DataObject
) -> None:
    """Bytes follow parameters; active is at most all; one more expert a token adds its weights."""
    top_k = data.draw(st.integers(1, experts - 1))
    moe_layers = data.draw(st.integers(1, layers))
    moe = MoeSpec(num_experts=experts, experts_per_token=top_k, expert_intermediate_size=5)
    attention = gqa(num_heads=heads * group, num_kv_heads=heads)
    model = replace(
        dense(attention),
        hidden_size=hidden,
        num_layers=layers,
        num_moe_layers=moe_layers,
        moe=moe,
    )
    more = replace(model, moe=replace(moe, experts_per_token=top_k + 1))
    assert weight_bytes(model, "bf16") == 2 * model.parameters
    assert weight_bytes(model, "fp4") < weight_bytes(model, "int8") < weight_bytes(model, "bf16")
    assert 0 < model.active_parameters <= model.parameters
    step = more.active_parameters - model.active_parameters
    assert step == moe_layers * model.expert_parameters
    assert more.parameters == model.parameters


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({"num_heads": 6, "num_kv_heads": 4}, ("6", "4")),
        ({"kv_lora_rank": 512}, ("kv_lora_rank",)),
        ({"q_lora_rank": 3}, ("q_lora_rank",)),
    ],
)
def test_impossible_gqa_is_refused_with_the_numbers(
    changes: dict[str, object], numbers: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=".*".join(numbers)):
        gqa(**changes)


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({"kv_lora_rank": 0}, ("kv_lora_rank",)),
        ({"head_dim": 13}, ("13", "8", "4", "12")),
        ({"num_kv_heads": 2}, ("2", "4")),
        ({"has_qk_norm": True}, ("qk norm", "mla")),
    ],
)
def test_impossible_mla_is_refused_with_the_numbers(
    changes: dict[str, object], numbers: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=".*".join(numbers)):
        mla(**changes)


def test_impossible_models_are_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match="num_moe_layers 4 exceeds num_layers 3"):
        replace(sparse(), num_moe_layers=4)
    with pytest.raises(ValueError, match="num_moe_layers is 0, so moe must be null"):
        replace(sparse(), num_moe_layers=0)
    with pytest.raises(ValueError, match="num_moe_layers is 2, so moe must be given"):
        replace(sparse(), moe=None)
    with pytest.raises(ValueError, match="experts_per_token 9 exceeds num_experts 8"):
        MoeSpec(num_experts=8, experts_per_token=9, expert_intermediate_size=1)


def test_yaml_mistakes_are_found_all_at_once() -> None:
    document = {"name": "x", "hidden_size": 0, "attention": {"kind": "mha"}, "colour": "red"}
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(ModelSpec).validate_python(document)
    wrong = {".".join(map(str, error["loc"])) for error in caught.value.errors()}
    assert {"hidden_size", "attention.kind", "colour", "num_layers", "moe"} <= wrong


def test_every_field_is_documented_in_the_schema() -> None:
    schema = described_schema(ModelSpec)
    objects = [schema, *schema["$defs"].values()]
    bare = [
        key
        for obj in objects
        for key, value in obj["properties"].items()
        if "description" not in value
    ]
    assert [key for key in bare if key != "attention"] == []


def test_gpt_oss_by_hand() -> None:
    """Its model card: 116.8 B; layers with a window keep no KV for good."""
    model = load_model("gpt-oss-120b")
    attention = 2880 * (64 + 2 * 8) * 64 + (64 + 16) * 64 + 64 * 64 * 2880 + 2880
    experts = 128 * (3 * 2880 * 2880 + 2 * 2880 + 2880) + 128 * (2880 + 1)
    by_hand = 36 * (attention + experts + 2 * 2880) + 2 * 201088 * 2880 + 2880
    assert model.parameters == by_hand
    assert model.kv_elements_per_token == 18 * 2 * 8 * 64
