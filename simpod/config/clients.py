"""What a file may leave open of a closed loop: how many clients there are, and their requests."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from simpod.cluster.pool_spec import PoolSpec
from simpod.config.layouts import Derived
from simpod.config.nodes import Path
from simpod.config.problems import Problems
from simpod.config.schema import Experiment
from simpod.workload.arrivals import ClosedLoopArrivals
from simpod.workload.spec import MAX_REQUESTS, WorkloadSpec

_CLIENTS: Final[Path] = ("workload", "arrivals", "concurrency")
_COUNT: Final[Path] = ("workload", "num_requests")


def resolve_workload(
    experiment: Experiment, pools: Sequence[PoolSpec], problems: Problems, derived: Derived
) -> WorkloadSpec:
    """The workload, with as many clients as the pool that decodes has slots if none are given, and
    as many requests for each as the loop says if their number is not given.

    A closed loop that is asked so of a deployment without such a number is a problem.
    """
    workload = experiment.workload
    arrivals = workload.arrivals
    if not isinstance(arrivals, ClosedLoopArrivals):
        return workload
    clients = arrivals.concurrency
    if clients is None:
        clients = _slots(experiment, pools, problems, derived)
        if clients is None:
            return workload
        arrivals = replace(arrivals, concurrency=clients)
    count = workload.num_requests
    if count is None and workload.trace is None:
        each = arrivals.requests_per_client
        count = each * clients
        if count > MAX_REQUESTS:
            problems.at(
                (*_CLIENTS[:-1], "requests_per_client"),
                f"{each} x concurrency {clients} are {count:,} requests",
                allowed=f"at most {MAX_REQUESTS:,} in all",
            )
            return workload
        derived[_COUNT] = (count, f"requests_per_client {each} x concurrency {clients}")
    return replace(workload, arrivals=arrivals, num_requests=count)


def _slots(
    experiment: Experiment, pools: Sequence[PoolSpec], problems: Problems, derived: Derived
) -> int | None:
    """Of the pool that decodes; None and a problem if there is no such number."""
    decoding = [pool for pool in pools if pool.role != "prefill"]
    why = "no pool decodes" if not decoding else ""
    if experiment.policies.scaling is not None:
        why = "with policies.scaling the slots come and go"
    if why:
        what = f"is one client for each slot when left out, and {why}"
        problems.at(_CLIENTS, what, hint="give it: requests in flight")
        return None
    (pool,) = decoding
    slots = pool.instances * pool.layout.dp * pool.max_num_seqs
    derived[_CLIENTS] = (
        slots,
        f"slots of {pool.name}: instances {pool.instances} x dp {pool.layout.dp}"
        f" x max_num_seqs {pool.max_num_seqs}",
    )
    return slots
