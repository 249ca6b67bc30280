"""The composition root: a resolved experiment in, records and their summary out."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from simpod.cluster import PoolSpec
from simpod.config import ResolvedExperiment
from simpod.cost import KvTransfer, kv_transfer, step_pricer
from simpod.cost.statuses import part_statuses
from simpod.engine import PoolInputs, RunInputs, Simulation
from simpod.metrics import summary
from simpod.policies import resolve
from simpod.records.columns import RunRecords
from simpod.run.experts import expert_timeline, renewal
from simpod.run.provenance import provenance
from simpod.workload import (
    BurstArrivals,
    ClosedLoopArrivals,
    GammaArrivals,
    MmppArrivals,
    PoissonArrivals,
    Requests,
    Stream,
    WorkloadSpec,
    build,
    streams,
)

Progress = Callable[[int, int, float], None]
"""Called now and then with requests ended, requests in all, simulated seconds."""


COLLECT_AFTER_OBJECTS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """One run: what happened, its statistics, and what it takes to make it again."""

    records: RunRecords
    summary: dict[str, Any]
    provenance: dict[str, Any]


def run(experiment: ResolvedExperiment, on_progress: Progress | None = None) -> Result:
    """Simulate one experiment on one core. Pure: no files are written, nothing is printed.

    Raises PolicyError if a policy breaks its contract, ConfigError for a trace with bad rows.
    """
    records, statistics = simulate(experiment, on_progress)
    return Result(
        records=records,
        summary=statistics,
        provenance=provenance(
            experiment.document, seed=experiment.seed, hardware=experiment.hardware
        ),
    )


def simulate(
    experiment: ResolvedExperiment, on_progress: Progress | None = None
) -> tuple[RunRecords, dict[str, Any]]:
    """Records and summary of a run, as `run`, without the look at where the code came from."""
    stream = streams(experiment.seed)
    requests = build(experiment.workload, stream)
    # BLAS threads would spin beside the simulation
    with threadpool_limits(1, user_api="blas"), _rare_collections():
        records = Simulation(run_inputs(experiment, requests, stream, on_progress)).run()
        return records, summarise(experiment, requests, records)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let the cycle collector look seldom: the engine leaves no cycles (only a policy might).

    At its usual pace it visits all that lives after every few hundred new sequences.
    """
    usual = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def run_inputs(
    experiment: ResolvedExperiment,
    requests: Requests,
    stream: Stream,
    on_progress: Progress | None = None,
) -> RunInputs:
    """What the engine needs of an experiment: prices, policies, random streams."""
    entry, *rest = (
        _pool(experiment, spec, key, stream)
        for spec, key in zip(experiment.pools, _router_keys(experiment), strict=True)
    )
    batching = experiment.policies["batching"]
    ttft_target_s = experiment.slo.ttft_s
    return RunInputs(
        seed=experiment.seed,
        requests=requests,
        entry=entry,
        decode=rest[0] if rest else None,
        make_batching=resolve("batching", batching),
        batching_name=f"{batching.use} (policies.batching)",
        transfer=_transfer(experiment),
        first_token_from_decode=experiment.first_token_from == "decode",
        ttft_target_s=float("inf") if ttft_target_s is None else ttft_target_s,
        skip_ahead=experiment.skip_ahead,
        duration_s=experiment.measure.duration_s,
        on_progress=on_progress,
    )


def summarise(
    experiment: ResolvedExperiment, requests: Requests, records: RunRecords
) -> dict[str, Any]:
    """Statistics of a run over its measured window, with the names of `vllm bench serve`."""
    return summary(
        records,
        slo=experiment.slo,
        window_rule=experiment.measure,
        is_closed_loop=requests.concurrency is not None,
        metadata={
            "label": experiment.name,
            "backend": "simpod",
            "model_id": experiment.model.name,
            "num_prompts": len(requests),
            "request_rate": request_rate(experiment.workload, requests),
            "burstiness": burstiness(experiment.workload),
            "max_concurrency": requests.concurrency,
            "seed": experiment.seed,
            "skipped_trace_rows": requests.skipped_rows,
        },
        statuses={
            pool.name: part_statuses(
                experiment.model, experiment.hardware[pool.name], pool.layout, pool.role
            )
            for pool in experiment.pools
        },
    )


def request_rate(workload: WorkloadSpec, requests: Requests) -> float | str | None:
    """Requests/s that were asked for, as `vllm bench serve` notes it: "inf" for all at once.

    The mean rate of an arrival process (of conversations, with sessions), or of a trace from its
    first to its last request. None in a closed loop, and where answers trigger a trace's requests.
    """
    match workload.arrivals:
        case ClosedLoopArrivals():
            return None
        case BurstArrivals():
            return "inf"
        case MmppArrivals(states=states):
            arrivals = sum(state.rate_per_s * state.mean_dwell_s for state in states)
            return arrivals / sum(state.mean_dwell_s for state in states)
        case None:
            first_s, last_s = requests.arrival_s[[0, -1]].tolist()
            if last_s == first_s:
                return "inf"
            return (len(requests) - 1) / (last_s - first_s) if last_s > first_s else None
        case arrivals:
            return arrivals.rate_per_s


def burstiness(workload: WorkloadSpec) -> float | None:
    """Shape of the gamma distribution of the gaps between arrivals, 1 / cv^2; None for others."""
    match workload.arrivals:
        case GammaArrivals(cv=cv):
            return 1 / cv**2
        case PoissonArrivals():
            return 1.0
        case _:
            return None


def _router_keys(experiment: ResolvedExperiment) -> tuple[str, ...]:
    if experiment.is_disaggregated:
        return ("prefill_router", "decode_router")
    return ("router",)


def _pool(experiment: ResolvedExperiment, spec: PoolSpec, key: str, stream: Stream) -> PoolInputs:
    hardware = experiment.hardware[spec.name]
    ref = experiment.policies[key]
    timeline = expert_timeline(experiment, spec, stream)
    pricer = step_pricer(
        experiment.model,
        hardware,
        spec.layout,
        experiment.semantics.name,
        timeline.loads if timeline else None,
    )
    return PoolInputs(
        spec=spec,
        pricer=pricer,
        renew_prices=renewal(timeline, pricer.renew) if timeline else None,
        dies_per_npu=hardware.dies_per_npu,
        make_router=resolve(key, ref),
        router_name=f"{ref.use} (policies.{key})",
        router_rng=stream(key),
    )


def _transfer(experiment: ResolvedExperiment) -> KvTransfer | None:
    if experiment.kv_plane is None:
        return None
    prefill, decode = experiment.pools
    return kv_transfer(
        experiment.model,
        experiment.hardware[decode.name],
        experiment.kv_plane,
        prefill.layout,
        decode.layout,
    )
