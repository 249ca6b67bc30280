"""What the page of one run shows: aggregated, so that its size does not grow with the requests."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from simpod.metrics.interval import batch_interval
from simpod.records.columns import Floats
from simpod.report.html.parts import Json, axis, bars, figure, heat, lines, sampled, table
from simpod.report.loads import each_load, imbalance_of, relative
from simpod.report.plots.heat import links_by_kind, load_array
from simpod.report.series import timeline_of
from simpod.report.shares import DECODE, PARTS, mean_and_tail, request_parts, step_shares
from simpod.report.sources import measured
from simpod.report.style import MUTED, PALETTE, ROLE_COLOURS, STEP_COLOURS, TTFT_COLOURS
from simpod.run.results import ResultFiles
from simpod.units import GB

if TYPE_CHECKING:
    import pandas as pd

MOST_POINTS: Final = 2000
MOST_SLOW: Final = 150
CDF_POINTS: Final = 240
NARROW: Final = "\u00a0"
"""A space at which no line ends."""
HOTTEST: Final = 3.0
"""Times the mean load of a layer: what has more is not shown darker."""
_COLOURS: Final = {**TTFT_COLOURS, DECODE: "#6fbfa3"}
_VERDICTS: Final = {
    "BACKLOGGED": "Not stationary: the queue grew, more was offered than served. Every latency"
    " here depends on how long the run was.",
    "GROWING": "Not stationary: the number of requests in the system grew; not warm yet.",
}


def run_payload(
    result: ResultFiles, *, experts: Sequence[Path] = (), links: Path | None = None
) -> Json:
    """Everything of one run that the page shows."""
    summary = result.summary
    rows = measured(result)
    done = rows[rows["status"] == "finished"]
    return {
        "title": summary["label"],
        "subtitle": f"{summary['model_id']} on {summary['num_npus']:g} NPUs,"
        f" {summary['arrived']:,} requests, seed {summary['seed']}",
        "notes": list(_notes(summary)),
        "figures": list(_figures(summary, rows, done)),
        "figures_help": "Intervals: batch means of 20 consecutive stretches of the measured"
        " requests; percentiles have none.",
        "charts": [group for group in _groups(result, done, experts, links) if group["charts"]],
        "tables": [_latency_table(summary), _pool_table(summary)],
        "explorer": _explorer(result.requests),
        "provenance": _provenance(result.provenance),
        "experiment": json.dumps(result.provenance["experiment"], indent=2),
    }


def _notes(summary: Json) -> Iterator[Json]:
    verdict = summary["stationarity"]["verdict"]
    if verdict in _VERDICTS:
        yield {"text": _VERDICTS[verdict], "grave": True}
    if summary["window"]["rule"] == "whole_run":
        yield {"text": "Nothing was left out as warm-up or drain: there was no steady part."}
    for key, text in (
        ("refused", "refused: longer than the deployment can hold"),
        ("live", "unfinished when the run ended"),
        ("preemptions", "preemptions: KV blocks ran out"),
    ):
        if summary[key]:
            yield {"text": f"{summary[key]:,} {text}.", "grave": key == "refused"}


def _figures(summary: Json, rows: "pd.DataFrame", done: "pd.DataFrame") -> Iterator[Json]:
    ttft, many = done["ttft_s"].to_numpy(), done[done["output_tokens"] > 1]
    yield figure("Mean TTFT", summary["mean_ttft_ms"], "ms", _in_ms(ttft))
    yield figure("p99 TTFT", summary["p99_ttft_ms"], "ms")
    yield figure("Mean TPOT", summary["mean_tpot_ms"], "ms", _in_ms(many["tpot_s"].to_numpy()))
    yield figure("p99 TPOT", summary["p99_tpot_ms"], "ms")
    slo = summary["slo"]
    if summary["slo_attainment"] is not None:
        targets = [
            f"{k[:-2].upper()} ≤ {v:g} s".replace(" ", NARROW)
            for k, v in slo.items()
            if v is not None
        ]
        good = (rows["status"] == "finished").to_numpy(float)
        for key, limit_s in slo.items():
            if limit_s is not None:
                good *= (rows[key] <= limit_s).to_numpy(float)
        around = batch_interval(np.asarray(100 * good, dtype=np.float64))
        share = 100 * summary["slo_attainment"]
        yield figure("Within the SLO", share, "%", around, ", ".join(targets))
        yield figure("Goodput", summary["request_goodput"], "requests/s")
    yield figure("Throughput", summary["request_throughput"], "requests/s")
    per_npu = summary["output_throughput_per_npu"]
    yield figure("Output per NPU", per_npu, "tokens/s", note="NPUs of all pools")


def _in_ms(seconds: Floats) -> Any:
    return batch_interval(1e3 * seconds)


def _groups(
    result: ResultFiles, done: "pd.DataFrame", experts: Sequence[Path], links: Path | None
) -> Iterator[Json]:
    yield {"id": "where", "title": "Where the time went", "charts": list(_spent(result, done))}
    yield {"id": "latency", "title": "Latencies", "charts": list(_latencies(result, done))}
    yield {"id": "time", "title": "Over time", "charts": list(_timeline(result))}
    heats = [*_traffic(result), *_experts(result, experts), *_links(result, links)]
    yield {"id": "heat", "title": "Heat maps", "charts": heats}


def _spent(result: ResultFiles, done: "pd.DataFrame") -> Iterator[Json]:
    if len(done):
        for ident, total, title in (
            ("ttft-parts", "ttft_s", "TTFT by part"),
            ("e2e-parts", "e2e_s", "Whole request by part"),
        ):
            parts = mean_and_tail(done, total)
            yield bars(
                ident,
                title,
                parts,
                "s",
                _COLOURS,
                help="Mean of all requests, and mean of the slowest 1 %.",
            )
    if len(result.steps):
        table_s = step_shares(result.steps)
        yield bars(
            "steps",
            "Mean step of each pool by part",
            100 * table_s / table_s.sum(),
            "%",
            STEP_COLOURS,
            wide=True,
            totals=[f"{1e3 * seconds:,.0f} ms" for seconds in table_s.sum()],
            help="Blue computes, orange moves bytes, yellow waits for the slowest rank.",
        )


def _latencies(result: ResultFiles, done: "pd.DataFrame") -> Iterator[Json]:
    many = done[done["output_tokens"] > 1]
    slo = result.summary["slo"]
    for ident, key, unit, scale, rows in (
        ("ttft", "ttft_s", "s", 1.0, done),
        ("tpot", "tpot_s", "ms", 1e3, many),
    ):
        if not len(rows):
            continue
        name = ident.upper()
        marks = []
        if slo[key] is not None:
            limit = scale * slo[key]
            marks.append({"x": limit, "label": f"SLO {limit:g} {unit}", "low": True})
        values = scale * np.sort(rows[key].to_numpy())
        shares = 1 - np.geomspace(1, max(1 / len(values), 1e-5), CDF_POINTS)
        x = np.quantile(values, shares)
        longer = axis("share that took longer", log=True, max=1.0)
        yield lines(
            f"cdf-{ident}",
            f"{name}: share of requests that took longer",
            {name: (x, 1 - shares)},
            (axis(f"{name} ({unit})", log=True), longer),
            marks=marks,
            colours={name: PALETTE[0 if ident == "ttft" else 2]},
        )
    if len(many):
        yield _scatter(many, slo)


def _scatter(many: "pd.DataFrame", slo: Json) -> Json:
    some = many.iloc[sampled(len(many), MOST_POINTS)]
    shown = "" if len(some) == len(many) else f"One request in {len(many) // len(some)}. "
    made = lines(
        "scatter",
        "TTFT and TPOT of each request",
        {},
        (axis("TPOT (ms)", free=True), axis("TTFT (s)", log=True)),
        help=f"{shown}Green: within the SLO. Quarters by prompt length.",
        wide=True,
        height=340,
    )
    made["kind"] = "scatter"
    made["box"] = {"x": None if slo["tpot_s"] is None else 1e3 * slo["tpot_s"], "y": slo["ttft_s"]}
    limits = np.quantile(some["prompt_tokens"], [0, 0.25, 0.5, 0.75, 1])
    place = np.clip(np.searchsorted(limits, some["prompt_tokens"], "left") - 1, 0, 3)
    for quarter, colour in enumerate(("#efb549", "#dd7358", "#ad4f8f", "#6a53bd")):
        rows = some[place == quarter]
        made["series"].append(
            {
                "name": f"{limits[quarter]:,.0f} to {limits[quarter + 1]:,.0f} prompt tokens",
                "colour": colour,
                "style": "points",
                "x": 1e3 * rows["tpot_s"].to_numpy(),
                "y": rows["ttft_s"].to_numpy(),
                "text": [f"request {i}" for i in rows["request_id"]],
            }
        )
    return made


def _timeline(result: ResultFiles) -> Iterator[Json]:
    series = timeline_of(result, num_points=300)
    pools = result.provenance["experiment"]["deployment"]
    colours = {name: ROLE_COLOURS[pool["role"]] for name, pool in pools.items()}
    x = axis("time (s)", free=True)
    window = result.summary["window"]["arrivals_s"]
    marks = [
        {"x": at_s, "label": text}
        for at_s, text in zip(window, ("measured from", "to"), strict=True)
        if at_s is not None
    ]
    options = {"wide": True, "height": 180, "marks": marks}
    waiting = {f"waiting {name}": values for name, values in series.waiting.items()}
    for ident, title, label, values, palette in (
        (
            "arrivals",
            "Arrivals",
            "requests/s",
            {"arrivals": series.arrivals_per_s},
            {"arrivals": MUTED},
        ),
        ("waiting", "Waiting requests", "requests", waiting, {}),
        ("running", "Running requests", "requests", series.running, colours),
        (
            "kv",
            "KV of decoding requests",
            "% of the pool's KV",
            {name: 100 * share for name, share in series.kv_frac.items()},
            colours,
        ),
        (
            "transfers",
            "KV transfers",
            "GB/s",
            {"transfers": series.transfer_bytes_per_s / GB},
            {"transfers": PALETTE[1]},
        ),
    ):
        if any(np.any(each) for each in values.values()):
            shown = {name: (series.time_s, each) for name, each in values.items()}
            yield lines(ident, title, shown, (x, axis(label)), colours=palette, **options)
    if result.planes is not None:
        yield _planes(result.planes, x, options)


def _planes(rows: "pd.DataFrame", x: Json, options: Json) -> Json:
    busiest = {
        str(plane): (mine["time_s"].to_numpy(), 100 * mine["busiest_frac"].to_numpy())
        for plane, mine in rows.groupby("plane", observed=True, sort=False)
        if mine["bytes_per_s"].any()
    }
    title = "Busiest link of each plane"
    return lines("planes", title, busiest, (x, axis("% of its rate")), **options)


def _traffic(result: ResultFiles) -> Iterator[Json]:
    """KV bytes from each prefill instance to each rank of the decode pool."""
    transfers, pools = result.transfers, result.provenance["experiment"]["deployment"]
    transfers = transfers[transfers["kind"] == "kv"]
    if transfers.empty or len(pools) < 2:
        return
    (entry, first), (decode, second) = list(pools.items())[:2]
    source = transfers["source"].to_numpy() // first["dp"]
    destination = transfers["destination"].to_numpy()
    instances = max(first["instances"], 1 + source.max())  # scaling may have added some
    sent = np.zeros((instances, max(second["dp"] * second["instances"], 1 + destination.max())))
    np.add.at(sent, (source, destination), transfers["size_bytes"].to_numpy() / GB)
    rows = {f"{entry} {i}": sent[i] for i in range(instances)}
    yield heat(
        "traffic", f"KV from {entry} instances to {decode} ranks", rows, f"{decode} rank", "GB"
    )


def _experts(result: ResultFiles, files: Sequence[Path]) -> Iterator[Json]:
    """Loads of dies before and after balancing, on one scale; those of files, of experts."""
    loads = {} if result.experts is None else dict(each_load(result))
    named = [(f"Load of dies, {title}", load, "die") for title, load in loads.items()]
    named += [(f"Expert load, {path.stem}", load_array(path), "expert") for path in files]
    most = max((float(relative(load).max()) for _, load, _ in named), default=0.0)
    most = min(most, HOTTEST)
    for number, (title, load, of) in enumerate(named):
        rows = {f"layer {i}": each for i, each in enumerate(relative(load))}
        said = f"By sparse layer. Most over mean, mean over layers: {imbalance_of(load):.2f}."
        options = {"max": most, "wide": False, "help": said}
        yield heat(f"experts-{number}", title, rows, of, "x the layer's mean", **options)


def _links(result: ResultFiles, path: Path | None) -> Iterator[Json]:
    """Mean use over the run by plane, on one scale."""
    has_links = result.links is not None and bool((result.links["bytes_per_s"] > 0).any())
    if path is None and not has_links:
        return
    planes = links_by_kind(result if path is None else path)[0]
    most = 100 * max(float(np.nanmax(use)) for kinds in planes.values() for use in kinds.values())
    for plane, kinds in planes.items():
        rows = {kind.rpartition("/")[2].replace("_", " "): 100 * use for kind, use in kinds.items()}
        title = f"Links of {plane}: mean use over the run"
        yield heat(f"links-{plane}", title, rows, "link, by number", "% of its rate", max=most)


def _latency_table(summary: Json) -> Json:
    columns = ("latency (ms)", "mean", "median", "p90", "p95", "p99", "std")
    rows = [
        [name.upper(), *(summary[f"{s}_{name}_ms"] for s in columns[1:])]
        for name in ("ttft", "tpot", "itl", "e2el")
    ]
    return table("latencies", "Percentiles", columns, rows)


def _pool_table(summary: Json) -> Json:
    pools = summary["utilization"]
    numbers = {"instances": "", "num_dies": "", "num_npus": "", "mean_waiting_seqs": ""}
    shares = ("busy_frac", "slots_frac", "kv_frac", "peak_kv_frac")
    columns = ["pool", "role", *numbers, *(s.replace("_frac", " (%)") for s in shares)]
    rows = [
        [name, pool["role"], *(pool[n] for n in numbers), *(_percent(pool[s]) for s in shares)]
        for name, pool in pools.items()
    ]
    names = [c.removeprefix("num_").replace("_", " ").replace("kv", "KV") for c in columns]
    return table("pools", "Pools", names, rows)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _explorer(requests: "pd.DataFrame") -> Json | None:
    """The slowest by TTFT and by E2E, of the whole run."""
    import pandas as pd

    done = requests[requests["status"] == "finished"]
    if done.empty:
        return None
    slow = pd.concat([done.nlargest(MOST_SLOW, "ttft_s"), done.nlargest(MOST_SLOW // 3, "e2e_s")])
    slow = slow.drop_duplicates("request_id")
    parts = request_parts(slow).to_numpy()
    columns = {
        "request": slow["request_id"],
        "arrival (s)": slow["arrival_s"],
        "prompt": slow["prompt_tokens"],
        "output": slow["output_tokens"],
        "TTFT (s)": slow["ttft_s"],
        "TPOT (ms)": 1e3 * slow["tpot_s"],
        "E2E (s)": slow["e2e_s"],
    }
    return {
        "help": "The slowest by TTFT and by E2E latency, of the whole run. Click a row, or use the"
        " arrow keys, to see where its time went.",
        "names": [part.replace("_", " ") for part in PARTS],
        "colours": [_COLOURS[part] for part in PARTS],
        "columns": list(columns),
        "rows": [list(row) for row in zip(*(c.tolist() for c in columns.values()), strict=True)],
        "parts": [
            {"id": int(i), "seconds": np.nan_to_num(seconds)}
            for i, seconds in zip(slow["request_id"], parts, strict=True)
        ],
    }


def _provenance(provenance: Json) -> list[list[str]]:
    rows = [(key, value) for key, value in provenance.items() if key != "experiment"]
    return [[key, value if isinstance(value, str) else json.dumps(value)] for key, value in rows]
