"""Exchange on GPUs: DeepEP, NVL72, and the readers of measured tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from simpod.config.references import load_hardware
from simpod.cost.exchange.all_to_all import domain_s
from simpod.cost.exchange.deepep import NormalShape, low_latency_s, low_latency_sms, normal_s
from simpod.cost.exchange.price import price
from simpod.cost.exchange.shapes import ExchangeShape, Fabric, nvidia_message_bytes
from simpod.hardware.kernels.exchange import (
    BulkConstants,
    DomainConstants,
    LowLatencyConstants,
    NormalConstants,
)
from simpod.validate.tables.exchange import (
    read_domain,
    read_low_latency,
    read_normal,
)
from simpod.validate.tables.exchange_fit import fallbacks, start_of
from tests.measured_tables import table

NODE = Fabric.of(load_hardware("h100-pod"))

LOW = LowLatencyConstants(
    start_up_s=7e-6,
    flag_s=0.015e-6,
    network_s=18e-6,
    token_s=2.3e-6,
    up_frac=0.56,
    out_frac=0.95,
    overlap_exponent=1.4,
)
NORMAL = NormalConstants(
    start_up_s=26e-6,
    hidden_s=0.0,
    network_s=6e-6,
    notify_s=18e-6,
    notify_node_s=8e-6,
    token_s=0.4e-6,
    sm_bytes_per_s=21e9,
    network_copy_scale=1.5,
    up_frac=0.7,
    out_frac=0.9,
    wide_frac=0.5,
    overlap_exponent=4.0,
)
DOMAIN = DomainConstants(
    start_up_s=10e-6,
    round_s=1e-6,
    token_s=0.04e-6,
    up_frac=0.6,
    overlap_exponent=3.0,
    latency_exponent=1.0,
)


def shape(tokens: float | list[float], num_ranks: float, num_experts: float = 256) -> ExchangeShape:
    return ExchangeShape(
        tokens=np.array(tokens, dtype=np.float64),
        num_ranks=num_ranks,
        hidden_size=7168,
        top_k=8,
        num_experts=num_experts,
        message_bytes=7392.0,
    )


def normal(tokens: float | list[float], num_ranks: float, num_sms: float = 20.0) -> NormalShape:
    return NormalShape(exchange=shape(tokens, num_ranks), num_sms=num_sms)


def test_message_sizes() -> None:
    sizes = nvidia_message_bytes(7168, np.array(["fp8", "bf16", "fp4"]))
    assert sizes.tolist() == [7168 + 224, 14336, 3584 + 448]


def test_few_experts_use_few_multiprocessors() -> None:
    assert low_latency_sms([8, 128, 160, 256, 384], 132).tolist() == [8, 128, 80, 128, 128]
    few = low_latency_s(NODE, LOW, shape(1024, 8, num_experts=8))
    many = low_latency_s(NODE, LOW, shape(1024, 8))
    assert few.total_s > 1.5 * many.total_s
    assert few.message_s > 10 * np.asarray(many.message_s)


def test_low_latency_reaches_the_links() -> None:
    inside = low_latency_s(NODE, LOW, shape(1e6, 8))
    assert inside.bytes_s == pytest.approx(8e6 * 7392 * 7 / 8 / (0.56 * 450e9))
    between = low_latency_s(NODE, LOW, shape(1e6, 64))
    assert between.bytes_s == pytest.approx(8e6 * 7392 * 7 / 8 / (0.95 * 50e9))
    assert between.start_up_s == pytest.approx(7e-6 + 18e-6 * 7 / 8)


def test_normal_merges_copies_by_rank_and_node() -> None:
    """8 experts of 256 lie on 5.3 of 8 ranks; between 2 nodes a token crosses once with 1 / 2."""
    inside = normal_s(NODE, NORMAL, normal(1e6, 8, num_sms=132.0))
    assert inside.bytes_s == pytest.approx(1e6 * 7392 * 5.3 * 7 / 8 / (0.7 * 450e9), rel=0.01)
    assert inside.metadata_s == 0.0
    between = normal_s(NODE, NORMAL, normal(1e6, 16, num_sms=132.0))
    assert between.bytes_s == pytest.approx(1e6 * 7392 * 1.0 / (0.9 * 50e9), rel=0.01)
    assert between.metadata_s == pytest.approx(34e-6)


def test_normal_on_few_multiprocessors_is_bound_by_them() -> None:
    one = normal_s(NODE, NORMAL, normal(1e5, 8, num_sms=1.0)).total_s
    two = normal_s(NODE, NORMAL, normal(1e5, 8, num_sms=2.0)).total_s
    assert one == pytest.approx(2 * two, rel=0.01)


def test_domain_counts_balanced_destinations() -> None:
    rack = replace(NODE, dies_per_node=72)
    for ranks, remote in ((2, 1.0), (4, 3.0), (8, 7.0), (64, 7.875)):
        time = domain_s(rack, DOMAIN, shape(1e6, ranks))
        assert time.bytes_s == pytest.approx(1e6 * remote * 7392 / (0.6 * 450e9))
    assert domain_s(rack, DOMAIN, shape(1, 2)).total_s == pytest.approx(11e-6, rel=0.01)


def test_exchanges_are_finite_and_grow() -> None:
    tokens = [0, 1, 4, 64, 1024, 65536]
    for ranks in (8, 16, 32, 64):
        for time in (
            low_latency_s(NODE, LOW, shape(tokens, ranks)),
            normal_s(NODE, NORMAL, normal(tokens, ranks)),
            domain_s(NODE, DOMAIN, shape(tokens, ranks)),
        ):
            assert np.isfinite(time.total_s).all()
            assert (np.diff(time.total_s) >= 0).all()
            assert (time.total_s > 0).all()


def test_more_bandwidth_is_never_slower() -> None:
    fast = replace(NODE, up_bytes_per_s=9e11, out_bytes_per_s=1e11)
    tokens = shape([1, 16, 256, 4096], 16)
    slow_s, fast_s = (low_latency_s(fabric, LOW, tokens).total_s for fabric in (NODE, fast))
    assert (fast_s <= slow_s).all()


def test_constants_of_another_mechanism_are_refused() -> None:
    bulk = BulkConstants(start_up_s=0.0, inter_node_s=0.0, link_frac=1.0)
    with pytest.raises(ValueError, match="BulkConstants do not price"):
        price(NODE, "h100/deepep_low_latency/dispatch", "fp8", bulk, shape(1, 8))


def test_readers_keep_every_row() -> None:
    low = pd.read_csv(table("measured/deepep_ll_h100_1to8nodes.csv"))
    out, back = read_low_latency(low, "h100")
    assert out.measured_s.sum() == pytest.approx(low["dispatch_avg_t_us"].sum() * 1e-6)
    assert back.measured_s.sum() == pytest.approx(low["combine_avg_t_us"].sum() * 1e-6)
    plain = pd.read_csv(table("measured/deepep_normal_h100_1to8nodes.csv"))
    groups = read_normal(plain, "h100")
    assert [len(group.measured_s) for group in groups] == [len(plain)] * 2
    rack = pd.read_csv(table("measured/alltoall_gb200_ep2to64.csv"))
    total_s = sum(group.measured_s.sum() for group in read_domain(rack, "gb200"))
    assert total_s == pytest.approx(rack["latency"].sum() * 1e-3)


def test_every_variant_has_a_start_and_something_to_fall_back_on() -> None:
    assert isinstance(start_of("h100/deepep_normal/combine"), NormalConstants)
    assert isinstance(start_of("gb300/NVLinkOneSided/dispatch"), DomainConstants)
    names = fallbacks("gb300/NVLinkOneSided/dispatch", "int8")
    assert names[0] == "NVLinkOneSided/dispatch/int8"
    assert names[-1] == "NVLinkTwoSided/combine/bf16"
