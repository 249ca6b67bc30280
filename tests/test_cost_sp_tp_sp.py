"""Attention of a rank in three stages: tokens apart, heads apart, tokens apart."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import DEEPSEEK_R1, NPU_POD, total_flops

from simpod.config import load_hardware
from simpod.cost import Batch, Layout, StepPrices, step_pricer
from simpod.cost import operators as op
from simpod.cost.kernels.pricer import KernelPricer
from simpod.cost.layer_passes import layer_passes
from simpod.cost.memory import plan_memory
from simpod.cost.memory_rules import MemoryLimits
from simpod.cost.rank_collectives import RankCollectives
from simpod.cost.semantics import CLOUDMATRIX_INFER
from simpod.cost.step_parts import HEAD_EXCHANGE, LATENT_GATHER
from simpod.records.columns import STEP_PARTS

HARDWARE = load_hardware("cloudmatrix384")
ONE = Layout(dies=1, weight_dtype="int8")
TOKENS = 4096.0
ALL_REDUCE = STEP_PARTS.index("all_reduce")


def staged(tp: int, dp: int = 1, **changes: object) -> Layout:
    """Changes are of the layout's own fields."""
    plain = Layout(
        dies=dp * tp, dp=dp, tp=tp, weight_dtype="int8", attention_parallelism="sp_tp_sp"
    )
    return replace(plain, **changes)


def of_instance(tp: int, **changes: object) -> Layout:
    """CloudMatrix-Infer's prefill instance of 32 dies, in ranks of `tp`."""
    layout = staged(tp, 32 // tp, ep=32, redundant_slots=32, shared_expert_dies=32)
    return replace(layout, **changes)


def prompts(layout: Layout, per_die: int = 8192, keys: float = 2048.5) -> Batch:
    ranks = np.ones(layout.dp, dtype=np.int64)
    batch = Batch.of(0 * ranks, 0 * ranks)
    batch.prefill_tokens += per_die * layout.tp
    batch.prefill_context += per_die * layout.tp
    batch.prefill_pairs += per_die * layout.tp * keys
    batch.num_chunks += 2 * layout.tp
    return batch


def price(layout: Layout, batch: Batch) -> StepPrices:
    return step_pricer(DEEPSEEK_R1, HARDWARE, layout, "cloudmatrix-infer").price(batch)


def memory(layout: Layout, max_step_tokens: int = 8192):
    limits = MemoryLimits(memory_frac=0.9, max_step_tokens=max_step_tokens, max_num_seqs=8)
    return plan_memory(DEEPSEEK_R1, NPU_POD, layout, limits)


@pytest.mark.parametrize("tp", [2, 4, 16])
def test_operations_of_all_dies_are_those_of_one(tp: int) -> None:
    """No token is worked on twice: unlike tensor parallelism, which copies down-projections."""
    model = DEEPSEEK_R1
    for operator in (op.attention_projections, op.dense_ffn, op.shared_experts):
        whole = total_flops(operator(model, ONE, TOKENS))
        assert tp * total_flops(operator(model, staged(tp), TOKENS)) == whole, operator
    whole_flops, own_flops = (
        sum(work.flops for work in layer_passes(model, layout, TOKENS, CLOUDMATRIX_INFER))
        for layout in (ONE, staged(tp))
    )
    assert tp * own_flops == pytest.approx(whole_flops, rel=1e-12)
    tensor = replace(staged(tp), attention_parallelism="tensor")
    copied = 2 * TOKENS * 7168 * (1536 + 576) * (tp - 1)
    cut = total_flops(op.attention_projections(model, tensor, TOKENS))
    assert tp * cut == total_flops(op.attention_projections(model, ONE, TOKENS)) + copied


def test_passes_move_each_byte_once_but_for_copies_of_the_cache() -> None:
    """Every die of a rank holds, and so writes, the latents of all its tokens."""
    one, four = (
        sum(work.hbm_bytes for work in layer_passes(DEEPSEEK_R1, x, TOKENS, CLOUDMATRIX_INFER))
        for x in (ONE, staged(4))
    )
    copies = 3 * TOKENS * 576 * 2
    assert 4 * four == pytest.approx(one + copies, rel=1e-12)


def test_an_odd_token_is_on_the_fullest_die() -> None:
    assert op.own_tokens(staged(4), 9.0) == 3.0
    assert op.own_tokens(replace(staged(4), attention_parallelism="tensor"), 9.0) == 9.0


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_one_die_costs_what_it_did_to_the_bit(micro_batches: int) -> None:
    layout = of_instance(1, micro_batches=micro_batches)
    before = replace(layout, attention_parallelism="tensor")
    batch = prompts(layout)
    assert price(layout, batch).base_s == price(before, batch).base_s
    assert price(layout, batch).parts().tolist() == price(before, batch).parts().tolist()
    assert memory(layout) == memory(before)


def test_bytes_between_dies_by_hand() -> None:
    """8 dies, 4,096 tokens: 2,112 bf16 of each to all; 16 heads of 128 bf16 from each die."""
    assert op.latent_gather_bytes(DEEPSEEK_R1, TOKENS) == 4096 * (1536 + 512 + 64) * 2
    assert op.head_exchange_bytes(DEEPSEEK_R1, staged(8), TOKENS) == 4096 * 16 * 128 * 2


def test_collectives_are_priced_from_the_profile() -> None:
    """The gather as HCCL was measured; heads by link and latency, 164 GB/s, beyond a node both."""
    tokens = np.array([131072.0])
    inside, beyond = (
        RankCollectives(
            model=DEEPSEEK_R1,
            hardware=HARDWARE,
            layout=staged(tp),
            kernels=KernelPricer(HARDWARE),
        )
        for tp in (16, 32)
    )
    gathered = op.latent_gather_bytes(DEEPSEEK_R1, tokens)
    measured_s = KernelPricer(HARDWARE).collective_s("all_gather", gathered, 16)
    assert inside.latent_gather_s(tokens) == pytest.approx(measured_s)
    rate = 0.837 * 196e9
    sent = 131072 * 8 * 128 * 2 * 15 / 16
    assert inside.head_exchange_s(tokens) == pytest.approx(sent / rate + 5.2e-6, rel=1e-6)
    crossing = gathered * 31 / 32
    assert beyond.latent_gather_s(tokens) == pytest.approx(crossing / rate + 5.9e-6, rel=1e-6)
    assert inside.all_reduces_s(tokens) == (0.0, 0.0)


def test_weights_of_a_die_by_hand() -> None:
    """Cut: up-projections of query and latent, and the head. All else is whole on each die."""
    one, four = memory(ONE), memory(staged(4))
    up = 1536 * 24576 + 512 * 128 * 256
    assert one.attention_bytes - four.attention_bytes == pytest.approx(61 * up * 3 / 4)
    assert four.dense_ffn_bytes == one.dense_ffn_bytes
    assert four.shared_expert_bytes == one.shared_expert_bytes
    assert one.other_bytes - four.other_bytes == pytest.approx(129280 * 7168 * 2 * 3 / 4)
    tensor = memory(replace(staged(4), attention_parallelism="tensor"))
    output = 61 * 16384 * 7168 * 3 / 4
    assert four.attention_bytes - tensor.attention_bytes == pytest.approx(output)


def test_activations_are_of_own_tokens_but_for_latents() -> None:
    tensor = memory(replace(staged(4), attention_parallelism="tensor"), 32768)
    by_hand = 32768 * 2 * (2 * 7168 * 3 / 4 - 2112)
    assert tensor.activation_bytes - memory(staged(4), 32768).activation_bytes == by_hand


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_parts_are_named_and_add_up(micro_batches: int) -> None:
    layout = of_instance(16, micro_batches=micro_batches)
    prices = price(layout, prompts(layout))
    parts = prices.parts()
    assert parts.sum() == pytest.approx(prices.base_s)
    assert (parts >= 0.0).all()
    assert parts[LATENT_GATHER] > 0.0
    assert parts[HEAD_EXCHANGE] > 0.0
    assert parts[ALL_REDUCE] == 0.0


def test_micro_batches_hide_what_crosses_links() -> None:
    """Copy engines carry latents and heads of one micro-batch beside products of the other."""
    one, two = (of_instance(16, micro_batches=count) for count in (1, 2))
    shown = price(one, prompts(one)).parts()[[LATENT_GATHER, HEAD_EXCHANGE]].sum()
    left = price(two, prompts(two)).parts()[[LATENT_GATHER, HEAD_EXCHANGE]].sum()
    assert left < 0.05 * shown


def test_even_work_beats_the_slowest_rank() -> None:
    """One rank of 32 with prompts four times as long: dispatch waits for it, or all share it."""
    apart = of_instance(1, attention_parallelism="tensor")
    batch = prompts(apart, per_die=2048, keys=1024.5)
    for field, factor in (("prefill_tokens", 4), ("prefill_context", 4), ("prefill_pairs", 16)):
        getattr(batch, field)[0] *= factor
    shared = of_instance(32)
    together = prompts(shared, per_die=2048, keys=1024.5)
    for field in ("prefill_tokens", "prefill_context", "prefill_pairs", "num_chunks"):
        getattr(together, field)[:] = getattr(batch, field).sum()
    slow, even = price(apart, batch), price(shared, together)
    assert slow.rank_wait_s[0] == 0.0
    assert slow.rank_wait_s[1:].min() > 0.3 * slow.base_s
    assert even.rank_wait_s.max() == 0.0
    assert even.base_s < 0.6 * slow.base_s


def test_decodes_may_be_staged_too() -> None:
    """Each die attends with its heads to the latents of all sequences of the rank."""
    layout = of_instance(4, shared_expert_dies=0)
    seqs = np.full(layout.dp, 64, dtype=np.int64)
    parts = price(layout, Batch.of(seqs, 4096 * seqs)).parts()
    assert parts[LATENT_GATHER] > 0.0
    assert parts[ALL_REDUCE] == 0.0
