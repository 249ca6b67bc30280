"""The composition root: a resolved experiment in, records and their summary out."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from threadpoolctl import threadpool_limits

from simpod.cluster import Placement, PoolSpec, Role
from simpod.config import ResolvedExperiment
from simpod.cost import KvTransfer, MovingPricer, PromptLaunches, kv_transfer, step_pricer
from simpod.cost.collectives import kv_bytes_per_token
from simpod.cost.statuses import part_statuses
from simpod.engine import PoolInputs, RunInputs, Simulation
from simpod.errors import PolicyError, blaming
from simpod.metrics import summary
from simpod.policies import IN_ORDER_OF_ARRIVAL, Migration, Prediction, resolve
from simpod.policies.checks import prediction_problems
from simpod.policies.roles import Ints
from simpod.records.columns import RunRecords
from simpod.run.acceptance import decode_paces
from simpod.run.exchanges import exchange_sites
from simpod.run.expert_loads import expert_records
from simpod.run.experts import ExpertTimeline, Timelines, expert_path, expert_timelines, renewal
from simpod.run.network import Links, links_of
from simpod.run.provenance import provenance
from simpod.run.scaling import largest, scaling_inputs
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
    with threadpool_limits(1, user_api="blas"), rare_collections():
        timelines = expert_timelines(experiment, stream)
        inputs = run_inputs(experiment, requests, stream, on_progress, timelines)
        records = Simulation(inputs).run()
        records = replace(records, experts=expert_records(experiment, timelines, records))
        notes = [f"{pool}: {each.note}" for pool, each in timelines.items() if each and each.note]
        return records, summarise(experiment, requests, records, notes)


@contextmanager
def rare_collections() -> Iterator[None]:
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
    timelines: Timelines | None = None,
) -> RunInputs:
    """What the engine needs of an experiment: prices, policies, random streams.

    timelines: of `expert_timelines`; made here by default.
    """
    if timelines is None:
        timelines = expert_timelines(experiment, stream)
    links = links_of(experiment)
    keys = _router_keys(experiment)
    entry, *rest = (
        _pool(experiment, spec, key, placement, stream, timelines[spec.name])
        for spec, key, placement in zip(largest(experiment), keys, links.placements, strict=True)
    )
    batching = experiment.policies["batching"]
    slo = experiment.slo
    inputs = RunInputs(
        seed=experiment.seed,
        requests=requests,
        entry=entry,
        decode=rest[0] if rest else None,
        make_batching=resolve("batching", batching),
        batching_name=f"{batching.use} (policies.batching)",
        orders_pulls=batching.use not in IN_ORDER_OF_ARRIVAL,
        transfer=links.transfer,
        kv_path=links.kv_path,
        fabric=links.fabric,
        link_samples_s=experiment.network.link_samples_s,
        cache=links.cache,
        first_token_from_decode=experiment.first_token_from == "decode",
        ttft_target_s=float("inf") if slo.ttft_s is None else slo.ttft_s,
        tpot_target_s=float("inf") if slo.tpot_s is None else slo.tpot_s,
        prediction=_prediction(experiment, requests, stream),
        decode_pace=decode_paces(experiment.pools, len(requests), stream),
        scaling=scaling_inputs(experiment, links.placements),
        samples_s=experiment.samples_s,
        frontend=experiment.frontend,
        steps_ahead=_steps_ahead(experiment, entry.spec.role),
        skip_ahead=experiment.skip_ahead,
        duration_s=experiment.measure.duration_s,
        on_progress=on_progress,
    )
    return _with_migration(_with_gates(inputs, experiment), experiment, links)


def _steps_ahead(experiment: ResolvedExperiment, role: Role) -> int:
    semantics = experiment.semantics
    return semantics.steps_ahead_apart if role == "prefill" else semantics.steps_ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lengths:
    """What a length predictor is given: `policies.PredictorView`."""

    prompt_tokens: Ints
    output_tokens: Ints
    rng: np.random.Generator


def _prediction(
    experiment: ResolvedExperiment, requests: Requests, stream: Stream
) -> Prediction | None:
    """What the length predictor says of every request; None without one."""
    ref = experiment.policies.get("length_predictor")
    if ref is None:
        return None
    view = _Lengths(
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        rng=stream("length_predictor"),
    )
    name = f"{ref.use} (policies.length_predictor)"
    with blaming(name):
        prediction = resolve("length_predictor", ref)()(view)
    if wrong := next(prediction_problems(prediction, len(requests)), None):
        raise PolicyError(name, wrong)
    return cast(Prediction, prediction)


def summarise(
    experiment: ResolvedExperiment,
    requests: Requests,
    records: RunRecords,
    policy_notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Statistics of a run over its measured window, with the names of `vllm bench serve`.

    policy_notes: what policies have to say of their decisions.
    """
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
            **({"policy_notes": list(policy_notes)} if policy_notes else {}),
        },
        statuses={
            pool.name: part_statuses(
                experiment.model,
                experiment.hardware[pool.name],
                pool.layout,
                pool.role,
                experiment.semantics,
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


def _pool(
    experiment: ResolvedExperiment,
    spec: PoolSpec,
    key: str,
    placement: Placement,
    stream: Stream,
    timeline: ExpertTimeline | None,
) -> PoolInputs:
    hardware = experiment.hardware[spec.name]
    ref = experiment.policies[key]
    pricer = step_pricer(
        experiment.model,
        hardware,
        spec.layout,
        experiment.semantics,
        timeline.loads if timeline else None,
    )
    sites, traffic = exchange_sites(experiment, spec, placement)
    changing = timeline if timeline and not timeline.is_fixed else None
    return PoolInputs(
        spec=spec,
        pricer=MovingPricer(pricer, traffic) if traffic else pricer,
        exchange_sites=sites,
        renew_prices=renewal(changing, pricer.renew) if changing else None,
        expert_path=expert_path(changing, hardware, placement, spec.layout) if changing else None,
        dies_per_npu=hardware.dies_per_npu,
        make_router=resolve(key, ref),
        router_name=f"{ref.use} (policies.{key})",
        router_rng=stream(key),
        pause_rng=stream(f"launch_jitter of {spec.name}"),
        host_link=_host_link(experiment, spec),
        late_launches=PromptLaunches(experiment.model, spec.layout, experiment.semantics)
        if experiment.semantics.answers_late and spec.role == "mixed"
        else None,
    )


def _host_link(experiment: ResolvedExperiment, spec: PoolSpec) -> KvTransfer | None:
    """Every die of a rank copies its share of the KV over its own link to the host."""
    if spec.host_bytes_per_s is None:
        return None
    per_token = kv_bytes_per_token(experiment.model, spec.layout)
    return KvTransfer(
        latency_s=0.0,
        bytes_per_token=per_token * spec.layout.tp,
        s_per_token=per_token / spec.host_bytes_per_s,
    )


def _with_gates(inputs: RunInputs, experiment: ResolvedExperiment) -> RunInputs:
    """The same, and who decides which requests are let in and which prefixes stay, if anybody."""
    if (ref := experiment.policies.get("prefill_leader")) is not None:
        name = f"{ref.use} (policies.prefill_leader)"
        inputs = replace(inputs, make_leader=resolve("prefill_leader", ref), leader_name=name)
    if (ref := experiment.policies.get("admission")) is not None:
        name = f"{ref.use} (policies.admission)"
        inputs = replace(inputs, make_admission=resolve("admission", ref), admission_name=name)
    if (ref := experiment.policies.get("prefix_eviction")) is not None:
        name = f"{ref.use} (policies.prefix_eviction)"
        inputs = replace(inputs, make_eviction=resolve("prefix_eviction", ref), eviction_name=name)
    return inputs


def _with_migration(inputs: RunInputs, experiment: ResolvedExperiment, links: Links) -> RunInputs:
    """The same, and moves of sequences between the ranks that decode, where a policy asks."""
    ref = experiment.policies.get("migration")
    if ref is None:
        return inputs
    make = resolve("migration", ref)
    return replace(
        inputs,
        make_migration=lambda: cast(Migration, make()),
        migration_name=f"{ref.use} (policies.migration)",
        migration_law=_migration_law(experiment, links.migration_plane),
        migration_plane=links.migration_plane,
        migration_over=links.migration_law,
    )


def _migration_law(experiment: ResolvedExperiment, plane: str) -> KvTransfer:
    """Between ranks of the pool that decodes, alone."""
    pool = experiment.pools[-1]
    hardware = experiment.hardware[pool.name]
    return kv_transfer(experiment.model, hardware, plane, pool.layout, pool.layout)
