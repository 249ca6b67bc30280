"""The composition root: a resolved experiment in, records and their summary out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simpod.cluster import PoolSpec
from simpod.config import ResolvedExperiment
from simpod.cost import KvTransfer, StepPricer, kv_transfer
from simpod.engine import PoolInputs, RunInputs, Simulation
from simpod.metrics import summary
from simpod.policies import resolve
from simpod.records.columns import RunRecords
from simpod.run.provenance import provenance
from simpod.workload import Requests, Stream, build, streams

Progress = Callable[[int, int, float], None]
"""Called now and then with requests ended, requests in all, simulated seconds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """One run: what happened, its statistics, and what it takes to make it again."""

    records: RunRecords
    summary: dict[str, Any]
    provenance: dict[str, Any]


def run(experiment: ResolvedExperiment, on_progress: Progress | None = None) -> Result:
    """Simulate one experiment. Pure: no files are written, nothing is printed.

    Raises PolicyError if a policy breaks its contract, ConfigError for a trace with bad rows.
    """
    stream = streams(experiment.seed)
    requests = build(experiment.workload, stream)
    records = Simulation(run_inputs(experiment, requests, stream, on_progress)).run()
    return Result(
        records=records,
        summary=summarise(experiment, requests, records),
        provenance=provenance(
            experiment.document, seed=experiment.seed, hardware=experiment.hardware
        ),
    )


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
        warmup_frac=experiment.measure.warmup_frac,
        drain_frac=experiment.measure.drain_frac,
        metadata={
            "label": experiment.name,
            "backend": "simpod",
            "model_id": experiment.model.name,
            "num_prompts": len(requests),
            "max_concurrency": requests.concurrency,
            "seed": experiment.seed,
            "skipped_trace_rows": requests.skipped_rows,
        },
    )


def _router_keys(experiment: ResolvedExperiment) -> tuple[str, ...]:
    if experiment.is_disaggregated:
        return ("prefill_router", "decode_router")
    return ("router",)


def _pool(experiment: ResolvedExperiment, spec: PoolSpec, key: str, stream: Stream) -> PoolInputs:
    hardware = experiment.hardware[spec.name]
    ref = experiment.policies[key]
    return PoolInputs(
        spec=spec,
        pricer=StepPricer(experiment.model, hardware, spec.layout),
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
