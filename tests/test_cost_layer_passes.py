"""Element-wise kernels of a layer: what they move, which engine runs which, and measured ones."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import DEEPSEEK_R1, LLAMA_70B, SMALL_MOE

from simpod.config import load_hardware
from simpod.cost import Layout
from simpod.cost.layer_passes import expert_sum, layer_passes, prompt_copies
from simpod.cost.parts import PartCosts
from simpod.cost.passes import pass_s
from simpod.cost.semantics import SEMANTICS
from simpod.cost.work import Pass

BF16, INT8 = Layout(dies=1), Layout(dies=1, weight_dtype="int8")
A3 = load_hardware("cloudmatrix384")
VLLM, FLOWSERVE = SEMANTICS["vllm-v1"], SEMANTICS["flowserve"]
CANN, VLLM_ASCEND = SEMANTICS["cann-recipes"], SEMANTICS["vllm-ascend"]


def moved(works) -> float:
    return sum(work.hbm_bytes for work in works)


def kernels(works) -> int:
    return sum(work.kernels for work in works)


def test_passes_move_what_they_must() -> None:
    """Fused add-norm: four passes of the hidden state."""
    norms = layer_passes(LLAMA_70B, BF16, 3.0, VLLM)
    rotated, cached = (64 + 8) * 128, 2 * 8 * 128
    assert moved(norms) == 3 * ((8 * 8192 + 2 * rotated) * 2 + cached * 2)
    assert kernels(norms) == 4
    fp8 = layer_passes(LLAMA_70B, replace(BF16, weight_dtype="fp8"), 3.0, VLLM)
    assert kernels(fp8) == 6  # two quantisations
    cast = 8192 + 64 * 128  # the hidden state, and what heads give: 16 bits in, 8 out
    assert moved(fp8) == moved(norms) + 3 * cast * 3


def test_a_fused_prolog_rotates_writes_the_cache_norms_and_quantises() -> None:
    for semantics, norms in ((VLLM, 0), (FLOWSERVE, 1)):
        for layout, fewer in ((INT8, 3 + 2 * norms), (BF16, 2 + norms)):
            apart, fused = (
                layer_passes(DEEPSEEK_R1, layout, 8.0, semantics, is_fused=is_fused)
                for is_fused in (False, True)
            )
            assert kernels(apart) - kernels(fused) == fewer
            keys = 2 * 576 * 2 + 576 * 2  # rotated and cached beside the products
            latents = norms * (4 + (3 if layout is INT8 else 0)) * 1536
            assert moved(apart) - moved(fused) == 8 * (keys + latents)


def test_latents_are_cast_only_for_a_product_in_8_bits() -> None:
    kept = replace(DEEPSEEK_R1, bf16_parts=("attention",))
    cast, left = (layer_passes(m, INT8, 8.0, FLOWSERVE) for m in (DEEPSEEK_R1, kept))
    assert moved(cast) - moved(left) == 8 * 1536 * 3


def test_cann_quantises_the_hidden_state_of_prompts_twice() -> None:
    once, twice = (layer_passes(DEEPSEEK_R1, INT8, 8.0, each) for each in (FLOWSERVE, CANN))
    assert moved(twice) - moved(once) == 8 * 7168 * 3
    assert kernels(twice) - kernels(once) == 1
    fused = [layer_passes(DEEPSEEK_R1, INT8, 8.0, x, is_fused=True) for x in (FLOWSERVE, CANN)]
    assert fused[0] == fused[1]


def test_norms_of_heads_move_their_bytes_where_they_are_kernels_of_their_own() -> None:
    model = replace(LLAMA_70B, attention=replace(LLAMA_70B.attention, has_qk_norm=True))
    joined, apart = (layer_passes(model, BF16, 3.0, each) for each in (VLLM, FLOWSERVE))
    assert kernels(joined) == kernels(apart) == 6
    assert moved(apart) - moved(joined) == 3 * (64 + 8) * 128 * 4


def test_copies_write_what_they_cut_and_join() -> None:
    """Queries, keys, values; keys and values of the context, and its rotated key for each head."""
    assert [
        moved(layer_passes(m, INT8, 8.0, VLLM_ASCEND)[-1:]) for m in (LLAMA_70B, DEEPSEEK_R1)
    ] == [
        8 * (64 + 2 * 8) * 128 * 2,
        8 * 128 * 192 * 2,
    ]
    output, cut, spread = prompt_copies(DEEPSEEK_R1, INT8, 8.0, 20.0)
    assert output.hbm_bytes == 8 * 128 * 128 * 2
    assert (cut.hbm_bytes, spread.hbm_bytes) == (20 * 128 * 256 * 2, 20 * 128 * 64 * 2)
    assert moved(prompt_copies(LLAMA_70B, BF16, 8.0, 20.0)) == 8 * 64 * 128 * 2
    assert moved(expert_sum(DEEPSEEK_R1, INT8, 8.0)) == 8 * 2 * 7168 * 2
    assert expert_sum(SMALL_MOE, BF16, 8.0) == ()  # no shared expert


def test_vllm_on_ascend_copies_around_attention_of_prompts() -> None:
    layout, one = Layout(dies=8, tp=8), np.ones(1)
    without = replace(VLLM_ASCEND, copies_heads=False)
    costs = [PartCosts(DEEPSEEK_R1, A3, layout, each) for each in (VLLM_ASCEND, without)]
    more_s = np.diff([each.prefill_attention_s(one, 2048 * one, 1024 * one)[0] for each in costs])
    copies = prompt_copies(DEEPSEEK_R1, layout, 2048.0, 3072.0)
    assert -more_s == pytest.approx(61 * sum(pass_s(A3, work) for work in copies))


# --- against measured kernels ---------------------------------------------------------------------


def both_ways(rows: int, width: int, byte_width: int = 4, **kinds: bool) -> Pass:
    return Pass(flops=0.0, hbm_bytes=float(rows * width * byte_width), **kinds)


def copy(rows: int, width: int, kernels: int = 1) -> Pass:
    return Pass(flops=0.0, hbm_bytes=2.0 * rows * width, kernels=kernels, is_copy=True)


def ratio(rows) -> float:
    """Priced over measured, of all together; gaps between kernels are not in a kernel's time."""
    gaps_s = A3.calibration.kernel_gap_s * kernels(work for work, _ in rows)
    priced_s = sum(float(pass_s(A3, work)) for work, _ in rows)
    return (priced_s - gaps_s) / sum(1e-6 * us for _, us in rows)


def test_passes_of_prompts_take_what_was_measured() -> None:
    """Third-party profile (vLLM Ascend 0.15, CANN 8.5, A3 die), 2,048 tokens on 8 dies, us."""
    rows = [
        (both_ways(256, 7168, 8), 25.5),  # AddRmsNormBias
        (both_ways(256, 7168, 8), 25.5),
        (both_ways(256, 7168, 3), 24.5),  # DynamicQuant
        (both_ways(2048, 2048, 3), 25.7),  # AscendQuantV2
        (both_ways(2048, 1536, 3), 21.1),
        (both_ways(256, 1536), 20.1),  # RmsNorm
        (both_ways(2048, 16 * 64, is_rotation=True), 40.8),  # InterleaveRope
        (Pass(flops=0.0, hbm_bytes=2048.0 * 576 * 6), 27.5),  # KvRmsNormRopeCache
        (both_ways(256, 2048, 6), 17.9),  # SwiGlu
    ]
    assert ratio(rows) == pytest.approx(0.844, abs=0.01)


def test_copies_of_prompts_take_what_was_measured() -> None:
    """The same profile, and that of Qwen3-32B on 16 dies with 3,072 tokens."""
    latents = [
        (copy(2048, 16 * 192, 3), 3 * 13.15),  # Slice
        (copy(2048, 16 * 256, 2), 2 * 10.49),
        (copy(2048, 16 * 64), 11.4),  # BroadcastTo
        (copy(2048, 16 * 128), 11.9),  # TensorMove
        (copy(256, 7168), 10.6),  # Muls
        (copy(256, 7168), 11.5),  # Add
    ]
    heads = [(copy(3072, 6 * 128, 3), 2 * 3.82 + 9.42), (copy(3072, 4 * 128), 10.2)]
    assert ratio(latents) == pytest.approx(0.940, abs=0.01)
    assert ratio(heads) == pytest.approx(0.818, abs=0.01)


def test_passes_of_8192_rows_take_what_was_measured() -> None:
    """Of 8,192 rows on a 910B2 (cann-bench), without launches: 1.1 TB/s; docs/experts.md."""
    rows = [(both_ways(8192, 16384, 3), 364.0)]  # DynamicQuant
    assert ratio(rows) == pytest.approx(1.041, abs=0.01)
