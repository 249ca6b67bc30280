"""What a workload looks like, in numbers: pure functions of the requests."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simpod.units import MINUTE
from simpod.workload.requests import Ints, Requests


def stats(requests: Requests, *, has_times: bool = True) -> dict[str, Any]:
    """Count, times, lengths, sessions and prefix reuse; None where the requests do not say.

    Times are those that are known before a run: turns that wait for an answer, and a closed loop,
    have none. `interarrival_cv`: standard deviation / mean of the gaps. `prefix_hit_frac`: see
    `prefix_hit_tokens`, over all prompt tokens. has_times: the arrival times mean something; else
    nothing is said of them.
    """
    prompt_tokens, output_tokens = requests.prompt_tokens, requests.output_tokens
    sessions = requests.session_id[requests.session_id >= 0]
    hits = prefix_hit_tokens(requests)
    named = np.minimum(np.diff(requests.hash_offsets) * requests.hash_block_tokens, prompt_tokens)
    return {
        "num_requests": len(requests),
        "skipped_rows": requests.skipped_rows,
        **_times(requests.arrival_s if has_times else requests.arrival_s[:0]),
        "prompt_tokens": _lengths(prompt_tokens),
        "output_tokens": _lengths(output_tokens),
        "num_sessions": len(np.unique(sessions)),
        "mean_turns": len(sessions) / len(np.unique(sessions)) if len(sessions) else None,
        "concurrency": requests.concurrency,
        "hash_block_tokens": requests.hash_block_tokens or None,
        "named_frac": float(named.sum() / prompt_tokens.sum()),
        "prefix_hit_frac": float(hits.sum() / prompt_tokens.sum()),
    }


def prefix_hit_tokens(requests: Requests) -> Ints:
    """Prompt tokens that an infinite prefix cache would hold, [n].

    The longest run of leading ids that occur in earlier rows (outputs included, where they are
    named), times the block, at most the prompt.
    """
    offsets, counts = requests.hash_offsets, np.diff(requests.hash_offsets)
    if not len(requests.hash_ids):
        return np.zeros(len(requests), dtype=np.int64)
    row = np.repeat(np.arange(len(requests)), counts)
    _, first, inverse = np.unique(requests.hash_ids, return_index=True, return_inverse=True)
    is_new = row[first][inverse] == row
    position = np.arange(len(row)) - offsets[row]
    leading: Ints = counts.copy()
    np.minimum.at(leading, row[is_new], position[is_new])
    hits: Ints = np.minimum(leading * requests.hash_block_tokens, requests.prompt_tokens)
    return hits


def _times(arrival_s: NDArray[np.float64]) -> dict[str, Any]:
    arrival_s = arrival_s[~np.isnan(arrival_s)]
    gaps_s = np.diff(arrival_s)
    duration_s = float(gaps_s.sum())
    is_spread = duration_s > 0
    return {
        "num_timed": len(arrival_s),
        "duration_s": duration_s if len(arrival_s) else None,
        "mean_rate_per_s": len(gaps_s) / duration_s if is_spread else None,
        "peak_requests_per_minute": _peak(arrival_s) if len(arrival_s) else None,
        "interarrival_cv": float(gaps_s.std() / gaps_s.mean()) if is_spread else None,
    }


def _peak(arrival_s: NDArray[np.float64]) -> int:
    """Most arrivals in one minute of the clock that starts at 0."""
    _, counts = np.unique(arrival_s // MINUTE, return_counts=True)
    return int(counts.max())


def _lengths(tokens: Ints) -> dict[str, float]:
    p50, p90, p99 = np.percentile(tokens, [50, 90, 99]).tolist()
    return {
        "mean": float(tokens.mean()),
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "max": int(tokens.max()),
        "total": int(tokens.sum()),
    }
