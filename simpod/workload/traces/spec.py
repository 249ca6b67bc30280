"""`trace:` of an experiment: which file, how to read it, which part of it, how fast."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from simpod.fields import STRICT, Count, NonNegative, Positive, TaggedBy

TimeUnit = Literal["ns", "us", "ms", "s"]
BadRowPolicy = Literal["error", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSpec:
    """Part of a trace: start_s <= time < end_s, in trace time before scaling.

    start_s becomes time 0 of the run.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    start_s: NonNegative = 0.0
    end_s: Positive | None = None
    """Default: the end of the trace."""

    def __post_init__(self) -> None:
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(
                f"window end_s {self.end_s:g} is not after start_s {self.start_s:g}; "
                "allowed: start_s < end_s"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFile:
    """What every trace has."""

    __pydantic_config__: ClassVar[Any] = STRICT
    path: str
    bad_rows: BadRowPolicy = "error"
    """Rows that cannot be requests: `error` refuses the file, `skip` leaves them out and counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedTrace(TraceFile):
    """What every trace with times has. Trace time starts as the format says."""

    rate_scale: Positive = 1.0
    """2.0 sends the same requests at twice the rate: all arrival times are halved."""
    window: WindowSpec = WindowSpec()
    """Part of the trace to use; a conversation goes with its first request."""
    sort: bool = False
    """Sort rows by time; otherwise a row that is earlier than the one before it is an error."""
    jitter_s: NonNegative = 0.0
    """Undo a coarse clock: spread rows over [t, t + jitter_s) at random, their order kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MooncakeTrace(TimedTrace):
    """JSONL: timestamp, input_length, output_length, and optional hash_ids and session_id.

    Trace time is the timestamp. A row may have `delay` instead of `timestamp`: it follows the
    answer to the row before it in the same session. The conversation trace of Mooncake has a clock
    of 3 seconds: `jitter_s: 3` makes its arrivals smooth, the default replays the batches.
    """

    format: Literal["mooncake"] = "mooncake"
    time_unit: TimeUnit = "ms"
    hash_block_tokens: Count = 512
    """Tokens of one block of `hash_ids`. Where prefixes are reused, it or block_tokens of the pool
    is a multiple of the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BailianTrace(TimedTrace):
    """JSONL of Qwen-Bailian: as Mooncake, and chat_id, parent_chat_id.

    Trace time is the timestamp, in seconds here; blocks have 16 tokens. A chat and its descendants
    are one session.
    """

    format: Literal["bailian"] = "bailian"
    time_unit: TimeUnit = "s"
    hash_block_tokens: Count = 16
    """Tokens of one block of `hash_ids`. Where prefixes are reused, it or block_tokens of the pool
    is a multiple of the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureTrace(TimedTrace):
    """CSV of Azure, 2023 to 2025: TIMESTAMP, ContextTokens, GeneratedTokens.

    Trace time starts at the earliest row. A timestamp without a zone is UTC.
    """

    format: Literal["azure"] = "azure"


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstGptTrace(TimedTrace):
    """CSV of BurstGPT: Timestamp, Request tokens, Response tokens, and optional Session ID.

    Trace time is the timestamp. A failed request has 0 response tokens and is a bad row.
    """

    format: Literal["burstgpt"] = "burstgpt"
    time_unit: TimeUnit = "s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnsTrace(TimedTrace):
    """CSV with a header, whose columns are named here. Trace time starts at the earliest row."""

    format: Literal["columns"] = "columns"
    arrival: str | None = None
    """Column of arrival times, as numbers; without it the trace has lengths only."""
    prompt_tokens: str
    output_tokens: str
    session: str | None = None
    """Column that is equal for the requests of one session."""
    tenant: str | None = None
    """Column of tenants, by any name; they are numbered in order of appearance."""
    priority: str | None = None
    """Column of priorities, whole numbers; larger is more urgent."""
    time_unit: TimeUnit = "s"


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthsTrace(TraceFile):
    """CSV of lengths: num_prefill_tokens, num_decode_tokens (as in Etalon and Vidur); no times."""

    format: Literal["lengths"] = "lengths"


TraceSpec: TypeAlias = Annotated[
    MooncakeTrace | BailianTrace | AzureTrace | BurstGptTrace | ColumnsTrace | LengthsTrace,
    TaggedBy("format"),
]
"""`trace:` of an experiment."""


def has_times(trace: TraceFile) -> bool:
    """Whether the trace says when its requests arrive."""
    if isinstance(trace, ColumnsTrace):
        return trace.arrival is not None
    return isinstance(trace, TimedTrace)
