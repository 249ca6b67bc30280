"""What an experiment says that does nothing, or not what its words promise: no mistakes."""

from collections.abc import Iterator, Mapping
from typing import Any

from simpod.config.resolved import ResolvedExperiment
from simpod.policies.resolve import resolve
from simpod.workload.arrivals import ClosedLoopArrivals

FEW_SLOTS_FRAC = 0.1
"""A pool that uses less of them has a graph more than ten times as large as its batches."""


def notes_of(
    resolved: ResolvedExperiment, summary: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """What a reader must know, each with the way to change it.

    summary: of a run, which leaves out what did not matter in it.
    """
    if summary is None or summary["preemptions"]:
        yield from _reservations(resolved)
    yield from _clients(resolved)
    yield from _graphs(resolved, summary)


def _reservations(resolved: ResolvedExperiment) -> Iterator[str]:
    batching = resolved.policies["batching"]
    if resolved.workload.max_tokens is None and getattr(
        resolve("batching", batching)(), "keeps_max_tokens", False
    ):
        yield (
            f"policies.batching {batching.use} keeps room for the longest answers that clients"
            " allow, and workload.max_tokens does not say how long these are: nothing is kept, and"
            " where KV runs out sequences are preempted (-s workload.max_tokens=output_tokens)"
        )


def _clients(resolved: ResolvedExperiment) -> Iterator[str]:
    """A closed loop in which hardly a client sends a second request."""
    workload = resolved.workload
    arrivals, count = workload.arrivals, workload.num_requests
    clients = arrivals.concurrency if isinstance(arrivals, ClosedLoopArrivals) else None
    if clients is None or count is None:
        return
    what = ""
    if count < clients:
        what = "the others send none"
    elif count < 2 * clients and resolved.measure.drain_frac:
        what = "batches empty after their last ones, and hardly anything comes before"
    if what:
        more = f"-s workload.num_requests={4 * clients}"
        yield f"workload.num_requests {count:,} for {clients:,} clients: {what} ({more})"


def _graphs(resolved: ResolvedExperiment, summary: Mapping[str, Any] | None) -> Iterator[str]:
    """Pools whose decodes all run as one graph, and how much of it a run used."""
    if not resolved.semantics.graphs.is_of_slots:
        return
    for pool in resolved.pools:
        if pool.role != "decode":
            continue
        used = ""
        if summary is not None:
            slots_frac = summary["utilization"][pool.name]["slots_frac"]
            if slots_frac > FEW_SLOTS_FRAC:
                continue
            used = f", as long as a full one, and had {100 * slots_frac:.1f} % of them"
        yield (
            f"pool {pool.name} runs any batch of decodes as one graph of {pool.max_num_seqs}"
            f" sequences a rank{used} (other graphs: -s engine.graph_batch_sizes=[8,16,32], or any)"
        )
