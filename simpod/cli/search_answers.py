"""What `simpod search` says, as JSON and in words."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simpod.sweep.search.deploy import Choice, Scored
    from simpod.sweep.search.max_rate import MaxRate
    from simpod.sweep.search.measure import Probe


def rate_json(found: "MaxRate") -> dict[str, Any]:
    """A highest rate in plain data; what is unknown is null."""
    return {
        "status": found.status,
        "max_rate": found.rate,
        "low": found.low,
        "high": finite(found.high),
        "error_frac": finite(found.error_frac),
        "seeds": found.seeds,
        "runs": found.runs,
        "probes": [probe_json(probe) for probe in found.probes],
    }


def probe_json(probe: "Probe") -> dict[str, Any]:
    """A measured rate in plain data: means over seeds."""
    return {
        "rate": finite(probe.rate),
        "attainment_frac": probe.attainment_frac,
        "attainment_error_frac": probe.attainment_error_frac,
        "beyond_saturation": probe.is_saturated,
        "request_throughput": probe.mean("requests_per_s"),
        "output_throughput_per_npu": probe.mean("tokens_per_s_per_npu"),
        "p99_ttft_ms": probe.mean("ttft_p99_ms"),
        "p99_tpot_ms": probe.mean("tpot_p99_ms"),
        "seeds": len(probe.by_seed),
    }


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def rate_warnings(found: "Sequence[MaxRate]") -> list[str]:
    """What else to know of searches for the highest rate."""
    notes = []
    if any(each.status == "always" for each in found):
        notes.append("always: no rate that was tried leaves the SLO; is it set tightly enough?")
    if any(each.status == "never" for each in found):
        notes.append("never: the SLO is not met even at the lowest rate that was tried.")
    probes = [probe for each in found for probe in each.probes]
    if probes and all(len(set(probe.by_seed)) == 1 < len(probe.by_seed) for probe in probes):
        notes.append(
            "Every seed gave the same: nothing is random here (a trace without jitter_s), so one"
            " seed is enough, and the standard error says nothing of other days."
        )
    return notes


def cost_per_million(scored: "Scored", price_per_npu_hour: float | None) -> float | None:
    """Of output tokens: NPUs x price of an hour / 3600 / (output tokens/s), times a million."""
    per_npu = scored.tokens_per_s_per_npu
    return (
        None
        if price_per_npu_hour is None or not per_npu
        else price_per_npu_hour / 3600 / per_npu * 1e6
    )


def scored_json(scored: "Scored", price_per_npu_hour: float | None) -> dict[str, Any]:
    """A measured deployment in plain data."""
    per_user = scored.tokens_per_s_per_user
    cost = cost_per_million(scored, price_per_npu_hour)
    return {
        "values": dict(scored.candidate.values),
        "num_npus": scored.candidate.num_npus,
        "within_slo": scored.is_within_slo,
        **{k: v for k, v in probe_json(scored.probe).items() if k != "rate"},
        "tokens_per_s_per_user": finite(per_user),
        **({} if price_per_npu_hour is None else {"cost_per_million_output_tokens": cost}),
    }


def deployment_header(price_per_npu_hour: float | None) -> list[str]:
    """The columns of the table."""
    cost = [] if price_per_npu_hour is None else ["cost/M tokens"]
    return ["Deployment", "NPUs", "attainment", "tokens/s/NPU", "tokens/s/user", *cost, "verdict"]


def deployment_row(scored: "Scored", price_per_npu_hour: float | None) -> list[str]:
    """One line of the table."""
    from simpod.sweep.search.choices import in_words

    cost = cost_per_million(scored, price_per_npu_hour)
    within = "within SLO" if scored.is_within_slo else "misses SLO"
    verdict = "beyond saturation" if scored.probe.is_saturated else within
    return [
        in_words(scored.candidate.values),
        f"{scored.candidate.num_npus:g}",
        f"{scored.probe.attainment_frac:.4f}",
        f"{scored.tokens_per_s_per_npu:.4g}",
        f"{scored.tokens_per_s_per_user:.4g}",
        *([] if price_per_npu_hour is None else ["-" if cost is None else f"{cost:.4g}"]),
        verdict,
    ]


def choice_notes(
    choice: "Choice", price_per_npu_hour: float | None, *, is_pareto: bool
) -> list[str]:
    """What stands below the table."""
    from simpod.sweep.search.choices import in_words

    counts = (
        f"{choice.method}: {len(choice.measured)} of {choice.space} combinations measured,"
        f" {choice.skipped} dearer or given up early, {choice.invalid} no deployment;"
        f" {choice.runs} runs."
    )
    if is_pareto:
        return [counts, "Listed: those that no other beats in both, the fastest for a user first."]
    if choice.best is None:
        return [counts, "Nothing serves this load within the SLO; the nearest are listed first."]
    best = choice.best.candidate
    cost = cost_per_million(choice.best, price_per_npu_hour)
    price = "" if cost is None else f", {cost:.4g} for a million output tokens at this rate"
    return [counts, f"Cheapest: {in_words(best.values)}, {best.num_npus:g} NPUs{price}."]
