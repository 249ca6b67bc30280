"""Dispatch and combine of a layer: by the profile's kernels, the fastest of them, else by links."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import (
    DEEPSEEK_R1,
    LLAMA_70B,
    NPU_POD,
    SMALL_MOE,
    add_prompts,
    decode_batch,
    ep_layout,
)

from simpod.config import load_hardware
from simpod.cost import Layout
from simpod.cost import operators as op
from simpod.cost.collectives import dispatch_message_bytes, expert_exchange
from simpod.cost.expert_exchange import ExpertExchange
from simpod.cost.pricer import step_pricer
from simpod.cost.semantics import SEMANTICS
from simpod.cost.statuses import part_statuses, parts_of, worst
from simpod.hardware.kernels.fits import KernelFits
from simpod.records.columns import STEP_PARTS

TOKENS = np.array([1.0, 8.0, 64.0, 128.0, 512.0, 4096.0])
OPERATIONS = ("dispatch", "combine")


def with_exchange(hardware, *kernels):
    """The same profile with the constants of some exchange kernels alone."""
    fits = hardware.kernels.exchange
    kept = {name: fit for name, fit in fits.items() if name.startswith(kernels)}
    assert kept
    return replace(hardware, kernels=replace(hardware.kernels, exchange=kept))


def test_without_constants_it_is_a_latency_and_the_bytes_over_the_link():
    layout = ep_layout(32)
    plain = expert_exchange(
        NPU_POD, DEEPSEEK_R1, layout, dispatch_message_bytes(DEEPSEEK_R1, layout)
    )
    got = ExpertExchange(DEEPSEEK_R1, NPU_POD, layout).seconds("dispatch", TOKENS)
    assert got == pytest.approx(plain.fixed_s + plain.s_per_token * TOKENS)


def test_kernels_of_an_nvlink_domain_end_where_it_ends():
    rack = with_exchange(load_hardware("gb200-nvl72"), "NVLinkTwoSided")
    up = replace(rack.planes["scale_up"], scope="node")
    trays = replace(rack, planes={**rack.planes, "scale_up": up})
    for hardware, dies, kernels in ((rack, 32, 1), (trays, 4, 1), (trays, 32, 0)):
        exchange = ExpertExchange(DEEPSEEK_R1, hardware, ep_layout(dies))
        assert len(exchange.breakdowns("dispatch", TOKENS)) == kernels


@pytest.mark.parametrize("operation", OPERATIONS)
def test_on_nvidia_the_faster_of_two_kernels_is_taken(operation):
    hardware = load_hardware("h100-pod")
    layout = ep_layout(16, weight_dtype="fp8")

    def seconds(*kernels):
        profile = with_exchange(hardware, *kernels)
        return ExpertExchange(DEEPSEEK_R1, profile, layout).seconds(operation, TOKENS)

    low, normal = seconds("deepep_low_latency"), seconds("deepep_normal")
    both = ExpertExchange(DEEPSEEK_R1, hardware, layout).seconds(operation, TOKENS)
    assert both.tolist() == np.minimum(low, normal).tolist()
    assert low[0] < normal[0]  # what it is for


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", ["cloudmatrix384", "h100-pod", "gb200-nvl72"])
def test_more_tokens_take_longer_and_microseconds(name, operation):
    hardware = load_hardware(name)
    layout = ep_layout(32, weight_dtype="fp8" if "fp8" in hardware.die.peak_flops_per_s else "int8")
    seconds = ExpertExchange(DEEPSEEK_R1, hardware, layout).seconds(operation, TOKENS)
    assert np.all(np.diff(seconds) > 0.0)
    assert np.all((seconds > 5e-6) & (seconds < 20e-3))


def test_a_shared_copy_on_every_die_is_at_home():
    """9 slots of a token, 8 of them elsewhere; with fewer copies than dies all 9 are sent to."""
    home, away = (ep_layout(32, shared_expert_dies=dies) for dies in (32, 16))
    assert op.experts_per_token(DEEPSEEK_R1, home) == 9
    assert op.copies_sent(DEEPSEEK_R1, home) == 8
    assert op.copies_sent(DEEPSEEK_R1, away) == 9
    assert op.copies_sent(DEEPSEEK_R1, replace(away, expert_dies=16)) == 9
    none = ep_layout(32)
    assert op.copies_sent(DEEPSEEK_R1, none) == 8


@pytest.mark.parametrize("name", ["cloudmatrix384", "no constants"])
def test_without_copies_at_home_messages_are_more_uneven_than_loads(name):
    """A die with 1.8 of the mean 9: 1 at home, so 15.2 of 8 come over links, 1.9 of the mean."""
    hardware = NPU_POD if name == "no constants" else load_hardware(name)
    home, none = (
        ExpertExchange(DEEPSEEK_R1, hardware, ep_layout(32, **more))
        for more in ({"shared_expert_dies": 32}, {})
    )
    for operation in OPERATIONS:
        fullest_s = home.seconds(operation, TOKENS, 1.8)
        assert fullest_s == pytest.approx(none.seconds(operation, TOKENS, 1.9))


def test_statuses_are_those_of_the_kernels_that_price_a_part():
    h100, vllm = load_hardware("h100"), SEMANTICS["vllm-v1"]
    found = part_statuses(SMALL_MOE, h100, Layout(dies=8, tp=8), "mixed", vllm)
    assert list(found) == list(STEP_PARTS)
    assert {found[part] for part in ("attention", "projections", "ffn", "experts", "head")} == {
        "calibrated"
    }
    assert found["elementwise"] == found["sampling"] == found["host_gap"] == "assumed"
    h200 = load_hardware("h200")
    relative = part_statuses(SMALL_MOE, h200, Layout(dies=8, tp=8), "mixed", vllm)
    assert relative["attention"] == relative["experts"] == "family"
    none = replace(h100, kernels=KernelFits())
    bare = part_statuses(SMALL_MOE, none, Layout(dies=8, tp=8), "mixed", vllm)
    assert set(bare.values()) == {"assumed"}
    assert found["a2e"] == found["e2a"] == "assumed"  # DeepEP has no such exchange
    ascend = load_hardware("cloudmatrix384")
    pod = part_statuses(DEEPSEEK_R1, ascend, ep_layout(32), "decode", SEMANTICS["flowserve"])
    assert pod["a2e"] == pod["e2a"] == "calibrated"
    servers = replace(load_hardware("atlas-a2-376t"), num_nodes=4)
    for dies, status in ((8, "family"), (32, "assumed")):
        layout = ep_layout(dies)
        of = part_statuses(DEEPSEEK_R1, servers, layout, "decode", SEMANTICS["flowserve"])
        assert of["dispatch"] == of["combine"] == status


@pytest.mark.parametrize(
    ("model", "layout", "absent"),
    [
        (LLAMA_70B, Layout(dies=8, tp=8), {"experts", "dispatch", "dispatch_wait", "a2e", "mtp"}),
        (SMALL_MOE, Layout(dies=8, tp=8), {"dispatch", "combine", "latent_gather"}),
        (SMALL_MOE, ep_layout(8, micro_batches=2), {"a2e", "e2a", "all_reduce"}),
        (SMALL_MOE, ep_layout(8, expert_dies=8), {"dispatch", "combine"}),
    ],
)
def test_parts_of_a_step_are_those_that_take_time(model, layout, absent):
    counts = [40] * layout.dp
    batch = add_prompts(decode_batch(counts, 20_000), 300)
    batch.prefill_tokens[0] += 500
    prices = step_pricer(model, load_hardware("cloudmatrix384"), layout).price(batch)
    found = set(parts_of(model, layout))
    assert {part for part, s in zip(STEP_PARTS, prices.parts(), strict=True) if s > 0.0} <= found
    assert absent.isdisjoint(found)


def test_tokens_that_are_gathered_have_the_status_of_collectives():
    """Here nobody has measured the exchange."""
    b200 = load_hardware("b200")
    b200 = replace(b200, kernels=replace(b200.kernels, exchange={}))
    for engine, status in (("vllm-v1", "assumed"), ("trtllm", "calibrated")):
        found = part_statuses(DEEPSEEK_R1, b200, ep_layout(8), "mixed", SEMANTICS[engine])
        assert {found[part] for part in ("dispatch", "combine", "combine_wait")} == {status}


def test_the_worst_status_counts():
    assert worst(["calibrated", "assumed", "family"]) == "assumed"
    assert worst(["calibrated", "family"]) == "family"
    assert worst([]) == "assumed"
