"""A result in the words of other tools: SGLang's JSON lines, the llm-d benchmark report.

(`summary.json` itself has the names of `vllm bench serve`.)
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import simpod
from simpod.cost import mean_tokens
from simpod.report.sources import Source, measured, result_of
from simpod.run.results import ResultFiles

if TYPE_CHECKING:
    import pandas as pd

Json = dict[str, Any]

LLMD_VERSION: Final = "0.2.1"
_SGLANG_NAMES: Final = {"e2e_latency": "e2el", "ttft": "ttft", "tpot": "tpot", "itl": "itl"}
_STATISTICS: Final = ("mean", "median", "std", "p90", "p95", "p99")
_QUANTILES: Final = {
    "p0p1": 0.001,
    "p1": 0.01,
    "p5": 0.05,
    "p10": 0.1,
    "p25": 0.25,
    "p50": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p99p9": 0.999,
}


def sglang_line(source: Source) -> Json:
    """The line that `sglang.bench_serving` appends for a run; throughput is that of the window.

    `concurrency` is the mean in the system of the whole run: sum of latencies / time.
    """
    result = result_of(source)
    summary = result.summary
    latencies_s = float(result.requests["e2e_s"].sum())
    return {
        "tag": summary["label"],
        "backend": "simpod",
        "dataset_name": "simpod",
        "request_rate": summary["request_rate"],
        "max_concurrency": summary["max_concurrency"],
        "duration": summary["duration"],
        "completed": summary["completed"],
        "total_input_tokens": summary["total_input_tokens"],
        "total_output_tokens": summary["total_output_tokens"],
        "request_throughput": summary["request_throughput"],
        "input_throughput": _ratio(summary["total_input_tokens"], summary["duration"]),
        "output_throughput": summary["output_throughput"],
        "total_throughput": summary["total_token_throughput"],
        **{
            f"{statistic}_{theirs}_ms": summary[f"{statistic}_{ours}_ms"]
            for theirs, ours in _SGLANG_NAMES.items()
            for statistic in _STATISTICS
        },
        "concurrency": _ratio(latencies_s, summary["simulated_s"]),
        "accept_length": _accept_length(result),
        "max_output_tokens_per_s": summary["max_output_tokens_per_s"],
        "max_concurrent_requests": summary["max_concurrent_requests"],
        "goodput_slos_ms": _slos_ms(summary["slo"]),
        "request_goodput": summary["request_goodput"],
        "slo_attainment": summary["slo_attainment"],
        "slo_attainment_by_metric": summary["slo_attainment_by_metric"],
        "cache_report": _cache_report(result.requests),
    }


def _ratio(amount: float, per: float | None) -> float | None:
    return amount / per if per else None


def _accept_length(result: ResultFiles) -> float | None:
    """Tokens a decode step with drafts gives on average; None without drafts."""
    for pool in result.provenance["experiment"]["deployment"].values():
        mtp = pool["mtp"]
        if pool["role"] != "prefill" and mtp["layers"]:
            shares = mtp["acceptance"]
            acceptance = tuple(shares) if isinstance(shares, list) else shares
            return mean_tokens(mtp["layers"], acceptance, mtp["acceptance_std"])
    return None


def _slos_ms(slo: Mapping[str, float | None]) -> Json:
    names = {"ttft_s": "ttft", "tpot_s": "tpot", "e2e_s": "e2e"}
    return {names[key]: 1e3 * limit_s for key, limit_s in slo.items() if limit_s is not None}


def _cache_report(requests: "pd.DataFrame") -> Json:
    prompt, cached = int(requests["prompt_tokens"].sum()), int(requests["cached_tokens"].sum())
    return {
        "total_prompt_tokens": prompt,
        "total_cached_tokens": cached,
        "cache_hit_rate_pct": 100 * cached / prompt if prompt else 0.0,
        "device_cached_tokens": cached,
        "host_cached_tokens": 0,
        "storage_cached_tokens": 0,
    }


def llmd_report(source: Source) -> Json:
    """The llm-d benchmark report v0.2.1, without ITL: of the gaps only percentiles are kept."""
    result = result_of(source)
    return {
        "version": LLMD_VERSION,
        "run": {
            "uid": f"{result.provenance['experiment_sha256'][:32]}-{result.provenance['seed']}",
            "eid": result.provenance["experiment_sha256"],
            "description": result.summary["label"],
            "time": {"duration": f"PT{result.summary['simulated_s']:.3f}S"},
            "keywords": ["simulation", "simpod"],
        },
        "scenario": {"stack": _stack(result), "load": _load(result)},
        "results": {
            "request_performance": {"aggregate": _aggregate(result)},
            "observability": {"components": _components(result)},
        },
    }


def _stack(result: ResultFiles) -> list[Json]:
    """One component a pool; counts of accelerators are of dies, as parallelism is."""
    experiment = result.provenance["experiment"]
    roles = {"mixed": "replica", "prefill": "prefill", "decode": "decode"}
    identity = result.provenance["experiment_sha256"]
    return [
        {
            "metadata": {"schema_version": "0.0.1", "label": name, "cfg_id": identity},
            "standardized": {
                "kind": "inference_engine",
                "tool": "simpod",
                "tool_version": simpod.__version__,
                "role": roles[pool["role"]],
                "replicas": pool["instances"],
                "model": {"name": result.summary["model_id"]},
                "accelerator": {
                    "model": next(iter(result.provenance["hardware_sha256"])),
                    "count": pool["dies"],
                    "parallelism": {key: pool[key] for key in ("tp", "dp", "ep")},
                },
            },
            "native": {"config": {"deployment": pool, "policies": experiment["policies"]}},
        }
        for name, pool in experiment["deployment"].items()
    ]


def _load(result: ResultFiles) -> Json:
    workload = result.provenance["experiment"]["workload"]
    rate, concurrency = result.summary["request_rate"], result.summary["max_concurrency"]
    is_trace = bool(workload.get("trace"))
    return {
        "metadata": {"schema_version": "0.0.1", "cfg_id": result.provenance["experiment_sha256"]},
        "standardized": {
            "tool": "simpod",
            "tool_version": simpod.__version__,
            "source": "sampled" if is_trace else "random",
            "input_seq_len": _length(result.requests["prompt_tokens"]),
            "output_seq_len": _length(result.requests["output_tokens"]),
            "rate_qps": rate if isinstance(rate, float | int) else None,
            "concurrency": concurrency,
        },
        "native": {"config": workload},
    }


def _length(tokens: "pd.Series[int]") -> Json:
    is_fixed = tokens.nunique() == 1
    return {
        "distribution": "fixed" if is_fixed else "other",
        "value": float(tokens.mean()),
        "std_dev": float(tokens.std(ddof=0)),
        "min": int(tokens.min()),
        "max": int(tokens.max()),
    }


def _aggregate(result: ResultFiles) -> Json:
    rows, summary = measured(result), result.summary
    done = rows[rows["status"] == "finished"]
    many = done[done["output_tokens"] > 1]
    latency = {
        "time_to_first_token": _statistics(done["ttft_s"], "s"),
        "time_per_output_token": _statistics(many["tpot_s"], "s/token"),
        "normalized_time_per_output_token": _statistics(
            done["e2e_s"] / done["output_tokens"], "s/token"
        ),
        "request_latency": _statistics(done["e2e_s"], "s"),
    }
    input_rate = _ratio(summary["total_input_tokens"], summary["duration"])
    rates = {
        "input_token_rate": (input_rate, "tokens/s"),
        "output_token_rate": (summary["output_throughput"], "tokens/s"),
        "total_token_rate": (summary["total_token_throughput"], "tokens/s"),
        "request_rate": (summary["request_throughput"], "queries/s"),
    }
    return {
        "requests": {
            "total": summary["measured"],
            "failures": int((rows["status"] == "refused").sum()),
            "incomplete": int((rows["status"] == "live").sum()),
            "input_length": _statistics(done["prompt_tokens"], "count"),
            "output_length": _statistics(done["output_tokens"], "count"),
        },
        "latency": latency,
        "throughput": {k: _mean(value, unit) for k, (value, unit) in rates.items()},
    }


def _components(result: ResultFiles) -> list[Json]:
    return [
        {
            "component_label": name,
            "aggregate": {
                "kv_cache_usage": _mean(_percent(pool["kv_frac"]), "percent"),
                "gpu_utilization": _mean(_percent(pool["busy_frac"]), "percent"),
                "waiting_requests": _mean(pool["mean_waiting_seqs"], "count"),
            },
        }
        for name, pool in result.summary["utilization"].items()
    ]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _mean(value: float | None, unit: str) -> Json | None:
    return None if value is None else {"units": unit, "mean": value}


def _statistics(values: "pd.Series[Any]", unit: str) -> Json | None:
    known = values.dropna().to_numpy(dtype=np.float64)
    if not len(known):
        return None
    points = np.quantile(known, list(_QUANTILES.values())).tolist()
    return {
        "units": unit,
        "mean": float(known.mean()),
        "stddev": float(known.std()),
        "min": float(known.min()),
        **dict(zip(_QUANTILES, points, strict=True)),
        "max": float(known.max()),
    }
