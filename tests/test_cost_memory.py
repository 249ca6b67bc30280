"""Memory plans by hand."""

from dataclasses import replace

import pytest
from cost_examples import DEEPSEEK_R1, GPU_NODES, LLAMA_70B, NPU_POD, ep_layout

from simpod.config import load_hardware, load_model
from simpod.cost import Layout, plan_memory
from simpod.cost.memory_rules import GIB, MemoryLimits
from simpod.cost.semantics import SEMANTICS
from simpod.model.weights import weight_bytes

EXPERT = 3 * 7168 * 2048  # bytes in INT8


def plan(model, hardware, layout, **limits):
    given = {"memory_frac": 0.9, "max_step_tokens": 8192, "max_num_seqs": 64}
    return plan_memory(model, hardware, layout, MemoryLimits(**(given | limits)))


def test_one_rank_holds_the_whole_model():
    for model, dtype in ((DEEPSEEK_R1, "int8"), (LLAMA_70B, "bf16")):
        held = plan(model, NPU_POD, Layout(dies=1, weight_dtype=dtype)).weight_bytes
        assert held == pytest.approx(weight_bytes(model, dtype), rel=1e-12)


def test_deepseek_on_288_dies_holds_one_expert_slot_a_layer():
    held = plan(DEEPSEEK_R1, NPU_POD, ep_layout(288, mtp=1))
    assert held.expert_bytes == 58 * EXPERT
    assert held.shared_expert_bytes == 58 * EXPERT
    assert held.mtp_bytes > 2 * EXPERT
    assert held.weight_bytes == pytest.approx(22.1e9, rel=0.01)
    assert held.kv_bytes_per_token == 62 * 576 * 2
    room = 0.9 * 64e9 - held.weight_bytes - held.buffer_bytes
    assert held.kv_capacity_tokens == room // held.kv_bytes_per_token
    assert held.kv_capacity_tokens > 60 * 4096  # 60 sequences of 2K + 2K fit, as published


def test_deepseek_on_128_dies_holds_two_slots():
    held = plan(DEEPSEEK_R1, NPU_POD, ep_layout(128))
    assert held.expert_bytes == 2 * 58 * EXPERT


def test_deepseek_on_16_dies_does_not_fit_and_capacity_is_zero():
    held = plan(DEEPSEEK_R1, NPU_POD, ep_layout(16))
    assert held.expert_bytes == 16 * 58 * EXPERT
    assert held.weight_bytes > 0.9 * 64e9
    assert held.kv_capacity_tokens == 0
    assert held.kv_bytes == 0


def test_llama_on_eight_gpus():
    held = plan(LLAMA_70B, GPU_NODES, Layout(dies=8, tp=8))
    assert held.weight_bytes == pytest.approx(70.6e9 * 2 / 8, rel=0.01)
    assert held.kv_bytes_per_token == 80 * 2 * 128 * 2
    assert held.exchange_bytes == 0
    assert held.kv_capacity_tokens == pytest.approx((72e9 - 17.7e9) / 40960, rel=0.02)


def test_exchange_buffers_of_cloudmatrix_infer():
    layout = ep_layout(320)
    held = plan(DEEPSEEK_R1, NPU_POD, layout, max_step_tokens=96, max_num_seqs=96)
    assert held.exchange_bytes == 320 * 96 * (7.5 + 14) * 1024  # 645 MiB, as printed there
    mtp = plan(DEEPSEEK_R1, NPU_POD, ep_layout(320, mtp=1), max_step_tokens=96, max_num_seqs=48)
    assert mtp.exchange_bytes == held.exchange_bytes  # two tokens a sequence


def test_prefill_buffers_hold_two_balanced_steps():
    layout = ep_layout(32, dp=8, tp=4)
    held = plan(DEEPSEEK_R1, NPU_POD, layout, max_step_tokens=16384)
    assert held.exchange_bytes == 2 * 4096 * 8 * (7.5 + 14) * 1024


def test_experts_cut_over_dies_keep_their_bytes():
    whole = plan(DEEPSEEK_R1, NPU_POD, ep_layout(32))
    cut = plan(DEEPSEEK_R1, NPU_POD, ep_layout(64, ep=32))
    assert cut.expert_bytes == whole.expert_bytes / 2


def test_latent_projections_are_copied_to_tensor_parallel_dies():
    one = plan(DEEPSEEK_R1, NPU_POD, Layout(dies=1, weight_dtype="int8"))
    four = plan(DEEPSEEK_R1, NPU_POD, Layout(dies=4, tp=4, weight_dtype="int8"))
    down = 7168 * (1536 + 512 + 64) + 2 * (1536 + 512)  # INT8 matrices, bf16 norms
    by_hand = 61 * down + (one.attention_bytes - 61 * down) / 4
    assert four.attention_bytes == pytest.approx(by_hand, rel=1e-12)


def test_scales_take_memory_on_one_die_and_on_four():
    grouped = replace(DEEPSEEK_R1, weight_dtype="int4", weight_group_size=32)
    for layout in (Layout(dies=1, weight_dtype="int4"), Layout(dies=4, tp=4, weight_dtype="int4")):
        held, without = (
            plan(model, NPU_POD, layout)
            for model in (grouped, replace(grouped, weight_group_size=None))
        )
        assert held.expert_bytes == pytest.approx(without.expert_bytes * 1.125)
        norms = 61 * 2 * (1536 + 512)
        quantised = without.attention_bytes - norms
        assert held.attention_bytes == pytest.approx(quantised * 1.125 + norms)


def test_a_dense_model_loads_its_mtp_layers_dense():
    model = replace(LLAMA_70B, num_mtp_layers=1)
    held = plan(model, GPU_NODES, Layout(dies=1, mtp_layers=1))
    assert held.mtp_bytes == 2 * model.mtp_layer_parameters
    twice = plan(model, GPU_NODES, Layout(dies=1, mtp_layers=2))
    assert twice.mtp_bytes == held.mtp_bytes  # the second draft uses the same layer


def test_tensorrt_llm_takes_its_share_of_what_is_left():
    """0.8 of what weights and buffers leave, where vLLM's 0.8 is of all and holds them too."""
    trtllm = SEMANTICS["trtllm"].memory
    held = plan(LLAMA_70B, GPU_NODES, Layout(dies=8, tp=8), memory_frac=0.8, rules=trtllm)
    left = held.seen_bytes - held.weight_bytes - held.buffer_bytes
    assert held.kv_bytes == pytest.approx(0.8 * left, rel=1e-12)
    assert held.seen_bytes == pytest.approx(0.99 * 80e9)
    tight = plan(LLAMA_70B, GPU_NODES, Layout(dies=1), memory_frac=0.8, rules=trtllm)
    assert tight.kv_capacity_tokens == 0


# --- what engines set aside -----------------------------------------------------------------------


PUBLISHED = {
    # vllm pull request 12569: 1,381 blocks of 16 tokens on one 80 GB GPU, weights in 8 bits
    "llama, vllm": ("llama-3.1-70b", 1, "int8", "vllm-v1", (0.98, 2048, 1024), 1381 * 16, 0.15),
    # vllm issue 21348: vLLM and SGLang on the same four H100
    "qwen, vllm": ("qwen3-235b-a22b", 4, "fp8", "vllm-v1", (0.9, 8192, 1024), 178_880, 0.25),
    "qwen, sglang": ("qwen3-235b-a22b", 4, "fp8", "sglang", (0.93, 8192, 256), 367_404, 0.05),
}


@pytest.mark.parametrize("log", sorted(PUBLISHED))
def test_kv_tokens_of_published_logs(log):
    model, tp, dtype, semantics, limits, published, error = PUBLISHED[log]
    memory_frac, max_step_tokens, max_num_seqs = limits
    found = plan(
        load_model(model),
        load_hardware("h100"),
        Layout(dies=tp, tp=tp, weight_dtype=dtype),
        memory_frac=memory_frac,
        max_step_tokens=max_step_tokens,
        max_num_seqs=max_num_seqs,
        rules=SEMANTICS[semantics].memory,
    )
    assert found.kv_capacity_tokens == pytest.approx(published, rel=error)


def test_an_engine_takes_its_own_before_the_cache():
    """By hand: context and communicators, six more fp32 a logit, outputs of 8 experts a token."""
    layout = Layout(dies=8, tp=8, weight_dtype="fp8")
    plain = plan(DEEPSEEK_R1, GPU_NODES, layout)
    taken = plan(DEEPSEEK_R1, GPU_NODES, layout, rules=SEMANTICS["vllm-v1"].memory)
    assert taken.engine_bytes == 2.0 * GIB
    more = taken.activation_bytes - plain.activation_bytes
    assert more == 64 * DEEPSEEK_R1.vocab_size * 20 + 8192 * 8 * DEEPSEEK_R1.hidden_size * 2
    assert taken.usable_bytes == pytest.approx(0.99 * plain.usable_bytes)
    assert taken.weight_bytes == plain.weight_bytes
