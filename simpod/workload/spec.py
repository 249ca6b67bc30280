"""`workload:` of an experiment: a recorded trace, or arrivals and lengths from distributions."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from simpod.fields import STRICT, Count
from simpod.workload.arrivals import ArrivalSpec, ClosedLoopArrivals
from simpod.workload.lengths import LengthSpec
from simpod.workload.sessions import SessionsSpec, SharedPrefixSpec
from simpod.workload.tenants import TenantSpec
from simpod.workload.traces.spec import (
    BailianTrace,
    MooncakeTrace,
    TimedTrace,
    TraceSpec,
    WindowSpec,
    has_times,
)

MAX_REQUESTS = 1_000_000_000
_UNTIMED_DEFAULTS = {"rate_scale": 1.0, "window": WindowSpec(), "sort": False, "jitter_s": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """Where requests come from.

    Times: a `trace` that has them, or `arrivals`. Lengths: a `trace`, or `prompt_tokens` and
    `output_tokens`. Requests that are not replayed can get structure: `shared_prefix`, `sessions`.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    trace: TraceSpec | None = None
    """Recorded requests."""
    arrivals: ArrivalSpec | None = None
    """When requests (or sessions) start."""
    prompt_tokens: LengthSpec | None = None
    """What a user writes in one request."""
    output_tokens: LengthSpec | None = None
    """What the model answers."""
    shared_prefix: SharedPrefixSpec | None = None
    """System prompts that requests share."""
    sessions: SessionsSpec | None = None
    """Conversations of several turns."""
    tenants: list[TenantSpec] = field(default_factory=list)
    """Who sends them, for fairness and priorities; empty: one tenant, or those of a trace."""
    num_requests: Annotated[int, Ge(1), Le(MAX_REQUESTS)] | None = None
    """How many; of a trace the first ones, at most as many as it has; default in a closed loop:
    `requests_per_client` for each."""
    hash_block_tokens: Count = 16
    """Block of the prefix identity of synthetic requests (a trace has its own)."""
    max_tokens: Count | Literal["output_tokens"] | None = None
    """Longest answer that clients allow, which schedulers may know; `output_tokens`: each request
    says how long its answer will be and takes no end before it, as benchmarks do (`ignore_eos`)."""

    @property
    def prefix_block_tokens(self) -> int:
        """Block of the prefix identity; 0: there is none (a trace of such a format may lack it)."""
        if isinstance(self.trace, MooncakeTrace | BailianTrace):
            return self.trace.hash_block_tokens
        return self.hash_block_tokens if self.shared_prefix or self.sessions else 0

    def __post_init__(self) -> None:
        problems = _source_problems(self) + _structure_problems(self)
        if problems:
            raise ValueError("; ".join(problems))


def _source_problems(spec: WorkloadSpec) -> list[str]:
    """Which of trace, arrivals and lengths go together."""
    lengths = {"prompt_tokens": spec.prompt_tokens, "output_tokens": spec.output_tokens}
    given = [name for name, value in lengths.items() if value is not None]
    missing = [name for name, value in lengths.items() if value is None]
    if spec.trace is None and spec.arrivals is None:
        return ["neither trace nor arrivals is given; allowed: exactly one of them"]
    if spec.trace is None:
        is_open = not isinstance(spec.arrivals, ClosedLoopArrivals)
        needs = missing + (["num_requests"] if is_open and spec.num_requests is None else [])
        why = "required with arrivals" + (" but closed_loop" if needs == ["num_requests"] else "")
        return [f"missing {', '.join(needs)}: {why}"] if needs else []
    kind = f"a trace of format {spec.trace.format}"
    problems = []
    if given:
        problems.append(
            f"{', '.join(given)} with {kind}; allowed: lengths from one source only (null: none)"
        )
    if has_times(spec.trace) and spec.arrivals is not None:
        problems.append(
            f"arrivals with {kind}, which has its own times; allowed: one of them (null: none)"
        )
    if not has_times(spec.trace) and spec.arrivals is None:
        problems.append(f"{kind} without times needs arrivals (or name its `arrival` column)")
    if not has_times(spec.trace) and isinstance(spec.trace, TimedTrace):
        unused = [k for k, v in _UNTIMED_DEFAULTS.items() if getattr(spec.trace, k) != v]
        if unused:
            problems.append(f"trace: {', '.join(unused)} without an `arrival` column to apply to")
    return problems


def _structure_problems(spec: WorkloadSpec) -> list[str]:
    """Where shared prefixes and sessions can be."""
    problems = []
    structure = [name for name in ("shared_prefix", "sessions") if getattr(spec, name) is not None]
    if structure and spec.trace is not None and has_times(spec.trace):
        problems.append(
            f"{', '.join(structure)} with a trace that is replayed; allowed: with arrivals"
        )
    if spec.sessions is not None and isinstance(spec.arrivals, ClosedLoopArrivals):
        problems.append("sessions with closed_loop arrivals; allowed: any other process")
    prefix = spec.shared_prefix
    longest = spec.sessions.max_prompt_tokens if spec.sessions is not None else None
    if prefix is not None and longest is not None and longest <= prefix.tokens:
        problems.append(
            f"sessions.max_prompt_tokens {longest} leaves no room for a second turn; allowed: more "
            f"than shared_prefix.tokens {prefix.tokens}"
        )
    if prefix is not None and prefix.tokens < spec.hash_block_tokens:
        problems.append(
            f"shared_prefix.tokens {prefix.tokens} is less than one block, so nothing would be "
            f"shared; allowed: >= hash_block_tokens {spec.hash_block_tokens}"
        )
    return problems
