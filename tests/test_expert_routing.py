"""Popularity of experts, tokens of each die token by token, and the same from moments."""

import json
from math import comb
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from simpod.cluster.experts.counts import Luck, SlotCounts, binomial_quantiles
from simpod.cluster.experts.placement import ExpertPlacement, expert_slots, in_order
from simpod.cluster.experts.routing import (
    BalancedRouting,
    CorrelatedRouting,
    PowerLawRouting,
    ReplayedRouting,
    RouterDims,
    RoutingSpec,
    ZipfRouting,
    after,
    inclusion,
    popularity,
    routing_named,
)
from simpod.cluster.experts.sampling import Choices, CopyTable
from simpod.errors import ConfigError
from tests.token_by_token import choose, sample_dies, sample_slots

DIMS = RouterDims(num_layers=3, num_experts=64, top_k=8)
MODELS: list[RoutingSpec] = [
    BalancedRouting(),
    ZipfRouting(exponent=0.8),
    PowerLawRouting(alpha=1.01),
    CorrelatedRouting(log_scale=1.0),
]


def shares_of(spec: RoutingSpec, dims: RouterDims = DIMS, now_s: float = 0.0) -> np.ndarray:
    return popularity(spec, dims, np.random.default_rng(3)).at(now_s)


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.kind)
def test_shares_add_up_to_the_experts_of_a_token(spec: RoutingSpec) -> None:
    shares = shares_of(spec)
    assert shares.shape == (3, 64)
    assert shares.sum(axis=1) == pytest.approx([8.0] * 3)
    assert shares.min() > 0.0
    assert shares.max() <= 1.0


def test_share_of_a_very_popular_expert_stops_at_one() -> None:
    shares = inclusion(np.array([[100.0, 50.0, 1.0, 1.0, 2.0]]), 3)
    assert shares.tolist() == [[1.0, 1.0, 0.25, 0.25, 0.5]]


def test_zipf_by_hand() -> None:
    shares = shares_of(ZipfRouting(exponent=1.0), RouterDims(num_layers=1, num_experts=4, top_k=1))
    harmonic = 1.0 + 1 / 2 + 1 / 3 + 1 / 4
    assert np.sort(shares[0])[::-1] == pytest.approx([1 / r / harmonic for r in (1, 2, 3, 4)])


def test_layers_have_popular_experts_of_their_own() -> None:
    for spec in MODELS[1:]:
        assert len(set(shares_of(spec).argmax(axis=1).tolist())) > 1, spec.kind


def test_layers_of_a_common_popularity_are_alike() -> None:
    shares = shares_of(CorrelatedRouting(log_scale=1.0, layer_correlation_frac=1.0))
    assert shares[0] == pytest.approx(shares[1])


def test_drift_forgets_at_its_rate_and_not_before_its_epoch() -> None:
    dims = RouterDims(num_layers=40, num_experts=128, top_k=2)
    spec = CorrelatedRouting(log_scale=0.3, drift_s=10.0, epoch_s=1.0)
    moving = popularity(spec, dims, np.random.default_rng(0))
    first = np.log(moving.at(0.0))
    assert np.array_equal(np.log(moving.at(0.9)), first)
    later = np.log(moving.at(10.0))
    correlation = np.corrcoef(first.ravel(), later.ravel())[0, 1]
    assert correlation == pytest.approx(np.exp(-1.0), abs=0.05)
    assert later.std() == pytest.approx(first.std(), rel=0.05)


def test_drift_does_not_depend_on_when_it_is_asked() -> None:
    spec = CorrelatedRouting(drift_s=5.0, epoch_s=1.0)
    often, once = (popularity(spec, DIMS, np.random.default_rng(1)) for _ in range(2))
    for now_s in (0.5, 1.5, 2.5):
        often.at(now_s)
    assert np.array_equal(often.at(7.2), once.at(7.2))
    assert once.until_s(7.2) == 8.0


def test_recorded_loads_are_replayed_round_and_round(tmp_path: Path) -> None:
    dims = RouterDims(num_layers=1, num_experts=4, top_k=2)
    file = tmp_path / "loads.json"
    file.write_text(json.dumps([[[10, 10, 10, 10]], [[30, 10, 0, 10]]]))
    replayed = popularity(
        ReplayedRouting(path=str(file), every_s=60.0), dims, np.random.default_rng(0)
    )
    assert replayed.until_s(30.0) == 60.0
    assert replayed.at(0.0).tolist() == [[0.5, 0.5, 0.5, 0.5]]
    assert replayed.at(61.0)[0] == pytest.approx([1.0, 0.5, 0.0, 0.5])
    assert replayed.at(121.0).tolist() == replayed.at(0.0).tolist()


def test_recorded_loads_as_an_array_file(tmp_path: Path) -> None:
    dims = RouterDims(num_layers=2, num_experts=4, top_k=1)
    np.save(tmp_path / "loads.npy", np.array([[1, 1, 2, 0], [4, 4, 4, 4]]))
    shares = shares_of(ReplayedRouting(path=str(tmp_path / "loads.npy")), dims)
    assert shares.tolist() == [[0.25, 0.25, 0.5, 0.0], [0.25] * 4]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("[[1, 2]]", "has shape"), ("[[1, 0, 0, 0]]", "at least 2"), ("{", "can't read")],
)
def test_bad_recordings_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    dims = RouterDims(num_layers=1, num_experts=4, top_k=2)
    file = tmp_path / "loads.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        popularity(ReplayedRouting(path=str(file)), dims, np.random.default_rng(0))


def test_names_of_routing_models() -> None:
    assert routing_named("balanced") == BalancedRouting()
    assert routing_named("power_law_1.01") == PowerLawRouting(alpha=1.01)
    for name in ("power_law_x", "pareto", "power_law_-1"):
        with pytest.raises(ConfigError, match="unknown routing"):
            routing_named(name)


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.kind)
def test_a_token_never_chooses_an_expert_twice(spec: RoutingSpec) -> None:
    chosen = np.sort(choose(shares_of(spec)[0], 8, 5000, np.random.default_rng(0)), axis=1)
    assert (np.diff(chosen, axis=1) > 0).all()


def drawn_slots(
    placement: ExpertPlacement, shares: np.ndarray, tokens: int, rng: np.random.Generator
) -> np.ndarray:
    return CopyTable.of(placement).deal(Choices.of(shares, 8).draw(tokens, rng), tokens, rng)


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.kind)
def test_choices_follow_popularity(spec: RoutingSpec) -> None:
    """Within 5 standard errors; no token chooses an expert twice."""
    shares, tokens = shares_of(spec), 400_000
    seen = Choices.of(shares, 8).draw(tokens, np.random.default_rng(0))
    error = np.abs(seen / tokens - shares)
    assert (error <= 5.0 * np.sqrt(shares * (1 - shares) / tokens)).all()
    assert (seen.sum(axis=1) == 8 * tokens).all()
    assert Choices.of(shares, 8).draw(1, np.random.default_rng(0)).max() == 1


def test_choices_of_two_experts_by_hand() -> None:
    """Two of three: the one left out has odds of its own, P(left out) = 1 - share."""
    choices = Choices.of(np.array([[1.0, 0.7, 0.3], [0.9, 0.6, 0.5]]), 2)
    expected = [[[0.0, 1.0], [0.0, 0.9]], [[0.7, 1.0], [5 / 9, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]
    np.testing.assert_allclose(choices.takes[1:], np.array(expected)[1:], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(choices.takes[0, :, 1], [1.0, 0.9], rtol=1e-9)


def test_an_expert_that_all_or_none_choose() -> None:
    shares = np.array([[1.0, 1.0, 0.0, 0.5, 0.5]])
    seen = Choices.of(shares, 3).draw(1000, np.random.default_rng(0))[0]
    assert seen[:3].tolist() == [1000, 1000, 0]
    assert seen[3] + seen[4] == 1000


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.kind)
def test_drawn_counts_are_those_of_tokens_one_by_one(spec: RoutingSpec) -> None:
    """Tokens of dies over 600 steps: means within 5 standard errors, spread within 15 %."""
    slots = expert_slots(num_dies=8, num_experts=64, redundant_slots=24)
    placement = ExpertPlacement(slots=slots, experts=in_order(slots, 1))
    shares, rng = shares_of(spec)[:1], np.random.default_rng(0)
    single = np.array([sample_dies(placement, shares, 8, 256, rng)[0] for _ in range(600)])
    alike = ExpertPlacement(slots=slots, experts=in_order(slots, 600))
    drawn = placement.by_die(drawn_slots(alike, np.tile(shares, (600, 1)), 256, rng) * 1.0)
    error = np.abs(single.mean(axis=0) - drawn.mean(axis=0))
    noise = np.hypot(single.std(axis=0), drawn.std(axis=0)) / np.sqrt(600)
    bias = 0.01 * single.mean(axis=0)  # of Pareto sampling, whose inclusion is not exact
    assert (error <= 5.0 * noise + bias).all()
    assert drawn.std(axis=0) == pytest.approx(single.std(axis=0), rel=0.15)


def test_copies_share_tokens_by_position() -> None:
    slots = expert_slots(num_dies=4, num_experts=2, redundant_slots=2)
    placement = ExpertPlacement(slots=slots, experts=np.array([[0, 0, 0, 1]]))
    rng = np.random.default_rng(0)
    shares = np.array([[1.0, 1.0]])
    assert sample_slots(placement, shares, 2, 10, rng).tolist() == [[4, 3, 3, 10]]
    dealt = CopyTable.of(placement).deal(Choices.of(shares, 2).draw(10, rng), 10, rng)
    assert dealt.tolist() == [[4, 3, 3, 10]]
    few = CopyTable.of(placement).deal(np.array([[1, 1]]), 1, rng)
    assert few.tolist() == [[1, 0, 0, 1]]


def test_slots_out_of_service_get_nothing() -> None:
    slots = expert_slots(num_dies=4, num_experts=2, redundant_slots=2)
    placement = ExpertPlacement(slots=slots, experts=np.array([[0, 0, 0, 1]]))
    left = placement.without(np.array([[True, False, False, False]]))
    dealt = CopyTable.of(left).deal(np.array([[10, 3]]), 10, np.random.default_rng(0))
    assert dealt.tolist() == [[0, 5, 5, 3]]


def test_tokens_are_conserved() -> None:
    slots = expert_slots(num_dies=16, num_experts=64, redundant_slots=14, shared_copies=2)
    placement = ExpertPlacement(slots=slots, experts=in_order(slots, 3))
    shares = shares_of(MODELS[2])
    exact = sample_dies(placement, shares, 8, 500, np.random.default_rng(0))
    counts = SlotCounts.of(placement, shares)
    fast = counts.sample(500, counts.luck(np.random.default_rng(0))).sum(axis=2)
    assert exact.sum(axis=1) == pytest.approx([500 * 9] * 3)
    assert fast.sum(axis=1) == pytest.approx([500 * 9] * 3)


@pytest.mark.parametrize(
    ("spec", "dies", "redundant", "shared", "tokens"),
    [
        *((spec, 8, 0, 0, 512) for spec in MODELS),
        (MODELS[-1], 72, 4, 4, 512),
        (MODELS[-1], 32, 32, 0, 2048),
    ],
)
def test_moments_agree_with_drawn_tokens(
    spec: RoutingSpec, dies: int, redundant: int, shared: int, tokens: int
) -> None:
    """The fullest die: means within 1 %, 99th percentiles within 3 % (and the errors of both)."""
    slots = expert_slots(
        num_dies=dies, num_experts=64, redundant_slots=redundant, shared_copies=shared
    )
    steps = 2000
    placement = ExpertPlacement(slots=slots, experts=in_order(slots, 1))
    shares = shares_of(spec)[:1]
    counts, rng = SlotCounts.of(placement, shares), np.random.default_rng(0)
    alike = ExpertPlacement(slots=slots, experts=in_order(slots, steps))
    by_die = placement.by_die(drawn_slots(alike, np.tile(shares, (steps, 1)), tokens, rng) * 1.0)
    exact = (by_die + placement.shared_tokens(tokens)).max(axis=1)
    fast = np.array(
        [counts.sample(tokens, counts.luck(rng)).sum(axis=2).max() for _ in range(8000)]
    )
    error = 4.0 * exact.std() / np.sqrt(steps)
    assert abs(fast.mean() - exact.mean()) <= max(0.01 * exact.mean(), error)
    assert error < 0.02 * exact.mean()  # the comparison is sharp
    assert np.quantile(fast, 0.99) == pytest.approx(np.quantile(exact, 0.99), rel=0.03)


@pytest.mark.parametrize(
    ("tokens", "chance"), [(1, 0.3), (16, 0.3), (40, 0.02), (200, 0.03), (200, 0.9), (5000, 0.1)]
)
def test_quantiles_are_those_of_the_binomial_law(tokens: int, chance: float) -> None:
    """Mean and spread at a hundred thousand quantiles; below 8 expected tokens each probability."""
    z = np.array([NormalDist().inv_cdf((i + 0.5) / 100_000) for i in range(100_000)])
    luck = Luck.of(np.full(len(z), chance), np.ones(len(z)), z)
    counts = binomial_quantiles(float(tokens), luck)
    assert counts.mean() == pytest.approx(tokens * chance, rel=2e-3)
    assert counts.std() == pytest.approx(np.sqrt(tokens * chance * (1 - chance)), rel=5e-3)
    assert counts.min() >= 0.0
    assert counts.max() <= 1.05 * tokens
    if tokens * chance < 8.0:
        for count in range(min(tokens, 12) + 1):
            law = comb(tokens, count) * chance**count * (1 - chance) ** (tokens - count)
            assert (counts == count).mean() == pytest.approx(law, abs=3e-5)


def test_more_tokens_give_no_slot_fewer() -> None:
    chance = np.random.default_rng(1).uniform(0.0, 0.2, 2000)
    luck = Luck.of(chance, np.ones(2000), np.random.default_rng(0).standard_normal(2000))
    before = np.zeros(2000)
    for tokens in (1.0, 2.5, 10.0, 30.0, 100.0, 300.0, 1000.0):
        after = binomial_quantiles(tokens, luck)
        assert (after >= before - 1.0).all()  # the law is expanded from 8 expected tokens on
        before = after


@pytest.mark.parametrize("top_k", [1, 2, 8])
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_few_tokens_are_all_there_and_no_slot_has_more(top_k: int, tokens: int) -> None:
    dims = RouterDims(num_layers=200, num_experts=64, top_k=top_k)
    shares = shares_of(CorrelatedRouting(log_scale=1.0), dims)
    slots = expert_slots(num_dies=8, num_experts=64)
    counts = SlotCounts.of(ExpertPlacement(slots=slots, experts=in_order(slots, 200)), shares)
    found = counts.sample(tokens, counts.luck(np.random.default_rng(0)))
    assert found.sum(axis=(1, 2)) == pytest.approx(np.full(200, tokens * top_k))
    assert found.max() <= tokens * (1.0 + 1e-9)
    exact = Choices.of(shares, top_k).draw(tokens, np.random.default_rng(1))
    assert (found > 0).mean() == pytest.approx((exact > 0).mean(), rel=0.05)


def test_slots_that_nobody_or_everybody_chooses() -> None:
    luck = Luck.of(np.array([0.0, 1.0, 0.5]), np.array([1.0, 1.0, 0.0]), np.zeros(3))
    counts = binomial_quantiles(10.0, luck)
    assert counts.tolist() == [0.0, 10.0, 0.0]


def test_the_next_multiple_is_later_whatever_the_rounding() -> None:
    moment_s = 0.0
    for _ in range(100):
        later_s = after(moment_s, 0.3)
        assert moment_s < later_s <= moment_s + 0.3 + 1e-9
        moment_s = later_s
