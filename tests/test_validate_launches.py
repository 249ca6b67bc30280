"""How the engines of measured deployments were launched."""

import pytest
from validate_cases import DEPLOYMENT

from simpod.config import load_experiment, load_hardware
from simpod.config.libraries import with_libraries
from simpod.cost import Layout
from simpod.cost.semantics import SEMANTICS
from simpod.errors import ConfigError
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


DEEPSEEK = {**R1, "backend": "trtllm", "gemm_quant_mode": "nvfp4"}
DP8 = {"tp_size": 1, "attention_dp_size": 8, "moe_tp_size": 1, "moe_ep_size": 8, "gpus": 8}
V3 = {"model_path": "deepseek-ai/DeepSeek-V3"}
FP8_LONG = {"isl": 8192, "gemm_quant_mode": "fp8_block"}
FP8 = {"gemm_quant_mode": "fp8_block"}
OLD = {"backend_version": "1.1.0rc2.post2"}
PLAIN = {"backend_version": "1.2.0rc6.post2"}
LAST = {"backend_version": "1.2.0rc6.post3"}


def test_tensorrt_llm_balances_data_parallel_ranks_and_drafts_where_its_image_does():
    given = row(**DEEPSEEK, **DP8, backend_version="1.2.0rc6.post3", concurrency=64)
    document = document_of(given)
    assert document["policies"]["batching"] == {"use": "in_flight", "balance_steps": 60}
    pool = document["deployment"]["mixed"]
    assert pool["mtp"] == {"layers": 1, "acceptance": 0.79}
    assert (pool["max_num_seqs"], pool["max_step_tokens"]) == (16, 1152)  # one prompt, 2 x 16
    alone = row(**DEEPSEEK, **TP8, backend_version="1.2.0rc6.post2")
    assert "policies" not in document_of(alone)
    pool = document_of(alone)["deployment"]["mixed"]
    assert "mtp" not in pool
    assert pool["max_step_tokens"] == 8192


@pytest.mark.parametrize(
    ("changes", "drafts", "tokens"),
    [
        ({"concurrency": 8}, True, 1152),
        ({"concurrency": 16}, False, 8192),  # tp 8 without experts' parallelism: up to 8 clients
        ({"concurrency": 8, **V3}, False, 1152),
        ({"concurrency": 16, "moe_tp_size": 1, "moe_ep_size": 8}, True, 1152),
        ({"concurrency": 8, "isl": 8192, "gemm_quant_mode": "fp8_block"}, False, 8320),
        (
            {"concurrency": 8, "isl": 8192, "gemm_quant_mode": "fp8_block", "moe_ep_size": 8},
            True,
            8320,
        ),
    ],
)
def test_search_spaces_tell_rows_with_drafts_where_both_ran_one_image(changes, drafts, tokens):
    pool = pool_of(**DEEPSEEK | TP8 | OLD | changes)
    assert ("mtp" in pool) is drafts
    assert pool["max_step_tokens"] == tokens


@pytest.mark.parametrize(
    ("changes", "layout"),
    [
        ({"concurrency": 8}, (8, 1, 1)),
        ({"concurrency": 16}, (8, 1, 8)),
        ({"concurrency": 256}, (1, 8, 8)),
        ({"concurrency": 64, "isl": 8192}, (1, 8, 8)),
        ({"concurrency": 32, "isl": 8192}, (8, 1, 1)),
        ({"concurrency": 64, "gemm_quant_mode": "fp8_block"}, (1, 8, 8)),
        ({"concurrency": 64, "gemm_quant_mode": "fp8_block", "system": "h200_sxm"}, (8, 1, 8)),
    ],
)
def test_first_scripts_chose_parallelism_themselves(changes, layout):
    pool = pool_of(**DEEPSEEK | TP8 | {"backend_version": float("nan")} | changes)
    assert (pool["tp"], pool["dp"], pool["ep"]) == layout
    assert pool["dies"] == 8
    assert "mtp" not in pool


@pytest.mark.parametrize(
    ("changes", "most_seqs", "pieces", "frac"),
    [
        ({"concurrency": 64, "moe_ep_size": 8}, 64, 8192, 0.8),
        ({"concurrency": 64}, 64, None, 0.8),  # fp4: only where experts are on all dies
        ({"concurrency": 64, **FP8}, 64, 8192, 0.8),
        ({"concurrency": 128, "osl": 8192, **FP8}, 128, 8192, 0.8),
        ({"concurrency": 256, **FP8, **DP8}, 32, None, 0.7),
        ({"concurrency": 256, **DP8}, 64, 8192, 0.8),
        ({"concurrency": 32, "isl": 8192, **FP8}, 32, None, 0.8),
        ({"concurrency": 128, **LAST}, 128, 1600, 0.8),
        ({"concurrency": 128, **LAST, **DP8}, 32, None, 0.8),
        ({"concurrency": 16, **LAST, **FP8}, 16, 1152, 0.8),
        ({"concurrency": 4, **LAST, **FP8}, 4, None, 0.8),
        ({"concurrency": 8, "osl": 8192, **LAST, **FP8}, 8, None, 0.8),
        ({"concurrency": 64, "osl": 8192, **LAST}, 64, 1344, 0.8),
        ({"concurrency": 8, **OLD, **FP8}, 256, None, 0.8),
        ({"concurrency": 8, **OLD, **FP8, "system": "h200_sxm"}, 128, None, 0.75),
    ],
)
def test_scripts_of_deepseek_choose_graphs_and_memory(changes, most_seqs, pieces, frac):
    document = document_of(row(**DEEPSEEK | TP8 | PLAIN | changes))
    assert document["engine"]["max_graph_tokens"] == most_seqs
    assert document["engine"].get("max_piece_tokens") == pieces
    assert document["deployment"]["mixed"]["memory_frac"] == frac


def test_more_clients_than_sglang_takes_without_drafts_had_drafts():
    pool = pool_of(**R1, **TP8, **FP8, backend="sglang", backend_version="0.5.9", concurrency=128)
    layout = Layout(dies=1, mtp_layers=2, mtp_acceptance=tuple(pool["mtp"]["acceptance"]))
    assert layout.mean_decode_tokens == pytest.approx(2.27)  # accepted length of InferenceX
    assert (pool["max_num_seqs"], pool["max_step_tokens"]) == (512, 16384)
    few = pool_of(**R1, **TP8, **FP8, backend="sglang", backend_version="0.5.9", concurrency=64)
    assert "mtp" not in few


def test_data_parallel_ranks_of_sglang_have_equal_parts_of_its_limits():
    document = document_of(row(**R1, **DP8, backend="sglang", gemm_quant_mode="nvfp4"))
    pool = document["deployment"]["mixed"]
    assert (pool["max_num_seqs"], pool["max_step_tokens"]) == (32, 2048)
    assert "policies" not in document  # no interval


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("int4_wo", ("bf16", 8192, 0.95)), ("nvfp4", ("fp8", 2048, 0.9))],
)
def test_kimi_runs_by_its_scripts(dtype, expected):
    kimi = {"model_path": "moonshotai/Kimi-K2.5", "system": "b200_sxm", "isl": 1024}
    pool = pool_of(**kimi, **TP8, gemm_quant_mode=dtype, concurrency=16)
    assert (pool["kv_dtype"], pool["max_step_tokens"], pool["memory_frac"]) == expected
    assert pool["max_num_seqs"] == 16


SPLIT = {
    "mode": "disagg",
    "concurrency": 64,
    **{f"{role}_{key}": 1 for role in ("prefill", "decode") for key in ("num_workers", "pp_size")},
    **{f"{role}_{key}": 8 for role in ("prefill", "decode") for key in ("tp_size", "moe_ep_size")},
    **{
        f"{role}_{key}": 1
        for role in ("prefill", "decode")
        for key in ("attention_dp_size", "moe_tp_size")
    },
}


def test_workers_of_split_deployments_follow_recipes_not_scripts():
    """No image: the first scripts for one server chose parallelism; no script chooses here."""
    given = row(**DEEPSEEK | SPLIT | {"backend_version": float("nan"), "isl": 8192})
    document = document_of(given)
    prefill, decode = document["deployment"]["prefill"], document["deployment"]["decode"]
    assert [(pool["tp"], pool["dp"], pool["ep"]) for pool in (prefill, decode)] == [(8, 1, 8)] * 2
    assert (prefill["max_step_tokens"], prefill["memory_frac"]) == (8320, 0.6)
    assert "mtp" not in decode
    assert "policies" not in document
    experiment = experiment_of(given)
    assert experiment.policies["batching"].use == "in_flight"
    sglang = document_of({**given, "backend": "sglang", "decode_attention_dp_size": 8})
    assert sglang["deployment"]["decode"]["max_num_seqs"] == 128


def test_later_scripts_of_minimax_give_what_the_first_left_to_the_engine():
    given = {
        "model_path": "MiniMaxAI/MiniMax-M2.5",
        "system": "b200_sxm",
        "gemm_quant_mode": "fp8",
        "isl": 1024,
        "concurrency": 64,
    }
    keys = ("kv_dtype", "max_step_tokens", "memory_frac")
    first = pool_of(**given, backend_version="0.17.0")
    assert [first[key] for key in keys] == ["bf16", 8192, 0.95]
    document = document_of(row(**given, backend_version="0.19.0"))
    later = document["deployment"]["mixed"]
    assert [later[key] for key in keys] == ["fp8", 2048, 0.9]
    assert document["engine"]["max_graph_tokens"] == 2048


def test_clients_take_whole_answers_and_chance_chooses_experts():
    document = document_of(row())
    assert document["workload"]["max_tokens"] == "output_tokens"
    assert "expert_routing" not in document
    assert document_of(row(**DEEPSEEK, **TP8))["expert_routing"] == "balanced"


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


@pytest.mark.parametrize("image", ["0.11.2", float("nan")])
def test_rows_that_hide_what_a_server_was_given_are_refused(image):
    """The script's client took 512 for every CONC; later ones take CONC."""
    given = {"model_path": "openai/gpt-oss-120b", "gemm_quant_mode": "nvfp4", "concurrency": 512}
    assert document_of(row(**given, backend_version="0.18.0"))["deployment"]
    with pytest.raises(Exception, match="512 clients") as caught:
        document_of(row(**given, backend_version=image))
    assert caught.value.reason.endswith("not known")
    assert document_of(row(**given | {"concurrency": 64}, backend_version=image))["deployment"]


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


def test_an_engine_runs_the_library_it_was_told_to():
    b200 = load_hardware("b200")
    told = with_libraries(b200, SEMANTICS["trtllm"], "cutlass").kernels.grouped_gemm
    assert [name for name in told if name.startswith("nvfp4/")] == ["nvfp4/cutlass"]
    assert "fp8_block/deepgemm" in told  # nobody has measured these of CUTLASS
    with pytest.raises(ConfigError, match=r"no experts' kernels of marlin; it has .*generated"):
        with_libraries(b200, SEMANTICS["trtllm"], "marlin")


def test_a_lent_library_can_be_told_and_other_formats_keep_the_usual_one():
    h200 = load_hardware("h200")
    own = h200.kernels.grouped_gemm
    for told, bf16 in (("triton", "triton"), ("cutlass", "cutlass"), ("generated", "triton")):
        fits = with_libraries(h200, SEMANTICS["vllm-v1"], told).kernels.grouped_gemm
        assert {"bf16/triton", "bf16/cutlass"} & set(fits) == {f"bf16/{bf16}"}
        mxfp4 = "w4a16_mxfp4/generated"
        assert fits.get(mxfp4) is (own[mxfp4] if told == "generated" else None)


@pytest.mark.parametrize(
    ("model", "library", "message"),
    [
        ("qwen3-30b-a3b", "generated", "generated has no kernels of the experts of qwen3-30b-a3b"),
        ("qwen3-30b-a3b", "deepgemm", "no experts' kernels of deepgemm; it has those of cutlass"),
        ("llama-3.1-70b", "cutlass", "has no experts; leave it out"),
    ],
)
def test_a_library_that_would_run_no_experts_is_refused(model, library, message):
    changes = [f"model={model}", "hardware=h100", f"engine.experts_library={library}"]
    with pytest.raises(ConfigError, match=message) as caught:
        load_experiment(EXPERIMENT, changes)
    assert str(caught.value).startswith(f"--set engine.experts_library={library}")


def test_an_experiment_says_the_library():
    changes = ["model=qwen3-30b-a3b", "hardware=b200", "engine.experts_library=cutlass"]
    (hardware,) = load_experiment(EXPERIMENT, changes).hardware.values()
    assert "nvfp4/generated" not in hardware.kernels.grouped_gemm


@pytest.mark.parametrize(
    ("changes", "library"),
    [
        ({**DP8, **LAST, "concurrency": 64}, "cutlass"),
        ({**TP8, **LAST, "concurrency": 64}, None),
        ({**TP8, "backend_version": float("nan"), "concurrency": 256}, "cutlass"),
        ({**DP8, **LAST, **FP8, "concurrency": 64}, None),
    ],
)
def test_attention_dp_of_deepseek_in_fp4_runs_experts_by_cutlass(changes, library):
    document = document_of(row(**DEEPSEEK | {"system": "b200_sxm"} | changes))
    assert document["engine"].get("experts_library") == library


def test_an_experiment_prices_experts_by_its_engine():
    of = "engine.semantics="
    changes = ["workload.num_requests=5", "model=qwen3-30b-a3b", "hardware=h100"]
    kernels = [
        next(iter(load_experiment(EXPERIMENT, [*changes, of + name]).hardware.values())).kernels
        for name in ("vllm-v1", "trtllm")
    ]
    assert "bf16/triton" in kernels[0].grouped_gemm
    assert "bf16/triton" not in kernels[1].grouped_gemm
