"""Laws of a step's price."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import (
    DEEPSEEK_R1,
    GPU_NODES,
    LLAMA_70B,
    NPU_POD,
    SMALL_MOE,
    add_prompts,
    decode_batch,
    ep_layout,
    ideal,
    permute,
    with_calibration,
    with_die,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from simpod.config import load_hardware, load_model
from simpod.cost import Layout, StepPricer
from simpod.cost.semantics import SEMANTICS
from simpod.cost.step import MAX_GROUP_TABLE_TOKENS
from simpod.cost.table import CONTEXT_KNOTS
from simpod.records.columns import STEP_PARTS

# flowserve: no step waits for the launches of the host, which would hide what the die does
PRICERS = {
    "dense": StepPricer(LLAMA_70B, GPU_NODES, Layout(dies=8, tp=8), "flowserve"),
    "moe-tp": StepPricer(SMALL_MOE, GPU_NODES, Layout(dies=8, tp=8, mtp_layers=1), "flowserve"),
    "ep4": StepPricer(SMALL_MOE, NPU_POD, ep_layout(4)),
    "ep4-mtp": StepPricer(DEEPSEEK_R1, NPU_POD, ep_layout(4, mtp=1)),
    "dp2-tp2": StepPricer(DEEPSEEK_R1, NPU_POD, ep_layout(4, dp=2, tp=2, ep=2)),
    "dp3-dense": StepPricer(LLAMA_70B, NPU_POD, Layout(dies=3, dp=3)),
}
names = st.sampled_from(sorted(PRICERS))
PEAK_DECODE = decode_batch([60] * 288, 184_320)


def price_s(pricer, batch):
    return pricer.price(batch).base_s


def part(prices, name, steps=1):
    return prices.parts(steps)[STEP_PARTS.index(name)]


@st.composite
def batches(draw, ranks, with_prompts=False):
    def counts(largest):
        return draw(st.lists(st.integers(0, largest), min_size=ranks, max_size=ranks))

    seqs = np.array(counts(300))
    batch = decode_batch(seqs, seqs * np.array(counts(5000)))
    if with_prompts:
        add_prompts(batch, counts(3000))
    if not (batch.decode_seqs.any() or batch.prefill_tokens.any()):
        batch.decode_seqs[0] = 1
    return batch


@given(st.data(), names, st.integers(0, 5000))
@settings(deadline=None)  # a table may grow
def test_law_of_a_run_is_that_of_its_single_steps(data, name, gained):
    pricer = PRICERS[name]
    batch = data.draw(batches(pricer.num_ranks))
    run = pricer.price(batch)
    gained = min(gained, run.linear_tokens())
    later = pricer.price(replace(batch, gained_tokens=batch.gained_tokens + gained))
    context = batch.context_tokens + gained * batch.decode_seqs
    assert later.base_s == pytest.approx(run.base_s + gained * run.slope_s, rel=1e-12)
    assert price_s(pricer, replace(batch, context_tokens=context)) == later.base_s


def error_s(pricer, batch, run, gained):
    """How far the price of a later step is from the law of the run."""
    later = price_s(pricer, replace(batch, gained_tokens=gained))
    return later - (run.base_s + gained * run.slope_s)


def test_law_ends_where_another_rank_becomes_the_slowest():
    pricer = PRICERS["ep4-mtp"]

    def batch_of(context):
        return decode_batch([10, 40, 20, 5], [90_000, context, 30_000, 40_000])

    leads = [c for c in range(40_000, 95_000, 10) if pricer.price(batch_of(c)).rank_wait_s[0] == 0]
    batch = batch_of(leads[-1])  # the second rank, of more sequences, is about to catch up
    run = pricer.price(batch)
    limit = run.linear_tokens()
    assert limit < run.room_tokens
    assert error_s(pricer, batch, run, limit) == pytest.approx(0, abs=1e-15)
    assert error_s(pricer, batch, run, limit + 2) > 1e-9


@pytest.mark.parametrize(("name", "ranks"), [("dense", 1), ("ep4", 4)])
def test_law_of_one_rank_or_even_ranks_ends_at_the_next_knot(name, ranks):
    batch = decode_batch([3] * ranks, [3 * 600] * ranks)
    run = PRICERS[name].price(batch)
    knots = CONTEXT_KNOTS[CONTEXT_KNOTS > 600]
    assert run.linear_tokens() == int(knots[0] - 600)
    assert error_s(PRICERS[name], batch, run, run.linear_tokens()) == pytest.approx(0, abs=1e-15)


@given(st.data(), names, st.integers(1, 9))
@settings(deadline=None)  # a table may grow
def test_parts_add_up_to_the_steps(data, name, steps):
    pricer = PRICERS[name]
    batch = data.draw(batches(pricer.num_ranks, with_prompts=steps == 1))
    prices = pricer.price(batch)
    gained = sum(range(steps)) if steps * steps < prices.linear_tokens() else 0
    parts = prices.parts(steps, gained)
    assert np.all(parts >= 0)
    total_s = steps * prices.base_s + gained * prices.slope_s
    assert parts.sum() == pytest.approx(total_s, rel=1e-12)


@given(st.data(), st.booleans())
@settings(deadline=None)  # a table may grow
def test_ranks_have_no_order(data, with_prompts):
    pricer = PRICERS["ep4-mtp"]
    batch = data.draw(batches(4, with_prompts))
    order = data.draw(st.permutations(range(4)))
    plain, mixed = (pricer.price(b) for b in (batch, permute(batch, order)))
    assert mixed.base_s == plain.base_s
    assert mixed.rank_wait_s.tolist() == plain.rank_wait_s[order].tolist()
    assert mixed.parts(1) == pytest.approx(plain.parts(1), rel=1e-9, abs=1e-12)


SLACK_FRAC = 0.03
"""Of a step: more work may be faster by this. Kernels have steps of their own: a few more tokens
choose a larger tile, another sequence fills the cores so that no context is split and merged."""


@given(st.data(), names)
@settings(max_examples=50, deadline=None)
def test_more_work_is_nearly_never_faster(data, name):
    pricer = PRICERS[name]
    batch = data.draw(batches(pricer.num_ranks, with_prompts=True))
    before = price_s(pricer, batch)
    rank = data.draw(st.integers(0, pricer.num_ranks - 1))
    more = data.draw(st.integers(1, 500))
    column = data.draw(st.sampled_from(["decode_seqs", "context_tokens", "prefill_tokens"]))
    if column == "prefill_tokens":
        batch.prefill_pairs[rank] += more * (batch.prefill_tokens[rank] + (more + 1) / 2)
        batch.prefill_context[rank] += more
        batch.num_chunks[rank] = 1
    getattr(batch, column)[rank] += more
    assert price_s(pricer, batch) >= before * (1.0 - SLACK_FRAC)


@pytest.mark.parametrize("model", [DEEPSEEK_R1, LLAMA_70B], ids=lambda m: m.name)
@pytest.mark.parametrize("tp", [1, 4])
def test_better_hardware_is_never_slower(model, tp):
    layout = Layout(dies=4 * tp, dp=4, tp=tp, ep=4, weight_dtype="int8", mtp_layers=1)
    batch = add_prompts(decode_batch([10, 20, 0, 5], [9000, 8000, 0, 100]), [0, 500, 4000, 0])
    base = price_s(StepPricer(model, NPU_POD, layout), batch)
    planes = {
        name: replace(plane, bytes_per_s=2 * plane.bytes_per_s)
        for name, plane in NPU_POD.planes.items()
    }
    peaks = {name: 2 * peak for name, peak in NPU_POD.die.peak_flops_per_s.items()}
    better = [
        with_die(NPU_POD, hbm_bytes_per_s=3.2e12),
        with_die(NPU_POD, peak_flops_per_s=peaks),
        with_die(NPU_POD, vector_flops_per_s=44e12),
        with_calibration(NPU_POD, kernel_overhead_s=1e-6),
    ]
    if tp > 1 or model.moe:
        better.append(replace(NPU_POD, planes=planes))
    for hardware in better:
        assert price_s(StepPricer(model, hardware, layout), batch) < base


def test_one_rank_without_expert_parallelism_has_no_dispatch():
    prices = PRICERS["moe-tp"].price(decode_batch(8, 800))
    for name in ("dispatch", "dispatch_wait", "combine", "combine_wait"):
        assert part(prices, name) == 0
    assert part(prices, "experts") > 0
    assert part(prices, "all_reduce") > 0
    assert prices.rank_wait_s.tolist() == [0]


def test_tensor_parallelism_divides_the_work_of_a_step():
    free = {name: replace(p, bytes_per_s=1e30) for name, p in GPU_NODES.planes.items()}
    hardware = replace(ideal(GPU_NODES), planes=free)
    batch = decode_batch(32, 32000)
    parts = {}
    for tp in (1, 8):
        prices = StepPricer(LLAMA_70B, hardware, Layout(dies=tp, tp=tp)).price(batch)
        parts[tp] = {name: part(prices, name) for name in ("attention", "projections", "ffn")}
    assert parts[8]["attention"] == pytest.approx(parts[1]["attention"] / 8, rel=1e-12)
    for name in ("projections", "ffn"):  # inputs and outputs are not divided
        assert parts[1][name] / 8 <= parts[8][name] < parts[1][name] / 6


def test_decode_of_a_dense_model_by_hand_when_memory_binds():
    """32 sequences of one KV head a core at least, so that no context is split."""
    compute = {"peak_flops_per_s": {"bf16": 1e30}, "vector_flops_per_s": 1e30}
    hardware = ideal(GPU_NODES, **compute)
    prices = StepPricer(LLAMA_70B, hardware, Layout(dies=1)).price(decode_batch(32, 32 * 999))
    kv_bytes = 32 * 1000 * 80 * 2 * 8 * 128 * 2  # resident tokens and the new one
    query_bytes = 32 * 80 * 64 * 2 * 128 * 2
    assert part(prices, "attention") == pytest.approx((kv_bytes + query_bytes) / 3e12, rel=1e-9)

    def product_bytes(k, n):
        return 2 * (k * n + 32 * (k + n))

    layer = {"projections": [(8192, 10240), (8192, 8192)], "ffn": [(8192, 57344), (28672, 8192)]}
    for name, matrices in layer.items():
        by_hand = 80 * sum(product_bytes(*matrix) for matrix in matrices)
        if name == "ffn":  # silu(gate) * up: both read, one written
            by_hand += 80 * 32 * 3 * 28672 * 2
        assert part(prices, name) == pytest.approx(by_hand / 3e12, rel=1e-9), name
    assert part(prices, "head") == pytest.approx(product_bytes(8192, 128256) / 3e12, rel=1e-9)


def test_a_long_prompt_by_hand_when_compute_binds():
    """Whole tiles on every core: operations over the peak, half of the pairs behind the mask."""
    hardware = ideal(GPU_NODES, hbm_bytes_per_s=1e30, vector_flops_per_s=1e30, num_cores=16)
    batch = add_prompts(decode_batch(0, 0), 16384)
    prices = StepPricer(LLAMA_70B, hardware, Layout(dies=1)).price(batch)
    layer_parameters = 8192 * (10240 + 8192 + 3 * 28672)
    rest = part(prices, "projections") + part(prices, "ffn")
    assert rest == pytest.approx(80 * 2 * 16384 * layer_parameters / 1e15, rel=1e-6)
    pairs = 16384 * 16385 / 2
    by_hand_s = 80 * pairs * 4 * 64 * 128 / 1e15
    assert part(prices, "attention") == pytest.approx(by_hand_s, rel=0.02)  # diagonal in tiles


def test_slowest_rank_decides_and_the_others_wait():
    pricer = PRICERS["ep4-mtp"]
    even = pricer.price(decode_batch([10] * 4, [100_000] * 4))
    uneven = pricer.price(decode_batch([10] * 4, [40_000, 160_000, 100_000, 100_000]))
    slow = pricer.price(decode_batch([10] * 4, [160_000] * 4))
    assert even.base_s < uneven.base_s
    assert uneven.base_s == slow.base_s
    assert part(uneven, "attention") == pytest.approx(part(even, "attention"), rel=0.01)
    skew_s = SEMANTICS["flowserve"].launch_skew_s
    assert part(even, "dispatch_wait") == pytest.approx(skew_s)
    assert part(uneven, "dispatch_wait") == pytest.approx(skew_s + uneven.rank_wait_s.mean())
    assert uneven.rank_wait_s[1] == 0
    assert uneven.rank_wait_s[0] == pytest.approx(2 * uneven.rank_wait_s[2], rel=0.05)


def test_idle_ranks_take_part():
    pricer = PRICERS["ep4-mtp"]
    prices = pricer.price(decode_batch([20, 0, 0, 0], [50_000, 0, 0, 0]))
    assert prices.rank_wait_s[0] == 0
    assert np.all(prices.rank_wait_s[1:] > 0)
    busy = pricer.price(decode_batch([20, 1, 1, 1], [50_000, 1, 1, 1]))
    assert prices.rank_wait_s[1:] == pytest.approx(busy.rank_wait_s[1:], rel=0.1)
    assert prices.base_s < busy.base_s  # fewer tokens at the experts


def test_tokens_of_the_fullest_rank_are_waited_for():
    pricer = PRICERS["dp2-tp2"]
    even = pricer.price(add_prompts(decode_batch([0, 0], 0), [2000, 2000]))
    uneven = pricer.price(add_prompts(decode_batch([0, 0], 0), [4000, 0]))
    for name in ("dispatch", "combine", "experts"):
        assert part(uneven, name) == pytest.approx(part(even, name))
    assert part(even, "combine_wait") == 0
    assert part(uneven, "combine_wait") > 0


def test_ranks_of_a_dense_group_wait_at_the_end_of_the_step():
    together = PRICERS["dp3-dense"].price(decode_batch([1, 30, 4], [100, 60_000, 9000]))
    alone = StepPricer(LLAMA_70B, NPU_POD, Layout(dies=1)).price(decode_batch(30, 60_000))
    assert together.base_s == pytest.approx(alone.base_s, rel=1e-12)
    assert part(together, "dispatch") == 0
    assert part(together, "dispatch_wait") > 0


def test_drafts_cost_one_layer_each_and_more_tokens():
    batch = decode_batch([40] * 4, [120_000] * 4)
    pricers = [StepPricer(DEEPSEEK_R1, NPU_POD, ep_layout(4, mtp=n)) for n in (0, 1, 2)]
    none, one, two = (p.price(batch) for p in pricers)
    assert part(none, "mtp") == 0
    layer = (none.base_s - part(none, "head") - part(none, "host_gap")) / 61
    assert layer < part(one, "mtp") < 2 * (layer + part(none, "head"))
    assert part(two, "mtp") > 2 * part(one, "mtp")
    assert none.base_s < one.base_s < two.base_s


def test_a_chunk_costs_more_behind_a_long_context():
    pricer = PRICERS["dense"]
    first = add_prompts(decode_batch(4, 4000), 4096)
    later = add_prompts(decode_batch(4, 4000), 4096)
    later.prefill_pairs += 4096.0 * 8192
    later.prefill_context += 8192
    assert price_s(pricer, later) > price_s(pricer, first)


def test_steps_too_large_for_the_table_continue_it():
    pricer = StepPricer(SMALL_MOE, NPU_POD, ep_layout(2))
    below, at, above = (MAX_GROUP_TABLE_TOKENS + n for n in (-2, 0, 2))
    low, middle, high = (
        price_s(pricer, add_prompts(decode_batch([0, 0], 0), [1, tokens - 1]))
        for tokens in (below, at, above)
    )
    assert low < middle < high
    # in the table a line over 512 tokens, beyond it each count by itself: tiles end where they end
    assert high - middle == pytest.approx(middle - low, rel=0.05)


@pytest.mark.parametrize(
    ("model", "hardware", "layout", "batch", "low_s", "high_s"),
    [
        ("deepseek-r1", "cloudmatrix384", ep_layout(288, 1), PEAK_DECODE, 0.07, 0.12),
        ("llama-3.1-70b", "h100", Layout(dies=8, tp=8), decode_batch(1, 1024), 0.007, 0.013),
    ],
    ids=["xdeepserve-288", "llama-h100"],
)  # fmt: skip
def test_order_of_magnitude_on_shipped_profiles(model, hardware, layout, batch, low_s, high_s):
    """xDeepServe figure 20: 93 ms and a gap of 2; weights over 8 x 3.35 TB/s alone: 5.3 ms."""
    pricer = StepPricer(load_model(model), load_hardware(hardware), layout)
    assert low_s < price_s(pricer, batch) < high_s
