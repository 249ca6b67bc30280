"""Conversations and shared system prompts: lengths by hand, identity that means equal prefixes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpod.workload import (
    ConstantArrivals,
    ConstantLengths,
    ConstantThink,
    ExponentialThink,
    GeometricLengths,
    LognormalThink,
    PoissonArrivals,
    Requests,
    SessionsSpec,
    SharedPrefixSpec,
    UniformLengths,
    WorkloadSpec,
    build,
    prefix_hit_tokens,
    stats,
    streams,
)


def chat(**changes) -> WorkloadSpec:
    fields = {
        "arrivals": ConstantArrivals(rate_per_s=1),
        "prompt_tokens": ConstantLengths(value=10),
        "output_tokens": ConstantLengths(value=20),
        "sessions": SessionsSpec(turns=ConstantLengths(value=3), think_s=ConstantThink(mean_s=5)),
        "num_requests": 7,
        "hash_block_tokens": 8,
    }
    return WorkloadSpec(**(fields | changes))


def test_conversation_by_hand() -> None:
    requests = build(chat(), streams(0))
    assert requests.prompt_tokens.tolist() == [10, 40, 70, 10, 40, 70, 10]
    assert requests.output_tokens.tolist() == [20] * 7
    assert requests.session_id.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert requests.after.tolist() == [-1, 0, 1, -1, 3, 4, -1]
    assert requests.think_s.tolist() == [0, 5, 5, 0, 5, 5, 0]
    nan = math.nan
    np.testing.assert_array_equal(requests.arrival_s, [0, nan, nan, 1, nan, nan, 2])
    # whole blocks of 8 of prompt and output: 30 -> 3, 60 -> 7, 90 -> 11
    assert requests.prefix_ids(0).tolist() == [0, 1, 2]
    assert requests.prefix_ids(1).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert requests.prefix_ids(2).tolist() == list(range(11))
    assert requests.prefix_ids(3).tolist() == [11, 12, 13]
    assert requests.prefix_ids(6).tolist() == [22, 23, 24]
    # turn 2 finds the 3 whole blocks of turn 1 (24 tokens), turn 3 the 7 of turn 2
    assert prefix_hit_tokens(requests).tolist() == [0, 24, 56, 0, 24, 56, 0]


def cut_at(longest: int | None, turns: int = 4) -> SessionsSpec:
    return SessionsSpec(
        turns=ConstantLengths(value=turns),
        think_s=ConstantThink(mean_s=5),
        max_prompt_tokens=longest,
    )


def test_a_turn_that_would_be_too_long_begins_a_conversation_of_its_own() -> None:
    """Prompts of 10, 40, 70, 100 tokens; with at most 69, the third turn stands alone."""
    requests = build(chat(sessions=cut_at(69)), streams(0))
    assert requests.prompt_tokens.tolist() == [10, 40, 10, 40, 10, 40, 10]
    assert requests.session_id.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert requests.after.tolist() == [-1, 0, -1, 2, -1, 4, -1]
    assert np.isnan(requests.arrival_s).tolist() == [False, True] * 3 + [False]
    assert build(chat(sessions=cut_at(70)), streams(0)).prompt_tokens[:4].tolist() == [
        10,
        40,
        70,
        10,
    ]
    assert build(chat(sessions=cut_at(5)), streams(0)).prompt_tokens.tolist() == [10] * 7
    with_prefix = chat(
        sessions=cut_at(69), shared_prefix=SharedPrefixSpec(num_prefixes=1, tokens=30)
    )
    assert build(with_prefix, streams(0)).prompt_tokens.tolist() == [40] * 7


@given(st.integers(1, 400), st.integers(1, 9), st.integers(0, 99))
def test_no_later_turn_exceeds_the_longest_prompt(longest: int, turns: int, seed: int) -> None:
    lengths = UniformLengths(min=1, max=60)
    given_ = {"prompt_tokens": lengths, "output_tokens": lengths, "num_requests": 40}
    whole = build(chat(sessions=cut_at(None, turns), **given_), streams(seed))
    cut = build(chat(sessions=cut_at(longest, turns), **given_), streams(seed))
    assert (cut.prompt_tokens[cut.after >= 0] <= longest).all()
    assert (cut.prompt_tokens <= whole.prompt_tokens).all()
    np.testing.assert_array_equal(cut.output_tokens, whole.output_tokens)
    begins = cut.after < 0
    assert begins[whole.after < 0].all()
    # no earlier than needed: whoever begins before its time would have been too long
    early = np.flatnonzero(begins & (whole.after >= 0))
    before = cut.prompt_tokens[early - 1] + cut.output_tokens[early - 1]
    assert (before + cut.prompt_tokens[early] > longest).all()


def test_system_prompt_comes_first_and_is_shared() -> None:
    prefix = SharedPrefixSpec(num_prefixes=1, tokens=20)
    requests = build(chat(shared_prefix=prefix), streams(0))
    assert requests.prompt_tokens.tolist() == [30, 60, 90, 30, 60, 90, 30]
    # 20 tokens share 2 whole blocks; the third one holds 4 of them and 4 of the user's
    assert requests.prefix_ids(0).tolist() == [0, 1, 2, 3, 4, 5]
    assert requests.prefix_ids(3).tolist() == [0, 1, 13, 14, 15, 16]
    assert prefix_hit_tokens(requests).tolist() == [0, 48, 80, 16, 48, 80, 16]


def test_shared_prefix_without_sessions() -> None:
    spec = WorkloadSpec(
        arrivals=PoissonArrivals(rate_per_s=1),
        prompt_tokens=ConstantLengths(value=5),
        output_tokens=ConstantLengths(value=1),
        shared_prefix=SharedPrefixSpec(num_prefixes=3, tokens=64, exponent=1.0, share_frac=0.6),
        num_requests=20_000,
    )
    requests = build(spec, streams(0))
    has_prefix = requests.prompt_tokens == 69
    assert set(requests.prompt_tokens.tolist()) == {5, 69}
    assert abs(has_prefix.mean() - 0.6) < 4 * math.sqrt(0.24 / 20_000)
    assert np.diff(requests.hash_offsets).tolist() == np.where(has_prefix, 4, 0).tolist()
    first_ids = requests.hash_ids[requests.hash_offsets[:-1][has_prefix]]
    counts = np.bincount(first_ids // 4, minlength=3)
    expected = counts.sum() * np.array([6, 3, 2]) / 11  # 1, 1/2, 1/3
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(expected))
    assert requests.hash_ids.reshape(-1, 4)[0].tolist() == (first_ids[0] + np.arange(4)).tolist()
    assert (requests.session_id == -1).all()


@pytest.mark.parametrize(
    ("think", "cv"),
    [
        (ConstantThink(mean_s=3), 0),
        (ExponentialThink(mean_s=3), 1),
        (LognormalThink(mean_s=3, cv=0.5), 0.5),
    ],
)
def test_think_times(think, cv: float) -> None:
    pauses_s = think.sample(50_000, streams(0)("t"))
    assert abs(pauses_s.mean() - 3) <= 4 * 3 * cv / math.sqrt(50_000)
    assert abs(pauses_s.std() / 3 - cv) < 0.03


def test_mean_turns_and_sessions() -> None:
    spec = chat(
        sessions=SessionsSpec(turns=GeometricLengths(mean=5), think_s=ConstantThink(mean_s=0)),
        num_requests=50_000,
    )
    summary = stats(build(spec, streams(0)))
    error = 5 * math.sqrt(20 / 50_000 / 5)  # of the number of sessions, renewal theory
    assert abs(summary["mean_turns"] - 5) < 4 * error
    assert summary["num_sessions"] == summary["num_timed"]


@st.composite
def conversations(draw: st.DrawFn) -> Requests:
    prefix = SharedPrefixSpec(
        num_prefixes=draw(st.integers(1, 3)),
        tokens=draw(st.integers(16, 50)),
        share_frac=draw(st.sampled_from([0.0, 0.5, 1.0])),
    )
    high = draw(st.integers(1, 60))
    spec = chat(
        prompt_tokens=UniformLengths(min=1, max=high),
        output_tokens=UniformLengths(min=1, max=high),
        sessions=SessionsSpec(
            turns=UniformLengths(min=1, max=draw(st.integers(1, 5))),
            think_s=ConstantThink(mean_s=1),
        ),
        shared_prefix=draw(st.sampled_from([None, prefix])),
        num_requests=draw(st.integers(1, 40)),
        hash_block_tokens=draw(st.integers(1, 16)),
    )
    return build(spec, streams(draw(st.integers(0, 1000))))


@given(conversations())
def test_equal_ids_mean_equal_prefixes(requests: Requests) -> None:
    block = requests.hash_block_tokens or 1
    before: dict[int, int] = {}  # id -> the id of the block before it
    for i in range(len(requests)):
        ids = requests.prefix_ids(i).tolist()
        assert len(ids) in (0, (requests.prompt_tokens[i] + requests.output_tokens[i]) // block)
        for earlier, later in zip([-1, *ids], ids, strict=False):
            assert before.setdefault(later, earlier) == earlier
        if requests.after[i] >= 0:
            last = requests.prefix_ids(requests.after[i]).tolist()
            assert ids[: len(last)] == last
            said = requests.prompt_tokens[i - 1] + requests.output_tokens[i - 1]
            assert requests.prompt_tokens[i] > said
            assert requests.session_id[i] == requests.session_id[requests.after[i]]


@given(conversations())
def test_hits_match_a_set_of_seen_ids(requests: Requests) -> None:
    seen: set[int] = set()
    expected = []
    for i in range(len(requests)):
        ids = requests.prefix_ids(i).tolist()
        run = next((k for k, name in enumerate(ids) if name not in seen), len(ids))
        expected.append(min(run * requests.hash_block_tokens, requests.prompt_tokens[i]))
        seen |= set(ids)
    assert prefix_hit_tokens(requests).tolist() == expected
