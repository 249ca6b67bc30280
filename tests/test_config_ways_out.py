"""Refusals say what to do, and what they say works."""

import pytest

from simpod.config import load_experiment
from simpod.errors import ConfigError

DECODE, SPLIT, PRODUCTION = (
    "cloudmatrix-infer-decode",
    "xdeepserve-disaggregated-768",
    "xdeepserve-production",
)
AS = "workload.arrivals"


def problems_of(name, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_experiment(name, overrides)
    return [text.splitlines()[0] for text in caught.value.problems]


@pytest.mark.parametrize(
    "overrides",
    [
        (f"{AS}.process=poisson", f"{AS}.rate_per_s=2"),
        (f"{AS}.rate_per_s=2", f"{AS}.process=poisson"),
        (f"{AS}={{process: gamma, rate_per_s: 2, cv: 3}}", f"{AS}.process=poisson"),
        (f"{AS}.concurrency=9", f"{AS}.concurrency=null", f"{AS}={{process: burst}}"),
    ],
)
def test_another_kind_leaves_nothing_of_the_old_one(overrides):
    changes = [*overrides, "workload.num_requests=9"]
    arrivals = load_experiment(DECODE, changes).document["workload"]["arrivals"]
    wanted = {"process": "poisson", "rate_per_s": 2.0}
    assert arrivals == ({"process": "burst"} if "burst" in overrides[-1] else wanted)


def test_another_kind_keeps_what_both_have():
    lengths = "workload.output_tokens"
    changed = load_experiment("xdeepserve-colocated-288", [f"{lengths}.distribution=geometric"])
    kept = changed.document["workload"]["output_tokens"]
    assert kept == {"distribution": "geometric", "mean": 2048.0}
    routing = load_experiment(SPLIT, ["expert_routing.kind=zipf"]).document["expert_routing"]
    assert (routing["step_log_scale"], "log_scale" in routing) == (0.1, False)


def test_what_another_kind_lacks_is_told_with_both_ways_to_give_it():
    (problem,) = problems_of(DECODE, f"{AS}.process=poisson")
    assert problem.endswith(
        f'missing key "rate_per_s"; give it with --set {AS}.rate_per_s=..., or all keys at once:'
        f" --set '{AS}={{process: poisson, rate_per_s: ...}}'"
    )


def test_a_key_of_another_kind_says_of_which():
    (problem,) = problems_of(DECODE, f"{AS}.cv=2")
    assert "allowed: process, concurrency, requests_per_client;" in problem
    assert problem.endswith("it belongs to process: gamma, weibull")
    given = ("workload.num_requests=9", f"{AS}.concurrency=2", f"{AS}.process=burst")
    found = problems_of(DECODE, *given)
    assert found[0].endswith("it belongs to process: closed_loop")


@pytest.mark.parametrize(
    ("name", "overrides", "expected", "way_out"),
    [
        (
            DECODE,
            ["hardware=h800"],
            "320 dies, and h800 has 8 (1 nodes x 8);"
            " hardware: h800-pod and hardware.num_nodes: 40, or fewer dies",
            ["hardware=h800-pod", "hardware.num_nodes=40"],
        ),
        (
            "quickstart",
            ["hardware=gb200"],
            "and gb200 has 4 (1 nodes x 4); hardware: gb200-nvl72 and hardware.num_nodes: 32,",
            ["hardware=gb200-nvl72", "hardware.num_nodes=32"],
        ),
        (
            DECODE,
            ["deployment.decode.dies=800"],
            "cloudmatrix384 has 768 (48 nodes x 16); hardware.num_nodes: 50, or fewer dies",
            ["hardware.num_nodes=50"],
        ),
        (
            SPLIT,
            ["deployment.decode.expert_dies=0", "deployment.decode.ep=1"],
            "32 copies on 1 dies of experts (got 32); allowed: 0 to 1;"
            " or ep: all, or the number of dies that share the experts",
            ["deployment.decode.ep=all", "deployment.decode.domains=1"],
        ),
        (
            SPLIT,
            ["deployment.decode.domains=7"],
            "domains 7 do not divide dp 480: they take turns at the expert dies,"
            " each with as many attention dies",
            ["deployment.decode.domains=4"],
        ),
        (
            SPLIT,
            ["deployment.decode.tp=2"],
            "tp 2: a rank with expert_dies is one attention die, which sends its own tokens",
            ["deployment.decode.tp=1"],
        ),
        (
            SPLIT,
            ["hardware=h100-pod", "hardware.num_nodes=96"],
            "deployment.decode.expert_dies: constants of xccl_pull price A2E and E2A, and h100-pod"
            " has none (got 288); allowed: 0; or give hardware.kernels.exchange.xccl_pull",
            ["deployment.decode.expert_dies=0", "deployment.decode.domains=1"],
        ),
        (
            PRODUCTION,
            ["workload.sessions=null"],
            "nothing could be found again; leave it out (shared_memory: null), or give"
            " workload.sessions, workload.shared_prefix or a trace with prefixes",
            ["shared_memory=null"],
        ),
    ],
)
def test_a_refusal_names_the_way_out(name, overrides, expected, way_out):
    assert any(expected in problem for problem in problems_of(name, *overrides))
    assert load_experiment(name, [*overrides, *way_out]).pools
