"""Loads of experts over a run: expected tokens by slot, as placed and as if nobody had balanced."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from simpod.cluster import PoolSpec
from simpod.cluster.experts.placement import ExpertPlacement
from simpod.config import ResolvedExperiment
from simpod.records.columns import ExpertRecords, Floats, Ints, RunRecords
from simpod.run.experts import ExpertTimeline, Timelines

SHARED = -1
"""In place of a slot and of an expert: a copy of the shared expert."""

Columns = dict[str, Any]


def expert_records(
    experiment: ResolvedExperiment, timelines: Timelines, records: RunRecords
) -> ExpertRecords | None:
    """Of every pool whose experts have loads of their own; None if there is no such pool."""
    parts: list[Columns] = []
    for place, pool in enumerate(experiment.pools):
        timeline = timelines[pool.name]
        if timeline is not None:
            served = _placements(pool, timeline, records)
            parts += ({"pool": np.full(len(part["slot"]), place), **part} for part in served)
    if not parts:
        return None
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["layer"] += experiment.model.num_dense_layers
    return ExpertRecords(**columns, pool_names=tuple(pool.name for pool in experiment.pools))


def _placements(pool: PoolSpec, timeline: ExpertTimeline, records: RunRecords) -> Iterator[Columns]:
    """One after the other that served; what was popular meanwhile is added up."""
    starts = [start_s for start_s, _, _ in timeline.history]
    tokens = _tokens(pool, records, starts)
    ends = [*starts[1:], max(records.end_s, starts[-1])]
    rows = zip(timeline.history, ends, tokens.tolist(), strict=True)
    for _, same in groupby(rows, key=lambda row: id(row[0][2])):
        served = list(same)
        (start_s, _, placement), end_s = served[0][0], served[-1][1]
        load = sum((count * shares for (_, shares, _), _, count in served), start=np.zeros(()))
        total = sum(count for _, _, count in served)
        part = _by_slot(placement, timeline.start, np.asarray(load), total)
        size = len(part["slot"])
        yield {"start_s": np.full(size, start_s), "end_s": np.full(size, end_s), **part}


def _tokens(pool: PoolSpec, records: RunRecords, starts: Sequence[float]) -> Floats:
    """[len(starts)] tokens of the pool's steps that began from each start to the next one."""
    steps, layout = records.steps, pool.layout
    mine = np.array([group.pool == pool.name for group in records.groups])[steps.group]
    tokens = steps.decode_seqs * steps.num_steps * layout.tokens_per_decode + steps.prefill_tokens
    place = np.searchsorted(starts, steps.start_s[mine], side="right") - 1
    return np.bincount(place, tokens[mine], len(starts)).astype(np.float64)


def _by_slot(
    placement: ExpertPlacement, before: ExpertPlacement, load: Floats, tokens: float
) -> Columns:
    """Rows by layer and slot, copies of the shared expert last; load [num_layers, num_experts]."""
    slots, num_layers = placement.slots, placement.num_layers
    copies = len(slots.shared_dies)
    shared_tokens = np.full((num_layers, copies), tokens / max(copies, 1))
    nobody = np.full((num_layers, copies), SHARED)

    def rows(own: Any, of_copies: Any) -> Any:
        return np.hstack([own, of_copies]).ravel()

    def alike(own: Ints, of_copies: Ints) -> Ints:
        return np.tile(np.concatenate([own, of_copies]), num_layers)

    return {
        "layer": np.repeat(np.arange(num_layers), slots.num_slots + copies),
        "slot": alike(np.arange(slots.num_slots), nobody[0]),
        "die": alike(slots.die_of_slot, slots.shared_dies),
        "expert": rows(placement.experts, nobody),
        "tokens": rows(placement.slot_tokens(load), shared_tokens),
        "expert_before": rows(before.experts, nobody),
        "tokens_before": rows(before.slot_tokens(load), shared_tokens),
    }
