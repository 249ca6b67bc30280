"""From the engine's logs to the columns of a result."""

from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

from simpod.cost import breakdown
from simpod.engine.ledger import ROW
from simpod.records.columns import (
    Floats,
    GroupRecords,
    Ints,
    PoolRecords,
    RequestRecords,
    RunRecords,
    StepRecords,
    TransferRecords,
)

if TYPE_CHECKING:
    from simpod.engine.group import Group
    from simpod.engine.simulation import Pool, Simulation

REQUEST_FIELDS = (
    "request_id",
    "status",
    "arrival_s",
    "cached_tokens",
    "prefill_target",
    "decode_target",
    "scheduled_s",
    "prefill_end_s",
    "barrier_wait_s",
    "transfer_start_s",
    "transfer_end_s",
    "first_token_s",
    "finish_s",
    "num_preemptions",
    "ledger",
    "first_decode_step",
    "last_decode_step",
)
"""Columns of the log that the simulation writes when a request ends."""

PACK_REQUEST = Struct(f"{len(REQUEST_FIELDS)}d").pack

INTEGER_FIELDS = frozenset(REQUEST_FIELDS) - {
    name for name in REQUEST_FIELDS if name.endswith("_s")
}


def collect(sim: "Simulation") -> RunRecords:
    """Turn a finished simulation's logs into records."""
    requests = _requests(sim)
    return RunRecords(
        requests=requests,
        steps=_steps(sim),
        transfers=_transfers(sim),
        groups=tuple(_group(sim, i) for i in range(len(sim.groups))),
        pools=tuple(_pool(sim, pool, requests) for pool in sim.pools),
        end_s=float(sim.clock.now),
        segments=np.array(sim.segments, dtype=np.int64).reshape(-1, 4),
    )


def _requests(sim: "Simulation") -> RequestRecords:
    rows = np.frombuffer(sim.rows, dtype=np.float64).reshape(-1, len(REQUEST_FIELDS))
    order = np.argsort(rows[:, 0], kind="stable")
    columns: dict[str, Floats | Ints] = {}
    for position, name in enumerate(REQUEST_FIELDS):
        values = rows[order, position]
        columns[name] = values.astype(np.int64) if name in INTEGER_FIELDS else values
    ids = columns["request_id"]
    columns["session_id"] = sim.inputs.requests.session_id[ids]
    columns["prompt_tokens"] = sim.inputs.requests.prompt_tokens[ids]
    columns["output_tokens"] = sim.inputs.requests.output_tokens[ids]
    columns["first_token_s"] = _first_tokens(sim, columns)
    return RequestRecords(**columns)  # type: ignore[arg-type]


def _first_tokens(sim: "Simulation", columns: dict[str, Floats | Ints]) -> Floats:
    """Fill in first tokens that came from a decode step: the end of the sequence's first one."""
    first_s = columns["first_token_s"].astype(np.float64)
    ledgers = columns["ledger"].astype(np.int64)
    first_steps = columns["first_decode_step"].astype(np.int64)
    segments = np.array(sim.segments, dtype=np.int64).reshape(-1, 4)[::-1]  # the earliest wins
    rows = np.searchsorted(columns["request_id"], segments[:, 0])
    ledgers[rows], first_steps[rows] = segments[:, 1], segments[:, 2]
    missing = np.isnan(first_s) & (ledgers >= 0)
    for index in np.unique(ledgers[missing]).tolist():
        ends = sim.groups[index].ledger.decode_ends()
        here = missing & (ledgers == index) & (first_steps < len(ends))
        first_s[here] = ends[first_steps[here]]
    return first_s


def _steps(sim: "Simulation") -> StepRecords:
    tables = [group.ledger.table for group in sim.groups]
    columns = dict(zip(ROW, np.concatenate(tables).T, strict=True))
    lengths = [len(table) for table in tables]
    parts = [_parts(group, table) for group, table in zip(sim.groups, tables, strict=True)]
    return StepRecords(
        group=np.repeat(np.arange(len(tables)), lengths),
        first_step=columns["first_step"].astype(np.int64),
        num_steps=columns["num_steps"].astype(np.int64),
        start_s=columns["start_s"],
        end_s=columns["end_s"],
        decode_seqs=columns["decode_seqs"].astype(np.int64),
        context_tokens=columns["context_tokens"].astype(np.int64),
        prefill_tokens=columns["prefill_tokens"].astype(np.int64),
        parts_s=np.concatenate(parts),
    )


def _parts(group: "Group", table: Floats) -> Floats:
    """[runs, parts] breakdown of a group's runs."""
    columns = dict(zip(ROW, table.T, strict=True))
    steps = columns["num_steps"].astype(np.int64)
    gained = group.tokens.gained_sums(columns["first_decode_step"].astype(np.int64), steps)
    return breakdown(
        fixed_s=group.ledger.fixed_s,
        attention_s=columns["attention_s"] * steps + columns["attention_slope_s"] * gained,
        total_s=columns["base_s"] * steps + columns["slope_s"] * gained,
        num_steps=steps,
        mtp_share=group.pricer.mtp_share,
    )


def _transfers(sim: "Simulation") -> TransferRecords:
    rows = np.array(sim.transfers).reshape(-1, 6)
    return TransferRecords(
        request_id=rows[:, 0].astype(np.int64),
        source=rows[:, 1].astype(np.int64),
        destination=rows[:, 2].astype(np.int64),
        start_s=rows[:, 3],
        end_s=rows[:, 4],
        size_bytes=rows[:, 5],
    )


def _group(sim: "Simulation", index: int) -> GroupRecords:
    group = sim.groups[index]
    return GroupRecords(
        pool=group.spec.name,
        instance=group.instance,
        decode_end_s=group.ledger.decode_ends(),
        decode_seqs=group.ledger.decode_seqs(),
        tokens_per_decode_step=(group.tokens.tokens, group.tokens.per_steps),
        busy_s=group.ledger.busy_s,
        num_steps=group.ledger.num_steps,
        num_preemptions=group.num_preemptions,
        peak_kv_frac=_peak_kv_frac(group),
    )


def _peak_kv_frac(group: "Group") -> float:
    """Largest share of the group's KV capacity that its decoding sequences filled."""
    columns = dict(zip(ROW, group.ledger.table.T, strict=True))
    grown = columns["num_steps"] * group.tokens.tokens / group.tokens.per_steps
    tokens = columns["context_tokens"] + columns["decode_seqs"] * grown
    capacity = group.kv.capacity_blocks * group.kv.block_tokens * len(group.ranks)
    return float(tokens.max(initial=0.0)) / max(1, capacity)


def _pool(sim: "Simulation", pool: "Pool", requests: RequestRecords) -> PoolRecords:
    """Averages over time, from intervals of requests: integral of a count = sum of its stays."""
    spec = pool.spec
    end_s = float(sim.clock.now)
    is_second = pool is sim.decode
    came = requests.prefill_end_s if is_second else requests.arrival_s
    began = requests.transfer_start_s if is_second else requests.scheduled_s
    left = requests.prefill_end_s if spec.role == "prefill" else requests.finish_s
    freed = requests.transfer_end_s if spec.role == "prefill" and sim.decode else left
    grows_by = 0.0 if spec.role == "prefill" else 0.5  # of the output, evenly while decoding
    tokens = requests.prompt_tokens + grows_by * requests.output_tokens.astype(np.float64)
    first = float(np.nanmin(requests.arrival_s, initial=np.inf)) if len(came) else 0.0
    span_s = max(end_s - first, 1e-12) if np.isfinite(first) else 1e-12
    ranks = spec.instances * spec.layout.dp

    def mean(start: Floats, end: Floats, weight: Floats | float = 1.0) -> float:
        stay = np.where(np.isnan(end), end_s, end) - start
        return float(np.nansum(stay * weight)) / span_s

    capacity = spec.kv_blocks * spec.block_tokens
    dies = spec.instances * spec.layout.dies
    return PoolRecords(
        name=spec.name,
        role=spec.role,
        instances=spec.instances,
        num_dies=dies,
        num_npus=dies / pool.inputs.dies_per_npu,
        max_num_seqs=spec.max_num_seqs,
        ranks=ranks,
        kv_capacity_tokens=capacity,
        mean_slots_frac=mean(began, left) / (ranks * spec.max_num_seqs),
        mean_kv_frac=mean(began, freed, tokens) / max(1, ranks * capacity),
        mean_waiting_seqs=mean(came, began),
    )
