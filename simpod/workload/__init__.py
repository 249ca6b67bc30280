"""Requests and where they come from: recorded traces, or distributions of arrivals and lengths."""

from simpod.workload.arrivals import (
    ArrivalSpec,
    BurstArrivals,
    ClosedLoopArrivals,
    ConstantArrivals,
    DiurnalArrivals,
    GammaArrivals,
    MmppArrivals,
    MmppState,
    PoissonArrivals,
    WeibullArrivals,
)
from simpod.workload.build import build
from simpod.workload.lengths import (
    ConstantLengths,
    EmpiricalLengths,
    GeometricLengths,
    LengthSpec,
    LognormalLengths,
    UniformLengths,
    ZipfLengths,
)
from simpod.workload.requests import Requests, make_requests
from simpod.workload.sessions import (
    ConstantThink,
    ExponentialThink,
    LognormalThink,
    SessionsSpec,
    SharedPrefixSpec,
)
from simpod.workload.spec import WorkloadSpec
from simpod.workload.stats import prefix_hit_tokens, stats
from simpod.workload.streams import Stream, streams
from simpod.workload.traces import (
    AzureTrace,
    BailianTrace,
    BurstGptTrace,
    ColumnsTrace,
    LengthsTrace,
    MooncakeTrace,
    TraceSpec,
    WindowSpec,
    is_written_here,
    read_trace,
    write_mooncake,
)

__all__ = [
    "ArrivalSpec",
    "AzureTrace",
    "BailianTrace",
    "BurstArrivals",
    "BurstGptTrace",
    "ClosedLoopArrivals",
    "ColumnsTrace",
    "ConstantArrivals",
    "ConstantLengths",
    "ConstantThink",
    "DiurnalArrivals",
    "EmpiricalLengths",
    "ExponentialThink",
    "GammaArrivals",
    "GeometricLengths",
    "LengthSpec",
    "LengthsTrace",
    "LognormalLengths",
    "LognormalThink",
    "MmppArrivals",
    "MmppState",
    "MooncakeTrace",
    "PoissonArrivals",
    "Requests",
    "SessionsSpec",
    "SharedPrefixSpec",
    "Stream",
    "TraceSpec",
    "UniformLengths",
    "WeibullArrivals",
    "WindowSpec",
    "WorkloadSpec",
    "ZipfLengths",
    "build",
    "is_written_here",
    "make_requests",
    "prefix_hit_tokens",
    "read_trace",
    "stats",
    "streams",
    "write_mooncake",
]
