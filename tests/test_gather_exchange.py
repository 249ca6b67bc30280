"""Tokens gathered on all dies instead of sent to experts' dies."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import DEEPSEEK_R1

from simpod.config import load_hardware, load_model
from simpod.cost import Batch, Layout, StepPricer
from simpod.cost.gather_exchange import GatherExchange, gathers_tokens
from simpod.cost.kernels.pricer import KernelPricer
from simpod.cost.semantics import SEMANTICS
from simpod.records.columns import STEP_PARTS

B200 = load_hardware("b200")
KERNELS = KernelPricer(B200, 0.8)
DP8 = Layout(dies=8, dp=8, ep=8, weight_dtype="fp8")


@pytest.mark.parametrize("dtype", ["fp8", "fp4"])
def test_what_crosses_is_all_tokens_of_the_group(dtype):
    """100 tokens of each of 8 dies; NVFP4 as it is computed on, else bf16; 8 choices of 8 bytes."""
    exchange = GatherExchange(DEEPSEEK_R1, B200, replace(DP8, weight_dtype=dtype), KERNELS)
    width = 0.5625 if dtype == "fp4" else 2.0
    gathered = 8 * 100 * (7168 * width + 64)
    scattered = 8 * 100 * 7168 * 2.0
    for operation, name, size in (
        ("dispatch", "all_gather", gathered),
        ("combine", "reduce_scatter", scattered),
    ):
        seconds = exchange.seconds(operation, np.array([100.0]))
        whole_s = KERNELS.collective_s(name, size, 8).item()
        assert seconds.item() == pytest.approx(whole_s, rel=1e-12)
        uneven = exchange.seconds(operation, np.array([100.0]), np.array([1.0, 3.0]))
        assert uneven.tolist() == [seconds.item()] * 2  # every die gets everything anyway


def test_a_die_sends_to_all_others():
    """On the plane that joins the node, and nothing beyond it."""
    exchange = GatherExchange(DEEPSEEK_R1, B200, DP8, KERNELS)
    ((sent, moving_s, total_s),) = exchange.moves("combine", np.array([100.0]), "scale_up")
    assert sent == 7 * 100 * 7168 * 2
    assert 0.0 < moving_s < total_s == exchange.seconds("combine", np.array([100.0])).item()
    assert exchange.moves("combine", np.array([100.0]), "scale_out")[0, :2].tolist() == [0.0, 0.0]


def test_few_dies_gather_and_many_send():
    """DeepSeek's tokens have 8 experts."""
    assert gathers_tokens(DEEPSEEK_R1, B200, DP8, KERNELS)
    pod = load_hardware("b200-pod")
    assert not gathers_tokens(DEEPSEEK_R1, pod, Layout(dies=16, dp=16, ep=16), KERNELS)
    oss = load_model("gpt-oss-120b")  # 4 experts
    assert gathers_tokens(oss, B200, Layout(dies=4, dp=4, ep=4), KERNELS)
    assert not gathers_tokens(oss, B200, DP8, KERNELS)
    bare = KernelPricer(replace(B200, kernels=replace(B200.kernels, collective={})), 0.8)
    assert not gathers_tokens(DEEPSEEK_R1, B200, DP8, bare)


def parts(semantics, *tokens):
    counts = np.zeros(8, dtype=np.int64)
    batch = Batch.of(counts, counts)
    batch.prefill_tokens[:] = batch.prefill_context[:] = tokens
    batch.prefill_pairs[:] = batch.prefill_tokens * (batch.prefill_tokens + 1) / 2
    batch.num_chunks[:] = 1
    return StepPricer(DEEPSEEK_R1, B200, DP8, semantics).price(batch).parts()


def test_tensorrt_llm_waits_for_no_rank_in_an_exchange_of_few_dies():
    """One rank with all the prompts makes dispatch wait where tokens are sent, not gathered."""
    dispatch = [STEP_PARTS.index(name) for name in ("dispatch", "combine")]
    waits = STEP_PARTS.index("combine_wait")
    trtllm = SEMANTICS["trtllm"]
    sends = replace(trtllm, gathers_few=False)
    even, uneven = [500] * 8, [4000] + [0] * 7
    assert parts(trtllm, *even)[dispatch].sum() == pytest.approx(
        parts(trtllm, *uneven)[dispatch].sum(), rel=1e-6
    )
    assert parts(sends, *uneven)[waits] > parts(trtllm, *uneven)[waits]


def test_other_engines_send():
    assert [name for name, each in SEMANTICS.items() if each.gathers_few] == ["trtllm"]
