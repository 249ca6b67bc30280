"""Closed-loop benchmark runs of whole deployments: mean TTFT and TPOT, row by row.

Rows are those of AIConfigurator's `silicon` table: InferenceX and NVIDIA runs. What such a run is,
in InferenceX's own scripts (`benchmarks/*.sh`): `concurrency` clients that each wait for their
answer, 10 x concurrency requests, all clients starting at once; lengths drawn evenly between 0.8
and 1.0 of isl and osl (random-range-ratio 0.8), end-of-sequence ignored; no prefix reuse; the
engines' flags are in `launches`. Tokens are random: every expert is as likely as any other, and the
die that chance gives most sets the pace.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simpod.config import ResolvedExperiment, resolve_document
from simpod.errors import ConfigError
from simpod.units import MS
from simpod.validate.launch import Launch
from simpod.validate.launches import Row as LaunchRow
from simpod.validate.launches import launch_of, problem_of
from simpod.validate.names import hardware_of, model_of, short_name
from simpod.validate.report import Point, Refusal, Report
from simpod.validate.runs import summaries
from simpod.validate.split_launches import Worker, split_launch

LENGTH_FROM: Final = 0.8
"""InferenceX: shortest prompt and output, as a share of the nominal length."""
REQUESTS_PER_CLIENT: Final = 10
DTYPES: Final[Mapping[str, str]] = {
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "bfloat16": "bf16",
    "int8_wo": "int8",
    "int4_wo": "int4",
}
ENGINES: Final[Mapping[str, str]] = {"vllm": "vllm-v1", "sglang": "sglang", "trtllm": "trtllm"}
NUMBERS: Final = ("isl", "osl", "concurrency", "silicon_ttft_ms", "silicon_tpot_ms")
TEXTS: Final = ("model_path", "system", "backend", "mode", "gemm_quant_mode")
POOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "agg": ("",),
    "disagg": ("prefill_", "decode_"),
}


@dataclass(frozen=True, slots=True)
class _UnexpressedError(Exception):
    """A row that simpod can't say; its reason."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One row: how it is called, where it belongs, what was measured."""

    id: str
    group: str
    row: Mapping[str, Any]


def read_deployments(path: Path) -> list[Deployment]:
    """Rows of a CSV with the columns of the `silicon` table; ConfigError if it has others."""
    import pandas as pd

    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error
    missing = [name for name in (*TEXTS, *NUMBERS) if name not in frame]
    if missing:
        raise ConfigError(
            f"{path}: not a table of deployments: missing {', '.join(missing)};"
            f" has {', '.join(frame.columns)}"
        )
    rows = []
    for number, record in enumerate(frame.to_dict("records"), start=2):
        row = {str(name): value for name, value in record.items()}
        model = str(row["model_path"]).rsplit("/", 1)[-1]
        group = f"deployments/{row['mode']}/{model}/{row['system']}/{row['backend']}"
        rows.append(Deployment(id=str(row.get("id", number)), group=group, row=row))
    return rows


def validate_deployments(
    rows: list[Deployment],
    processes: int | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> Report:
    """Simulate every row that can be expressed; TTFT and TPOT in milliseconds."""
    report = Report()
    wanted: list[tuple[Deployment, ResolvedExperiment]] = []
    for deployment in rows:
        try:
            wanted.append((deployment, experiment_of(deployment.row)))
        except _UnexpressedError as error:
            report.refusals.append(Refusal(group=deployment.group, reason=error.reason))
            on_done()
    found = summaries([experiment for _, experiment in wanted], processes, on_done)
    for (deployment, experiment), summary in zip(wanted, found, strict=True):
        report.points += list(_points(deployment, client_side(experiment, summary)))
    return report


def client_side(experiment: ResolvedExperiment, summary: Mapping[str, Any]) -> dict[str, float]:
    """TTFT and TPOT as a client sees them: the engine's, and the way there and back."""
    semantics = experiment.semantics
    prompt = summary["total_input_tokens"] / max(1, summary["completed"])
    way_s = semantics.frontend_s + semantics.frontend_s_per_token * prompt
    return {
        "mean_ttft_ms": summary["mean_ttft_ms"] + way_s / MS,
        "mean_tpot_ms": summary["mean_tpot_ms"],
    }


def _points(deployment: Deployment, seen: Mapping[str, float]) -> Iterator[Point]:
    for metric, column in (("ttft", "silicon_ttft_ms"), ("tpot", "silicon_tpot_ms")):
        yield Point(
            id=f"{deployment.id}/{metric}",
            group=f"{deployment.group}/{metric}",
            metric=f"mean_{metric}_ms",
            measured=float(deployment.row[column]),
            simulated=seen[f"mean_{metric}_ms"],
            source="AIConfigurator silicon table",
        )


def experiment_of(row: Mapping[str, Any]) -> ResolvedExperiment:
    """The experiment that a row describes."""
    try:
        return resolve_document(document_of(row), source="row")
    except ConfigError as error:
        raise _UnexpressedError(error.problems[0].splitlines()[0]) from error


def document_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a document."""
    if row["mode"] not in POOLS or row["backend"] not in ENGINES:
        raise _UnexpressedError(f"mode {row['mode']}, backend {row['backend']}: not known")
    concurrency = int(row["concurrency"])
    layouts = [_layout(row, prefix) for prefix in POOLS[row["mode"]]]
    dies = sum(layout["instances"] * layout["dies"] for layout in layouts)
    try:
        model, hardware = model_of(str(row["model_path"])), hardware_of(str(row["system"]), dies)
    except ConfigError as error:
        raise _UnexpressedError(str(error)) from error
    roles = ("mixed",) if len(layouts) == 1 else ("prefill", "decode")
    launches = [
        _launch(row, model.name, layout, role) for role, layout in zip(roles, layouts, strict=True)
    ]
    pools = {
        role: {"role": role, **_pool(row, layout, launch)}
        for role, layout, launch in zip(roles, layouts, launches, strict=True)
    }
    document: dict[str, Any] = {
        "model": model.name,
        "hardware": hardware.name,
        "workload": {
            "arrivals": {"process": "closed_loop", "concurrency": concurrency},
            "prompt_tokens": _lengths(int(row["isl"])),
            "output_tokens": _lengths(int(row["osl"])),
            "num_requests": REQUESTS_PER_CLIENT * concurrency,
            "max_tokens": "output_tokens",
        },
        "deployment": pools,
        "measure": {"warmup_frac": 0.0, "drain_frac": 0.0},
        "engine": {"semantics": ENGINES[row["backend"]]},
    }
    if model.moe is not None:
        document["expert_routing"] = "balanced"
    for key in ("max_graph_tokens", "max_piece_tokens", "experts_library"):
        if (chosen := getattr(launches[-1], key)) is not None:
            document["engine"][key] = chosen
    if launches[0].batching is not None:
        document["policies"] = {"batching": dict(launches[0].batching)}
    return document


def _lengths(nominal: int) -> dict[str, Any]:
    return {"distribution": "uniform", "min": int(nominal * LENGTH_FROM), "max": nominal}


def _layout(row: Mapping[str, Any], prefix: str) -> dict[str, int]:
    """Dies of one pool.

    InferenceX's "tp 8, ep 8" is one server of 8, whose table here says moe_tp 8 x moe_ep 8 and
    so tp 64 (or attention_dp 64): read back as what the scripts launch, `--tp 8 --ep 8`. vLLM's
    "tp 4, ep 4", `--tensor-parallel-size 4 --enable-expert-parallel`, is one of 4 that the table
    gives attention_dp 4 as well, and so 16 experts' dies.
    """
    tp, dp, moe_tp, moe_ep = (
        int(row[f"{prefix}{name}"])
        for name in ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    )
    if int(row[f"{prefix}pp_size"]) != 1:
        raise _UnexpressedError("pipeline parallelism")
    if moe_tp == moe_ep > 1 and tp * dp == moe_tp * moe_ep:
        tp, dp = (moe_ep, 1) if dp == 1 else (1, moe_ep)
    elif row["backend"] == "vllm" and tp == dp > 1 and moe_ep == tp * dp:
        dp, moe_ep = 1, tp
    gpus = tp * dp
    workers = int(row[f"{prefix}num_workers"]) if prefix else max(1, int(row["gpus"]) // gpus)
    if not prefix and int(row["gpus"]) == int(row["tp_size"]) * int(row["attention_dp_size"]):
        workers = 1
    return {"instances": workers, "dies": gpus, "tp": tp, "dp": dp, "ep": min(moe_ep, gpus)}


def _launch(row: Mapping[str, Any], model: str, layout: Mapping[str, int], role: str) -> Launch:
    dtype = DTYPES.get(str(row["gemm_quant_mode"]))
    if dtype is None:
        raise _UnexpressedError(f"gemm_quant_mode {row['gemm_quant_mode']}")
    system = short_name(str(row["system"]))
    if role != "mixed":
        worker = Worker(
            backend=str(row["backend"]),
            role=role,
            is_gpt_oss=model.startswith("gpt-oss"),
            is_bf16=dtype == "bf16",
            is_hopper=system.startswith(("h", "gh")),
            isl=int(row["isl"]),
            concurrency=int(row["concurrency"]),
            dp=layout["dp"],
        )
        return split_launch(worker)
    asked = LaunchRow(
        model=model,
        version=_text(row.get("backend_version")),
        system=system,
        dtype=dtype,
        isl=int(row["isl"]),
        osl=int(row["osl"]),
        concurrency=int(row["concurrency"]),
        tp=layout["tp"],
        dp=layout["dp"],
        ep=layout["ep"],
    )
    if problem := problem_of(str(row["backend"]), asked):
        raise _UnexpressedError(problem)
    return launch_of(str(row["backend"]), asked)


def _text(cell: object) -> str:
    """A cell's text; an empty one is NaN."""
    return cell if isinstance(cell, str) else ""


def _pool(row: Mapping[str, Any], layout: Mapping[str, int], launch: Launch) -> dict[str, Any]:
    chosen = launch.parallelism
    if chosen is not None:
        layout = {**layout, "tp": chosen.tp, "dp": chosen.dp, "ep": chosen.ep}
    ep = layout["dies"] if launch.has_expert_parallel else layout["ep"]
    drafts = {} if launch.mtp is None else {"mtp": dict(launch.mtp)}
    return {
        **layout,
        **drafts,
        "ep": ep,
        "max_num_seqs": launch.max_num_seqs,
        "max_step_tokens": max(launch.max_step_tokens, launch.max_num_seqs),
        "memory_frac": launch.memory_frac,
        "prefix_caching": False,
        "weight_dtype": DTYPES[str(row["gemm_quant_mode"])],
        "kv_dtype": launch.kv_dtype,
    }
