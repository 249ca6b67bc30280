"""What each key of `summary.json` means, in one line: for the docs, `--help` and a test."""

from simpod.metrics.attribution import TTFT_PARTS

LATENCIES = {
    "ttft": "time to first token, queueing included",
    "tpot": "(finish - first token) / (output tokens - 1) of each request of more than one token",
    "itl": "gap between successive outputs of a request; an output is one step's tokens",
    "e2el": "finish - arrival",
}

STATISTICS = {
    "mean": "mean",
    "median": "median",
    "std": "standard deviation (population)",
    "p90": "90th percentile (numpy linear)",
    "p95": "95th percentile",
    "p99": "99th percentile",
}

_HEADER = {
    "label": "the experiment's name (metadata, as the next ones)",
    "backend": "simpod",
    "model_id": "the model's name",
    "num_prompts": "requests that the workload holds",
    "request_rate": "mean rate that was asked for (of a trace: that it has), requests/s, with"
    ' sessions: conversations/s; "inf" if all at once; null in a closed loop',
    "burstiness": "1 / cv^2 of gamma arrivals, 1 = Poisson; null for other arrivals",
    "max_concurrency": "closed loop: most requests in flight; null: open loop",
    "seed": "of the run's random streams",
    "skipped_trace_rows": "bad rows of the trace that were left out on request",
    "policy_notes": "what policies say of their decisions, as that they may not be the best; only"
    " where one does",
}

_ACCOUNTS = {
    "arrived": "requests sent before the run ended = finished + refused + live",
    "finished": "requests that got all their tokens, whole run",
    "refused": "requests that the deployment cannot serve (longer than max_model_len), whole run",
    "live": "requests still in the system when the run ended",
    "measured": "requests of latencies and attainment: by arrival, without warm-up and drain",
    "window": "rule (trimmed or whole_run), arrivals_s and finishes_s [start, end]",
}

_THROUGHPUT = {
    "duration": "seconds of the throughput window: the finishes counted in it lie in (start, end]",
    "completed": "requests that finished in the throughput window",
    "failed": "measured requests that were refused or not finished",
    "total_input_tokens": "prompt tokens of the completed",
    "total_output_tokens": "output tokens of the completed",
    "request_throughput": "completed / duration, requests/s",
    "request_goodput": "completed that met every SLO / duration, requests/s; null without SLO",
    "output_throughput": "output tokens of the completed / duration, tokens/s",
    "total_token_throughput": "prompt and output tokens of the completed / duration, tokens/s",
    "max_output_tokens_per_s": "most output tokens in one second, whole run",
    "max_concurrent_requests": "most requests in the system at once, whole run",
    "output_throughput_per_npu": "output_throughput / num_npus, tokens/s per NPU (not per die)",
    "num_npus": "NPUs (chips, not dies) of all pools",
}

_QUALITY = {
    "slo": "the targets: ttft_s, tpot_s, e2e_s; null where there is none",
    "slo_attainment": "share of the measured that met every target; refused and live ones did not",
    "slo_attainment_by_metric": "the same for each target alone",
    "ttft_attribution_ms": f"mean and p99 of each part of the TTFT: {', '.join(TTFT_PARTS)}",
    "prefix_hit_frac": "share of the measured, finished prompts' tokens that were found in a cache",
    "prefix_hit_frac_by_tier": "the same by where: hbm (prefix cache of the rank), dram and ssd of"
    " the shared memory",
    "shared_memory": "null, or of the whole run, by tier: blocks held and their capacity, bytes"
    " read and written; lost_blocks: evicted from the last tier; local: the same of the hosts'"
    " own tier",
    "scaling": "null without a scaling policy; else dies x seconds by pool and state of the"
    " instances (serving, draining, loading), their sum, those that were spare; instances that had"
    " dies, on average; instances added, removed, switched; count, mean and max of drain_s, load_s",
    "preemptions": "sequences that lost their KV blocks and started again, whole run",
}

_MACHINE = {
    "utilization": "by pool: size, busy_frac, kv_frac, waiting (from the first arrival to the end),"
    " slots_frac, tokens/s per NPU (while throughput is counted)",
    "step_breakdown": "by pool, while throughput is counted: num_steps, mean times, and by part"
    " mean_s a step and share_frac",
    "frontend": "null, or of a central frontend: processes, s_per_token, s_per_message; tokens and"
    " messages; load_frac (work / time, while measured requests arrived; from 1 on the backlog"
    " grows); of the whole run busy_frac, mean and max of the tokens there and of a token's delay",
    "saturation": "the limit that is nearest: pool, resource, its used_frac; load_frac = offered /"
    " capacity rate; capacity_kind (measured, estimate, lower_bound; null: no rate was offered)",
    "stationary": "true if the measured window was a steady state",
    "stationarity": "verdict (STABLE, GROWING, BACKLOGGED, BURST) and its numbers",
    "simulated_s": "simulated time at which the run stopped",
    "num_steps": "steps of all groups",
    "price_status_frac": "share of the time in steps whose price rests on constants that are"
    " calibrated on this device, of its family, or assumed",
}

SUMMARY_KEYS: dict[str, str] = {
    **_HEADER,
    **_ACCOUNTS,
    **_THROUGHPUT,
    **{
        f"{statistic}_{name}_ms": f"{meaning} of {name.upper()} in ms: {what}"
        for name, what in LATENCIES.items()
        for statistic, meaning in STATISTICS.items()
    },
    **_QUALITY,
    **_MACHINE,
}
"""Key -> meaning; keys of the header are there only if the run's metadata has them."""
