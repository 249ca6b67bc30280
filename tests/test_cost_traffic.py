"""What exchanges of a step put on the links: counted by hand, and no more time than is priced."""

import numpy as np
import pytest

from simpod.config import load_experiment, load_hardware, load_model
from simpod.cost import Batch, ExchangeTraffic, Layout, MovingPricer, StepTraffic, step_pricer
from simpod.records.columns import STEP_PARTS

INT8, BF16 = 7680, 2 * 7168
"""Bytes of a token of DeepSeek-R1 to one expert and back (CloudMatrix-Infer 4.2.1)."""

R1, POD = load_model("deepseek-r1"), load_hardware("cloudmatrix384")


def traffic_of(layout: Layout, batch: Batch, plane: str = "scale_up") -> StepTraffic:
    pricer = step_pricer(R1, POD, layout)
    prices = MovingPricer(pricer, ExchangeTraffic(R1, POD, layout, None, plane)).price(batch)
    assert prices.traffic is not None
    assert prices.traffic.exposed_s < prices.base_s
    return prices.traffic


def decoding(dp: int, seqs: int) -> Batch:
    return Batch.of(np.full(dp, seqs), np.full(dp, 2000 * seqs))


def test_dispatch_and_combine_of_a_decode_step_by_hand() -> None:
    """58 sparse layers, 8 copies of 32 tokens, 2 of 64 dies are this NPU's."""
    layout = Layout(dies=64, dp=64, ep=64, weight_dtype="int8")
    traffic = traffic_of(layout, decoding(64, 32))
    crossing = 58 * 32 * 8 * (INT8 + BF16) * (62 / 64)
    assert traffic.die_bytes == pytest.approx((crossing, crossing, 0.0, 0.0))
    assert traffic.moving_s == pytest.approx(crossing / (0.774 * 196e9))  # read_frac of xccl_pull
    assert traffic.exposed_s == pytest.approx(traffic.moving_s)
    shares = {STEP_PARTS[part]: share for part, share in traffic.shares}
    assert shares["dispatch"] == pytest.approx(INT8 / (INT8 + BF16))
    assert sum(shares.values()) == pytest.approx(1.0)


def test_an_mtp_layer_exchanges_too() -> None:
    plain = Layout(dies=64, dp=64, ep=64, weight_dtype="int8")
    drafting = Layout(dies=64, dp=64, ep=64, weight_dtype="int8", mtp_layers=1)
    alone, both = (traffic_of(each, decoding(64, 32)) for each in (plain, drafting))
    assert both.die_bytes[0] == pytest.approx(2 * 59 / 58 * alone.die_bytes[0])  # two tokens each


def test_an_all_reduce_goes_half_over_the_plane() -> None:
    """Four dies in a ring are two NPUs: every other die sends over UB, 2 x 3 / 4 of the bytes.

    Two all-reduces in each of 3 dense layers, one beside dispatch and combine in each of 58.
    """
    layout = Layout(dies=32, dp=8, tp=4, ep=32, weight_dtype="int8")
    batch = Batch.of(np.zeros(8, dtype=np.int64), np.zeros(8, dtype=np.int64))
    batch.prefill_tokens[:], batch.num_chunks[:], batch.prefill_pairs[:] = 1024, 1, 1024 * 512.5
    traffic = traffic_of(layout, batch)
    exchanged = 58 * 256 * 8 * (INT8 + BF16) * (30 / 32)
    reduced = 1024 * BF16 * (2 * 3 + 58) * 1.5 / 2
    assert traffic.die_bytes[:2] == pytest.approx((exchanged + reduced,) * 2)


def test_ranks_that_share_attention_by_stages_by_hand() -> None:
    """Latents go round a ring, 3 of 4 parts, every second hop inside an NPU; heads to 2 of 4 dies
    beyond it: 32 heads of 128 numbers."""
    layout = Layout(
        dies=32, dp=8, tp=4, ep=32, weight_dtype="int8", attention_parallelism="sp_tp_sp"
    )
    batch = decoding(8, 0)
    batch.prefill_tokens[:], batch.num_chunks[:], batch.prefill_pairs[:] = 1024, 1, 1024 * 512.5
    traffic = traffic_of(layout, batch)
    exchanged = 58 * 256 * 8 * (INT8 + BF16) * (30 / 32)
    latents, heads = 1024 * (1536 + 576) * 2, 1024 * 32 * 128 * 2
    inside = 61 * (latents * 0.75 / 2 + heads * 0.5)
    assert traffic.die_bytes[:2] == pytest.approx((exchanged + inside,) * 2)


def test_attention_and_expert_dies_of_their_own_by_hand() -> None:
    """A2E out of attention dies into expert dies, E2A back; of 48 expert dies 32 are trampolines,
    which pass on what is for the other 16."""
    layout = Layout(
        dies=64, dp=64, ep=48, expert_dies=48, domains=2, micro_batches=2, weight_dtype="int8"
    )
    sent, got, expert_sent, expert_got = traffic_of(layout, decoding(64, 32)).die_bytes
    copies = 58 * 64 * 32 * 8
    shared = sent / (copies * INT8 / 64)  # the shared expert may have dies here
    assert got / sent == pytest.approx(BF16 / INT8)
    assert shared == pytest.approx(1.0)
    passed_on = 16 / 48
    assert expert_got * 48 == pytest.approx(copies * (INT8 * (1 + passed_on) + BF16 * passed_on))
    assert expert_sent * 48 == pytest.approx(copies * (BF16 * (1 + passed_on) + INT8 * passed_on))


def test_other_planes_carry_nothing_of_it() -> None:
    layout = Layout(dies=64, dp=64, ep=64, weight_dtype="int8")
    for plane in ("scale_out", "vpc"):
        assert not ExchangeTraffic(R1, POD, layout, None, plane).is_there
        assert traffic_of(layout, decoding(64, 32), plane).die_bytes == (0.0,) * 4


def test_nodes_of_gpus_exchange_over_both_planes() -> None:
    """Qwen3 on two H200 nodes: of a token's copies 8 of 16 leave the node, 7 go to its peers."""
    experiment = load_experiment("qwen3-235b-h200-disaggregated")
    pool = experiment.pools[1]
    hardware = experiment.hardware[pool.name]
    sizes = {}
    for plane in ("scale_up", "scale_out"):
        law = ExchangeTraffic(experiment.model, hardware, pool.layout, None, plane)
        sizes[plane] = law.of(32 * pool.layout.dies, np.ones(len(STEP_PARTS))).die_bytes[0]
    assert pool.layout.dies == 16
    assert sizes["scale_out"] / sizes["scale_up"] == pytest.approx(8 / 7)


def test_many_tokens_are_counted_like_few() -> None:
    """Beyond the table, where each count is priced by itself."""
    law = ExchangeTraffic(
        R1, POD, Layout(dies=64, dp=64, ep=64, weight_dtype="int8"), None, "scale_up"
    )
    parts = np.ones(len(STEP_PARTS))
    few, many = law.of(2**17, parts), law.of(2**19, parts)
    assert many.die_bytes[0] == pytest.approx(4 * few.die_bytes[0])
