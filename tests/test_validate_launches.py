"""How the engines of measured deployments were launched."""

import pytest
from validate_cases import DEPLOYMENT

from simpod.config import load_experiment, load_hardware
from simpod.config.libraries import with_libraries
from simpod.cost.semantics import SEMANTICS
from simpod.validate.deployments import document_of, experiment_of

EXPERIMENT = "llama70b-h100-colocated"
R1 = {"model_path": "deepseek-ai/DeepSeek-R1", "system": "b200_sxm", "isl": 1024, "osl": 1024}
TP8 = {"tp_size": 8, "moe_tp_size": 8, "gpus": 8}


def row(**changes):
    return DEPLOYMENT | changes


def pool_of(**changes):
    (pool,) = document_of(row(**changes))["deployment"].values()
    return pool


def test_a_model_without_a_script_has_the_usual_flags():
    pool = pool_of(concurrency=40)
    assert (pool["max_num_seqs"], pool["max_step_tokens"], pool["memory_frac"]) == (40, 8192, 0.9)
    assert pool["kv_dtype"] == "bf16"


@pytest.mark.parametrize(("concurrency", "interval"), [(8, 10), (16, 30)])
def test_sglang_looks_for_prompts_as_its_script_says(concurrency, interval):
    given = row(**R1, **TP8, backend="sglang", gemm_quant_mode="nvfp4", concurrency=concurrency)
    document = document_of(given)
    assert document["policies"]["batching"] == {
        "use": "sglang",
        "receive_interval": interval,
    }
    assert experiment_of(given).semantics.name == "sglang"


def test_tensorrt_llm_balances_data_parallel_ranks_and_drafts_where_its_image_does():
    shape = {"attention_dp_size": 8, "moe_ep_size": 8, "gpus": 8, "gemm_quant_mode": "nvfp4"}
    given = row(**R1, **shape, backend="trtllm", backend_version="1.2.0rc6.post3")
    document = document_of(given)
    assert document["policies"]["batching"] == {"use": "in_flight", "balance_steps": 60}
    assert document["deployment"]["mixed"]["mtp"] == {"layers": 1, "acceptance": 0.79}
    alone = row(**R1, **TP8, gemm_quant_mode="nvfp4", backend="trtllm")
    assert "policies" not in document_of(alone)
    assert "mtp" not in document_of(alone)["deployment"]["mixed"]


def test_expert_parallel_vllm_on_four_gpus_is_one_server():
    """`--tensor-parallel-size 4 --enable-expert-parallel`, which the table calls 16 GPUs."""
    shape = {"tp_size": 4, "attention_dp_size": 4, "moe_ep_size": 16, "gpus": 16}
    pool = pool_of(
        model_path="MiniMaxAI/MiniMax-M2.5", **shape, gemm_quant_mode="fp8", concurrency=64
    )
    assert [pool[key] for key in ("instances", "dies", "tp", "dp", "ep")] == [1, 4, 4, 1, 4]
    assert (pool["max_num_seqs"], pool["kv_dtype"]) == (256, "bf16")


def test_gpt_oss_captures_large_graphs():
    document = document_of(
        row(model_path="openai/gpt-oss-120b", gemm_quant_mode="nvfp4", concurrency=8)
    )
    assert document["engine"]["max_graph_tokens"] == 2048


def test_vllm_runs_the_experts_of_hopper_by_triton_and_marlin():
    h200 = load_hardware("h200")
    borrowed = with_libraries(h200, SEMANTICS["vllm-v1"]).kernels.grouped_gemm
    a100 = load_hardware("a100").kernels.grouped_gemm
    assert borrowed["w4a16_mxfp4/marlin"] is not h200.kernels.grouped_gemm["w4a16_mxfp4/generated"]
    assert borrowed["w4a16_mxfp4/marlin"] == a100["int4/marlin"]
    assert borrowed["fp8_block/triton"] == a100["bf16/triton"]
    assert "fp8_block/cutlass" not in borrowed
    assert with_libraries(h200, SEMANTICS["trtllm"]) is h200
    b200 = load_hardware("b200")
    assert with_libraries(b200, SEMANTICS["vllm-v1"]) is b200


def test_an_experiment_prices_experts_by_its_engine():
    of = "engine.semantics="
    changes = ["workload.num_requests=5", "model=qwen3-30b-a3b", "hardware=h100"]
    kernels = [
        next(iter(load_experiment(EXPERIMENT, [*changes, of + name]).hardware.values())).kernels
        for name in ("vllm-v1", "trtllm")
    ]
    assert "bf16/triton" in kernels[0].grouped_gemm
    assert "bf16/triton" not in kernels[1].grouped_gemm
