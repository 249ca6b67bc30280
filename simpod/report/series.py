"""The run over time: how many requests are where, KV in use, transfers; on a regular grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from simpod.records.columns import Floats
from simpod.run.results import ResultFiles

if TYPE_CHECKING:
    import pandas as pd

NUM_POINTS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """Series on `time_s` [n]; each mapping is by name."""

    time_s: Floats
    arrivals_per_s: Floats
    waiting: Mapping[str, Floats]  # requests that wait, by what for
    running: Mapping[str, Floats]  # requests at work, by pool
    kv_frac: Mapping[str, Floats]  # context that decodes, share of a pool's KV
    transfer_bytes_per_s: Floats


def timeline_of(result: ResultFiles, num_points: int = NUM_POINTS) -> Timeline:
    """Everything over time, from the first arrival to the end of the run."""
    rows = result.requests
    end_s = float(result.summary["simulated_s"])
    start_s = float(rows["arrival_s"].min()) if len(rows) else 0.0
    grid = np.linspace(start_s, end_s, num_points + 1)
    middles = (grid[1:] + grid[:-1]) / 2
    pools = result.provenance["experiment"]["deployment"]
    waiting, running = _in_states(rows, pools, middles)
    counts, _ = np.histogram(rows["arrival_s"], grid)
    return Timeline(
        time_s=middles,
        arrivals_per_s=counts / np.diff(grid),
        waiting=waiting,
        running=running,
        kv_frac=_kv(result, pools, middles),
        transfer_bytes_per_s=_transfer_rate(result.transfers, grid),
    )


def count_between(starts_s: Any, ends_s: Any, at_s: Floats) -> Floats:
    """How many of the spans [start, end) cover each moment; a missing end is "never"."""
    starts = np.sort(np.asarray(starts_s, dtype=np.float64))
    starts = starts[~np.isnan(starts)]
    ends = np.asarray(ends_s, dtype=np.float64)[~np.isnan(np.asarray(starts_s, dtype=np.float64))]
    ends = np.sort(np.where(np.isnan(ends), np.inf, ends))
    inside = np.searchsorted(starts, at_s, "right") - np.searchsorted(ends, at_s, "right")
    return inside.astype(np.float64)


def _in_states(
    rows: "pd.DataFrame", pools: Mapping[str, Any], at_s: Floats
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    by_role = {pool["role"]: name for name, pool in pools.items()}
    rows = rows[rows["status"] != "refused"]
    waiting = {"for a first step": count_between(rows["arrival_s"], rows["scheduled_s"], at_s)}
    if "mixed" in by_role:
        running = {
            by_role["mixed"]: count_between(rows["scheduled_s"], rows["engine_finish_s"], at_s)
        }
        return waiting, running
    running = {}
    if "prefill" in by_role:
        prefilling = count_between(rows["scheduled_s"], rows["prefill_end_s"], at_s)
        running[by_role["prefill"]] = prefilling
        pulled = rows["transfer_start_s"].fillna(rows["engine_finish_s"])
        waiting["for the decode pool"] = count_between(rows["prefill_end_s"], pulled, at_s)
    if "decode" in by_role:
        start = rows["transfer_end_s"].fillna(rows["scheduled_s"])
        finish = rows["engine_finish_s"]
        start = start.where(finish.isna() | (finish > start))
        running[by_role["decode"]] = count_between(start, finish, at_s)
    return waiting, running


def _kv(result: ResultFiles, pools: Mapping[str, Any], at_s: Floats) -> dict[str, Floats]:
    """Context tokens of decoding sequences over the pool's KV tokens (blocks x ranks).

    Prompts under way and idle prefixes are not in it: it is the decode load, a lower bound.
    """
    found = {}
    for name, pool in pools.items():
        rows = result.steps[result.steps["pool"] == name]
        room = pool["kv_blocks"] * pool["block_tokens"] * pool["dp"]
        room = room * _instances(result, name, pool["instances"], at_s)
        if not (rows["decode_seqs"] > 0).any():
            continue
        used = np.zeros(len(at_s))
        for _, of_instance in rows.groupby("instance"):
            place = np.searchsorted(of_instance["start_s"].to_numpy(), at_s, "right") - 1
            held = of_instance["context_tokens"].to_numpy(float)[np.maximum(place, 0)]
            is_inside = (place >= 0) & (
                of_instance["end_s"].to_numpy()[np.maximum(place, 0)] >= at_s
            )
            used += np.where(is_inside, held, 0.0)
        found[name] = used / room
    return found


def _instances(result: ResultFiles, pool: str, start: int, at_s: Floats) -> Floats:
    """Instances of a pool that had dies, by the samples of a scaling policy."""
    if result.timeseries is None:
        return np.full(len(at_s), float(start))
    rows = result.timeseries[result.timeseries["pool"] == pool]
    number = (rows["serving"] + rows["draining"] + rows["loading"]).to_numpy(float)
    place = np.searchsorted(rows["time_s"].to_numpy(), at_s, "right") - 1
    return np.where(place < 0, float(start), number[np.maximum(place, 0)])


def _transfer_rate(transfers: "pd.DataFrame", grid: Floats) -> Floats:
    """Bytes/s in each cell of the grid; a transfer's bytes are spread evenly over its time."""
    if transfers.empty:
        return np.zeros(len(grid) - 1)
    start, end = transfers["start_s"].to_numpy(), transfers["end_s"].to_numpy()
    size = transfers["size_bytes"].to_numpy()
    times = np.concatenate([start, np.maximum(end, start + 1e-9)])
    slope = size / np.maximum(end - start, 1e-9)
    order = np.argsort(times, kind="stable")
    times, rates = times[order], np.cumsum(np.concatenate([slope, -slope])[order])
    moved = np.concatenate([[0.0], np.cumsum(rates[:-1] * np.diff(times))])
    sent = np.interp(grid, times, moved, left=0.0, right=moved[-1])
    rate: Floats = np.diff(sent) / np.diff(grid)
    return rate
