"""A summary on one screen: tables for people, from the same dict that `--json` prints."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Summary = Mapping[str, Any]

BAR_WIDTH = 24
TOP_PARTS = 5
"""Parts of a step that are named; the others are one line."""

_LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2E"}
_NOT_STATIONARY = {
    "BACKLOGGED": "the queue grows: more is offered than served",
    "GROWING": "the number in the system grows, the queue does not: not warm yet",
}


_LOADS = {
    "measured": ("", "{} requests/s (measured)"),
    "estimate": ("about ", "about {} requests/s (estimate)"),
    "lower_bound": ("at most ", "{} requests/s or more"),
}
"""What is known of a capacity -> how to say the load and the capacity."""

NEAR_LIMIT = 0.95
"""Share of a limit from which on the load is shown in red."""


def summary_table(summary: Summary) -> RenderableType:
    """The whole summary, for a terminal of 80 columns or more."""
    blocks: list[RenderableType] = [_title(summary), _overview(summary)]
    blocks += ["", _latencies(summary), "", _attribution(summary), "", _pools(summary), ""]
    blocks += [
        Group(_breakdown(pool, breakdown), "")
        for pool, breakdown in summary["step_breakdown"].items()
        if breakdown["num_steps"]
    ]
    blocks += [Text.from_markup(note) for note in notes(summary)]
    return Group(*blocks)


def notes(summary: Summary) -> Iterator[str]:
    """What a reader must know before using the figures, in rich markup, gravest first."""
    state = summary["stationarity"]
    if state["verdict"] in _NOT_STATIONARY:
        yield (
            f"[bold red]NOT STATIONARY:[/] {_NOT_STATIONARY[state['verdict']]}"
            f" (+{count(state['growth_seqs'])} requests while measured;"
            f" up to {count(state['threshold_seqs'])} is noise)"
        )
    if summary["window"]["rule"] == "whole_run":
        yield "[yellow]Nothing left out:[/] no steady part, the figures are of the whole run"
    if summary["refused"]:
        yield f"[red]{summary['refused']:,} refused:[/] longer than the deployment can hold"
    if summary["live"]:
        yield f"[yellow]{summary['live']:,} unfinished[/] when the run ended"
    if summary["preemptions"]:
        yield f"[yellow]{summary['preemptions']:,} preemptions:[/] KV blocks ran out"
    yield from (f"[yellow]{escape(note)}[/]" for note in summary.get("policy_notes", ()))
    yield from _frontend(summary)
    yield from _saturation(summary)
    yield from _prices(summary)


def _frontend(summary: Summary) -> Iterator[str]:
    """The central frontend, and whether it keeps up."""
    use = summary["frontend"]
    if use is None or use["load_frac"] is None:
        return
    is_full = use["load_frac"] >= NEAR_LIMIT
    if is_full:
        yield (
            f"[bold red]FRONTEND FULL:[/] {percent(use['load_frac'])} of what {use['processes']}"
            " process(es) can send on; it limits the throughput, or its backlog grows with the run"
        )
    yield (
        f"Central frontend: {percent(use['busy_frac'])} busy, a token is"
        f" {duration(use['mean_delay_s'])} late (at most {duration(use['max_delay_s'])}),"
        f" {count(use['mean_backlog_tokens'])} tokens wait (at most"
        f" {count(use['max_backlog_tokens'])})"
    )


def _prices(summary: Summary) -> Iterator[str]:
    """What the step times rest on."""
    shares = summary["price_status_frac"]
    if shares:
        parts = [f"{percent(frac)} {status}" for status, frac in sorted(shares.items())]
        yield f"Step times: {', '.join(parts)} (which parts: simpod explain)"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits, three significant digits; "-" for None."""
    if seconds is None:
        return "-"
    if abs(seconds) >= 1000:
        return f"{seconds:,.0f} s"
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if abs(seconds) * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us" if seconds else "0 s"


def count(value: float | None) -> str:
    """A number of things or a rate, to 3 or 4 digits, with k, M, G; "-" for None."""
    if value is None:
        return "-"
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(unit, 1e4):
            return f"{value / unit:.4g}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(frac: float | None) -> str:
    """A share in per cent; "-" for None."""
    if frac is None:
        return "-"
    return f"{100 * frac:.1f} %" if abs(frac) < 1e6 else f"{100 * frac:.3g} %"


def _saturation(summary: Summary) -> Iterator[str]:
    """The nearest limit; a bound or an estimate says that it is one."""
    limit = summary["saturation"]
    if limit["resource"] is None:
        return
    pool = limit["pool"]
    where = "the frontend" if pool is None else f"{limit['resource']} of pool {escape(pool)}"
    kind = limit["capacity_kind"]
    if kind is None:
        served = count(summary["request_throughput"])
        used = percent(limit["used_frac"])
        over = "" if limit["resource"] == "prefill" else ", whole run"
        in_use = f"[bold]{used}[/] of {where} in use{over}"
        yield f"No rate was offered: {served} requests/s with {in_use}"
        return
    known, saturates = _LOADS[kind]
    colour = "red" if limit["load_frac"] >= NEAR_LIMIT else "bold"
    yield (
        f"Load: {known}[{colour}]{percent(limit['load_frac'])}[/] of the nearest limit, {where},"
        f" which saturates at {saturates.format(count(limit['capacity_rate_per_s']))}"
    )


def _title(summary: Summary) -> Text:
    names = (str(summary[key]) for key in ("label", "model_id") if summary.get(key) is not None)
    return Text(", ".join(names), style="bold")


def _overview(summary: Summary) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for style in ("dim", "", "dim", ""):
        table.add_column(style=style)
    measured = f"{summary['measured']:,} of {summary['arrived']:,} requests"
    table.add_row("Finished", f"{summary['finished']:,} requests", "Measured", measured)
    table.add_row("Simulated", duration(summary["simulated_s"]), "NPUs", count(summary["num_npus"]))
    rate = f"{count(summary['request_throughput'])} requests/s"
    if (offered := summary["saturation"].get("offered_rate_per_s")) is not None:
        rate = f"{count(summary['request_throughput'])} of {count(offered)} requests/s"
    table.add_row("Throughput", rate, *_tokens(summary))
    in_flight = f"up to {summary['max_concurrent_requests']:,}"
    table.add_row("Prefix hits", percent(summary["prefix_hit_frac"]), "In flight", in_flight)
    if summary["slo_attainment"] is not None:
        by_metric = summary["slo_attainment_by_metric"].items()
        each = ", ".join(f"{name.upper()} {percent(share)}" for name, share in by_metric)
        goodput = f"{count(summary['request_goodput'])} requests/s"
        table.add_row("Goodput", goodput, "SLO met", percent(summary["slo_attainment"]))
        table.add_row("", "", "", each)
    return table


def _tokens(summary: Summary) -> tuple[str, str]:
    """Output tokens, or where no pool decodes those of prompts: name, and rates."""
    name, per_s = "Output", summary["output_throughput"]
    per_npu = summary["output_throughput_per_npu"]
    pools = summary["utilization"].values()
    if per_s is not None and all(pool["role"] == "prefill" for pool in pools):
        name, per_s = "Prompts", summary["total_token_throughput"] - per_s
        per_npu = per_s / summary["num_npus"]
    return name, f"{count(per_s)} tokens/s, {count(per_npu)} tokens/s per NPU"


def _latencies(summary: Summary) -> Table:
    mean = "mean" if summary["stationary"] else "mean (not steady)"
    table = _table("Latency", mean, "p50", "p90", "p99")
    for name, title in _LATENCIES.items():
        statistics = (summary[f"{each}_{name}_ms"] for each in ("mean", "median", "p90", "p99"))
        table.add_row(title, *(_milliseconds(value) for value in statistics), "")
    return table


def _attribution(summary: Summary) -> Table:
    parts = summary["ttft_attribution_ms"]
    total = summary["mean_ttft_ms"]
    table = _table("TTFT is", "mean", "share", "p99")
    for name, part in parts.items():
        if part["mean"]:
            frac = part["mean"] / total
            numbers = (_milliseconds(part["mean"]), percent(frac), _milliseconds(part["p99"]))
            table.add_row(name.replace("_", " "), *numbers, _bar(frac))
    return table


def _pools(summary: Summary) -> Table:
    table = _table("Pool", "NPUs", "busy", "slots", "KV", "KV peak", "waiting")
    for name, use in summary["utilization"].items():
        shares = ("busy_frac", "slots_frac", "kv_frac", "peak_kv_frac")
        table.add_row(
            f"{escape(name)} x{use['instances']}",
            count(use["num_npus"]),
            *(percent(use[share]) for share in shares),
            count(use["mean_waiting_seqs"]),
            "",
        )
    return table


def _breakdown(pool: str, breakdown: Summary) -> Table:
    table = _table(f"Step of {escape(pool)}", "mean", "share")
    table.add_row(
        "[dim]whole[/]",
        duration(breakdown["mean_step_s"]),
        "",
        f"[dim]{count(breakdown['mean_decode_seqs'])} decoding,"
        f" {count(breakdown['mean_prefill_tokens'])} prompt tokens[/]",
    )
    ranked = sorted(breakdown["mean_s"].items(), key=lambda part: -part[1])
    rest = ranked[TOP_PARTS:]
    named = [*ranked[:TOP_PARTS], (f"{len(rest)} others", sum(part_s for _, part_s in rest))]
    total_s = sum(part_s for _, part_s in ranked)
    for name, part_s in named:
        if part_s:
            frac = part_s / total_s
            table.add_row(name.replace("_", " "), duration(part_s), percent(frac), _bar(frac))
    return table


def _table(title: str, *numbers: str) -> Table:
    """One column of names, right-aligned numbers, and room for a bar."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(title, min_width=16, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True, min_width=7)
    table.add_column("")
    return table


def _bar(frac: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=frac, width=BAR_WIDTH)


def _milliseconds(value_ms: float | None) -> str:
    return duration(None if value_ms is None else value_ms / 1e3)
