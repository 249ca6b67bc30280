"""One run in one JSON object, with the names of `vllm bench serve` where it has one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from simpod.errors import ConfigError
from simpod.metrics.attainment import attainment_frac, is_good, met_by_target
from simpod.metrics.attribution import ttft_parts_s
from simpod.metrics.distribution import Distribution, describe, describe_weighted
from simpod.metrics.frontend import frontend_use
from simpod.metrics.latency import Bools, e2e_s, has_tpot, produced_tokens, tpot_s, ttft_s
from simpod.metrics.occupancy import peak_in_system, stationarity
from simpod.metrics.pools import pool_use, price_status_frac, step_breakdown
from simpod.metrics.saturation import saturation
from simpod.metrics.tokens import Ledgers, inter_token_gaps, join_ledgers, tokens_per_second
from simpod.metrics.window import Window, measure
from simpod.records.columns import FINISHED, LIVE, REFUSED, RequestRecords, RunRecords
from simpod.records.measure import Measure
from simpod.records.slo import Slo
from simpod.units import MS

Json = dict[str, Any]

WHOLE_RUN = Measure(warmup_frac=0.0, drain_frac=0.0)


def summary(
    records: RunRecords,
    *,
    slo: Slo,
    window_rule: Measure = WHOLE_RUN,
    is_closed_loop: bool = False,
    metadata: Mapping[str, Any] | None = None,
    statuses: Mapping[str, Mapping[str, str]] | None = None,
) -> Json:
    """Every statistic of the run, keys as in `SUMMARY_KEYS`; None where undefined.

    Which requests count follows `metrics.window`; `is_closed_loop`: no rate was offered, clients
    waited for answers. statuses: by pool and part of a step, what its price rests on. Of the same
    records it is the same to the byte.
    """
    window = measure(records.requests, window_rule.warmup_frac, window_rule.drain_frac)
    ledgers = join_ledgers(records)
    body = {
        **_accounts(records, window),
        **_throughput(records, ledgers, window, slo),
        **_latencies(records, ledgers, window),
        **_quality(records, window, slo),
        **_machine(records, window, is_closed_loop),
        "price_status_frac": price_status_frac(records, statuses or {}),
    }
    header = dict(metadata or {})
    if clash := sorted(header.keys() & body.keys()):
        raise ConfigError(
            f"metadata: {', '.join(clash)}: name(s) of the summary's own; take others"
        )
    plain: Json = _plain({**header, **body})
    return plain


def _accounts(records: RunRecords, window: Window) -> Json:
    requests = records.requests
    return {
        "arrived": len(requests.status),
        "finished": int((requests.status == FINISHED).sum()),
        "refused": int((requests.status == REFUSED).sum()),
        "live": int((requests.status == LIVE).sum()),
        "measured": int(window.measured.sum()),
        "window": {
            "rule": "whole_run" if window.is_whole_run else "trimmed",
            "arrivals_s": [window.arrival_start_s, window.arrival_end_s],
            "finishes_s": [window.finish_start_s, window.finish_end_s],
        },
    }


def _throughput(records: RunRecords, ledgers: Ledgers, window: Window, slo: Slo) -> Json:
    requests, completed = records.requests, window.completed
    duration_s = window.duration_s
    prompt = int(requests.prompt_tokens[completed].sum())
    output = int(produced_tokens(requests)[completed].sum())
    good = int(is_good(requests, slo)[completed].sum())
    num_npus = sum(pool.num_npus for pool in records.pools)
    return {
        "duration": duration_s,
        "completed": int(completed.sum()),
        "failed": int((window.measured & (requests.status != FINISHED)).sum()),
        "total_input_tokens": prompt,
        "total_output_tokens": output,
        "request_throughput": _ratio(int(completed.sum()), duration_s),
        "request_goodput": _ratio(good, duration_s) if not slo.is_empty else None,
        "output_throughput": _ratio(output, duration_s),
        "total_token_throughput": _ratio(prompt + output, duration_s),
        "max_output_tokens_per_s": int(tokens_per_second(records, ledgers).max(initial=0)),
        "max_concurrent_requests": peak_in_system(requests),
        "output_throughput_per_npu": _ratio(output, duration_s * num_npus),
        "num_npus": num_npus,
    }


def _latencies(records: RunRecords, ledgers: Ledgers, window: Window) -> Json:
    requests = records.requests
    chosen = window.measured & (requests.status == FINISHED)
    distributions = {
        "ttft": describe(ttft_s(requests)[chosen]),
        "tpot": describe(tpot_s(requests)[chosen & has_tpot(requests)]),
        "itl": describe_weighted(*inter_token_gaps(records, ledgers, chosen)),
        "e2el": describe(e2e_s(requests)[chosen]),
    }
    return {
        f"{statistic}_{name}_ms": value / MS
        for name, distribution in distributions.items()
        for statistic, value in _statistics(distribution).items()
    }


def _statistics(distribution: Distribution) -> dict[str, float]:
    return {
        "mean": distribution.mean,
        "median": distribution.p50,
        "std": distribution.std,
        "p90": distribution.p90,
        "p95": distribution.p95,
        "p99": distribution.p99,
    }


def _quality(records: RunRecords, window: Window, slo: Slo) -> Json:
    requests = records.requests
    chosen = window.measured & (requests.status == FINISHED)
    by_metric = {
        name: attainment_frac(met, window.measured)
        for name, met in met_by_target(requests, slo).items()
    }
    joint = attainment_frac(is_good(requests, slo), window.measured)
    cached, prompt = requests.cached_tokens[chosen].sum(), requests.prompt_tokens[chosen].sum()
    return {
        "slo": {"ttft_s": slo.ttft_s, "tpot_s": slo.tpot_s, "e2e_s": slo.e2e_s},
        "slo_attainment": joint if not slo.is_empty else None,
        "slo_attainment_by_metric": by_metric,
        "ttft_attribution_ms": _attribution(records, chosen),
        "prefix_hit_frac": _ratio(int(cached), int(prompt)),
        "prefix_hit_frac_by_tier": _hits_by_tier(requests, chosen),
        "shared_memory": _shared_memory(records),
        "scaling": _scaling(records),
        "preemptions": sum(group.num_preemptions for group in records.groups),
    }


def _hits_by_tier(requests: RequestRecords, chosen: Bools) -> Json:
    """Shares of the prompts' tokens; they add up to `prefix_hit_frac`."""
    prompt = int(requests.prompt_tokens[chosen].sum())
    dram, ssd = (int(c[chosen].sum()) for c in (requests.dram_tokens, requests.ssd_tokens))
    hbm = int(requests.cached_tokens[chosen].sum()) - dram - ssd
    return {name: _ratio(n, prompt) for name, n in (("hbm", hbm), ("dram", dram), ("ssd", ssd))}


def _shared_memory(records: RunRecords) -> Json | None:
    pool = records.shared_memory
    if pool is None:
        return None
    held = {"dram": pool.dram_held_blocks, "ssd": pool.ssd_held_blocks}
    capacity = {"dram": pool.dram_capacity_blocks, "ssd": pool.ssd_capacity_blocks}
    return {
        "block_bytes": pool.block_bytes,
        "capacity_blocks": capacity,
        "held_blocks": held,
        "lost_blocks": pool.lost_blocks,
        "local": {
            "capacity_blocks": pool.local_capacity_blocks,
            "held_blocks": pool.local_held_blocks,
            "lost_blocks": pool.local_lost_blocks,
            "read_bytes": pool.local_read_bytes,
            "written_bytes": pool.local_written_bytes,
        },
        "read_bytes": {"dram": pool.dram_read_bytes, "ssd": pool.ssd_read_bytes},
        "own_host_read_bytes": pool.own_host_read_bytes,
        "written_bytes": {"dram": pool.dram_written_bytes, "ssd": pool.ssd_written_bytes},
    }


def _scaling(records: RunRecords) -> Json | None:
    scaling = records.scaling
    if scaling is None:
        return None
    used = sum(sum(states.values()) for states in scaling.die_s.values())
    return {
        "die_seconds": scaling.die_s,
        "used_die_seconds": used,
        "spare_die_seconds": scaling.spare_die_s,
        "mean_instances": scaling.mean_instances,
        "added": scaling.num_added,
        "removed": scaling.num_removed,
        "switched": scaling.num_switched,
        "drain_s": _spread(scaling.drain_s),
        "load_s": _spread(scaling.load_s),
    }


def _spread(times_s: Sequence[float]) -> Json:
    """Number, mean and largest of the changes that have ended."""
    mean = float(np.mean(times_s)) if times_s else np.nan
    return {"count": len(times_s), "mean": mean, "max": max(times_s, default=np.nan)}


def _attribution(records: RunRecords, chosen: Bools) -> Json:
    described = {
        name: describe(values[chosen]) for name, values in ttft_parts_s(records.requests).items()
    }
    return {
        name: {"mean": part.mean / MS, "p99": part.p99 / MS} for name, part in described.items()
    }


def _machine(records: RunRecords, window: Window, is_closed_loop: bool) -> Json:
    verdict = stationarity(records, window)
    limit = saturation(records, window, verdict, is_closed_loop=is_closed_loop)
    frontend = frontend_use(records, window)
    return {
        "utilization": _utilization(records, window),
        "step_breakdown": {
            pool.name: asdict(step_breakdown(records, pool, window)) for pool in records.pools
        },
        "frontend": None if frontend is None else asdict(frontend),
        "saturation": asdict(limit),
        "stationary": verdict.is_stationary,
        "stationarity": asdict(verdict),
        "simulated_s": records.end_s,
        "num_steps": sum(group.num_steps for group in records.groups),
    }


def _utilization(records: RunRecords, window: Window) -> Json:
    requests = records.requests
    prompt = int(requests.prompt_tokens[window.completed].sum())
    output = int(produced_tokens(requests)[window.completed].sum())
    return {
        pool.name: {
            "role": pool.role,
            "instances": pool.instances,
            "num_dies": pool.num_dies,
            "num_npus": pool.num_npus,
            **asdict(pool_use(records, pool, window)),
            "prompt_tokens_per_s_per_npu": None
            if pool.role == "decode"
            else _ratio(prompt, window.duration_s * pool.num_npus),
            "output_tokens_per_s_per_npu": None
            if pool.role == "prefill"
            else _ratio(output, window.duration_s * pool.num_npus),
        }
        for pool in records.pools
    }


def _ratio(amount: float, per: float) -> float:
    return amount / per if per > 0 else np.nan


def _plain(value: Any) -> Any:
    """The same in types that JSON has; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
