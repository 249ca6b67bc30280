"""Collectives and KV transfers by hand."""

from dataclasses import replace

import pytest
from cost_examples import DEEPSEEK_R1, GPU_NODES, LLAMA_70B, NPU_POD, ep_layout

from simpod.cost import Layout, kv_bytes_per_token, kv_transfer
from simpod.cost.collectives import (
    all_reduce_s,
    combine_message_bytes,
    dispatch_message_bytes,
    expert_exchange,
    group_link,
    meets_in_layers,
)
from simpod.errors import ConfigError

NODE_PLANE = GPU_NODES.planes["scale_up"]


def test_messages_of_deepseek_are_those_of_cloudmatrix_infer():
    layout = ep_layout(32)
    assert dispatch_message_bytes(DEEPSEEK_R1, layout) == 7.5 * 1024
    assert combine_message_bytes(DEEPSEEK_R1) == 14 * 1024
    bf16 = replace(layout, weight_dtype="bf16")
    assert dispatch_message_bytes(DEEPSEEK_R1, bf16) == 14 * 1024


def test_all_reduce_by_hand():
    start = 1e-5 + 2 * 1e-6
    by_hand = start + 2 * 7 / 8 * 1e6 / (200e9 * 0.8)
    assert all_reduce_s(NPU_POD, 1e6, 8) == pytest.approx(by_hand)
    assert all_reduce_s(NPU_POD, 1e6, 1) == 0


def test_a_group_uses_scale_up_within_its_scope_only():
    assert group_link(GPU_NODES, 8).bytes_per_s == pytest.approx(450e9 * 0.8)
    assert group_link(GPU_NODES, 16).bytes_per_s == 50e9
    assert group_link(NPU_POD, 768).bytes_per_s == pytest.approx(200e9 * 0.8)
    assert group_link(NPU_POD, 16).latency_s < group_link(NPU_POD, 32).latency_s
    with pytest.raises(ConfigError, match="no plane joins a group of 16 dies"):
        group_link(replace(GPU_NODES, num_nodes=1, planes={"scale_up": NODE_PLANE}), 16)


def test_dispatch_by_hand_on_one_fabric():
    exchange = expert_exchange(NPU_POD, DEEPSEEK_R1, ep_layout(32), 7680.0)
    assert exchange.fixed_s == pytest.approx(6e-5 + 32 * 2e-7)
    assert exchange.s_per_token == pytest.approx(8 * 31 / 32 * 7680 / (200e9 * 0.8))


def test_dispatch_across_nodes_is_bound_by_scale_out():
    exchange = expert_exchange(GPU_NODES, DEEPSEEK_R1, ep_layout(32), 7680.0)
    assert exchange.s_per_token == pytest.approx(8 * 24 / 32 * 7680 / 50e9)
    one_node = expert_exchange(GPU_NODES, DEEPSEEK_R1, ep_layout(8), 7680.0)
    assert one_node.s_per_token == pytest.approx(8 * 7 / 8 * 7680 / (450e9 * 0.8))


def test_who_meets():
    assert meets_in_layers(DEEPSEEK_R1, ep_layout(32))
    assert not meets_in_layers(DEEPSEEK_R1, Layout(dies=8, tp=8))  # EP = 1, one rank
    assert not meets_in_layers(LLAMA_70B, Layout(dies=8, dp=8))


def test_kv_bytes_per_token_and_die():
    assert kv_bytes_per_token(DEEPSEEK_R1, Layout(dies=1)) == 35136 * 2
    assert kv_bytes_per_token(DEEPSEEK_R1, Layout(dies=4, tp=4)) == 35136 * 2
    assert kv_bytes_per_token(DEEPSEEK_R1, Layout(dies=1, mtp_layers=1)) == 62 * 576 * 2
    assert kv_bytes_per_token(LLAMA_70B, Layout(dies=8, tp=8)) == 80 * 2 * 128 * 2


def test_an_int8_latent_keeps_its_rotated_key_in_16_bits():
    bytes_of = {
        dtype: kv_bytes_per_token(DEEPSEEK_R1, Layout(dies=1, mtp_layers=1, kv_dtype=dtype))
        for dtype in ("bf16", "fp8", "int8")
    }
    assert bytes_of == {"bf16": 62 * 576 * 2, "fp8": 62 * 576, "int8": 62 * (512 + 64 * 2)}
    assert kv_bytes_per_token(LLAMA_70B, Layout(dies=1, kv_dtype="int8")) == 80 * 2 * 8 * 128


def test_latent_of_a_tp4_prefill_rank_goes_to_one_decode_die():
    move = kv_transfer(DEEPSEEK_R1, NPU_POD, "scale_out", Layout(dies=4, tp=4), Layout(dies=1))
    assert move.bytes_per_token == 35136 * 2
    assert move.seconds(1000) == pytest.approx(5e-6 + 1000 * 35136 * 2 / 25e9)


@pytest.mark.parametrize(
    ("source_tp", "destination_tp", "links"), [(4, 4, 4), (4, 8, 4), (8, 2, 2)]
)
def test_split_kv_uses_the_links_of_the_narrower_side(source_tp, destination_tp, links):
    source, destination = (Layout(dies=tp, tp=tp) for tp in (source_tp, destination_tp))
    move = kv_transfer(LLAMA_70B, NPU_POD, "scale_out", source, destination)
    whole = 80 * 2 * 8 * 128 * 2
    assert move.bytes_per_token == whole
    assert move.s_per_token == pytest.approx(whole / links / 25e9)


def test_unknown_plane_names_the_planes_that_there_are():
    with pytest.raises(ConfigError, match=r"'vpc'.*npu-pod has scale_out, scale_up"):
        kv_transfer(LLAMA_70B, NPU_POD, "vpc", Layout(dies=1), Layout(dies=1))
