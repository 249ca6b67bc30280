"""What the page of a sweep, or of several results, shows."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from simpod.errors import ConfigError
from simpod.metrics.interval import mean_interval
from simpod.report.curves import ATTAINMENT, GOODPUT, by_rate, knee_rate_per_s
from simpod.report.html.parts import Json, axis, figure, table
from simpod.report.sources import varied_keys
from simpod.report.style import colour_of

if TYPE_CHECKING:
    import pandas as pd

TARGET_FRAC: Final = 0.9
MOST_ROWS: Final = 5000
_FIGURES: Final = {
    "slo_attainment": "attainment",
    "request_goodput": "goodput /s",
    "request_throughput": "throughput /s",
    "output_throughput_per_npu": "tokens/s per NPU",
    "mean_ttft_ms": "mean TTFT (ms)",
    "p99_ttft_ms": "p99 TTFT (ms)",
    "mean_tpot_ms": "mean TPOT (ms)",
    "p99_tpot_ms": "p99 TPOT (ms)",
    "num_npus": "NPUs",
    "stationarity.verdict": "verdict",
}
_CURVES: Final[Sequence[tuple[str, str, str, dict[str, Any]]]] = (
    (ATTAINMENT, "Attainment", "share of requests within the SLO", {"max": 1.0}),
    (GOODPUT, "Goodput", "requests/s that met the SLO", {}),
    ("mean_ttft_ms", "Mean TTFT", "ms", {"log": True}),
    ("p99_ttft_ms", "p99 TTFT", "ms", {"log": True}),
    ("mean_tpot_ms", "Mean TPOT", "ms", {}),
    ("output_throughput_per_npu", "Output per NPU", "tokens/s per NPU", {}),
)


def many_payload(runs: "pd.DataFrame", name: str, sweep: Any = None) -> Json:
    """Everything of a table of runs that the page shows; `sweep`: what the sweep file said."""
    if runs.empty:
        raise ConfigError(f"{name}: no run succeeded")
    variants = list(dict.fromkeys(runs["variant"]))
    curves = list(_rate_curves(runs))
    return {
        "title": name,
        "subtitle": f"{len(runs):,} runs, {len(variants)} variants, {runs['seed'].nunique()} seeds",
        "notes": list(_notes(runs)),
        "figures": list(_figures(runs, variants)),
        "figures_help": "Highest rate at which 90 % of the requests meet the SLO (linear between"
        " rates), or mean TTFT where there is no SLO; 95 % t intervals over seeds.",
        "charts": [
            group
            for group in (
                {"id": "rate", "title": "Against the offered rate", "charts": curves},
                {
                    "id": "pareto",
                    "title": "Per NPU against per user",
                    "charts": list(_pareto(runs)),
                },
            )
            if group["charts"]
        ],
        "tables": [_run_table(runs)],
        "explorer": None,
        "provenance": [
            ["runs", str(len(runs))],
            ["keys varied", ", ".join(varied_keys(runs)) or "-"],
        ],
        "experiment": None if sweep is None else json.dumps(sweep, indent=2),
    }


def _notes(runs: "pd.DataFrame") -> Iterator[Json]:
    if "stationarity.verdict" not in runs:
        return
    unsteady = int((~runs["stationarity.verdict"].isin(["STABLE", "BURST"])).sum())
    if unsteady:
        text = "runs reached no steady state: beyond their capacity, or too short."
        yield {"text": f"{unsteady:,} of {len(runs):,} {text}", "grave": False}


def _figures(runs: "pd.DataFrame", variants: list[str]) -> Iterator[Json]:
    for variant in variants[:12]:
        rows = runs[runs["variant"] == variant]
        has_rates = ATTAINMENT in rows and rows[ATTAINMENT].notna().any()
        if not has_rates or rows["rate_per_s"].nunique() < 2:
            around = mean_interval(rows["mean_ttft_ms"].to_numpy(float))
            yield figure(f"{variant}: mean TTFT", around.mean, "ms", around)
            continue
        knees = [
            knee_rate_per_s(each["rate_per_s"].tolist(), each[ATTAINMENT].tolist(), TARGET_FRAC)
            for _, each in rows[np.isfinite(rows["rate_per_s"])].groupby("seed")
        ]
        known = np.array([k for k in knees if k is not None], dtype=float)
        around = mean_interval(known)
        value = None if np.isnan(around.mean) else around.mean
        is_beyond = len(known) > 0 and bool((known >= rows["rate_per_s"].max()).all())
        at = "90 % beyond" if is_beyond else "90 % at"
        yield figure(f"{variant}: {at}", value, "requests/s", around)


def _rate_curves(runs: "pd.DataFrame") -> Iterator[Json]:
    if runs["rate_per_s"].nunique() < 2:
        return
    for metric, title, label, options in _CURVES:
        if metric not in runs or runs[metric].isna().all():
            continue
        means = by_rate(runs, metric)
        series, marks = [], []
        for index, variant in enumerate(dict.fromkeys(means["variant"])):
            rows = means[means["variant"] == variant]
            curve: dict[str, Any] = {"name": variant, "colour": colour_of(index)}
            curve |= {"x": rows["rate_per_s"], "y": rows["mean"]}
            if (rows["seeds"] > 1).any():
                most = options.get("max", np.inf)
                curve |= {"low": rows["low"].clip(lower=0), "high": rows["high"].clip(upper=most)}
            series.append({k: v.tolist() if hasattr(v, "tolist") else v for k, v in curve.items()})
            knee = knee_rate_per_s(curve["x"].tolist(), curve["y"].tolist(), TARGET_FRAC)
            if metric == ATTAINMENT and knee is not None:
                at = "> " * bool(knee >= curve["x"].max())
                mark = {"x": knee, "label": f"{at}{knee:.3g}/s", "colour": colour_of(index)}
                marks.append({**mark, "row": index})
        if metric == ATTAINMENT:
            marks.append({"y": TARGET_FRAC, "label": "90 %"})
        yield {
            "kind": "lines",
            "id": f"rate-{metric.replace('_', '-')}",
            "title": title,
            "x": axis("offered rate (requests/s)"),
            "y": axis(label, **options),
            "series": series,
            "marks": marks,
        }


def _pareto(runs: "pd.DataFrame") -> Iterator[Json]:
    needed = ("output_throughput_per_npu", "mean_tpot_ms")
    if any(name not in runs for name in needed):
        return
    rows = runs[runs["mean_tpot_ms"] > 0]
    if rows.empty:
        return
    series = []
    for index, variant in enumerate(dict.fromkeys(rows["variant"])):
        each = rows[rows["variant"] == variant]
        series.append(
            {
                "name": variant,
                "colour": colour_of(index),
                "style": "points",
                "radius": 4,
                "x": (1000 / each["mean_tpot_ms"]).tolist(),
                "y": each["output_throughput_per_npu"].tolist(),
                "text": [f"{rate:.3g} requests/s" for rate in each["rate_per_s"]],
            }
        )
    targets = runs["slo.tpot_s"].dropna().tolist() if "slo.tpot_s" in runs else []
    marks = []
    if targets:
        least = 1 / float(targets[0])
        marks = [{"x": least, "label": f"TPOT ≤ {1000 / least:.3g} ms: right of here"}]
    yield {
        "kind": "scatter",
        "id": "pareto-chart",
        "title": "Output tokens/s per NPU against per user",
        "x": axis("output tokens/s per user (1 / mean TPOT)"),
        "y": axis("output tokens/s per NPU"),
        "series": series,
        "marks": marks,
        "wide": True,
    }


def _run_table(runs: "pd.DataFrame") -> Json:
    names = {"variant": "variant", "rate_per_s": "rate /s", "seed": "seed"}
    names |= {key: name for key, name in _FIGURES.items() if key in runs}
    shown = runs[list(names)].head(MOST_ROWS)
    rows = [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
    made = table("runs", "Runs", list(names.values()), rows)
    if len(runs) > MOST_ROWS:
        made["help"] = f"The first {MOST_ROWS:,} of {len(runs):,}."
    return made


def _cell(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
