"""Who is waited for: slow attention shows in `dispatch_wait`, few or busy experts elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import DEEPSEEK_R1

from simpod.config import load_hardware
from simpod.cost import Batch, Layout, StepPrices, step_pricer
from simpod.cost.pricer import halves_of, layer_times_of
from simpod.records.columns import STEP_PARTS

HARDWARE = load_hardware("cloudmatrix384")
RANKS = 24
COLOCATED = Layout(dies=RANKS, dp=RANKS, ep=RANKS, weight_dtype="int8", mtp_layers=1)
LAYOUTS = {
    "lock step": COLOCATED,
    "streams": replace(COLOCATED, micro_batches=2),
    "split": replace(COLOCATED, ep=128, expert_dies=128, domains=3, micro_batches=2),
}
EXPERTS = ("experts", "dispatch", "combine", "combine_wait", "a2e", "e2a")


def decodes(context: int | np.ndarray, seqs: int = 24) -> Batch:
    counts = np.full(RANKS, seqs, dtype=np.int64)
    return Batch.of(counts, counts * context)


def uneven(times: float = 0.5) -> np.ndarray:
    """Contexts [ranks] of 12K tokens on average."""
    return np.rint(12_000 * (1.0 + times * np.linspace(-1.0, 1.0, RANKS))).astype(np.int64)


def prompts(tokens: np.ndarray) -> Batch:
    batch = decodes(0, 0)
    pairs = tokens * (tokens + 1) / 2
    ones = np.ones_like(tokens)
    return replace(
        batch, prefill_tokens=tokens, prefill_pairs=pairs, prefill_context=tokens, num_chunks=ones
    )


def parts(prices: StepPrices) -> dict[str, float]:
    """They add up to the step, and none is negative."""
    found = prices.parts()
    assert found.sum() == pytest.approx(prices.base_s, rel=1e-12)
    assert (found >= 0.0).all()
    return dict(zip(STEP_PARTS, found.tolist(), strict=True))


def head_of(found: dict[str, float]) -> float:
    """What follows the layers; a head of MTP is in `mtp`."""
    return found["head"] + found["sampling"] + found["host_gap"]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_what_the_slowest_rank_takes_longer_is_waiting_for_attention(kind) -> None:
    """The same work on the whole: what the step takes longer is in `dispatch_wait`."""
    pricer = step_pricer(DEEPSEEK_R1, HARDWARE, LAYOUTS[kind])
    prices = [pricer.price(decodes(context)) for context in (12_000, uneven())]
    even, apart = (parts(each) for each in prices)
    longer_s = prices[1].base_s - prices[0].base_s
    waits_s = apart["dispatch_wait"] - even["dispatch_wait"]
    assert longer_s > 5e-3
    assert waits_s == pytest.approx(longer_s, rel=0.02)
    assert apart["dispatch_wait"] >= 0.98 * prices[1].rank_wait_s.mean()
    for name in EXPERTS:
        assert apart[name] == pytest.approx(even[name], abs=0.02 * longer_s), name


def test_prompts_of_unlike_lengths_wait_for_attention() -> None:
    """Attention grows with the square of a length: of unlike ones there is more in all."""
    lengths = np.rint(4000 * (1.0 + 0.5 * np.linspace(-1.0, 1.0, RANKS))).astype(np.int64)
    pricer = step_pricer(DEEPSEEK_R1, HARDWARE, LAYOUTS["streams"])
    even, apart = (pricer.price(prompts(each)) for each in (np.full(RANKS, 4000), lengths))
    longer_s = apart.base_s - even.base_s
    assert longer_s > 0.05
    more_s = {name: seconds - parts(even)[name] for name, seconds in parts(apart).items()}
    own_s = more_s["attention"] + more_s["mtp"]
    assert more_s["dispatch_wait"] == pytest.approx(longer_s - own_s, rel=0.01)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_parts_add_up_whatever_ranks_hold(kind) -> None:
    rng = np.random.default_rng(0)
    pricer = step_pricer(DEEPSEEK_R1, HARDWARE, LAYOUTS[kind])
    for most in (1, 3, 40, 200):
        batch = Batch.of(counts := rng.integers(0, most + 1, RANKS), counts * 3000)
        assert parts(pricer.price(batch))
        chunks = prompts(rng.integers(1, 100 * most, RANKS))
        both = replace(chunks, decode_seqs=counts, context_tokens=counts * 3000)
        assert parts(pricer.price(both))


def test_few_dies_for_experts_are_waited_for() -> None:
    """48 + 20 dies: experts bind, and ranks that are alike wait for nobody's attention."""
    layout = replace(LAYOUTS["split"], dies=48, dp=48, expert_dies=20, ep=20, mtp_layers=0)
    counts = np.full(48, 96, dtype=np.int64)
    context = np.full(48, 2000)
    pricer = step_pricer(DEEPSEEK_R1, HARDWARE, layout)
    even = pricer.price(Batch.of(counts, counts * context))
    found = parts(even)
    assert found["combine_wait"] > 0.1 * even.base_s
    assert found["dispatch_wait"] == pytest.approx(0.0, abs=1e-9)
    halves = halves_of(pricer, Batch.of(counts, counts * context))
    assert halves is not None
    assert halves.total_s == pytest.approx(even.base_s - head_of(found), rel=1e-9)
    attention, kernels = halves.attention_busy_s, halves.kernels_busy_s.max()
    assert attention == pytest.approx(even.rank_busy_s[::16], rel=1e-9)
    assert attention.max() < 0.8 * kernels
    assert kernels > 0.98 * (halves.total_s - halves.attention_end_s[0, 0, 2])  # after dense layers
    context[:5] = 2400
    slow = pricer.price(Batch.of(counts, counts * context))
    assert parts(slow)["dispatch_wait"] == pytest.approx(slow.rank_wait_s.mean(), rel=0.05)
    assert parts(slow)["combine_wait"] < found["combine_wait"]


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_layers_add_up_to_what_attention_leaves_of_a_step(kind, spread) -> None:
    """Waits of dense layers, three beside 58, are not among them (of split halves those within a
    domain); in lock step one step is drawn.
    """
    pricer = step_pricer(DEEPSEEK_R1, HARDWARE, replace(LAYOUTS[kind], mtp_layers=0))
    batch = decodes(uneven(spread))
    prices, times = pricer.price(batch), layer_times_of(pricer, batch)
    assert times is not None
    assert len(times.idle_s) == DEEPSEEK_R1.num_moe_layers
    skew_s = 0.0 if kind != "streams" else 1e-3  # of the first dispatch, before the layers
    layers_s = prices.base_s - head_of(parts(prices)) - skew_s
    left_s = layers_s - prices.rank_busy_s.mean()
    waits_s = times.dispatch_wait_s.sum()
    found_s = waits_s + times.idle_s.sum()
    dense_s = 3 / 58 * waits_s
    tolerance_s = {"lock step": 0.08 * waits_s, "streams": 1e-9, "split": dense_s + 1e-9}[kind]
    assert found_s + dense_s == pytest.approx(left_s, abs=tolerance_s)
    late_s = parts(prices)["dispatch_wait"] - skew_s
    assert waits_s + dense_s == pytest.approx(late_s, rel=0.08 if kind == "lock step" else 1e-9)
    assert times.die_dispatch_wait_s.mean() == pytest.approx(waits_s, abs=dense_s + 1e-9)
    assert times.die_experts_s.mean() == pytest.approx(
        (LAYOUTS[kind].domains if kind == "split" else 1) * times.experts_s.sum()
    )


@pytest.mark.parametrize("kind", LAYOUTS)
def test_prompts_have_layers_too_but_where_engines_of_a_die_overlap(kind) -> None:
    pricer = step_pricer(DEEPSEEK_R1, HARDWARE, LAYOUTS[kind])
    alone = prompts(np.full(RANKS, 4000))
    assert (layer_times_of(pricer, alone) is None) == (kind == "streams")
    beside = replace(alone, decode_seqs=np.full(RANKS, 20), context_tokens=np.full(RANKS, 20_000))
    times = layer_times_of(pricer, beside)
    assert times is not None
    assert times.experts_s.min() > 0.0
    assert times.dispatch_wait_s.min() >= 0.0
    assert times.idle_s.min() >= 0.0
