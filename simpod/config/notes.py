"""What an experiment says that does nothing, or not what its words promise: no mistakes."""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from simpod.config.resolved import ResolvedExperiment
from simpod.policies.resolve import resolve
from simpod.workload.arrivals import ClosedLoopArrivals
from simpod.workload.lengths import ConstantLengths

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
    yield from _clients(resolved, summary)
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


def _clients(resolved: ResolvedExperiment, summary: Mapping[str, Any] | None) -> Iterator[str]:
    """A closed loop in which much of what is measured comes after clients have left."""
    workload = resolved.workload
    arrivals, count = workload.arrivals, workload.num_requests
    if count is None and summary is not None:
        count = summary["arrived"]  # rows of a trace
    clients = arrivals.concurrency if isinstance(arrivals, ClosedLoopArrivals) else None
    if clients is None or count is None:
        return
    lengths = (workload.prompt_tokens, workload.output_tokens)
    in_rounds = all(isinstance(each, ConstantLengths) for each in lengths) and count % clients == 0
    drain_frac = resolved.measure.drain_frac
    what = ""
    if count < clients:
        what = "the others send none"
    elif drain_frac and drain_frac * count < clients and not in_rounds:
        what = "the last of each are measured, too, as clients leave and batches empty"
    if what:
        more = f"-s workload.num_requests={ceil(clients / (drain_frac or 1.0))}"
        yield f"workload.num_requests {count:,} for {clients:,} clients: {what} ({more})"


def _graphs(resolved: ResolvedExperiment, summary: Mapping[str, Any] | None) -> Iterator[str]:
    """Pools whose decodes all run as one graph, and how much of it a run used.

    Not those whose small batches go through the layers whole: these have another one.
    """
    if not resolved.semantics.graphs.is_of_slots:
        return
    for pool in resolved.pools:
        if pool.role != "decode" or (
            pool.layout.micro_batches > 1 and pool.layout.micro_batch_tokens
        ):
            continue
        used = ""
        if summary is not None:
            slots_frac = summary["utilization"][pool.name]["slots_frac"]
            if slots_frac > FEW_SLOTS_FRAC:
                continue
            used = f", whose products take as long as full ones, and had {100 * slots_frac:.1f} %"
        most = pool.max_num_seqs
        sizes = ",".join(str(size) for size in sorted({-(-most // 4), -(-most // 2), most}))
        yield (
            f"pool {pool.name} runs any batch of decodes as one graph of {most} sequences a"
            f" rank{used} (other graphs: -s engine.graph_batch_sizes=[{sizes}], or any)"
        )
