"""Where ranks sit, and which dies a KV transfer joins."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpod.cluster import KvRoutes, Placement, num_kv_shards, place_in_order
from simpod.cluster.pool_spec import PoolSpec
from simpod.config import load_model
from simpod.cost import Layout


def spec(instances: int, dp: int, tp: int) -> PoolSpec:
    return PoolSpec(
        name="p",
        role="prefill",
        instances=instances,
        layout=Layout(dies=dp * tp, dp=dp, tp=tp),
        max_num_seqs=1,
        max_step_tokens=1,
        max_model_len=1,
        block_tokens=1,
        kv_blocks=1,
        prefix_caching=False,
        reserve_full_prompt=True,
    )


def routes(
    prefill: tuple[int, int], decode: tuple[int, int], *, shards: tuple[int, int] = (1, 1)
) -> KvRoutes:
    """(dp, tp) of each side."""
    first, second = place_in_order([spec(1, *prefill), spec(1, *decode)])
    return KvRoutes(prefill=first, decode=second, prefill_shards=shards[0], decode_shards=shards[1])


def test_pools_take_dies_in_order() -> None:
    prefill, decode = place_in_order([spec(2, 3, 4), spec(1, 8, 1)])
    assert prefill == Placement(first_die=0, dp=3, tp=4, num_dies=24)
    assert decode.first_die == 24
    assert list(prefill.dies(4)) == [16, 17, 18, 19]  # instance 1, rank 1
    assert decode.die(7) == 31


@pytest.mark.parametrize(("prefill_tp", "decode_tp"), [(4, 1), (4, 2), (8, 2), (2, 2), (16, 1)])
def test_decode_ranks_are_spread_over_copies_as_published(prefill_tp: int, decode_tp: int) -> None:
    """ratio, group_size, group and prefill_rank as CloudMatrix-Infer 4.3.3 writes them."""
    decode_dp = 32
    found = routes((1, prefill_tp), (decode_dp, decode_tp))
    ratio = prefill_tp // decode_tp
    group_size = decode_dp // ratio
    for rank in range(decode_dp):
        group = rank // group_size
        sources = [source for source, *_ in found.parts(0, rank)]
        assert sources == [group * decode_tp + member for member in range(decode_tp)]


def test_cut_heads_come_from_those_that_have_them() -> None:
    """Eight heads on 8 dies go to 2 dies: each takes from four, a quarter of its bytes each."""
    parts = routes((1, 8), (1, 2), shards=(8, 2)).parts(0, 0)
    assert parts == tuple((source, 8 + source // 4, 1 / 8, 1 / 4) for source in range(8))
    apart = routes((1, 2), (1, 4), shards=(2, 4)).parts(0, 0)
    assert [part[:3] for part in apart] == [
        (0, 2, 1 / 4),
        (0, 3, 1 / 4),
        (1, 4, 1 / 4),
        (1, 5, 1 / 4),
    ]
    assert {of_die for *_, of_die in apart} == {1 / 2}  # each sender's rate is for two


@given(
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 9),
    st.sampled_from([1, 2, 8]),
)
def test_every_decode_die_gets_its_share(p_tp: int, d_tp: int, d_dp: int, heads: int) -> None:
    shards = (min(p_tp, heads), min(d_tp, heads))
    found = routes((2, p_tp), (d_dp, d_tp), shards=shards)
    sent: Counter[int] = Counter()
    for target in range(d_dp):
        parts = found.parts(1, target)
        assert sum(share for _, _, share, _ in parts) == pytest.approx(1.0)
        assert {source for source, *_ in parts} <= set(found.prefill.dies(1))
        taken: Counter[int] = Counter()
        for source, die, share, _ in parts:
            taken[die] += share
            sent[source] += share
        assert taken == pytest.approx(dict.fromkeys(found.decode.dies(target), 1 / d_tp))
        assert len({part[:2] for part in parts}) == len(parts)


def test_a_latent_is_copied_and_heads_are_cut() -> None:
    assert num_kv_shards(load_model("deepseek-r1").attention, 8) == 1
    heads = load_model("llama-3.1-70b").attention  # 8 KV heads
    assert [num_kv_shards(heads, tp) for tp in (1, 4, 8, 16)] == [1, 4, 8, 8]
