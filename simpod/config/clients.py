"""How many clients a closed loop has where the file leaves it open: one for each slot."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from simpod.cluster.pool_spec import PoolSpec
from simpod.config.layouts import Derived
from simpod.config.nodes import Path
from simpod.config.problems import Problems
from simpod.config.schema import Experiment
from simpod.workload.arrivals import ClosedLoopArrivals
from simpod.workload.spec import WorkloadSpec

_AT: Final[Path] = ("workload", "arrivals", "concurrency")


def resolve_workload(
    experiment: Experiment, pools: Sequence[PoolSpec], problems: Problems, derived: Derived
) -> WorkloadSpec:
    """The workload, with as many clients as the pool that decodes has slots if none are given.

    A closed loop that is asked so of a deployment without such a number is a problem.
    """
    workload = experiment.workload
    arrivals = workload.arrivals
    if not isinstance(arrivals, ClosedLoopArrivals) or arrivals.concurrency is not None:
        return workload
    decoding = [pool for pool in pools if pool.role != "prefill"]
    why = "no pool decodes" if not decoding else ""
    if experiment.policies.scaling is not None:
        why = "with policies.scaling the slots come and go"
    if why:
        what = f"is one client for each slot when left out, and {why}"
        problems.at(_AT, what, hint="give it: requests in flight")
        return workload
    (pool,) = decoding
    slots = pool.instances * pool.layout.dp * pool.max_num_seqs
    derived[_AT] = (
        slots,
        f"slots of {pool.name}: instances {pool.instances} x dp {pool.layout.dp}"
        f" x max_num_seqs {pool.max_num_seqs}",
    )
    return replace(workload, arrivals=replace(arrivals, concurrency=slots))
