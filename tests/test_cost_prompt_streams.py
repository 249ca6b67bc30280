"""Prompts in micro-batches on the engines of an Ascend die, and attention to latents."""

from itertools import cycle

import numpy as np
import pytest

from simpod.cluster.experts.routing import BalancedRouting, CorrelatedRouting, RoutingSpec
from simpod.config import load_hardware
from simpod.cost import Batch, Layout, StepPrices, step_pricer
from simpod.cost.expert_imbalance import LayerLoads, LoadModel
from simpod.cost.parts import PartCosts
from simpod.cost.pipeline.engines import EngineTimes, alike_layers_s
from simpod.cost.semantics import SEMANTICS
from simpod.cost.step_parts import ATTENTION, EXPERTS
from simpod.cost.stream_step import StreamStepPricer
from simpod.cost.work import Floats
from tests.cost_examples import DEEPSEEK_R1, loads_of

HARDWARE = load_hardware("cloudmatrix384")
CLOUDMATRIX = "cloudmatrix-infer"


def layout(micro_batches: int) -> Layout:
    return Layout(
        dies=32,
        dp=32,
        ep=32,
        weight_dtype="int8",
        redundant_slots=32,
        shared_expert_dies=32,
        micro_batches=micro_batches,
    )


def prompts(tokens: int = 4096, resident: int = 0, each: int = 2) -> Batch:
    ranks = np.ones(32, dtype=np.int64)
    batch = Batch.of(0 * ranks, 0 * ranks)
    batch.prefill_tokens += each * tokens
    batch.prefill_context += each * (tokens + resident)
    batch.prefill_pairs += each * tokens * (resident + (tokens + 1) / 2)
    batch.num_chunks += each
    return batch


def price(batch: Batch, micro_batches: int, semantics: str = CLOUDMATRIX) -> StepPrices:
    pricer = step_pricer(DEEPSEEK_R1, HARDWARE, layout(micro_batches), semantics)
    return pricer.price(batch)


@pytest.mark.parametrize(
    ("core", "vector", "link", "seconds"),
    [
        (4.0, 1.0, 2.0, 4 * 8 + 7 + 4),  # cores never idle: layers of 8
        (2.0, 2.0, 2.0, 4 * 6 + 6 + 2),  # one micro-batch's way is longer than two visits
        (1.0, 0.0, 3.0, 4 * 6 + 4 + 3),
    ],
)
def test_layers_on_engines_by_hand(core: float, vector: float, link: float, seconds: float) -> None:
    times = EngineTimes(core_s=core, vector_s=vector, link_s=link)
    assert alike_layers_s(times, micro_batches=2, layers=5) == pytest.approx(seconds)
    assert alike_layers_s(times, micro_batches=1, layers=5) == pytest.approx(5 * times.through_s)


def test_micro_batches_gain_what_was_measured() -> None:
    """CloudMatrix-Infer 5.4.1: 23 to 31 % more tokens a second, and a layer takes 24 % less with
    prompts of 4,096 tokens.
    """
    one, two = price(prompts(), 1), price(prompts(), 2)
    assert 1.23 < one.base_s / two.base_s < 1.31
    assert 1.0 - two.base_s / one.base_s == pytest.approx(0.24, abs=0.01)
    for prices in (one, two):
        assert prices.parts().sum() == pytest.approx(prices.base_s)
        assert (prices.parts() >= 0.0).all()


def test_cores_bind_and_the_rest_hides() -> None:
    prices = price(prompts(), 2)
    parts = prices.parts()
    assert parts[ATTENTION] + parts[EXPERTS] > 0.7 * prices.base_s
    longer = price(prompts(each=4), 2)
    assert longer.base_s == pytest.approx(2 * prices.base_s, rel=0.05)


@pytest.mark.parametrize("routing", [BalancedRouting(), CorrelatedRouting(log_scale=1.0)])
def test_between_two_knots_lies_what_is_there(routing: RoutingSpec) -> None:
    """Sparse layers are priced at 16 to 31 counts of tokens to a doubling, linear between. Kernels
    have steps there: their parts, of the mean die and of waits, may be a hundredth off.
    """
    plain = Layout(dies=32, dp=32, ep=32, weight_dtype="int8", micro_batches=2)
    pricer = StreamStepPricer(DEEPSEEK_R1, HARDWARE, plain, CLOUDMATRIX, loads_of(routing))
    streams = pricer._prompts
    assert streams is not None
    for tokens in (1, 7, 31, 32, 33, 500, 7_777, 44_444, 131_072, 262_143):
        engines, parts = streams._sparse(tokens)
        exact = streams._sparse_times(tokens)
        assert engines == pytest.approx(exact[:3], rel=2e-3, abs=1e-6)
        assert parts.sum() == pytest.approx(exact[3:].sum(), rel=2e-3)
        assert parts.ravel() == pytest.approx(exact[3:], abs=0.01 * exact[3:].sum())


@pytest.mark.parametrize(
    ("loads", "most_frac"),
    [
        (None, 0.0),
        (loads_of(BalancedRouting()), 0.009),
        (loads_of(CorrelatedRouting(log_scale=1.0)), 0.003),
    ],
    ids=["alike", "balanced", "correlated"],
)
def test_how_far_off_counts_between_two_knots_are(
    loads: LoadModel | None, most_frac: float
) -> None:
    """Without loads every count has its own price; with them steps of kernels are smoothed."""
    plain = Layout(dies=32, dp=32, ep=32, weight_dtype="int8", micro_batches=2)
    streams = StreamStepPricer(DEEPSEEK_R1, HARDWARE, plain, CLOUDMATRIX, loads)._prompts
    assert streams is not None
    for tokens in {1, 7, 31, 32, 33, 9_076, *np.geomspace(50, 262_143, 40).astype(int).tolist()}:
        engines, parts = streams._sparse(tokens)
        exact = streams._sparse_times(tokens)
        assert engines == pytest.approx(exact[:3], rel=most_frac, abs=5e-6 if most_frac else 0.0)
        assert parts.sum() == pytest.approx(exact[3:].sum(), rel=most_frac)


def test_prompts_learn_of_new_loads() -> None:
    plain = Layout(dies=32, dp=32, ep=32, weight_dtype="int8", micro_batches=2)
    first, second = loads_of(BalancedRouting()), loads_of(CorrelatedRouting(log_scale=1.0))
    pricer = StreamStepPricer(DEEPSEEK_R1, HARDWARE, plain, CLOUDMATRIX, first)
    before_s = pricer.price(prompts()).base_s
    pricer.renew(second)
    after_s = pricer.price(prompts()).base_s
    fresh = StreamStepPricer(DEEPSEEK_R1, HARDWARE, plain, CLOUDMATRIX, second)
    assert after_s == fresh.price(prompts()).base_s > 1.02 * before_s


class Turns:
    """Loads of two kinds, step by step."""

    is_drawn = True

    def __init__(self) -> None:
        kinds = loads_of(BalancedRouting()), loads_of(CorrelatedRouting(log_scale=1.0))
        self.turns = cycle(kinds)
        self.num_layers = kinds[0].num_layers

    def __call__(self, group_tokens: float, hit_tokens: float = 0.0) -> LayerLoads:
        return next(self.turns)(group_tokens, hit_tokens)

    def slot_tokens(self, group_tokens: float) -> Floats:
        return next(self.turns).slot_tokens(group_tokens)


def test_drawn_loads_are_drawn_for_each_step_of_prompts() -> None:
    plain = Layout(dies=32, dp=32, ep=32, weight_dtype="int8", micro_batches=2)
    pricer = StreamStepPricer(DEEPSEEK_R1, HARDWARE, plain, CLOUDMATRIX, Turns())
    first, second, third = (pricer.price(prompts()).base_s for _ in range(3))
    assert first == third < 0.98 * second


def test_decodes_still_have_two_streams() -> None:
    seqs = np.full(32, 40, dtype=np.int64)
    mixed = prompts()
    mixed.decode_seqs += seqs
    mixed.context_tokens += 3000 * seqs
    assert price(mixed, 2).base_s > price(Batch.of(seqs, 3000 * seqs), 2).base_s


def test_reuse_saves_less_where_prompts_attend_to_latents() -> None:
    """Measured: 34 % at half of 4,096 tokens (CloudMatrix-Infer 5.4.3)."""
    half = prompts(2048, resident=2048)
    fall = {
        name: 1.0 - price(half, 2, name).base_s / price(prompts(), 2, name).base_s
        for name in (CLOUDMATRIX, "flowserve")
    }
    assert fall[CLOUDMATRIX] == pytest.approx(0.34, abs=0.034)
    assert fall["flowserve"] > 0.40


def test_absorbed_attention_multiplies_wider_and_projects_nothing_again() -> None:
    one, new = np.array([1.0]), np.array([4096.0])

    def seconds(name: str, resident: float) -> float:
        costs = PartCosts(DEEPSEEK_R1, HARDWARE, layout(1), SEMANTICS[name])
        return float(costs.prefill_attention_s(one, new, np.array([resident]))[0])

    wider = (576 + 512) / (128 + 64 + 128)
    assert seconds(CLOUDMATRIX, 0.0) == pytest.approx(wider * seconds("flowserve", 0.0), rel=0.15)
    pairs = (8192 + 2048) / 2048
    grown = seconds(CLOUDMATRIX, 8192.0) / seconds(CLOUDMATRIX, 0.0)
    assert grown == pytest.approx(pairs, rel=0.08)


def test_the_engine_says_which_kernel_exchanges() -> None:
    """Remote writes for a decode step; bulk reads for prompts, whose buffers would not fit.

    Before these a kernel of its own casts, at 179 and not 68.9 GB/s of 16-bit activations.
    """
    tokens = np.array([48.0, 8192.0])
    pull, push = (
        PartCosts(DEEPSEEK_R1, HARDWARE, layout(1), SEMANTICS[name]).exchanges(tokens).sum(axis=1)
        for name in ("flowserve", CLOUDMATRIX)
    )
    assert push[0] != pytest.approx(pull[0])
    casts_s = 58 * 8192 * 2 * 7168 * (1 / 68.8952e9 - 1 / 179e9)
    assert push[1] == pytest.approx(pull[1] - casts_s)
