"""Measured forward passes of whole models: one step of one instance, without the engine around it.

Columns as in msmodeling's regression baselines: device, model, phase (prefill or decode),
num_queries of all ranks together, query_len tokens of each, context_length tokens before them,
world_size, tp, dp, ep, linear_quant, mtp_tokens, measured_s.
"""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any, Final

import numpy as np

from simpod.cost import Batch, Layout, StepPricer
from simpod.errors import ConfigError
from simpod.records.columns import STEP_PARTS
from simpod.validate.names import hardware_of, model_of
from simpod.validate.report import Point, Refusal, Report

COLUMNS: Final = (
    "case",
    "device",
    "model",
    "phase",
    "num_queries",
    "query_len",
    "context_length",
    "world_size",
    "tp",
    "dp",
    "ep",
    "linear_quant",
    "measured_s",
)
DTYPES: Final[Mapping[str, str]] = {
    "DISABLED": "bf16",
    "W8A8_STATIC": "int8",
    "W8A8_DYNAMIC": "int8",
    "W4A8_STATIC": "w4a8",
    "W4A8_DYNAMIC": "w4a8",
}
SEMANTICS: Final = "vllm-ascend"
"""Whose passes msmodeling measures."""
OUTSIDE: Final = ("mtp", "sampling", "host_gap")
"""Parts of a step that a forward pass of the main model does not have."""


def validate_forwards(path: Path) -> Report:
    """Price every forward pass of a CSV; what can't be expressed is refused with its reason."""
    import pandas as pd

    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise ConfigError(f"{path}: not a table of forward times: missing {', '.join(missing)}")
    report = Report()
    for record in frame.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        group = f"forwards/{row['device']}"
        try:
            simulated_s = forward_s(row)
        except ConfigError as error:
            report.refusals.append(Refusal(group=group, reason=error.problems[0]))
            continue
        report.points.append(
            Point(
                id=str(row["case"]),
                group=group,
                metric="forward_s",
                measured=float(row["measured_s"]),
                simulated=simulated_s,
                source=f"{path.name}: {row.get('description', row['case'])}",
            )
        )
    return report


def forward_s(row: Mapping[str, Any]) -> float:
    """Seconds of the pass that a row describes."""
    if "img=" in str(row.get("description", "")) and row["phase"] == "prefill":
        raise ConfigError("a prompt with an image: the vision encoder is not modelled")
    model = model_of(str(row["model"]))
    layout = _layout(row)
    hardware = hardware_of(str(row["device"]), layout.dies)
    prices = StepPricer(model, hardware, layout, SEMANTICS).price(_batch(row, layout.dp))
    parts = prices.parts()
    outside = sum(parts[STEP_PARTS.index(name)] for name in OUTSIDE)
    return float(parts.sum() - outside)


def _count(row: Mapping[str, Any], name: str, default: int) -> int:
    value = float(row[name])
    return default if isnan(value) else int(value)


def _layout(row: Mapping[str, Any]) -> Layout:
    dtype = DTYPES.get(str(row["linear_quant"]))
    if dtype is None:
        allowed = ", ".join(DTYPES)
        raise ConfigError(f"linear_quant {row['linear_quant']!r}; allowed: {allowed}")
    dies = int(row["world_size"])
    tp = _count(row, "tp", 1)
    drafts = int(row["query_len"]) - 1 if row["phase"] == "decode" else 0
    return Layout(
        dies=dies,
        dp=_count(row, "dp", dies // tp),
        tp=tp,
        ep=_count(row, "ep", 1),
        weight_dtype=dtype,
        mtp_layers=drafts,
    )


def _batch(row: Mapping[str, Any], dp: int) -> Batch:
    queries = -(-int(row["num_queries"]) // dp)
    tokens, context = int(row["query_len"]), int(row["context_length"])
    ranks = np.ones(dp, dtype=np.int64)
    if row["phase"] == "decode":
        return Batch.of(ranks * queries, ranks * queries * context)
    batch = Batch.of(0 * ranks, 0 * ranks)
    batch.prefill_tokens += queries * tokens
    batch.prefill_context += queries * (tokens + context)
    batch.prefill_pairs += queries * tokens * (context + (tokens + 1) / 2)
    batch.num_chunks += queries
    return batch
