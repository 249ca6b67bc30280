"""A closed loop without `concurrency`: one client for each slot of the pool that decodes."""

import pytest

from simpod.config import load_experiment, resolve_document, workload_of
from simpod.errors import ConfigError
from simpod.workload import build, streams

LOOP = "workload.arrivals={process: closed_loop}"
MIXED = "deployment={all: {instances: 3, dp: 4, tp: 2, max_num_seqs: 5}}"
SPLIT = (
    "deployment={p: {role: prefill, tp: 2, max_num_seqs: 9},"
    " d: {role: decode, instances: 2, tp: 2, max_num_seqs: 7}}"
)
SMALL = ("model=llama-3.1-8b", "hardware=h100-pod", "workload.num_requests=10", "policies=null")


def load(*changes):
    return load_experiment("quickstart", (*SMALL, *changes))


@pytest.mark.parametrize(
    ("pools", "clients", "how"),
    [
        (MIXED, 60, "slots of all: instances 3 x dp 4 x max_num_seqs 5"),
        (SPLIT, 14, "slots of d: instances 2 x dp 1 x max_num_seqs 7"),
    ],
)
def test_clients_follow_from_the_slots(pools, clients, how):
    got = load(LOOP, pools)
    assert build(got.workload, streams(0)).concurrency == clients
    assert got.document["workload"]["arrivals"]["concurrency"] == clients
    assert got.origins["workload.arrivals.concurrency"] == f"derived: {how}"
    assert resolve_document(got.document).workload == got.workload


def test_clients_that_are_given_stay():
    got = load("workload.arrivals={process: closed_loop, concurrency: 3}", MIXED)
    assert build(got.workload, streams(0)).concurrency == 3


def test_a_smaller_batch_of_a_shipped_experiment_takes_one_override():
    name = "cloudmatrix-infer-decode"
    got = load_experiment(name, ("deployment.decode.max_seqs_per_rank=12",))
    assert build(got.workload, streams(0)).concurrency == 320 * 12


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (["deployment={p: {role: prefill, tp: 2}}"], "no pool decodes"),
        ([MIXED, "policies.scaling=keep"], r"with policies\.scaling the slots come and go"),
    ],
)
def test_no_clients_without_a_number_of_slots(changes, why):
    with pytest.raises(ConfigError, match=rf"concurrency: is one client for each slot .*{why}"):
        load(LOOP, *changes)


def test_a_workload_alone_needs_its_clients():
    lengths = {"distribution": "constant", "value": 5}
    alone = {"prompt_tokens": lengths, "output_tokens": lengths, "num_requests": 2}
    spec = workload_of({**alone, "arrivals": {"process": "closed_loop"}}, source="here")
    with pytest.raises(ConfigError, match="concurrency: required without a deployment"):
        build(spec, streams(0))
