"""Recorded requests: one file a format, all read to the same columns."""

import numpy as np

from simpod.workload.requests import Requests
from simpod.workload.traces import azure, bailian, burstgpt, columns, mooncake
from simpod.workload.traces.mooncake import is_written_here, write_mooncake
from simpod.workload.traces.recorded import Recorded, to_requests
from simpod.workload.traces.spec import (
    AzureTrace,
    BailianTrace,
    BurstGptTrace,
    ColumnsTrace,
    LengthsTrace,
    MooncakeTrace,
    TimedTrace,
    TraceSpec,
    WindowSpec,
)

__all__ = [
    "AzureTrace",
    "BailianTrace",
    "BurstGptTrace",
    "ColumnsTrace",
    "LengthsTrace",
    "MooncakeTrace",
    "TraceSpec",
    "WindowSpec",
    "is_written_here",
    "read_trace",
    "write_mooncake",
]


def read_trace(spec: TimedTrace, rng: np.random.Generator, limit: int | None = None) -> Requests:
    """Read a trace that has times: its first `limit` requests within the window.

    `rng` draws the jitter. ConfigError names file, line, value and what is allowed.
    """
    return to_requests(_read(spec), spec, limit, rng)


def _read(spec: TimedTrace) -> Recorded:
    match spec:
        case MooncakeTrace():
            return mooncake.read(spec)
        case BailianTrace():
            return bailian.read(spec)
        case AzureTrace():
            return azure.read(spec)
        case BurstGptTrace():
            return burstgpt.read(spec)
        case ColumnsTrace():
            return columns.read(spec)
    raise TypeError(f"no reader for {type(spec).__name__}")
