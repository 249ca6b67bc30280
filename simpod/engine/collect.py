"""From the engine's logs to the columns of a result."""

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

from simpod.cost import complete_breakdown
from simpod.engine.frontend import Deliveries
from simpod.engine.ledger import ROW
from simpod.engine.link_use import link_records, plane_records
from simpod.records.columns import (
    FINISHED,
    LIVE,
    REFUSED,
    Floats,
    GroupRecords,
    Ints,
    PoolRecords,
    RequestRecords,
    RunRecords,
    StepRecords,
)

if TYPE_CHECKING:
    from simpod.engine.group import Group
    from simpod.engine.pool import Pool
    from simpod.engine.simulation import Simulation

REQUEST_FIELDS = (
    "request_id",
    "status",
    "arrival_s",
    "cached_tokens",
    "dram_tokens",
    "ssd_tokens",
    "prefill_target",
    "decode_target",
    "cache_read_s",
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
        transfers=sim.transfers.records(),
        links=link_records(sim.network) if sim.network else None,
        planes=plane_records(sim.network) if sim.network and sim.inputs.link_samples_s else None,
        shared_memory=sim.cache.records() if sim.cache else None,
        timeseries=sim.samples.records() if sim.samples else None,
        scaling=sim.scaler.records() if sim.scaler else None,
        groups=tuple(_group(sim, i) for i in range(len(sim.groups))),
        pools=tuple(_pool(sim, pool, requests) for pool in sim.pools),
        end_s=float(sim.end_s),
        frontend=sim.deliveries.records() if sim.deliveries else None,
        segments=_segments(sim),
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
    pace = sim.inputs.decode_pace
    columns["decode_pace"] = np.ones(len(ids)) if pace is None else pace[ids]
    columns["engine_finish_s"] = columns["finish_s"]
    columns["first_token_s"] = _in_time(sim, columns["first_token_s"].astype(np.float64))
    columns["engine_first_token_s"] = _first_tokens(
        sim, columns, lambda group: sim.groups[group].ledger.decode_end_s
    )
    if sim.deliveries is None:
        columns["first_token_s"] = columns["engine_first_token_s"]
    else:
        _deliver(sim, sim.deliveries, columns)
    return RequestRecords(**columns)  # type: ignore[arg-type]


def _first_tokens(
    sim: "Simulation", columns: dict[str, Floats | Ints], times_of: Callable[[int], Floats]
) -> Floats:
    """Fill in first tokens that came from a decode step: the time of the sequence's first one.

    times_of: of the decode steps of a group.
    """
    first_s = columns["first_token_s"].astype(np.float64)
    ledgers = columns["ledger"].astype(np.int64)
    first_steps = columns["first_decode_step"].astype(np.int64)
    segments = np.array(sim.segments, dtype=np.int64).reshape(-1, 4)[::-1]  # the earliest wins
    rows = np.searchsorted(columns["request_id"], segments[:, 0])
    ledgers[rows], first_steps[rows] = segments[:, 1], segments[:, 2]
    missing = np.isnan(first_s) & (ledgers >= 0)
    for index in np.unique(ledgers[missing]).tolist():
        times_s = times_of(index)
        here = missing & (ledgers == index) & (first_steps < len(times_s))
        first_s[here] = times_s[first_steps[here]]
    return first_s


def _deliver(sim: "Simulation", deliveries: Deliveries, columns: dict[str, Floats | Ints]) -> None:
    """Times at which the clients had their tokens; what they did not get in time is not there."""
    ids = columns["request_id"].astype(np.int64)
    first_s = columns["first_token_s"]
    by_prompt_s = deliveries.of_prompts(ids, last=False)
    columns["first_token_s"] = np.where(np.isnan(first_s), np.nan, by_prompt_s)
    first_s = _first_tokens(sim, columns, deliveries.decode_left_s)
    finish_s = deliveries.of_prompts(ids, last=True)
    last_steps = columns["last_decode_step"].astype(np.int64)
    for index in np.unique(columns["ledger"][last_steps >= 0]).tolist():
        here = (last_steps >= 0) & (columns["ledger"] == index)
        finish_s[here] = deliveries.decode_left_s(index)[last_steps[here] - 1]
    finish_s = _in_time(sim, finish_s)
    has_all = (columns["status"] == FINISHED) & ~np.isnan(finish_s)
    is_late = (columns["status"] == FINISHED) & ~has_all
    columns["first_token_s"] = _in_time(sim, first_s)
    columns["finish_s"] = np.where(has_all, finish_s, np.nan)
    columns["status"] = np.where(is_late, LIVE, columns["status"])
    columns["last_decode_step"] = np.where(is_late, -1, last_steps)


def _in_time(sim: "Simulation", times_s: Floats) -> Floats:
    """NaN for what would have come after this run's end."""
    end_s = sim.inputs.duration_s
    return times_s if end_s is None else np.where(times_s < end_s, times_s, np.nan)


def _decode_times(sim: "Simulation", index: int) -> Floats:
    """When the tokens of a group's decode steps were with their clients, in this run."""
    if sim.deliveries is None:
        return sim.groups[index].ledger.decode_end_s
    left_s = sim.deliveries.decode_left_s(index)
    duration_s = sim.inputs.duration_s
    return left_s if duration_s is None else left_s[left_s < duration_s]


def _segments(sim: "Simulation") -> Ints:
    """[s, 4] spans before a preemption, as far as their tokens have left."""
    segments = np.array(sim.segments, dtype=np.int64).reshape(-1, 4)
    if sim.deliveries is None or sim.inputs.duration_s is None:
        return segments
    steps = np.array([len(_decode_times(sim, i)) for i in range(len(sim.groups))])
    segments[:, 3] = np.minimum(segments[:, 3], steps[segments[:, 1]])
    return segments[segments[:, 2] < segments[:, 3]]


def _steps(sim: "Simulation") -> StepRecords:
    columns = dict(zip(ROW, sim.log.table.T, strict=True))
    for group in sim.groups:
        _complete_parts(group)
    return StepRecords(
        group=columns["group"].astype(np.int64),
        first_step=columns["first_step"].astype(np.int64),
        num_steps=columns["num_steps"].astype(np.int64),
        start_s=columns["start_s"],
        end_s=columns["end_s"],
        decode_seqs=columns["decode_seqs"].astype(np.int64),
        context_tokens=columns["context_tokens"].astype(np.int64),
        prefill_tokens=columns["prefill_tokens"].astype(np.int64),
        slot_seqs=columns["slots"].astype(np.int64),
        parts_s=sim.log.parts_s,
    )


def _complete_parts(group: "Group") -> None:
    """From the parts of one step to those of all steps of each run of a group, in place."""
    columns, parts_s = _columns(group), group.ledger.parts_s
    steps = columns["num_steps"].astype(np.int64)
    gained = group.tokens.gained_sums(columns["first_decode_step"].astype(np.int64), steps)
    total_s = columns["base_s"] * steps + columns["slope_s"] * gained + group.ledger.run_pauses_s()
    parts_s *= columns["num_steps"][:, np.newaxis]
    complete_breakdown(
        parts_s,
        attention_s=columns["attention_s"] * steps + columns["attention_slope_s"] * gained,
        total_s=total_s,
        mtp_share=group.pricer.mtp_share,
    )
    if group.ledger.held is not None:
        parts_s += group.ledger.held.parts_s(columns["end_s"] - columns["start_s"] - total_s)


def _group(sim: "Simulation", index: int) -> GroupRecords:
    group, times_s = sim.groups[index], _decode_times(sim, index)
    return GroupRecords(
        pool=group.spec.name,
        instance=group.instance,
        decode_end_s=times_s,
        decode_seqs=group.ledger.decode_seqs[: len(times_s)],
        tokens_per_decode_step=(group.tokens.tokens, group.tokens.per_steps),
        busy_s=group.ledger.busy_s,
        num_steps=group.ledger.num_steps,
        num_preemptions=group.num_preemptions,
        peak_kv_frac=_peak_kv_frac(group),
    )


def _columns(group: "Group") -> dict[str, Floats]:
    return dict(zip(ROW, group.ledger.table.T, strict=True))


def _kv_at_end(group: "Group", columns: dict[str, Floats]) -> Floats:
    """[runs] tokens of KV in use at the end of each run: its sequences have grown."""
    grown = columns["num_steps"] * group.tokens.tokens / group.tokens.per_steps
    return columns["kv_tokens"] + columns["decode_seqs"] * grown


def _peak_kv_frac(group: "Group") -> float:
    capacity = group.kv.capacity_blocks * group.kv.block_tokens * len(group.ranks)
    return min(1.0, float(_kv_at_end(group, _columns(group)).max(initial=0.0)) / max(1, capacity))


def _pool(sim: "Simulation", pool: "Pool", requests: RequestRecords) -> PoolRecords:
    """Averages over time, from the first arrival on: integrals over the groups' runs."""
    spec = pool.spec
    span_s = max(float(sim.end_s) - float(requests.arrival_s.min(initial=np.inf)), 1e-12)
    kv_token_s = slot_s = 0.0
    for group in pool.groups:
        columns = _columns(group)
        lasted_s = columns["end_s"] - columns["start_s"]
        middle = (columns["kv_tokens"] + _kv_at_end(group, columns)) / 2
        kv_token_s += float((lasted_s * middle).sum()) + group.idleness.kv_token_s
        slot_s += float((lasted_s * columns["slots"]).sum())
    layout, capacity = spec.layout, spec.kv_blocks * spec.block_tokens
    start, mean = (spec.instances, None) if sim.scaler is None else sim.scaler.instances_of(pool)
    ranks = (start if mean is None else mean) * layout.dp  # that the averages are of
    dies = start * layout.all_dies
    return PoolRecords(
        name=spec.name,
        role=spec.role,
        instances=start,
        num_dies=dies,
        num_npus=(dies if mean is None else mean * layout.all_dies) / pool.inputs.dies_per_npu,
        max_num_seqs=spec.max_num_seqs,
        ranks=start * layout.dp,
        kv_capacity_tokens=capacity,
        mean_slots_frac=slot_s / span_s / (ranks * spec.max_num_seqs),
        mean_kv_frac=kv_token_s / span_s / max(1, ranks * capacity),
        mean_waiting_seqs=_waited_s(sim, pool, requests) / span_s,
        mean_instances=mean,
    )


def _waited_s(sim: "Simulation", pool: "Pool", requests: RequestRecords) -> float:
    """Time that requests spent in the pool's queues before they were first admitted, summed."""
    if pool is sim.decode:
        came_s, began_s = requests.prefill_end_s, requests.transfer_start_s
        came = (requests.decode_target >= 0) & ~np.isnan(came_s)
    else:
        came_s, began_s = requests.arrival_s, requests.scheduled_s
        came = requests.status != REFUSED
    until_s = np.where(np.isnan(began_s), float(sim.end_s), began_s)
    return float((until_s - came_s)[came].sum())
