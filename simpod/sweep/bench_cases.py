"""What the benchmark runs: fixed experiments, and the budget of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from simpod.errors import ConfigError
from simpod.units import GIB

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One experiment of the benchmark, in plain data."""

    name: str
    requests: int
    document: Document
    overrides: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)  # field of `Timing` -> at most


def _constant(tokens: int) -> Document:
    return {"distribution": "constant", "value": tokens}


def _pod_lockstep_288() -> Document:
    """One decode engine of 288 dies in lock step, always full: 17,280 sequences in flight."""
    return {
        "model": "deepseek-r1",
        "hardware": "cloudmatrix384",
        "workload": {
            "arrivals": {"process": "closed_loop", "concurrency": 17_280},
            "prompt_tokens": _constant(2048),
            "output_tokens": {"distribution": "uniform", "min": 1024, "max": 3072},
        },
        "deployment": {
            "decode": {
                "role": "decode",
                "dies": 288,
                "dp": 288,
                "ep": 288,
                "max_num_seqs": 60,
                "weight_dtype": "int8",
                "mtp": {"layers": 1, "acceptance": 0.9},
            }
        },
    }


def _replicas(count: int) -> Document:
    """`count` GPUs, each a replica of its own; load scaled with them."""
    return {
        "model": "llama-3.1-8b",
        "hardware": "a100" if count == 1 else "a100-pod",
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 1.5 * count},
            "prompt_tokens": _constant(512),
            "output_tokens": _constant(128),
        },
        "deployment": {"server": {"role": "mixed", "instances": count, "dies": 1}},
        "policies": {"router": "least_requests", "batching": "fcfs"},
    }


def _instances_24p24d() -> Document:
    """384 NPUs as 48 instances of 16 dies; the rate is about 70 % of what they sustain.

    With attention on every die, weights take 60 of 64 GiB: small steps leave room for KV.
    """
    layout = {"instances": 24, "dies": 16, "dp": 16, "ep": 16}
    precision = {"weight_dtype": "int8", "kv_dtype": "int8"}
    instance = {**layout, **precision, "memory_frac": 0.95, "max_step_tokens": 2048}
    return {
        "model": "deepseek-r1",
        "hardware": "cloudmatrix384",
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 400.0},
            "prompt_tokens": _constant(2048),
            "output_tokens": _constant(512),
        },
        "deployment": {
            "prefill": {"role": "prefill", **instance},
            "decode": {"role": "decode", **instance},
        },
    }


CASES: Final[tuple[Case, ...]] = (
    Case(
        name="pod_lockstep_288",
        requests=1_000_000,
        document=_pod_lockstep_288(),
        limits={"wall_s": 60, "peak_memory_bytes": 2 * GIB, "timeouts_per_request": 30},
    ),
    Case(
        name="dense_replica",
        requests=100_000,
        document=_replicas(1),
        limits={"timeouts_per_request": 60},
    ),
    Case(
        name="dense_replica_stepwise",
        requests=20_000,
        document=_replicas(1),
        overrides=("engine.skip_ahead=false",),
        limits={"timeouts_per_step": 10},
    ),
    Case(
        name="instances_24p24d",
        requests=20_000,
        document=_instances_24p24d(),
        limits={"wall_s": 2},
    ),
    Case(name="replicas_1", requests=200_000, document=_replicas(1)),
    Case(
        name="replicas_1024",
        requests=200_000,
        document=_replicas(1024),
        overrides=("hardware.num_nodes=128",),  # a pod that nobody has built
    ),
)
"""In the order in which they run."""

GROWTH_REQUESTS: Final = (10_000, 100_000, 1_000_000)
GROWTH_LIMIT: Final = 1.3
"""Cost per request, most to least, over `GROWTH_REQUESTS`."""

REPLICAS_LIMIT: Final = 1.5
"""Cost per request of 1,024 replicas to that of one."""


def case_named(name: str) -> Case:
    """A case by name."""
    for case in CASES:
        if case.name == name:
            return case
    known = ", ".join(case.name for case in CASES)
    raise ConfigError(f"--case {name}: unknown case; allowed: {known}")
