"""What one die sees of dispatch and combine: on average the waiting that a step is priced with."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import DEEPSEEK_R1, LLAMA_70B

from simpod.cluster.experts.loads import MomentLoads, StepLoads
from simpod.cluster.experts.placement import ExpertPlacement, expert_slots, in_order
from simpod.cluster.experts.routing import BalancedRouting, CorrelatedRouting, RouterDims
from simpod.cluster.experts.routing import popularity as popularity_of
from simpod.cluster.experts.sampling import Choices
from simpod.config import load_hardware
from simpod.cost import Batch, Layout, StepPricer, step_pricer
from simpod.cost.die_waits import Meetings, Seen, die_exchanges
from simpod.cost.expert_imbalance import LayerLoads
from simpod.cost.pricer import meetings_of
from simpod.cost.semantics import SEMANTICS
from simpod.records.columns import STEP_PARTS

DIES = 32
DRAWS = 10
LAYOUT = Layout(dies=DIES, dp=DIES, ep=DIES, weight_dtype="int8", kv_dtype="int8")
AT_ONCE = replace(SEMANTICS["flowserve"], launch_skew_s=0.0)
ROUTINGS = {"even": BalancedRouting(), "uneven": CorrelatedRouting(log_scale=0.64)}


def hardware(spread_frac):
    found = load_hardware("cloudmatrix384")
    calibration = replace(found.calibration, decode_kernel_spread_frac=spread_frac)
    return replace(found, calibration=calibration)


def placed(routing, shared_copies=0, mtp=0, experts_per_token=256):
    """256 experts of a token: a shared copy has so few tokens that its die has no slot less."""
    layers, experts = DEEPSEEK_R1.num_moe_layers + mtp, DEEPSEEK_R1.moe.num_experts
    slots = expert_slots(
        num_dies=DIES,
        num_experts=experts,
        shared_copies=shared_copies,
        experts_per_token=experts_per_token,
    )
    dims = RouterDims(num_layers=layers, num_experts=experts, top_k=8)
    shares = popularity_of(ROUTINGS[routing], dims, np.random.default_rng(1)).at(0.0)
    return ExpertPlacement(slots=slots, experts=in_order(slots, layers)), shares


class Idle:
    """Loads as given, of which the fourth die gets none."""

    is_drawn = False

    def __init__(self, loads):
        self.loads, self.num_layers = loads, loads.num_layers

    def __call__(self, group_tokens, hit_tokens=0.0):
        return LayerLoads.of(self.slot_tokens(group_tokens), hit_tokens)

    def slot_tokens(self, group_tokens):
        tokens = self.loads.slot_tokens(group_tokens)
        tokens[:, 3] = 0.0
        return tokens


def batch_of(seqs=60, context=3000):
    counts = np.broadcast_to(seqs, DIES).astype(np.int64)
    return Batch.of(counts, counts * context)


def priced(pricer, batch):
    parts = dict(zip(STEP_PARTS, pricer.price(batch).parts().tolist(), strict=True))
    meetings = meetings_of(pricer, batch)
    assert meetings is not None
    return parts, meetings


def mean_waits(meetings: Meetings) -> tuple[float, float]:
    """Of dispatch and combine in one layer, over several draws."""
    own, draws = meetings.dies, [die_exchanges(meetings, seed) for seed in range(DRAWS)]
    dispatch_s = np.mean([draw.dispatch_s.mean() for draw in draws]) - own.dispatch_s.mean()
    combine_s = np.mean([draw.combine_s.mean() for draw in draws]) - own.combine_s.mean()
    return float(dispatch_s), float(combine_s)


@pytest.mark.parametrize("shared_copies", [0, 4])
@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("spread_frac", [0.0, 0.05])
def test_mean_waits_are_those_of_the_price(routing, spread_frac, shared_copies) -> None:
    """Also where a few dies have more than all others in each layer, and where loads differ as much
    as kernels vary.
    """
    loads = MomentLoads.of(*placed(routing, shared_copies), seed=3)
    layout = replace(LAYOUT, shared_expert_dies=shared_copies)
    pricer = StepPricer(DEEPSEEK_R1, hardware(spread_frac), layout, AT_ONCE, loads)
    parts, meetings = priced(pricer, batch_of())
    dispatch_s, combine_s = mean_waits(meetings)
    layers = DEEPSEEK_R1.num_layers  # attention of dense layers varies, too, in the price
    assert dispatch_s == pytest.approx(parts["dispatch_wait"] / layers, rel=0.02, abs=1e-9)
    priced_s = parts["combine_wait"] / DEEPSEEK_R1.num_moe_layers
    assert priced_s == pytest.approx(combine_s, rel=0.03)
    assert priced_s > 1e-5


@pytest.mark.parametrize("spread_frac", [0.0, 0.05])
def test_mean_waits_where_two_kinds_of_dies_take_equally_long(spread_frac) -> None:
    """Four dies of nine experts, four of seven with a shared copy: the price is up to 5 % long."""
    loads = MomentLoads.of(*placed("even", 4, experts_per_token=8), seed=3)
    assert np.unique(loads.slot_tokens(2000.0).astype(bool).sum(axis=2)).tolist() == [8, 9]
    layout = replace(LAYOUT, shared_expert_dies=4)
    pricer = StepPricer(DEEPSEEK_R1, hardware(spread_frac), layout, AT_ONCE, loads)
    parts, meetings = priced(pricer, batch_of())
    priced_s = parts["combine_wait"] / DEEPSEEK_R1.num_moe_layers
    assert priced_s == pytest.approx(mean_waits(meetings)[1], rel=0.05)


def test_mtp_layers_are_among_those_drawn() -> None:
    layout = replace(LAYOUT, mtp_layers=1)
    loads = MomentLoads.of(*placed("uneven", mtp=1), seed=3)
    pricer = StepPricer(DEEPSEEK_R1, hardware(0.05), layout, AT_ONCE, loads)
    parts, meetings = priced(pricer, batch_of())
    assert die_exchanges(meetings).combine_s.shape == (59, DIES)
    dispatch_s, _ = mean_waits(meetings)
    assert dispatch_s == pytest.approx(parts["dispatch_wait"] / 62, rel=0.02)


def test_dies_that_are_alike_wait_for_nobody() -> None:
    pricer = StepPricer(DEEPSEEK_R1, hardware(0.0), LAYOUT, AT_ONCE)
    parts, meetings = priced(pricer, batch_of())
    drawn = die_exchanges(meetings)
    for name, seconds in (("dispatch", drawn.dispatch_s), ("combine", drawn.combine_s)):
        seen = Seen.of(seconds)
        own_s = parts[name] / DEEPSEEK_R1.num_moe_layers
        assert (seen.mean_s, seen.least_s, seen.most_s) == pytest.approx((own_s,) * 3, rel=1e-12)


@pytest.mark.parametrize("differ", ["seqs", "context"])
def test_what_lasts_is_alike_in_all_layers(differ) -> None:
    more = np.linspace(50, 60, DIES).astype(np.int64)
    batch = batch_of(seqs=more) if differ == "seqs" else batch_of(context=50 * more)
    pricer = StepPricer(DEEPSEEK_R1, hardware(0.0), LAYOUT, AT_ONCE)
    parts, meetings = priced(pricer, batch)
    drawn = die_exchanges(meetings)
    assert np.ptp(drawn.dispatch_s, axis=0) == pytest.approx(np.zeros(DIES), abs=1e-15)
    wait_s = drawn.dispatch_s[0] - meetings.dies.dispatch_s[0] - meetings.fullest_dispatch_s
    prices = pricer.price(batch)
    assert wait_s == pytest.approx(prices.rank_wait_s / DEEPSEEK_R1.num_layers, abs=1e-12)
    assert wait_s.max() > 1e-6
    fullest_s = meetings.fullest_dispatch_s * DEEPSEEK_R1.num_moe_layers
    whole_s = wait_s.mean() * DEEPSEEK_R1.num_layers + fullest_s
    assert whole_s == pytest.approx(parts["dispatch_wait"], rel=1e-9)
    assert (meetings.fullest_dispatch_s > 0.0) == (differ == "seqs")


def test_what_varies_changes_from_layer_to_layer() -> None:
    """Least and most of one die lie around its mean; the least is no less than the exchange."""
    _, meetings = priced(StepPricer(DEEPSEEK_R1, hardware(0.05), LAYOUT, AT_ONCE), batch_of())
    drawn = die_exchanges(meetings)
    seen = Seen.of(drawn.dispatch_s)
    assert seen.least_s < 0.9 * seen.mean_s < seen.mean_s < 1.1 * seen.mean_s < seen.most_s
    assert (drawn.dispatch_s >= meetings.dies.dispatch_s).all()
    assert (drawn.dispatch_s.min(axis=1) == meetings.dies.dispatch_s[:, 0]).all()
    again = die_exchanges(meetings)
    assert np.array_equal(again.dispatch_s, drawn.dispatch_s)


def test_the_first_dispatch_waits_for_the_die_that_was_launched_last() -> None:
    skewed = replace(AT_ONCE, launch_skew_s=2e-3)
    plain, late = (
        priced(StepPricer(DEEPSEEK_R1, hardware(0.05), LAYOUT, semantics), batch_of())
        for semantics in (AT_ONCE, skewed)
    )
    assert late[0]["dispatch_wait"] - plain[0]["dispatch_wait"] == pytest.approx(2e-3)
    longer_s = die_exchanges(late[1]).dispatch_s - die_exchanges(plain[1]).dispatch_s
    assert longer_s[0] == pytest.approx(np.full(DIES, 2e-3))
    assert not longer_s[1:].any()


def test_dies_of_a_rank_see_the_same_dispatch() -> None:
    layout = replace(LAYOUT, dp=8, tp=4)
    counts = np.full(8, 60)
    batch = Batch.of(counts, counts * 3000)
    loads = MomentLoads.of(*placed("even"), seed=3)
    pricer = StepPricer(DEEPSEEK_R1, hardware(0.05), layout, AT_ONCE, loads)
    parts, meetings = priced(pricer, batch)
    drawn = die_exchanges(meetings)
    waits_s = (drawn.dispatch_s - meetings.dies.dispatch_s).reshape(-1, 8, 4)
    assert np.ptp(waits_s, axis=2).max() < 1e-12
    dispatch_s, _ = mean_waits(meetings)
    assert dispatch_s == pytest.approx(parts["dispatch_wait"] / 61, rel=0.05)


def test_ranks_that_run_the_graph_of_the_fullest_send_as_much() -> None:
    found = load_hardware("h200")
    h200 = replace(found, calibration=replace(found.calibration, decode_kernel_spread_frac=0.05))
    layout = Layout(dies=16, dp=16, ep=16, weight_dtype="fp8")
    counts = np.linspace(20, 30, 16).astype(np.int64)
    pricer = StepPricer(DEEPSEEK_R1, h200, layout, "sglang")
    meetings = pricer.meetings(Batch.of(counts, counts * 1000))
    assert meetings is not None
    assert meetings.fullest_dispatch_s == 0.0
    padded = pricer.meetings(Batch.of(np.full(16, 32), np.full(16, 32_000)))
    assert padded is not None
    assert meetings.dies.dispatch_s == pytest.approx(padded.dies.dispatch_s, rel=1e-9)


def test_loads_of_all_dies_are_those_of_the_fullest() -> None:
    loads = MomentLoads.of(*placed("uneven", shared_copies=4), seed=3)
    tokens = loads.slot_tokens(2000.0)
    assert tokens.shape == (58, DIES, 9)
    assert (tokens >= 0.0).all()
    assert tokens.sum(axis=(1, 2)) == pytest.approx(np.full(58, 9 * 2000.0))
    assert LayerLoads.of(tokens).imbalance == pytest.approx(loads(2000.0).imbalance[:58])
    few = loads.slot_tokens(8.0)
    counts, _ = loads.blocks[0]
    expected = counts.placement.table(8.0 * counts.portion * counts.chance, 8.0)
    assert (few > 0.0).mean() == pytest.approx(-np.expm1(-expected).mean(), rel=0.2)


def test_a_step_that_is_drawn_has_the_loads_of_its_dies() -> None:
    placement, shares = placed("uneven")
    choices = Choices.of(shares, 8)
    first, again = (StepLoads.of(placement, choices, np.random.default_rng(5)) for _ in range(2))
    rows, tokens = first(500.0), again.slot_tokens(500.0)
    assert np.array_equal(rows.busy, LayerLoads.of(tokens).busy)
    assert tokens.sum(axis=(1, 2)) == pytest.approx(np.full(58, 8 * 500.0))


def test_where_nobody_waits_for_one_batch_of_all() -> None:
    def found(model=DEEPSEEK_R1, batch=None, **changes) -> Meetings | None:
        layout = replace(LAYOUT, **changes)
        pricer = step_pricer(model, hardware(0.05), layout)
        return meetings_of(pricer, batch or batch_of())

    assert found() is not None
    assert found(micro_batches=2) is None
    assert found(micro_batches=2, micro_batch_tokens=32) is None
    assert found(micro_batches=2, micro_batch_tokens=64) is not None
    assert found(expert_dies=16) is None
    assert found(model=LLAMA_70B, ep=1) is None


def test_all_wait_for_a_rank_with_a_prompt_in_each_layer() -> None:
    batch = batch_of()
    batch.prefill_tokens[3] = 400
    batch.prefill_pairs[3], batch.num_chunks[3] = 80_200.0, 1
    loads = MomentLoads.of(*placed("uneven"), seed=3)
    pricer = StepPricer(DEEPSEEK_R1, hardware(0.05), LAYOUT, AT_ONCE, loads)
    parts, meetings = priced(pricer, batch)
    dispatch_s, combine_s = mean_waits(meetings)
    fullest_s = meetings.fullest_dispatch_s
    layers, sparse = DEEPSEEK_R1.num_layers, DEEPSEEK_R1.num_moe_layers
    whole_s = (dispatch_s - fullest_s) * layers + fullest_s * sparse
    assert whole_s == pytest.approx(parts["dispatch_wait"], rel=0.02)
    assert combine_s * sparse == pytest.approx(parts["combine_wait"], rel=0.03)


def test_a_typical_die() -> None:
    seen = Seen.of(np.array([[1.0, 4.0], [3.0, 4.0]]))
    assert seen == Seen(mean_s=3.0, least_s=2.5, most_s=3.5)


def test_a_die_without_tokens_takes_no_time_for_products() -> None:
    loads = MomentLoads.of(*placed("uneven"), seed=3)
    few = batch_of(seqs=1)
    pricer = StepPricer(DEEPSEEK_R1, hardware(0.05), LAYOUT, None, Idle(loads))
    _, meetings = priced(pricer, few)
    experts_s = meetings.dies.experts_s
    assert experts_s[:, 3].min() > 0.0
    assert (experts_s[:, 0] > experts_s[:, 3]).all()
    assert np.isfinite(die_exchanges(meetings).combine_s).all()
