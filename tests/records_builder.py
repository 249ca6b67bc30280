"""Hand-made `RunRecords`: name the columns that matter, the others get harmless values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simpod.records.columns import (
    FINISHED,
    LIVE,
    STEP_PARTS,
    GroupRecords,
    PoolRecords,
    RequestRecords,
    RunRecords,
    StepRecords,
    TransferRecords,
)

NAN = float("nan")

_INTS = {
    "request_id": 0,
    "status": FINISHED,
    "session_id": -1,
    "prompt_tokens": 100,
    "output_tokens": 1,
    "cached_tokens": 0,
    "dram_tokens": 0,
    "ssd_tokens": 0,
    "prefill_target": 0,
    "decode_target": 0,
    "num_preemptions": 0,
    "ledger": -1,
    "first_decode_step": -1,
    "last_decode_step": -1,
}
_FLOATS: dict[str, float] = {
    "barrier_wait_s": 0.0,
    "decode_pace": 1.0,
    "cache_read_s": 0.0,
    "transfer_start_s": NAN,
    "transfer_end_s": NAN,
}


def requests(arrival_s: Sequence[float], **columns: Any) -> RequestRecords:
    """Default: scheduled on arrival, first token and finish one second later, one token."""
    n = len(arrival_s)
    arrival = np.asarray(arrival_s, dtype=np.float64)
    first = np.asarray(columns.get("first_token_s", arrival + 1.0), dtype=np.float64)
    values: dict[str, Any] = {
        **_INTS,
        **_FLOATS,
        "request_id": np.arange(n),
        "scheduled_s": arrival,
        "prefill_end_s": first,
        "first_token_s": first,
        "finish_s": columns.get("finish_s", first),
        "engine_first_token_s": first,
        "engine_finish_s": columns.get("finish_s", first),
        **columns,
        "arrival_s": arrival,
    }
    return RequestRecords(
        **{
            name: np.broadcast_to(
                np.asarray(value, dtype=np.int64 if name in _INTS else np.float64), n
            ).copy()
            for name, value in values.items()
        }
    )


def group(ends_s: Sequence[float] = (), seqs: Sequence[int] | None = None, **values: Any) -> Any:
    """One group; `ends_s` and `seqs` are its decode ledger."""
    seqs = [1] * len(ends_s) if seqs is None else seqs
    return GroupRecords(
        decode_end_s=np.asarray(ends_s, dtype=np.float64),
        decode_seqs=np.asarray(seqs, dtype=np.int64),
        **{
            "pool": "main",
            "instance": 0,
            "tokens_per_decode_step": (1, 1),
            "busy_s": 0.0,
            "num_steps": len(ends_s),
            "num_preemptions": 0,
            "peak_kv_frac": 0.0,
            **values,
        },
    )


def pool(name: str = "main", role: str = "mixed", **values: Any) -> PoolRecords:
    return PoolRecords(
        name=name,
        role=role,
        **{
            "instances": 1,
            "num_dies": 2,
            "num_npus": 1.0,
            "max_num_seqs": 8,
            "ranks": 1,
            "kv_capacity_tokens": 1000,
            "mean_slots_frac": 0.0,
            "mean_kv_frac": 0.0,
            "mean_waiting_seqs": 0.0,
            **values,
        },
    )


def steps(rows: Sequence[Mapping[str, Any]] = ()) -> StepRecords:
    """Each row: start_s, end_s; others default; `parts` maps part names to seconds."""
    defaults = {
        "group": 0,
        "first_step": 0,
        "num_steps": 1,
        "decode_seqs": 0,
        "context_tokens": 0,
        "prefill_tokens": 0,
        "slot_seqs": 0,
    }
    parts = np.zeros((len(rows), len(STEP_PARTS)))
    for row, values in enumerate(rows):
        for name, seconds in values.get("parts", {}).items():
            parts[row, STEP_PARTS.index(name)] = seconds
    return StepRecords(
        **{
            name: np.array([row.get(name, default) for row in rows], dtype=np.int64)
            for name, default in defaults.items()
        },
        start_s=np.array([row["start_s"] for row in rows], dtype=np.float64),
        end_s=np.array([row["end_s"] for row in rows], dtype=np.float64),
        parts_s=parts,
    )


def transfers(rows: Sequence[tuple[int, int, int, float, float, float]] = ()) -> TransferRecords:
    columns = list(zip(*rows, strict=True)) or [()] * 6
    ints = [np.array(column, dtype=np.int64) for column in columns[:3]]
    floats = [np.array(column, dtype=np.float64) for column in columns[3:]]
    return TransferRecords(
        request_id=ints[0],
        kind=np.zeros_like(ints[0]),
        plane=np.zeros_like(ints[0]),
        source=ints[1],
        destination=ints[2],
        source_die=ints[1],
        destination_die=ints[2],
        host=np.full_like(ints[0], -1),
        start_s=floats[0],
        end_s=floats[1],
        size_bytes=floats[2],
        wait_s=np.zeros_like(floats[0]),
        alone_s=floats[1] - floats[0],
        plane_names=("scale_up",),
    )


def run(rows: RequestRecords, **values: Any) -> RunRecords:
    """One mixed pool of one group, unless said otherwise; ends with the last finish."""
    return RunRecords(
        requests=rows,
        **{
            "steps": steps(),
            "transfers": transfers(),
            "groups": (group(),),
            "pools": (pool(),),
            "end_s": float(np.nanmax(rows.finish_s, initial=0.0)),
            **values,
        },
    )


@dataclass
class Member:
    """One request for `token_by_token`; times follow from the steps of its group."""

    group: int
    join_step: int  # decode steps of the group that are over when it joins
    output_tokens: int
    lead_s: (
        float | None
    )  # first token so long before its first decode step ends; None: by that step


@dataclass
class TokenRun:
    """Records, and the tokens of each request as counted one by one."""

    records: RunRecords
    outputs_s: list[list[float]] = field(default_factory=list)  # once per step
    tokens_s: list[list[float]] = field(default_factory=list)
    is_by_step: list[bool] = field(default_factory=list)  # the first token came by a decode step


def token_by_token(
    ledgers_s: Sequence[Sequence[float]], members: Sequence[Member], mtp: tuple[int, int] = (1, 1)
) -> TokenRun:
    """Decode step by step and token by token; what does not finish in its ledger stays live."""
    up, down = mtp
    seqs = [[0] * len(ends) for ends in ledgers_s]
    outputs_s: list[list[float]] = []
    tokens_s: list[list[float]] = []
    rows: list[dict[str, Any]] = []
    for member in members:
        ends = ledgers_s[member.group]
        tokens: list[float] = []
        if member.lead_s is not None:
            tokens.append(ends[member.join_step] - member.lead_s)
        outputs = list(tokens)
        step = member.join_step
        while len(tokens) < member.output_tokens and step < len(ends):
            new = (step + 1) * up // down - step * up // down
            tokens += [ends[step]] * new
            outputs.append(ends[step])
            seqs[member.group][step] += 1
            step += 1
        is_done = len(tokens) >= member.output_tokens
        tokens_s.append(tokens[: member.output_tokens])
        outputs_s.append(outputs)
        rows.append(
            {
                "status": FINISHED if is_done else LIVE,
                "output_tokens": member.output_tokens,
                "ledger": member.group,
                "first_decode_step": member.join_step,
                "last_decode_step": step if is_done else -1,
                "first_token_s": tokens[0],
                "finish_s": tokens[-1] if is_done else NAN,
            }
        )
    columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
    first = columns.pop("first_token_s", [])
    groups = tuple(
        group(ends, count, instance=index, tokens_per_decode_step=mtp)
        for index, (ends, count) in enumerate(zip(ledgers_s, seqs, strict=True))
    )
    arrivals = [time - 0.5 for time in first]
    end_s = max((ends[-1] for ends in ledgers_s if ends), default=0.0)
    records = run(
        requests(arrivals, first_token_s=first, **columns),
        groups=groups,
        pools=(pool(instances=len(groups)),),
        end_s=end_s,
    )
    return TokenRun(
        records=records,
        outputs_s=outputs_s,
        tokens_s=tokens_s,
        is_by_step=[member.lead_s is None for member in members],
    )
