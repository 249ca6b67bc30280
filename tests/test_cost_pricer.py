"""Operators as they are served: which measured variant stands for them, and what is priced."""

from dataclasses import replace

import kernel_examples
import numpy as np
import pytest
from cli_runs import ROOT, tiny
from cost_examples import DEEPSEEK_R1, GPU_NODES, LLAMA_70B, NPU_POD, SMALL_MOE, ideal
from kernel_examples import FREE, REAL, REAL_GEMM, REAL_GROUPED_GEMM, fit_of

from simpod.config import load_experiment, load_hardware
from simpod.cost import operators as op
from simpod.cost.kernels.expert_load import uniform_loads
from simpod.cost.kernels.gemm import GemmShape, gemm_s
from simpod.cost.kernels.grouped_gemm import GroupedGemmShape, grouped_gemm_s
from simpod.cost.kernels.pricer import AttentionSite, KernelPricer, mla_dims
from simpod.cost.kernels.variants import (
    GEMM,
    GROUPED_GEMM,
    collective_variants,
    decode_variants,
    find,
    gemm_format,
    grouped_format,
    mla_variants,
    need,
    prefill_variants,
)
from simpod.cost.layout import Layout
from simpod.cost.work import Product
from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import KernelFits
from simpod.run import run

DEVICES = {name: load_hardware(name) for name in ("a100", "h100", "b200", "cloudmatrix384")}


# --- formats and variants -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "formats"),
    [
        ("a100", {"bf16": "bf16", "fp8": "int8_wo", "int8": "int8", "fp4": "int4_wo"}),
        ("h100", {"bf16": "bf16", "fp8": "fp8", "int8": "int8", "fp4": "int4_wo"}),
        ("b200", {"bf16": "bf16", "fp8": "fp8", "int8": "int8", "fp4": "nvfp4"}),
        ("cloudmatrix384", {"bf16": "bf16", "fp8": "int8_wo", "int8": "int8", "w4a8": "w4a8"}),
    ],
)
def test_dense_products_run_in_what_the_die_multiplies(device, formats):
    hardware = DEVICES[device]
    assert {dtype: gemm_format(hardware, dtype) for dtype in formats} == formats
    assert gemm_format(hardware, "int4") == "int4_wo"
    assert gemm_format(hardware, "fp32") == gemm_format(hardware, "fp16") == "bf16"


def test_experts_of_four_bits_without_units_are_widened_in_the_kernel():
    h100, b200, a100 = (DEVICES[name] for name in ("h100", "b200", "a100"))
    assert grouped_format(h100, "fp4") == "w4a16_mxfp4"
    assert grouped_format(h100, "int4") == "int4"
    assert grouped_format(b200, "fp4") == "nvfp4"
    assert grouped_format(a100, "fp8") == "fp8"  # weights in 8 bits, products in bf16
    assert grouped_format(h100, "bf16") == "bf16"


def test_every_format_has_its_variants():
    dtypes = ("bf16", "fp16", "fp32", "fp8", "int8", "fp4", "int4", "w4a8")
    for hardware in DEVICES.values():
        assert {gemm_format(hardware, dtype) for dtype in dtypes} <= set(GEMM)
        assert {grouped_format(hardware, dtype) for dtype in dtypes} <= set(GROUPED_GEMM)


@pytest.mark.parametrize(
    ("device", "library"), [("a100", "fa2"), ("h100", "fa3"), ("b200", "trtllm")]
)
def test_decode_attention_is_that_of_the_familys_library(device, library):
    hardware = DEVICES[device]
    assert decode_variants(hardware, "bf16")[0] == f"bf16/{library}"
    assert decode_variants(hardware, "fp8")[:2] == (f"fp8/{library}", f"bf16/{library}")
    assert decode_variants(hardware, "int8")[0] == f"fp8/{library}"  # a byte is a byte
    assert (
        need(hardware, "decode_attention", decode_variants(hardware, "bf16"))
        is (hardware.kernels.decode_attention[f"bf16/{library}"])
    )


def test_caches_of_eight_bits_take_their_own_attention_first():
    wide = ("bf16", "bf16/fused", "bf16/trtllm")
    assert prefill_variants("bf16") == wide
    narrow = ("bf16_kv_fp8", "bf16_kv_fp8/fused", "bf16_kv_fp8/trtllm")
    assert prefill_variants("fp8") == (*narrow, *wide)
    assert mla_variants("bf16") == ("bf16", "bf16/trtllm_mla")
    assert mla_variants("int8") == ("fp8", "fp8/trtllm_mla", "int8", *mla_variants("bf16"))


def test_only_all_reduce_has_a_kernel_of_its_own():
    assert collective_variants("all_reduce")[0] == ("custom_graph/all_reduce",)
    assert len(collective_variants("all_reduce")) == 2
    assert len(collective_variants("all_gather")) == 1


def test_first_variant_that_is_there_is_found():
    fits = {"b/one": fit_of(1), "b/two": fit_of(2), "a": fit_of(3)}
    assert find(fits, ("a", "b/two")) is fits["a"]
    assert find(fits, ("missing", "b/two")) is fits["b/two"]
    assert find(fits, ("b/*",)) is fits["b/one"]  # the first of any library
    assert find({"int8": fit_of(4)} | fits, ("int8/*",)).constants == 4  # or without a library
    assert find(fits, ("missing",)) is fits["b/one"]  # any is better than none
    assert find({}, ("a",)) is None


@pytest.mark.parametrize("operator", ["gemm", "decode_mla"])
def test_a_profile_without_constants_is_refused_with_what_to_do(operator):
    bare = replace(GPU_NODES, kernels=KernelFits())
    with pytest.raises(
        ConfigError, match=rf"hardware gpu-nodes: .*no constants of {operator}; .*simpod calibrate"
    ):
        need(bare, operator, ("bf16",))


def test_an_experiment_on_such_a_profile_is_refused(tmp_path):
    shipped = (ROOT / "hardware_profiles" / "rtx-4090.yaml").read_text()
    bare = tmp_path / "bare.yaml"
    bare.write_text(shipped.replace("\nkernels_of: l40s\n", "\n"))
    experiment = load_experiment(str(tiny(tmp_path)), [f"hardware={bare}"])
    with pytest.raises(ConfigError, match="hardware rtx-4090: kernels: has no constants of"):
        run(experiment)


# --- prices ---------------------------------------------------------------------------------------


def test_a_product_is_cold_quantised_before_and_launched_as_bf16_is():
    """Tables of narrow formats time two kernels; in a step the kernel before has quantised."""
    hardware = GPU_NODES
    served = replace(
        kernel_examples.REAL_FP8_GEMM, launch_s=REAL_GEMM.launch_s, split_s=REAL_GEMM.split_s
    )
    m = np.array([1.0, 64.0, 5000.0])
    shape = GemmShape(m=m, n=np.array(4096.0), k=np.array(8192.0))
    by_hand = gemm_s(hardware.die, served, shape, "fp8", is_cold=True, is_quantised=True)
    work = Product(tokens=m, n=4096, k=8192, dtype="fp8")
    priced = KernelPricer(hardware).product_s(work)
    assert priced.tolist() == by_hand.tolist()
    joined = KernelPricer(hardware).product_s(replace(work, is_joined=True))
    assert priced - joined == pytest.approx(np.full(3, REAL_GEMM.launch_s), rel=1e-9)


def test_no_tokens_take_no_time():
    work = Product(tokens=np.array([0.0, 1.0]), n=512, k=512, dtype="bf16")
    priced = KernelPricer(GPU_NODES).product_s(work)
    assert priced[0] == 0.0
    assert priced[1] > 0.0


@pytest.mark.parametrize("dtype", ["bf16", "fp8", "int8"])
def test_a_graph_leaves_its_share_of_the_launch(dtype):
    work = Product(tokens=16.0, n=4096, k=4096, dtype=dtype)
    full, half = (KernelPricer(GPU_NODES, share).product_s(work) for share in (1.0, 0.5))
    assert full - half == pytest.approx(REAL_GEMM.launch_s / 2, rel=1e-9)


def test_experts_take_the_shorter_of_two_launches():
    quick, slow = (fit_of(replace(REAL_GROUPED_GEMM, launch_s=s)) for s in (1e-5, 9e-5))
    work = op.expert_work(SMALL_MOE, Layout(dies=1), np.array([64.0, 4096.0]))
    prices = []
    for bf16, fp8 in ((quick, slow), (slow, quick), (quick, quick)):
        fits = replace(REAL, grouped_gemm={"bf16/cutlass": bf16, "fp8_block/deepgemm": fp8})
        prices.append(KernelPricer(replace(GPU_NODES, kernels=fits)).experts_s(work, "fp8"))
    assert prices[0].tolist() == prices[1].tolist() == prices[2].tolist()


def test_experts_are_the_grouped_product_of_even_loads():
    work = op.expert_work(SMALL_MOE, Layout(dies=1), np.array([64.0, 4096.0]))
    shape = GroupedGemmShape(
        loads=uniform_loads(work.group_tokens, 16, 4, 16),
        num_tokens=work.arriving_tokens,
        topk=4.0,
        num_slots=16.0,
        hidden_size=1024.0,
        inter_size=512.0,
    )
    by_hand = grouped_gemm_s(GPU_NODES.die, REAL_GROUPED_GEMM, shape, dtype="bf16", is_cold=True)
    assert KernelPricer(GPU_NODES).experts_s(work, "bf16").tolist() == by_hand.tolist()


def site(model, tp=1, kv_dtype="bf16"):
    return AttentionSite(
        spec=model.attention,
        num_heads=op.heads_per_die(model.attention, tp),
        num_kv_heads=op.kv_heads_per_die(model.attention, tp),
        kv_dtype=kv_dtype,
        window_tokens=0,
    )


MEMORY_BOUND = {"peak_flops_per_s": {"bf16": 1e30, "int8": 1e30}, "vector_flops_per_s": 1e30}


def decode_s(hardware, where, seqs, context, queries=1):
    pricer = KernelPricer(hardware)
    return pricer.decode_attention_s(where, np.array([seqs]), np.array([context]), queries).item()


def test_absorbed_mla_reads_the_latent_once_for_all_heads():
    """Bytes of the latent, of queries and outputs; the latent is copied to every die."""
    hardware = ideal(NPU_POD, **MEMORY_BOUND)
    latent_s = 64 * 4096 * 576 * 2 / 1.6e12
    in_out_s = 64 * 128 * (576 + 512) * 2 / 1.6e12
    assert decode_s(hardware, site(DEEPSEEK_R1), 64.0, 4096.0) == pytest.approx(latent_s + in_out_s)
    split = decode_s(hardware, site(DEEPSEEK_R1, tp=4), 64.0, 4096.0)
    assert split == pytest.approx(latent_s + in_out_s / 4)


def test_drafts_share_one_pass_over_the_cache():
    hardware = ideal(NPU_POD, **MEMORY_BOUND)
    plain = decode_s(hardware, site(DEEPSEEK_R1), 64.0, 4096.0)
    draft = decode_s(hardware, site(DEEPSEEK_R1), 64.0, 4096.0, queries=2)
    in_out_s = 64 * 128 * (576 + 512) * 2 / 1.6e12
    assert draft - plain == pytest.approx(in_out_s)
    compute = ideal(NPU_POD, hbm_bytes_per_s=1e30)
    one, two = (decode_s(compute, site(DEEPSEEK_R1), 64.0, 4096.0, n) for n in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.02)


def test_grouped_heads_read_keys_and_values_of_their_die():
    hardware = ideal(GPU_NODES, **MEMORY_BOUND)
    for tp in (1, 8):
        by_hand = 32 * 1000 * 2 * (8 // tp) * 128 * 2 + 32 * (64 // tp) * 2 * 128 * 2
        got = decode_s(hardware, site(LLAMA_70B, tp), 32.0, 1000.0)
        assert got == pytest.approx(by_hand / 3e12, rel=1e-9)
    half = decode_s(hardware, site(LLAMA_70B, kv_dtype="fp8"), 32.0, 1000.0)
    assert half == pytest.approx((32 * 1000 * 2 * 8 * 128 + 32 * 64 * 2 * 128 * 2) / 3e12, rel=1e-9)


def test_prefill_computes_causal_pairs():
    """All cores busy with equal tiles: twice the pairs of a quarter of the prompts."""
    hardware = ideal(GPU_NODES, hbm_bytes_per_s=1e30, vector_flops_per_s=1e30)
    pricer = KernelPricer(hardware)
    tokens = 16384.0

    def prompt_s(where):
        one, new = np.array([1.0]), np.array([tokens])
        return pricer.prefill_attention_s(where, one, new, np.array([0.0])).item()

    pairs = tokens * (tokens + 1) / 2
    assert prompt_s(site(LLAMA_70B)) == pytest.approx(4 * 64 * 128 * pairs / 1e15, rel=0.03)
    wide = 2 * 128 * (128 + 64 + 128) * pairs / 1e15
    assert prompt_s(site(DEEPSEEK_R1)) == pytest.approx(wide, rel=0.03)


def test_widths_of_mla_are_those_of_the_model():
    dims = mla_dims(DEEPSEEK_R1.attention)
    assert (dims.latent, dims.absorbed, dims.plain) == (576, 1088, 320)


def test_the_faster_library_reduces():
    """The custom kernel for small messages, NCCL where it is the faster."""
    both = KernelPricer(GPU_NODES)
    sizes = 2.0 ** np.arange(10, 30)
    alone = []
    for name in ("nccl/all_reduce/bf16", "custom_graph/all_reduce"):
        fits = replace(REAL, collective={name: REAL.collective[name]})
        pricer = KernelPricer(replace(GPU_NODES, kernels=fits))
        assert pricer.has_collective("all_reduce")
        alone.append(pricer.collective_s("all_reduce", sizes, 8))
    assert alone[1][0] < alone[0][0]
    assert both.collective_s("all_reduce", sizes, 8).tolist() == np.minimum(*alone).tolist()
    assert not KernelPricer(replace(GPU_NODES, kernels=FREE)).has_collective("all_reduce")
