"""Arrival processes and length distributions against their theory, within 4 standard errors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpod.workload import (
    BurstArrivals,
    ClosedLoopArrivals,
    ConstantArrivals,
    ConstantLengths,
    DiurnalArrivals,
    EmpiricalLengths,
    GammaArrivals,
    GeometricLengths,
    LognormalLengths,
    MmppArrivals,
    MmppState,
    PoissonArrivals,
    UniformLengths,
    WeibullArrivals,
    WorkloadSpec,
    ZipfLengths,
    build,
    streams,
)

NUM = 100_000
MMPP = MmppArrivals(
    states=(
        MmppState(rate_per_s=2, mean_dwell_s=30),
        MmppState(rate_per_s=50, mean_dwell_s=4),
        MmppState(rate_per_s=0, mean_dwell_s=6),
    )
)
TIMED = [
    ConstantArrivals(rate_per_s=5),
    PoissonArrivals(rate_per_s=5),
    GammaArrivals(rate_per_s=5, cv=2.5),
    WeibullArrivals(rate_per_s=5, shape=0.7),
    MMPP,
    DiurnalArrivals(rate_per_s=5, amplitude_frac=0.8, period_s=100),
    BurstArrivals(),
]
LENGTHS = [
    ConstantLengths(value=7),
    UniformLengths(min=3, max=9),
    LognormalLengths(mean=50, cv=2, min=4, max=300),
    GeometricLengths(mean=20, max=90),
    ZipfLengths(exponent=1.2, min=2, max=500),
]


def rng(name: str = "test", seed: int = 0) -> np.random.Generator:
    return streams(seed)(name)


def assert_near(value: float, theory: float, standard_error: float, narrow: float = 0.02) -> None:
    """Within 4 standard errors, at most `narrow` of the theory: a wide bar proves nothing."""
    assert 4 * standard_error < narrow * theory
    assert abs(value - theory) < 4 * standard_error


def test_constant_arrivals_are_exact() -> None:
    assert ConstantArrivals(rate_per_s=4).sample(4, rng()).tolist() == [0, 0.25, 0.5, 0.75]


def test_burst_and_closed_loop() -> None:
    assert BurstArrivals().sample(3, rng()).tolist() == [0, 0, 0]
    assert np.isnan(ClosedLoopArrivals(concurrency=2).sample(3, rng())).all()


@pytest.mark.parametrize(
    ("process", "cv", "fourth"),
    [  # fourth: kurtosis of the gaps, for the error of their variance
        (PoissonArrivals(rate_per_s=5), 1.0, 9.0),
        (GammaArrivals(rate_per_s=5, cv=2.0), 2.0, 3 + 6 * 4),
        (GammaArrivals(rate_per_s=5, cv=0.5), 0.5, 3 + 6 / 4),
        (WeibullArrivals(rate_per_s=5, cv=0.5), 0.5, 3.1),
        (WeibullArrivals(rate_per_s=5, shape=1.0), 1.0, 9.0),
        (WeibullArrivals(rate_per_s=5, shape=2.0), math.sqrt(4 / math.pi - 1), 3.3),
    ],
)
def test_renewal_processes_have_rate_and_cv(process, cv: float, fourth: float) -> None:
    gaps_s = np.diff(process.sample(NUM, rng()), prepend=0.0)
    assert_near(gaps_s.mean(), 0.2, 0.2 * cv / math.sqrt(NUM), narrow=0.03)
    assert_near(gaps_s.var() / 0.04, cv**2, cv**2 * math.sqrt((fourth - 1) / NUM), narrow=0.07)


def test_mmpp_mean_rate_and_burstiness() -> None:
    arrival_s = MMPP.sample(NUM, rng())
    mean_rate = (2 * 30 + 50 * 4) / 40
    # counts in windows of 1000 s, much longer than a dwell, are nearly independent
    counts = np.histogram(arrival_s, np.arange(0, arrival_s[-1], 1000.0))[0]
    error = counts.std() / math.sqrt(len(counts)) / 1000
    assert_near(counts.mean() / 1000, mean_rate, error, narrow=0.35)
    assert counts.var() / counts.mean() > 5  # Poisson: 1
    gaps_s = np.diff(arrival_s)
    assert gaps_s.max() > 20  # a lull: Poisson of rate 6.5 would need e^130 gaps


def test_mmpp_of_equal_rates_is_poisson() -> None:
    state = MmppState(rate_per_s=5, mean_dwell_s=0.5)
    gaps_s = np.diff(MmppArrivals(states=(state, state)).sample(NUM, rng()), prepend=0)
    assert_near(gaps_s.mean(), 0.2, 0.2 / math.sqrt(NUM))
    assert_near(gaps_s.std(), 0.2, 0.2 * math.sqrt(2 / NUM))


def test_diurnal_follows_its_sine() -> None:
    spec = DiurnalArrivals(rate_per_s=50, amplitude_frac=0.6, period_s=100, phase_frac=0.25)
    arrival_s = spec.sample(NUM, rng())  # 20 periods
    edges = np.linspace(0, 100, 11)
    counts = np.histogram(arrival_s[arrival_s < 2000 * 0.95] % 100, edges)[0]
    angle = 2 * math.pi * (edges / 100 + 0.25)
    share = np.diff(edges / 100 - 0.6 * np.cos(angle) / (2 * math.pi))
    expected = share * 50 * 1900
    assert np.all(np.abs(counts - expected) < 4.5 * np.sqrt(expected))
    assert expected.max() / expected.min() > 3.5


def test_diurnal_without_swing_is_poisson() -> None:
    flat = DiurnalArrivals(rate_per_s=5, amplitude_frac=0, period_s=60).sample(1000, rng())
    np.testing.assert_allclose(flat, PoissonArrivals(rate_per_s=5).sample(1000, rng()), rtol=1e-9)


@pytest.mark.parametrize("process", TIMED, ids=lambda spec: spec.process)
def test_arrivals_ascend_and_a_longer_run_begins_alike(process) -> None:
    long = process.sample(3000, rng())
    assert np.all(np.diff(long) >= 0)
    assert long[0] >= 0
    np.testing.assert_allclose(process.sample(1000, rng()), long[:1000], rtol=1e-12)


def test_twice_the_rate_is_half_the_time() -> None:
    slow = GammaArrivals(rate_per_s=3, cv=2).sample(100, rng())
    fast = GammaArrivals(rate_per_s=6, cv=2).sample(100, rng())
    np.testing.assert_allclose(slow, 2 * fast)


@pytest.mark.parametrize(
    ("spec", "cut"),
    [
        (LognormalLengths(mean=13_000, cv=1.2, max=65_536), True),
        (LognormalLengths(mean=90, cv=2.0, max=100), True),
        (LognormalLengths(mean=300, cv=1.0, min=200), True),
        (LognormalLengths(mean=2_100, cv=1.0), False),
    ],
)
def test_lognormal_mean_is_what_is_sent(spec: LognormalLengths, cut: bool) -> None:
    lengths = spec.sample(NUM, rng())
    assert_near(lengths.mean(), spec.mean, lengths.std() / math.sqrt(NUM))
    assert cut == ((lengths == spec.min).any() or (lengths == spec.max).any())
    if not cut:
        assert_near(lengths.std() / lengths.mean(), spec.cv, 0.011, narrow=0.05)


def test_uniform_includes_both_ends() -> None:
    counts = np.bincount(UniformLengths(min=2, max=5).sample(NUM, rng()), minlength=6)
    assert counts[:2].tolist() == [0, 0]
    assert np.all(np.abs(counts[2:] - NUM / 4) < 4 * math.sqrt(NUM * 3 / 16))


def test_zipf_probabilities() -> None:
    counts = np.bincount(ZipfLengths(exponent=1.5, min=2, max=40).sample(NUM, rng()), minlength=41)
    weights = np.arange(2, 41) ** -1.5
    expected = NUM * weights / weights.sum()
    assert counts[:2].sum() == 0
    assert np.all(np.abs(counts[2:] - expected) < 4.5 * np.sqrt(expected))


def test_geometric_mean() -> None:
    lengths = GeometricLengths(mean=20).sample(NUM, rng())
    assert lengths.min() == 1
    assert_near(lengths.mean(), 20, math.sqrt(20 * 19 / NUM))


def test_empirical_draws_from_the_file(tmp_path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("a,b\n10,1\n20,2\n30,3\n")
    spec = EmpiricalLengths(path=str(path), column="a", min=15)
    values, counts = np.unique(spec.sample(30_000, rng()), return_counts=True)
    assert values.tolist() == [15, 20, 30]
    assert np.all(np.abs(counts - 10_000) < 4 * math.sqrt(30_000 * 2 / 9))


@given(index=st.integers(0, len(LENGTHS) - 1), num=st.integers(1, 500), seed=st.integers(0, 2**40))
def test_lengths_are_whole_and_within_bounds(index: int, num: int, seed: int) -> None:
    spec = LENGTHS[index]
    lengths = spec.sample(num, rng(seed=seed))
    assert lengths.dtype == np.int64
    assert len(lengths) == num
    assert lengths.min() >= max(1, getattr(spec, "min", 1))
    assert lengths.max() <= (getattr(spec, "max", None) or 2**31)


def test_streams_depend_on_the_name_and_the_seed_only() -> None:
    first, second = streams(7), streams(7)
    early = first("a").random(3)
    second("b").random(100)  # another use, before: shifts nothing
    np.testing.assert_array_equal(second("a").random(3), early)
    assert not np.array_equal(first("b").random(3), early)
    assert not np.array_equal(streams(8)("a").random(3), early)
    correlation = np.corrcoef(streams(0)("a").random(NUM), streams(0)("b").random(NUM))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(NUM)
    # the same in every process and release: users publish seeds
    assert streams(0)("arrivals").integers(0, 2**32, 2).tolist() == [2783778250, 2907668858]


def plain(**changes) -> WorkloadSpec:
    fields = {
        "arrivals": PoissonArrivals(rate_per_s=3),
        "prompt_tokens": LognormalLengths(mean=100, cv=1),
        "output_tokens": GeometricLengths(mean=30),
        "num_requests": 200,
    }
    return WorkloadSpec(**(fields | changes))


def test_build_is_deterministic_and_its_parts_are_independent() -> None:
    one, two = build(plain(), streams(1)), build(plain(), streams(1))
    other = build(plain(prompt_tokens=UniformLengths(min=1, max=9)), streams(1))
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one.arrival_s, other.arrival_s)
    np.testing.assert_array_equal(one.output_tokens, other.output_tokens)
    assert not np.array_equal(one.arrival_s, build(plain(), streams(2)).arrival_s)


def test_closed_loop_leaves_times_to_the_engine() -> None:
    requests = build(plain(arrivals=ClosedLoopArrivals(concurrency=16)), streams(0))
    assert requests.concurrency == 16
    assert np.isnan(requests.arrival_s).all()
    assert (requests.after == -1).all()
