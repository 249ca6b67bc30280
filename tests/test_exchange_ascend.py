"""Exchange on a SuperPod: push, pull, trampolines, point to point, buffers."""

from dataclasses import asdict, fields, replace

import numpy as np
import pandas as pd
import pytest

from simpod.config.references import load_hardware
from simpod.cost.exchange.breakdown import ExchangeTime
from simpod.cost.exchange.buffers import low_latency_buffers, pull_buffers, push_buffers
from simpod.cost.exchange.crossing import crossing_bytes
from simpod.cost.exchange.point_to_point import bulk_s, point_to_point_s
from simpod.cost.exchange.pull import pull_s
from simpod.cost.exchange.push import push_s
from simpod.cost.exchange.shapes import (
    ExchangeShape,
    Fabric,
    ascend_message_bytes,
    distinct,
    share_beyond,
)
from simpod.cost.exchange.trampoline import SplitShape, naive_s, trampoline_s
from simpod.hardware.kernels.exchange import (
    BulkConstants,
    PointToPointConstants,
    PullConstants,
    PushConstants,
)
from tests.measured_tables import table
from tests.published_exchange import fitted, published, simulated_s

US = 1e-6
POD = Fabric.of(load_hardware("cloudmatrix384"))
UP = POD.up_bytes_per_s

PUSH = PushConstants(
    num_cores=48,
    start_up_s=5.4e-6,
    flag_s=0.3e-6,
    message_local_s=1.4e-6,
    message_s=4.8e-6,
    message_inter_node_s=0.8e-6,
    quantise_bytes_per_s=179e9,
    write_frac=0.555,
    hbm_frac=0.84,
)
PULL = PullConstants(
    num_cores=48,
    start_up_s=8.9e-6,
    field_s=2.1e-6,
    poll_s=0.1e-6,
    message_s=1.9e-6,
    quantise_start_s=4.0e-6,
    quantise_bytes_per_s=69e9,
    read_frac=0.774,
    hbm_frac=0.84,
    dma_start_s=5.3e-6,
    dma_post_s=0.7e-6,
    dma_cores=5,
)
SEND = PointToPointConstants(
    start_up_s=1.5e-6,
    field_s=2.1e-6,
    core_bytes_per_s=38e9,
    slot_bytes=524288.0,
    link_frac=0.837,
    check_interval_s=10e-6,
)


def shape(tokens: float | list[float], num_ranks: float, dtype: str = "int8") -> ExchangeShape:
    return ExchangeShape(
        tokens=np.array(tokens, dtype=np.float64),
        num_ranks=num_ranks,
        hidden_size=7168,
        top_k=8,
        num_experts=max(256.0, num_ranks),
        message_bytes=ascend_message_bytes(7168, dtype),
        is_quantised=dtype == "int8",
    )


def split(tokens: float = 96.0, dtype: str = "int8", attention_dies: int = 160) -> SplitShape:
    return SplitShape(
        tokens=tokens,
        num_attention_dies=attention_dies,
        num_expert_dies=288,
        hidden_size=7168,
        top_k=8,
        message_bytes=ascend_message_bytes(7168, dtype),
        is_quantised=dtype == "int8",
    )


def test_messages_are_padded_with_their_scale() -> None:
    assert ascend_message_bytes(7168, "int8") == 7.5 * 1024
    assert ascend_message_bytes(7168, "bf16") == 14 * 1024


def test_total_is_the_sum_of_the_parts() -> None:
    time = push_s(POD, PUSH, shape([4, 128], 128), is_dispatch=True)
    parts = [np.asarray(getattr(time, field.name)) for field in fields(ExchangeTime)]
    assert time.total_s == pytest.approx(sum(parts))
    twice = time + time
    assert twice.total_s == pytest.approx(2 * time.total_s)


def test_a_pair_of_dies_uses_no_plane() -> None:
    assert share_beyond(2, POD.dies_per_npu) == 0.0
    assert share_beyond(8, POD.dies_per_npu) == pytest.approx(0.75)
    assert push_s(POD, PUSH, shape(128, 2), is_dispatch=True).bytes_s == 0.0


def test_combine_at_128_ranks_is_bound_by_bytes() -> None:
    """126 of 128 messages leave the NPU: 1,024 x 14 KiB x 126 / 128 at the write rate."""
    time = push_s(POD, PUSH, shape(128, 128, "bf16"), is_dispatch=False)
    assert time.bytes_s == pytest.approx(1024 * 14336 * 126 / 128 / (0.555 * UP))
    assert time.message_s == 0.0
    assert time.quantise_s == 0.0


@pytest.mark.parametrize(
    ("ranks", "dispatch_us", "combine_us"), [(8, 116, 118), (32, 133, 146), (128, 152, 150)]
)
def test_push_matches_the_published_table(
    ranks: int, dispatch_us: float, combine_us: float
) -> None:
    """CloudMatrix-Infer, table 7; 128 tokens a rank."""
    out = push_s(POD, PUSH, shape(128, ranks), is_dispatch=True)
    back = push_s(POD, PUSH, shape(128, ranks, "bf16"), is_dispatch=False)
    assert out.total_s == pytest.approx(dispatch_us * US, rel=0.05)
    assert back.total_s == pytest.approx(combine_us * US, rel=0.05)


def test_pull_at_128_ranks_follows_the_published_figure() -> None:
    """xDeepServe, figure 6: quantising costs a small dispatch more than its bytes save."""
    out = pull_s(POD, PULL, shape([4, 8, 16, 64, 96, 128], 128)).total_s
    back = pull_s(POD, PULL, shape([4, 8, 16, 64, 96, 128], 128, "bf16")).total_s
    assert out[[0, -1]] == pytest.approx([22 * US, 100 * US], rel=0.15)
    assert back[[0, -1]] == pytest.approx([22 * US, 120 * US], rel=0.15)
    assert (out[:3] > back[:3]).all()
    assert (out[3:] < back[3:]).all()


def test_pull_metadata_grows_with_the_ranks() -> None:
    few, many = (pull_s(POD, PULL, shape(4, ranks)) for ranks in (96, 768))
    assert many.metadata_s == pytest.approx(8 * few.metadata_s)
    assert pull_s(POD, PULL, shape(4, 2)).metadata_s == PULL.field_s


def test_a2e_and_e2a_match_the_published_times() -> None:
    """xDeepServe 3.3: three domains of 160 attention dies, 288 expert dies, 96 a die."""
    there = trampoline_s(POD, PULL, split(), to_experts=True)
    back = trampoline_s(POD, PULL, split(dtype="bf16"), to_experts=False)
    assert there.total_s == pytest.approx(172 * US, rel=0.05)
    assert back.total_s == pytest.approx(193 * US, rel=0.05)


def test_naive_a2e_loses_by_its_metadata() -> None:
    naive = naive_s(POD, PULL, split(), to_experts=True)
    better = trampoline_s(POD, PULL, split(), to_experts=True)
    assert naive.total_s > 1.2 * better.total_s
    assert naive.metadata_s == pytest.approx(288 * PULL.field_s / PULL.dma_cores)
    assert naive.metadata_s > 1.7 * np.asarray(better.metadata_s)
    assert naive.metadata_s == max(
        float(np.asarray(getattr(naive, field.name))) for field in fields(naive)
    )


def test_without_surplus_expert_dies_there_is_no_trampoline() -> None:
    equal = split(attention_dies=288)
    hopped = trampoline_s(POD, PULL, equal, to_experts=True)
    assert hopped.total_s == naive_s(POD, PULL, equal, to_experts=True).total_s


def test_point_to_point_keeps_what_is_published() -> None:
    """xDeepServe 3.1: below 1 MB under 20 us on 2 cores; 9 MB on 48 cores > 2.5 times faster."""
    small = point_to_point_s(UP, SEND, np.linspace(1e3, 2**20, 100), 2)
    assert (small.total_s < 20 * US).all()
    two, many = (point_to_point_s(UP, SEND, 9216 * 1024, cores) for cores in (2, 48))
    assert two.total_s > 2.5 * many.total_s


def test_point_to_point_modes() -> None:
    plain = point_to_point_s(UP, SEND, 1e6, 2)
    assert plain.bytes_s == pytest.approx(1e6 / 76e9)
    slow = point_to_point_s(UP, SEND, 1e6, 2, ping_pong=False)
    assert slow.bytes_s == pytest.approx(2 * np.asarray(plain.bytes_s))
    lazy = point_to_point_s(UP, SEND, 1e6, 2, busy_poll=False)
    assert lazy.total_s - plain.total_s == pytest.approx(5 * US)
    full = point_to_point_s(UP, SEND, 4 * 524288.0, 2)  # two ring buffers' worth: one stall
    assert full.polling_s == pytest.approx(3 * SEND.field_s)


def test_more_cores_are_never_slower() -> None:
    sizes = np.logspace(3, 8, 60)
    times = point_to_point_s(UP, SEND, sizes, np.arange(1.0, 49.0)[:, None]).total_s
    assert (np.diff(times, axis=0) <= 0).all()
    assert (np.diff(times, axis=1) > 0).all()


def test_bulk_copies_differ_between_nodes_by_their_start() -> None:
    constants = BulkConstants(start_up_s=1.5e-6, inter_node_s=1.6e-6, link_frac=0.774)
    sizes = np.array([2.0**20, 2.0**23])
    inside, between = (bulk_s(UP, constants, sizes, far) for far in (False, True))
    assert inside.bytes_s == pytest.approx(sizes / (0.774 * UP))
    assert between.total_s - inside.total_s == pytest.approx([1.6e-6, 1.6e-6])


@pytest.mark.parametrize("ranks", [1, 2, 8, 16, 96, 288, 320, 768])
def test_exchange_is_finite_and_grows_with_tokens(ranks: int) -> None:
    tokens = [0, 1, 2, 16, 256, 4096, 65536]
    for dtype in ("int8", "bf16"):
        for time in (
            push_s(POD, PUSH, shape(tokens, ranks, dtype), is_dispatch=dtype == "int8"),
            pull_s(POD, PULL, shape(tokens, ranks, dtype)),
        ):
            assert np.isfinite(time.total_s).all()
            assert (np.diff(time.total_s) >= 0).all()
            assert (time.total_s > 0).all()


def test_push_grows_with_ranks_and_shrinks_with_bandwidth() -> None:
    ranks = np.array([2.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0])
    on_all = replace(shape(128, 8), num_ranks=ranks)
    slow = push_s(POD, PUSH, on_all, is_dispatch=True).total_s
    fast_pod = replace(POD, up_bytes_per_s=2 * UP)
    fast = push_s(fast_pod, PUSH, on_all, is_dispatch=True).total_s
    assert (np.diff(slow) > 0).all()
    assert (fast <= slow).all()


def test_beyond_the_server_messages_cross_the_network() -> None:
    """910B servers of 8 dies on RoCE of 25 GB/s: of 288 ranks' messages, 280 leave the server."""
    profile = load_hardware("atlas-a2-376t")
    servers = Fabric.of(replace(profile, num_nodes=36))
    asked = shape(120, 288)
    out_s = 120 * 8 * 7680 * (280 / 288) / (0.906 * 25e9)
    pulled = pull_s(servers, PULL, asked)
    pushed = push_s(servers, PUSH, asked, is_dispatch=True)
    assert pulled.bytes_s == pytest.approx(out_s)
    assert pushed.bytes_s == pytest.approx(out_s)
    at_once = replace(servers, beyond_bytes_per_s=np.inf)
    assert pull_s(at_once, PULL, asked).bytes_s == pytest.approx(
        960 * 7680 * (7 / 288) / 0.774 / UP
    )
    later_s = (5.5e-6 - 1.2e-6) * 280 / 288
    inside = replace(servers, up_dies=288)
    assert pulled.polling_s - pull_s(inside, PULL, asked).polling_s == pytest.approx(later_s)
    assert pushed.start_up_s == pytest.approx(PUSH.start_up_s + later_s)
    fields_s = pulled.metadata_s - pull_s(inside, PULL, asked).metadata_s
    assert fields_s == pytest.approx(288 / PULL.num_cores * later_s)
    free = replace(at_once, up_bytes_per_s=np.inf)
    reads_s = pull_s(free, PULL, asked).message_s
    assert reads_s == pytest.approx(960 / PULL.num_cores * (PULL.message_s + later_s))
    writes_s = push_s(free, PUSH, asked, is_dispatch=True).message_s
    near_s = PUSH.message_local_s / 288 + PUSH.message_s * (287 / 288)  # one die is an NPU
    assert writes_s == pytest.approx(960 / PUSH.num_cores * (near_s + later_s))
    assert crossing_bytes(servers, "xccl_pull", asked) == {
        "scale_up": pytest.approx(960 * 7680 * (7 / 288)),
        "scale_out": pytest.approx(960 * 7680 * (280 / 288)),
    }
    one_server = pull_s(servers, PULL, shape(120, 8)).total_s
    assert one_server == pull_s(Fabric.of(profile), PULL, shape(120, 8)).total_s


def test_the_busiest_rank_binds() -> None:
    even, skewed = shape(128, 128), replace(shape(128, 128), imbalance=2.0)
    for time, twice in (
        (pull_s(POD, PULL, even), pull_s(POD, PULL, skewed)),
        (
            push_s(POD, PUSH, even, is_dispatch=True),
            push_s(POD, PUSH, skewed, is_dispatch=True),
        ),
    ):
        assert twice.bytes_s == pytest.approx(2 * np.asarray(time.bytes_s))
        assert twice.quantise_s == time.quantise_s


def test_a_trampoline_carries_the_sum_of_two_loads() -> None:
    """288 expert dies behind 160: two unlike dies are less unlike together, by sqrt(2)."""
    even = split()
    skewed = replace(even, imbalance=1.5)
    alone = skewed.copies_per_expert_dies(1) / even.copies_per_expert_dies(1)
    two = skewed.copies_per_expert_dies(2) / even.copies_per_expert_dies(2)
    assert alone == pytest.approx(1.5)
    assert two == pytest.approx(1.0 + 0.5 / np.sqrt(2.0))
    times = [trampoline_s(POD, PULL, each, to_experts=False) for each in (even, skewed)]
    assert times[1].bytes_s == pytest.approx(two * np.asarray(times[0].bytes_s))


def test_buffers_of_the_printed_example() -> None:
    """CloudMatrix-Infer 4.2.1: 320 x 96 x 7.5 KB ~ 225 MB and x 14 KB ~ 420 MB, 645 MB a die."""
    held = push_buffers(320, 96, 1, 7680.0, 14336.0)
    assert held.dispatch_bytes == 225 * 2**20
    assert held.combine_bytes == 420 * 2**20
    assert held.total_bytes == 645 * 2**20


def test_other_buffers() -> None:
    pulled = pull_buffers(128, 96, 8, 7680.0, 14336.0)
    assert pulled.total_bytes == 96 * 8 * (7680 + 14336) + 4 * 2**20 + 32 * 128
    low = low_latency_buffers(256, 128, 7392.0, 14336.0)
    assert low.combine_bytes == 4 * 256 * 128 * 14336
    assert low.dispatch_bytes == 2 * 257 * 128 * 7392


def test_distinct_places_by_hand() -> None:
    assert distinct(4, 4, 2) == pytest.approx(2.0)  # every expert on a place of its own
    assert distinct(2, 4, 2) == pytest.approx(5 / 3)  # both on one place with 1 / 3
    assert distinct(1, 256, 8) == pytest.approx(1.0)
    assert distinct(np.array([8.0, 64.0]), 256, 8) == pytest.approx([5.295, 7.676], rel=1e-3)


def test_shipped_constants_are_those_that_published_points_give() -> None:
    shipped = load_hardware("cloudmatrix384").kernels.exchange
    points = published(pd.read_csv(table("measured/collectives.csv")))
    assert set(points) == {key for key in shipped if key.startswith(("fused_push", "hixl/"))}
    for key, groups in points.items():
        constants = shipped[key].constants
        found = fitted(POD, key, groups)
        assert asdict(found) == pytest.approx(asdict(constants), rel=2e-3), key
        measured_s = np.concatenate([group.measured_s for group in groups])
        assert len(measured_s) == shipped[key].rows
        errors = np.abs(simulated_s(POD, groups, constants) / measured_s - 1.0)
        median_frac = shipped[key].median_abs_error_frac
        assert np.median(errors) == pytest.approx(median_frac, abs=2e-3), key
