"""Logs of real engines, replayed: the same arrivals and lengths, statistics beside statistics.

A log is a folder with `meta.json` (model, engine_kwargs of vLLM, vllm_version) and
`requests.jsonl` (input_toks, output_toks, arrival_time, queued_ts, first_token_ts, last_token_ts
of each request), as LLMServingSim records them. The device is the folder's name up to the first
dot. Arrivals are on the client's clock, all else on the engine's: the clocks are joined where the
engine saw a request soonest after it was sent.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from simpod.config import resolve_document
from simpod.errors import ConfigError
from simpod.validate.names import hardware_of, model_of
from simpod.validate.report import Point, Report
from simpod.validate.runs import summary_of

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
COLUMNS: Final = (
    "input_toks",
    "output_toks",
    "arrival_time",
    "queued_ts",
    "first_token_ts",
    "last_token_ts",
)
STATISTICS: Final = ("mean", "median", "p99")
LATENCIES: Final = ("ttft", "tpot", "e2el")
DTYPES: Final = {"bfloat16": "bf16", "float16": "bf16", "auto": "auto", "fp8": "fp8"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestLog:
    """One run of an engine; times in seconds from the first arrival."""

    name: str
    device: str
    meta: Mapping[str, Any]
    arrival_s: Floats
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    first_token_s: Floats
    last_token_s: Floats

    def measured_ms(self) -> dict[str, Floats]:
        """TTFT, TPOT (of answers of two tokens or more) and E2E of every request."""
        more = self.output_tokens > 1
        decode_s = (self.last_token_s - self.first_token_s)[more]
        return {
            "ttft": 1e3 * (self.first_token_s - self.arrival_s),
            "tpot": 1e3 * decode_s / (self.output_tokens[more] - 1),
            "e2el": 1e3 * (self.last_token_s - self.arrival_s),
        }


def find_logs(folder: Path) -> list[Path]:
    """The folder itself or those below it that hold a log; ConfigError if there is none."""
    found = sorted(path.parent for path in folder.rglob("meta.json"))
    if not found:
        raise ConfigError(f"{folder}: no request log: neither it nor a folder below has meta.json")
    return found


def read_log(folder: Path) -> RequestLog:
    """Read one log; ConfigError says what is missing."""
    import pandas as pd

    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        text = (folder / "requests.jsonl").read_text(encoding="utf-8")
        frame = pd.DataFrame([json.loads(line) for line in text.splitlines() if line.strip()])
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: not a request log: {error}") from error
    missing = [name for name in COLUMNS if name not in frame]
    missing += [name for name in ("model", "engine_kwargs") if name not in meta]
    if missing:
        raise ConfigError(f"{folder}: missing in requests.jsonl or meta.json: {', '.join(missing)}")
    return _log(folder, meta, frame)


def _log(folder: Path, meta: Mapping[str, Any], frame: "pd.DataFrame") -> RequestLog:
    frame = frame.sort_values("arrival_time", kind="stable")
    columns = {name: frame[name].to_numpy() for name in COLUMNS}
    start = columns["arrival_time"][0]
    offset = (columns["queued_ts"] - (columns["arrival_time"] - start)).min()
    return RequestLog(
        name=folder.name,
        device=folder.name.partition(".")[0],
        meta=meta,
        arrival_s=columns["arrival_time"] - start,
        prompt_tokens=columns["input_toks"],
        output_tokens=columns["output_toks"],
        first_token_s=columns["first_token_ts"] - offset,
        last_token_s=columns["last_token_ts"] - offset,
    )


def validate_requests(folder: Path) -> Report:
    """Replay every log at or below `folder`."""
    report = Report()
    for path in find_logs(folder):
        report.points += list(_compare(read_log(path)))
    return report


def _compare(log: RequestLog) -> Iterator[Point]:
    with TemporaryDirectory() as scratch:
        trace = Path(scratch) / "requests.csv"
        rows = np.column_stack([log.arrival_s, log.prompt_tokens, log.output_tokens])
        np.savetxt(trace, rows, fmt=("%.9f", "%d", "%d"), delimiter=",", header=HEADER, comments="")
        summary = summary_of(resolve_document(document_of(log, trace), source=log.name))
    for latency, values in log.measured_ms().items():
        measured = {
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "p99": float(np.quantile(values, 0.99)),
        }
        for statistic in STATISTICS:
            metric = f"{statistic}_{latency}_ms"
            yield Point(
                id=f"{log.name}/{metric}",
                group=f"requests/{statistic}_{latency}",
                metric=metric,
                measured=measured[statistic],
                simulated=float(summary[metric]),
                source=f"request log {log.name}",
            )


HEADER: Final = "arrival,prompt,output"


def document_of(log: RequestLog, trace: Path) -> dict[str, Any]:
    """The experiment that replays a log whose requests are in the CSV `trace`."""
    given = log.meta["engine_kwargs"]
    tp, dp = int(given.get("tensor_parallel_size", 1)), int(given.get("data_parallel_size", 1))
    model = model_of(str(log.meta["model"]))
    has_ep = bool(given.get("enable_expert_parallel")) and model.moe is not None
    pool = {
        "dies": tp * dp,
        "tp": tp,
        "dp": dp,
        "ep": tp * dp if has_ep else 1,
        "max_num_seqs": int(given.get("max_num_seqs") or 256),
        "max_step_tokens": int(given.get("max_num_batched_tokens") or 8192),
        "memory_frac": float(given.get("gpu_memory_utilization") or 0.9),
        "kv_dtype": DTYPES.get(str(given.get("kv_cache_dtype", "auto")), "auto"),
        "prefix_caching": False,
    }
    return {
        "model": model.name,
        "hardware": hardware_of(log.device, tp * dp).name,
        "workload": {
            "trace": {
                "path": str(trace),
                "format": "columns",
                "arrival": "arrival",
                "prompt_tokens": "prompt",
                "output_tokens": "output",
            }
        },
        "deployment": {"mixed": pool},
        "measure": {"warmup_frac": 0.0, "drain_frac": 0.0},
    }
