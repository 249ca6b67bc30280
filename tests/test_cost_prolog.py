"""One kernel before attention over latents: what it saves, of how many tokens, in which engine."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import DEEPSEEK_R1

from simpod.config import load_hardware
from simpod.cost import Layout
from simpod.cost.operators import PROLOG_TOKENS
from simpod.cost.parts import PartCosts
from simpod.cost.semantics import FLOWSERVE, SEMANTICS
from simpod.records.columns import STEP_PARTS

HARDWARE = load_hardware("cloudmatrix384")
LAYOUT = Layout(dies=32, dp=32, ep=32, weight_dtype="bf16")
APART = replace(FLOWSERVE, fuses_prolog=False)
BEFORE_DISPATCH = [STEP_PARTS.index(part) for part in ("projections", "elementwise")]


def layer_s(semantics, tokens, layout=LAYOUT):
    """Projections and passes of one layer."""
    costs = PartCosts(DEEPSEEK_R1, HARDWARE, layout, semantics)
    parts = costs.tokens(np.array(tokens, dtype=np.float64))[:, BEFORE_DISPATCH]
    return parts.sum(axis=1) / DEEPSEEK_R1.num_layers


def test_it_saves_the_launches_of_two_products_and_of_three_passes() -> None:
    """Queries up and keys absorbed; norm of the latent, rotation and the write into the cache."""
    calibration = HARDWARE.calibration
    gap_s = calibration.kernel_gap_s
    product_s = HARDWARE.kernels.gemm["bf16"].constants.launch_s + gap_s
    pass_s = calibration.kernel_overhead_s + gap_s
    tokens = np.array([1, 24, 120])
    saved_s = layer_s(APART, tokens) - layer_s(FLOWSERVE, tokens)
    rotation_frac = calibration.passes.rotation_frac
    slower = 2 * 2 * 128 * 64 * (1 / rotation_frac - 1 / calibration.hbm_frac)
    apart = 2 * (2 * 1536 + 3 * 576) / calibration.hbm_frac  # the latents, and the cache
    moved_s = tokens * (slower + apart) / HARDWARE.die.hbm_bytes_per_s
    assert saved_s == pytest.approx(2 * product_s + 3 * pass_s + moved_s, rel=0.005)


def test_prompts_are_too_many_tokens_for_it() -> None:
    tokens = [PROLOG_TOKENS, PROLOG_TOKENS + 1, 8192]
    saved_s = layer_s(APART, tokens) - layer_s(FLOWSERVE, tokens)
    assert saved_s[0] > 0.0
    assert saved_s[1:].tolist() == [0.0, 0.0]


def test_weights_of_8_bits_leave_those_per_head_in_16() -> None:
    """17 MB more to read of each of two matrices of 128 heads, at the die's rate for weights."""
    eight = replace(LAYOUT, weight_dtype="int8")
    more_s = np.diff([layer_s(semantics, [1], eight)[0] for semantics in (APART, FLOWSERVE)])[0]
    gemm = HARDWARE.kernels.gemm["int8"].constants
    launches_s = 2 * gemm.launch_s + 5 * HARDWARE.calibration.kernel_overhead_s
    launches_s += 7 * HARDWARE.calibration.kernel_gap_s
    wider_s = 2 * 128 * 128 * 512 / (gemm.hbm_frac * HARDWARE.die.hbm_bytes_per_s)
    assert more_s + launches_s == pytest.approx(wider_s, rel=0.1)


def test_engines_of_ascend_have_it_but_vllm() -> None:
    fusing = {name for name, semantics in SEMANTICS.items() if semantics.fuses_prolog}
    assert fusing == {"flowserve", "cloudmatrix-infer", "cann-recipes"}


def test_against_the_one_such_kernel_that_was_measured() -> None:
    """LongCat-Flash on an A3 die (cann-recipes-infer): 72 MB of bf16 weights, 12 tokens, 45.2 us;
    62 MB were brought into the last cache before, so that a cold one takes longer.
    """
    longcat = replace(
        DEEPSEEK_R1,
        hidden_size=6144,
        attention=replace(DEEPSEEK_R1.attention, num_heads=64, num_kv_heads=64),
    )
    costs = PartCosts(longcat, HARDWARE, LAYOUT, FLOWSERVE)
    found = costs.operators_s(12)
    prolog_s = found["latents down"] + found["queries up"] + found["keys absorbed"]
    assert 45.2e-6 < prolog_s < 1.7 * 45.2e-6
