"""What each pool was busy with: utilisation, and the breakdown of its steps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simpod.metrics.latency import Bools
from simpod.metrics.window import Window
from simpod.records.columns import (
    STEP_PARTS,
    Floats,
    GroupRecords,
    PoolRecords,
    RunRecords,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """Time averages over all ranks of a pool, from the first arrival to the end of the run.

    Of slots: while throughput is counted (`Window`).
    """

    busy_frac: float  # of the groups' time, spent in steps
    slots_frac: float  # of `max_num_seqs`, held by sequences
    kv_frac: float  # of the KV blocks, in use; idle prefixes, which can be evicted, are not
    peak_kv_frac: float  # of the fullest group at its fullest
    mean_waiting_seqs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBreakdown:
    """The mean step of a pool while throughput is counted (`Window`); NaN without a step."""

    num_steps: float  # a run of like steps counts with the share that lies in that time
    mean_step_s: float
    mean_decode_step_s: float  # of the steps in which a sequence decoded
    mean_decode_seqs: float  # a step, all ranks of a group
    mean_prefill_tokens: float
    mean_s: dict[str, float]  # by part of STEP_PARTS, a step
    share_frac: dict[str, float]  # of the step; adds up to 1


def span_s(records: RunRecords) -> float:
    """First arrival to the end of the run."""
    return records.end_s - float(np.min(records.requests.arrival_s, initial=records.end_s))


def is_of(records: RunRecords, pool: PoolRecords) -> Bools:
    """[m]: the step run is of a group of this pool."""
    of_pool = np.array([group.pool == pool.name for group in records.groups], dtype=np.bool_)
    return of_pool[records.steps.group]


def pool_use(records: RunRecords, pool: PoolRecords, window: Window) -> PoolUse:
    """Utilisation of one pool."""
    groups = _groups(records, pool)
    lasted_s = span_s(records)
    busy_s = sum(group.busy_s for group in groups)
    return PoolUse(
        busy_frac=busy_s / (pool.average_instances * lasted_s) if lasted_s > 0 else np.nan,
        slots_frac=_slots_frac(records, pool, window),
        kv_frac=pool.mean_kv_frac,
        peak_kv_frac=max((group.peak_kv_frac for group in groups), default=np.nan),
        mean_waiting_seqs=pool.mean_waiting_seqs,
    )


def step_breakdown(records: RunRecords, pool: PoolRecords, window: Window) -> StepBreakdown:
    """Mean step of one pool: before and after, batches fill and drain."""
    steps = records.steps
    part = _overlap_frac(records, *_counted_s(records, window)) * is_of(records, pool)
    count = part * steps.num_steps
    num_steps = float(count.sum())
    if not num_steps > 0:
        return _empty_breakdown()
    lengths_s = part * (steps.end_s - steps.start_s)
    decodes = steps.decode_seqs > 0
    parts_s = part @ steps.parts_s
    total_s = float(parts_s.sum())
    num_decode_steps = float(count[decodes].sum())
    decode_s = float(lengths_s[decodes].sum())
    return StepBreakdown(
        num_steps=num_steps,
        mean_step_s=float(lengths_s.sum()) / num_steps,
        mean_decode_step_s=decode_s / num_decode_steps if num_decode_steps else np.nan,
        mean_decode_seqs=float(count @ steps.decode_seqs) / num_steps,
        mean_prefill_tokens=float(part @ steps.prefill_tokens) / num_steps,
        mean_s=dict(zip(STEP_PARTS, (parts_s / num_steps).tolist(), strict=True)),
        share_frac=dict(
            zip(STEP_PARTS, (parts_s / total_s if total_s else parts_s).tolist(), strict=True)
        ),
    )


def _counted_s(records: RunRecords, window: Window) -> tuple[float, float]:
    """In which tokens count as throughput; if nothing finished, since the first arrival."""
    if window.duration_s > 0:
        return window.finish_start_s, window.finish_end_s
    return window.arrival_start_s, records.end_s


def _slots_frac(records: RunRecords, pool: PoolRecords, window: Window) -> float:
    """Of `max_num_seqs`; where instances come and go, of the whole run."""
    if pool.mean_instances is not None:
        return pool.mean_slots_frac
    start_s, end_s = _counted_s(records, window)
    if not end_s > start_s:
        return np.nan
    steps = records.steps
    inside_s = _overlap_frac(records, start_s, end_s) * (steps.end_s - steps.start_s)
    slot_s = float(inside_s[is_of(records, pool)] @ steps.slot_seqs[is_of(records, pool)])
    return slot_s / (end_s - start_s) / (pool.ranks * pool.max_num_seqs)


def _groups(records: RunRecords, pool: PoolRecords) -> list[GroupRecords]:
    return [group for group in records.groups if group.pool == pool.name]


def _overlap_frac(records: RunRecords, start_s: float, end_s: float) -> Floats:
    """[m]: share of each run of steps that lies in [start_s, end_s]."""
    steps = records.steps
    lengths_s = steps.end_s - steps.start_s
    inside_s = np.minimum(steps.end_s, end_s) - np.maximum(steps.start_s, start_s)
    return np.clip(inside_s / np.where(lengths_s > 0, lengths_s, 1.0), 0.0, 1.0)


def _empty_breakdown() -> StepBreakdown:
    nothing = dict.fromkeys(STEP_PARTS, float("nan"))
    return StepBreakdown(
        num_steps=0.0,
        mean_step_s=np.nan,
        mean_decode_step_s=np.nan,
        mean_decode_seqs=np.nan,
        mean_prefill_tokens=np.nan,
        mean_s=nothing,
        share_frac=dict(nothing),
    )


def price_status_frac(
    records: RunRecords, statuses: Mapping[str, Mapping[str, str]]
) -> dict[str, float]:
    """Share of the time in steps by what its price rests on: calibrated, family or assumed.

    statuses: of each pool, status by part; parts and pools that are missing are assumed.
    """
    seconds: dict[str, float] = {}
    pool_of = np.array([group.pool for group in records.groups], dtype=object)
    for pool in records.pools:
        rows = pool_of[records.steps.group] == pool.name
        known = statuses.get(pool.name, {})
        for part, part_s in zip(STEP_PARTS, records.steps.parts_s[rows].sum(axis=0), strict=True):
            status = known.get(part, "assumed")
            seconds[status] = seconds.get(status, 0.0) + float(part_s)
    total_s = sum(seconds.values())
    return {status: part_s / total_s for status, part_s in seconds.items()} if total_s else {}
