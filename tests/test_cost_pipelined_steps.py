"""Prices of steps with uneven experts, micro-batches, and experts on dies of their own."""

from dataclasses import replace

import numpy as np
import pytest

from simpod.cluster.experts.routing import (
    BalancedRouting,
    CorrelatedRouting,
)
from simpod.config import load_hardware
from simpod.cost import Batch, Layout, StepPricer, StepPrices, plan_memory, step_pricer
from simpod.cost.core_split import share_of_cores
from simpod.cost.exposed import exposed
from simpod.cost.graphs import ANY_BATCH
from simpod.cost.memory_rules import MemoryLimits
from simpod.cost.micro_batches import MicroBatches
from simpod.cost.parts import PartCosts
from simpod.cost.semantics import SEMANTICS
from simpod.cost.split_step import ExpertSide, SplitStepPricer
from simpod.cost.step_parts import COMBINE_WAIT, DISPATCH_WAIT
from simpod.cost.stragglers import (
    Arrivals,
    SlowestRanks,
    group_sizes,
    last_of,
    leads_of,
    slowest_of,
)
from simpod.errors import ConfigError
from simpod.records.columns import STEP_PARTS
from tests.cost_examples import DEEPSEEK_R1, LLAMA_70B, loads_of

LIMITS = MemoryLimits(memory_frac=0.9, max_step_tokens=512, max_num_seqs=64)
HARDWARE = load_hardware("cloudmatrix384")
EVEN = replace(HARDWARE, calibration=replace(HARDWARE.calibration, decode_kernel_spread_frac=0.0))
"""The same with dies that are all as fast."""
COLOCATED = Layout(dies=32, dp=32, ep=32, weight_dtype="int8", mtp_layers=1, mtp_acceptance=0.9)
SPLIT = Layout(
    dies=12,
    dp=12,
    ep=16,
    weight_dtype="int8",
    mtp_layers=1,
    shared_expert_dies=2,
    expert_dies=16,
    domains=3,
    micro_batches=2,
)


def batch_of(ranks: int, seqs: int = 40, context: int = 3000) -> Batch:
    counts = np.full(ranks, seqs, dtype=np.int64)
    return Batch.of(counts, counts * context)


def adds_up(prices: StepPrices) -> None:
    assert prices.parts().sum() == pytest.approx(prices.base_s)
    assert (prices.parts() >= 0.0).all()


def test_even_routing_costs_what_chance_leaves() -> None:
    """A binomial spread of the loads of 32 dies: a little wait, and the rest as without."""
    plain = StepPricer(DEEPSEEK_R1, EVEN, COLOCATED).price(batch_of(32))
    loads = loads_of(BalancedRouting())
    even = StepPricer(DEEPSEEK_R1, EVEN, COLOCATED, loads=loads).price(batch_of(32))
    assert plain.base_s < even.base_s < 1.05 * plain.base_s
    assert even.parts()[COMBINE_WAIT] == pytest.approx(even.base_s - plain.base_s, rel=0.3)
    adds_up(even)


def test_skew_shows_as_wait_for_the_fullest_die() -> None:
    waits = [
        StepPricer(
            DEEPSEEK_R1, HARDWARE, COLOCATED, loads=loads_of(CorrelatedRouting(log_scale=scale))
        )
        .price(batch_of(32))
        .parts()[COMBINE_WAIT]
        for scale in (0.0, 0.5, 1.0)
    ]
    assert waits[0] < waits[1] < waits[2]


def test_loads_are_drawn_once() -> None:
    loads = loads_of(CorrelatedRouting())
    first, again = loads(1000.0), loads(1000.0)
    assert np.array_equal(first.busy, again.busy)
    assert (first.imbalance >= 1.0).all()
    assert loads(8000.0).imbalance.mean() < first.imbalance.mean()  # chance matters less


def test_redundant_and_shared_slots_take_memory_and_work() -> None:
    wider = replace(COLOCATED, redundant_slots=32, shared_expert_dies=32)
    plans = [plan_memory(DEEPSEEK_R1, HARDWARE, layout, LIMITS) for layout in (COLOCATED, wider)]
    assert plans[1].expert_bytes / plans[0].expert_bytes == pytest.approx(10 / 8)
    assert plans[1].shared_expert_bytes == 0.0
    own = StepPricer(DEEPSEEK_R1, HARDWARE, COLOCATED).price(batch_of(32))
    sent = StepPricer(DEEPSEEK_R1, HARDWARE, wider).price(batch_of(32))
    assert sent.base_s == pytest.approx(own.base_s, rel=0.1)
    adds_up(sent)


def test_micro_batches_share_the_batch_out() -> None:
    costs = PartCosts(DEEPSEEK_R1, HARDWARE, COLOCATED, SEMANTICS["flowserve"])
    batch = Batch.of(np.array([5, 0, 1] + [2] * 29), np.array([500, 0, 30] + [200] * 29))
    found = MicroBatches(costs, 32, 2).price(batch)
    assert found.tokens[:, :4].tolist() == [[6, 0, 2, 2], [4, 0, 0, 2]]  # two a sequence
    assert found.rows == 10
    whole = MicroBatches(costs, 32, 1).price(batch)
    assert (found.busy_s >= whole.busy_s).all()  # weights are read twice


def test_dense_layers_have_a_feed_forward_of_their_own() -> None:
    """Of 61 layers 3 are dense; with the layer of MTP 62 are gone through."""
    costs = PartCosts(DEEPSEEK_R1, HARDWARE, COLOCATED, SEMANTICS["flowserve"])
    found = MicroBatches(costs, 32, 1).price(batch_of(32, seqs=40, context=3000))
    tokens = np.array([80.0])
    ffn_s = costs.dense_more(tokens).sum()
    assert ffn_s > 0.0
    assert found.dense_s[0] - found.sparse_s[0] == pytest.approx(ffn_s)
    attention_s = costs.decode_attention_s(np.array([40.0]), np.array([3000.0]))
    own_s = costs.tokens(tokens).sum() + attention_s.item()
    assert found.busy_s == pytest.approx(own_s, rel=1e-2)  # attention is of a table


def test_a_dense_layer_more_costs_what_its_own_dies_take() -> None:
    """Experts have nothing to do in it: attention and the feed-forward of all micro-batches."""
    fewer = replace(DEEPSEEK_R1, num_layers=60)
    prices = [
        SplitStepPricer(each, EVEN, SPLIT).price(batch_of(12)) for each in (DEEPSEEK_R1, fewer)
    ]
    costs = PartCosts(DEEPSEEK_R1, EVEN, SPLIT, SEMANTICS["flowserve"])
    dense_s = MicroBatches(costs, 12, 2).price(batch_of(12)).dense_s[:, 0].sum()
    more_s = prices[0].base_s - prices[1].base_s
    assert more_s == pytest.approx(dense_s, rel=1e-3)  # the embedding is spread over all layers


def test_one_micro_batch_on_all_cores_is_the_plain_price() -> None:
    assert isinstance(step_pricer(DEEPSEEK_R1, HARDWARE, COLOCATED), StepPricer)


def test_streams_beat_their_stages_one_after_the_other() -> None:
    layout = replace(COLOCATED, micro_batches=2)
    prices = step_pricer(DEEPSEEK_R1, HARDWARE, layout).price(batch_of(32))
    adds_up(prices)
    flowserve, fewer = SEMANTICS["flowserve"], share_of_cores(HARDWARE, 2 / 3)
    first = PartCosts(DEEPSEEK_R1, fewer, layout, flowserve, is_gate_apart=True)
    second = PartCosts(DEEPSEEK_R1, share_of_cores(HARDWARE, 1 / 3), layout, SEMANTICS["flowserve"])
    one = MicroBatches(first, 32, 2).price(batch_of(32)).busy_s.max()
    tokens = np.array([40.0])
    other = 2 * (second.gate(tokens) + second.experts(32 * tokens)).sum()
    assert max(one, other) < prices.base_s < one + other


def test_cores_may_be_split_otherwise() -> None:
    """As published, 16 + 8, is near the best; with few on either side that stream binds."""
    two = replace(COLOCATED, micro_batches=2)
    found_s = {
        cores: step_pricer(DEEPSEEK_R1, HARDWARE, replace(two, attention_cores=cores))
        .price(batch_of(32))
        .base_s
        for cores in (0, 4, 16, 22)
    }
    assert found_s[0] == found_s[16]
    assert min(found_s[4], found_s[22]) > 1.2 * found_s[16]


def test_fewer_cores_keep_memory_and_links() -> None:
    less = share_of_cores(HARDWARE, 1 / 3)
    assert less.die.num_cores == 8
    assert less.die.hbm_bytes_per_s == HARDWARE.die.hbm_bytes_per_s
    assert less.die.peak_flops_per_s["int8"] == pytest.approx(
        HARDWARE.die.peak_flops_per_s["int8"] / 3
    )
    constants = less.kernels.exchange["xccl_pull"].constants
    assert constants.num_cores == 16  # type: ignore[union-attr]


def test_disaggregated_step_is_bound_by_attention() -> None:
    layout = replace(SPLIT, dies=96, dp=96, expert_dies=128, ep=128)
    prices = step_pricer(DEEPSEEK_R1, HARDWARE, layout).price(batch_of(96))
    adds_up(prices)
    assert prices.linear_tokens() == 0
    assert prices.rank_busy_s is not None
    head_s = 0.008
    assert prices.rank_busy_s.max() < prices.base_s < prices.rank_busy_s.max() + head_s


def test_too_few_expert_dies_make_attention_wait() -> None:
    batch = batch_of(48)
    waits = []
    for dies in (8, 64):
        layout = replace(SPLIT, dies=48, dp=48, expert_dies=dies, ep=dies, shared_expert_dies=0)
        prices = step_pricer(DEEPSEEK_R1, HARDWARE, layout).price(batch)
        waits.append(prices.parts()[COMBINE_WAIT])
        assert prices.parts()[DISPATCH_WAIT] == pytest.approx(0.0, abs=1e-12)  # ranks are alike
        adds_up(prices)
    assert waits[0] > 10.0 * waits[1]


def test_a_slow_rank_holds_up_its_domain() -> None:
    batch = batch_of(12)
    batch.context_tokens[7] *= 2
    pricer = step_pricer(DEEPSEEK_R1, HARDWARE, SPLIT)
    assert pricer.price(batch).base_s > pricer.price(batch_of(12)).base_s
    assert pricer.price(batch).parts()[DISPATCH_WAIT] > 0.0


def test_attention_dies_hold_no_experts() -> None:
    plan = plan_memory(DEEPSEEK_R1, HARDWARE, SPLIT, LIMITS)
    assert plan.expert_bytes == plan.shared_expert_bytes == 0.0


def test_published_stages_of_xdeepserve() -> None:
    """7.1: A2E 0.17 ms, experts 0.12 ms, E2A 0.19 ms for 96 tokens of each of 160 dies."""
    layout = replace(
        SPLIT,
        dies=480,
        dp=480,
        expert_dies=288,
        ep=288,
        shared_expert_dies=32,
        redundant_slots=288,
    )
    side = ExpertSide(DEEPSEEK_R1, HARDWARE, layout)
    found = side.fill(np.array([96.0 * 160]))[0]
    parts = dict(zip(STEP_PARTS, found.tolist(), strict=True))
    assert parts["a2e"] == pytest.approx(172e-6, rel=0.06)
    assert parts["e2a"] == pytest.approx(193e-6, rel=0.06)
    assert parts["experts"] == pytest.approx(120e-6, rel=0.2)


def test_the_first_stage_of_a2e_is_work_of_attention_dies() -> None:
    """7.1: MLA, its projections, gating and the first stage of A2E take 0.7 ms of a layer."""
    layout = replace(SPLIT, dies=480, dp=480, expert_dies=288, ep=288, domains=3, micro_batches=2)
    layout = replace(layout, shared_expert_dies=32, redundant_slots=288, kv_dtype="int8")
    layout = replace(layout, weight_dtype="int8", mtp_layers=1, mtp_acceptance=0.9)
    price = step_pricer(DEEPSEEK_R1, HARDWARE, layout).price(
        Batch.of(np.full(480, 96), np.full(480, 96 * 3072))
    )
    micro_batches, layers = 2, 62
    own_s = float(price.rank_busy_s.mean()) / micro_batches / layers
    assert own_s == pytest.approx(0.7e-3, rel=0.05)
    assert price.base_s > float(price.rank_busy_s.max())


@pytest.mark.parametrize("layout", [COLOCATED, SPLIT], ids=["streams", "split"])
def test_small_steps_go_as_one_batch(layout: Layout) -> None:
    """By the fullest rank: 16 sequences of two tokens are the most."""
    many = replace(layout, micro_batches=2)
    either = step_pricer(DEEPSEEK_R1, HARDWARE, replace(many, micro_batch_tokens=32))
    whole = step_pricer(DEEPSEEK_R1, HARDWARE, replace(layout, micro_batches=1))
    split = step_pricer(DEEPSEEK_R1, HARDWARE, many)
    small, large = batch_of(layout.dp, 16), batch_of(layout.dp, 16)
    large.decode_seqs[0] += 1
    assert either.price(small).base_s == whole.price(small).base_s != split.price(small).base_s
    few = batch_of(layout.dp, 4)
    assert either.price(few).base_s < split.price(few).base_s
    assert either.price(large).base_s == split.price(large).base_s
    assert either.mtp_share == whole.mtp_share == split.mtp_share


def test_small_steps_learn_of_new_loads_whenever_they_come() -> None:
    layout = replace(COLOCATED, redundant_slots=32)
    first, second = loads_of(BalancedRouting(), 32), loads_of(CorrelatedRouting(log_scale=1.0), 32)
    batch = batch_of(layout.dp, 8)
    expected = step_pricer(DEEPSEEK_R1, HARDWARE, layout, None, second).price(batch).base_s
    for is_asked_before in (False, True):
        many = replace(layout, micro_batches=2, micro_batch_tokens=32)
        pricer = step_pricer(DEEPSEEK_R1, HARDWARE, many, None, first)
        if is_asked_before:
            assert pricer.price(batch).base_s != pytest.approx(expected, rel=1e-3)
        pricer.renew(second)
        assert pricer.price(batch).base_s == expected


def test_hardware_without_xccl_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="no constants of xccl_pull"):
        step_pricer(DEEPSEEK_R1, load_hardware("h800-pod"), SPLIT)


def test_what_is_shown_of_hidden_stages() -> None:
    stages = np.zeros(16)
    stages[[3, 10]] = [2.0, 1.0]
    assert exposed(stages, 1.5, 0.0).sum() == pytest.approx(1.5)
    more = exposed(stages, 5.0, 0.5)
    assert more[DISPATCH_WAIT] == pytest.approx(0.5)
    assert more[COMBINE_WAIT] == pytest.approx(1.5)
    assert more.sum() == pytest.approx(5.0)
    assert exposed(stages, 0.2, 0.5)[DISPATCH_WAIT] == pytest.approx(0.2)
    assert exposed(stages, -1.0, 0.5).sum() == 0.0


def test_the_gate_can_be_priced_apart() -> None:
    tokens = np.array([1.0, 40.0, 900.0])
    flowserve = SEMANTICS["flowserve"]
    whole = PartCosts(DEEPSEEK_R1, HARDWARE, COLOCATED, flowserve)
    apart = PartCosts(DEEPSEEK_R1, HARDWARE, COLOCATED, flowserve, is_gate_apart=True)
    together = apart.tokens(tokens) + apart.gate(tokens)
    assert together == pytest.approx(whole.tokens(tokens))
    assert apart.gate(tokens).sum() > 0.0


@pytest.mark.parametrize("model", [DEEPSEEK_R1, LLAMA_70B], ids=["sparse", "dense"])
def test_operators_of_a_layer_add_up_to_its_parts(model) -> None:
    layout = replace(COLOCATED, mtp_layers=0) if model.moe else Layout(dies=4, tp=4)
    costs = PartCosts(model, HARDWARE, layout, SEMANTICS["flowserve"])
    tokens = np.array([96.0])
    found = costs.operators_s(96)
    parts = dict(zip(STEP_PARTS, costs.tokens(tokens)[0], strict=True))
    passes_s = found.pop("element-wise passes")
    ffn_s = sum(found.pop(name, 0.0) for name in ("gate", "shared experts", "feed-forward"))
    assert sum(found.values()) == pytest.approx(parts["projections"] / model.num_layers)
    assert passes_s == pytest.approx(parts["elementwise"] / model.num_layers, rel=0.01)  # look-up
    more_s = model.num_dense_layers * costs.dense_more(tokens).sum() if model.moe else 0.0
    assert model.num_layers * ffn_s + more_s == pytest.approx(parts["ffn"])


def test_the_slowest_of_many() -> None:
    assert slowest_of(1) == pytest.approx(0.0)
    assert slowest_of(2) == pytest.approx(0.5642, rel=0.05)  # 1 / sqrt(pi)
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal((4000, 288)).max(axis=1).mean()
    assert slowest_of(288) == pytest.approx(drawn, rel=0.01)


@pytest.mark.parametrize("lasting", [0.0, 0.5, 1.0, 2.0, 8.0])
def test_the_slowest_of_ranks_that_differ_throughout_and_at_random(lasting) -> None:
    """A lower bound, at most 8 % short."""
    rng = np.random.default_rng(0)
    busy_s = 10.0 + lasting * rng.standard_normal(288)
    drawn = (busy_s + rng.standard_normal((4000, 288))).max(axis=1).mean() - busy_s.mean()
    ranks = SlowestRanks(288, 1.0)
    found, _ = ranks.law(busy_s, np.ones(288), np.zeros(288))
    assert 0.92 * drawn < found - busy_s.mean() < 1.005 * drawn
    assert SlowestRanks(288, 0.0).law(busy_s, np.ones(288), busy_s) == (busy_s.max(),) * 2


@pytest.mark.parametrize("seqs", ["alike", "unlike"])
@pytest.mark.parametrize("spread_frac", [0.0, 0.052])
def test_the_law_of_many_ranks_holds_as_far_as_it_says(seqs, spread_frac) -> None:
    """Ranks alike differ by the rounding of their sums alone."""
    rng = np.random.default_rng(0)
    for num_ranks in rng.integers(2, 400, 60).tolist():
        slope_s = 1e-7 * (rng.integers(0, 61, num_ranks) if seqs == "unlike" else 12.0)
        slope_s = slope_s * np.ones(num_ranks)
        attention_s = slope_s * rng.integers(1, 5000)
        ranks = SlowestRanks(num_ranks, spread_frac)
        arrivals = Arrivals(ranks, 0.04 + attention_s, attention_s, slope_s)
        base_s, growth_s = arrivals.last()
        prices = StepPrices(
            base_s, growth_s, np.zeros(3), 0.0, 0.0, 0.0, attention_s, 10**6, arrivals
        )
        for wanted in (0, 1, 7, 10**5, 2**62):
            gained = prices.linear_tokens(wanted)
            assert 0 <= gained <= min(wanted, 10**6)
            expected_s = base_s + gained * growth_s
            assert arrivals.last(gained)[0] == pytest.approx(expected_s, rel=1e-12)


def test_the_law_of_ranks_that_are_alike_ends_with_what_is_asked() -> None:
    """Sums of 288 equal seconds round; what grows alike is not overtaken."""
    counts, ranks = np.full(288, 32), SlowestRanks(288, 0.05)
    prices = StepPricer(DEEPSEEK_R1, EVEN, COLOCATED).price(batch_of(32))
    for seconds in np.random.default_rng(0).uniform(0.01, 0.03, 100):
        busy_s = np.full(len(counts), seconds)
        alike = Arrivals(ranks, busy_s, busy_s, np.full(len(counts), 7e-6))
        base_s, slope_s = alike.last()
        law = replace(prices, base_s=base_s, slope_s=slope_s, arrivals=alike, room_tokens=10**6)
        assert [law.linear_tokens(wanted) for wanted in (0, 1, 7, 1000)] == [0, 1, 7, 1000]
        assert law.linear_tokens() == 10**6


def test_the_fullest_die_leads_by_its_whole_lead() -> None:
    leads = leads_of(np.array([[4.0, 2.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0]]))
    assert leads.tolist() == [[1.0, 0.0, -0.5], [1.0, 0.0, 0.0]]
    alike = leads_of(np.full((1, 288), 0.1))  # whose sums round
    assert np.abs(alike[0, 1:]).max() < 1e-3


@pytest.mark.parametrize("num_ranks", [288, 72])
@pytest.mark.parametrize("lasting", [0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("law", ["normal", "exponential", "one in ten"])
def test_the_last_of_dies_that_differ_throughout_and_at_random(law, lasting, num_ranks) -> None:
    """Wherever the dies of a rank, which vary together, may lie among the others."""
    rng = np.random.default_rng(0)
    laws = {
        "normal": rng.standard_normal(288),
        "exponential": rng.exponential(1.0, 288),
        "one in ten": 3.0 * (np.arange(288) % 10 == 0),
    }
    ahead = lasting * laws[law]
    drawn = []
    for _ in range(40):
        late = np.repeat(rng.standard_normal((50, num_ranks)), 288 // num_ranks, axis=1)
        drawn.append((rng.permutation(ahead) + late).max(axis=1).mean() - ahead.mean())
    leads = leads_of(10.0 + ahead[np.newaxis])
    lead = ahead.max() - ahead.mean()
    (found,) = last_of(lead * leads, np.ones((1, 1)), group_sizes(288, num_ranks))
    assert found == pytest.approx(np.mean(drawn), rel=0.04 if law == "one in ten" else 0.015)


def test_how_many_dies_vary_by_themselves() -> None:
    assert group_sizes(8, 8).tolist() == [1.0, 1.0, 2.0, 4.0]
    assert group_sizes(8, 1) == pytest.approx([1.0, 0.0, 0.0, 0.0])
    assert group_sizes(4, 2) == pytest.approx([1.0, 2.0 / 3.0, 1.0 / 3.0])  # 1 of 3 is its partner


def test_ranks_wait_for_slow_kernels_and_the_law_still_holds() -> None:
    even = StepPricer(DEEPSEEK_R1, EVEN, COLOCATED).price(batch_of(32))
    pricer = StepPricer(DEEPSEEK_R1, HARDWARE, COLOCATED)
    found = pricer.price(batch_of(32))
    late_frac = HARDWARE.calibration.decode_kernel_spread_frac * slowest_of(32)
    assert found.base_s - even.base_s == pytest.approx(late_frac * even.attention_s)
    waits_s = found.parts()[DISPATCH_WAIT] - SEMANTICS["flowserve"].launch_skew_s
    assert waits_s == pytest.approx(late_frac * even.attention_s)
    adds_up(found)
    later = batch_of(32)
    later.gained_tokens = 10
    assert pricer.price(later).base_s == pytest.approx(found.base_s + 10 * found.slope_s)


def test_graphs_of_every_size_cost_what_no_bound_does() -> None:
    """Ranks alike, a load on every die: slow kernels of experts are waited for in either case."""
    flowserve = SEMANTICS["flowserve"]
    bound = replace(flowserve, graphs=ANY_BATCH.up_to(4096))
    free, bounded = (
        StepPricer(DEEPSEEK_R1, HARDWARE, COLOCATED, each, loads_of(BalancedRouting()))
        for each in (flowserve, bound)
    )
    expected, found = free.price(batch_of(32)), bounded.price(batch_of(32))
    assert found.base_s == pytest.approx(expected.base_s, rel=1e-12)
    assert found.parts() == pytest.approx(expected.parts(), rel=1e-9)


def test_one_rank_waits_for_nobody() -> None:
    layout = Layout(dies=1, weight_dtype="int8")
    prices = [
        StepPricer(DEEPSEEK_R1, which, layout).price(batch_of(1)) for which in (EVEN, HARDWARE)
    ]
    assert prices[0].base_s == prices[1].base_s
