"""Tiny measured tables, made in the tests from the model itself or by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simpod.config import load_hardware
from simpod.validate.tables import gemm as gemm_tables

NUM_ROWS = 48
KNOWN = gemm_tables.START
"""The constants that the table of `gemm_table` was made with."""


def gemm_rows(num_rows: int = NUM_ROWS, seed: int = 0) -> pd.DataFrame:
    """bf16 products as they would take on an H100 with the constants `KNOWN`."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "gemm_dtype": "bfloat16",
            "kernel_source": "test",
            "m": 2 ** rng.integers(0, 13, num_rows),
            "n": 256 * rng.integers(1, 64, num_rows),
            "k": 256 * rng.integers(1, 32, num_rows),
            "latency_us": 1.0,
        }
    )
    (group,) = gemm_tables.read_gemm(frame)
    die = load_hardware("h100").die
    return frame.assign(latency_us=1e6 * gemm_tables.price(die, "bf16", KNOWN, group.shape))


def gemm_table(folder: Path, name: str = "h100_sxm.gemm.csv", **options: Any) -> Path:
    """The same as a file; returns its folder."""
    folder.mkdir(exist_ok=True)
    gemm_rows(**options).to_csv(folder / name, index=False)
    return folder


DEPLOYMENT: dict[str, Any] = {
    "id": "row",
    "model_path": "meta-llama/Llama-3.1-8B-Instruct",
    "system": "h100_sxm",
    "backend": "vllm",
    "mode": "agg",
    "gemm_quant_mode": "bfloat16",
    "isl": 300,
    "osl": 20,
    "concurrency": 2,
    "silicon_ttft_ms": 20.0,
    "silicon_tpot_ms": 8.0,
    "gpus": 1,
    **{
        f"{prefix}{name}_size": 1
        for prefix in ("", "prefill_", "decode_")
        for name in ("tp", "pp", "attention_dp", "moe_tp", "moe_ep")
    },
    "prefill_num_workers": 1,
    "decode_num_workers": 1,
}
"""One row of a table of deployments that can be simulated."""


def deployments(folder: Path, *changes: dict[str, Any]) -> Path:
    """A CSV with a row for each of `changes`."""
    path = folder / "deployments.csv"
    pd.DataFrame([DEPLOYMENT | change for change in changes]).to_csv(path, index=False)
    return path


FORWARD: dict[str, Any] = {
    "case": "decode",
    "device": "ATLAS_800_A3_752T_128G_DIE",
    "model": "Qwen/Qwen3-8B",
    "phase": "decode",
    "num_queries": 16,
    "query_len": 1,
    "context_length": 1000,
    "world_size": 2,
    "tp": 1,
    "dp": 2,
    "ep": 1,
    "linear_quant": "DISABLED",
    "measured_s": 0.02,
    "description": "a decode",
}


def forwards(folder: Path, *changes: dict[str, Any]) -> Path:
    path = folder / "forwards.csv"
    pd.DataFrame([FORWARD | change for change in changes]).to_csv(path, index=False)
    return path


def request_log(folder: Path, name: str = "h100.llama", **meta: Any) -> Path:
    """Three requests, the second sent 0.5 s after the first, on clocks that differ."""
    path = folder / name
    path.mkdir(parents=True)
    given = {
        "model": "meta-llama/Llama-3.1-8B",
        "engine_kwargs": {"tensor_parallel_size": 1, "max_num_seqs": 8},
        "vllm_version": "0.19.0",
    }
    pd.Series(given | meta).to_json(path / "meta.json")
    frame = pd.DataFrame(
        {
            "input_toks": [100, 200, 50],
            "output_toks": [11, 1, 21],
            "arrival_time": [1000.0, 1000.5, 1001.0],
            "queued_ts": [7.0 + 0.01, 7.5, 8.0 + 0.02],
            "first_token_ts": [7.05, 7.6, 8.1],
            "last_token_ts": [7.15, 7.6, 8.3],
        }
    )
    frame.iloc[[1, 0, 2]].to_json(path / "requests.jsonl", orient="records", lines=True)
    return path
