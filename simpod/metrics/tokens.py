"""Token times and inter-token gaps, derived from the decode ledgers without a record per token.

A *gap* lies between successive outputs of one request: its first token and then each decode step.
With multi-token prediction a step puts out several tokens at once, which is one output (a vLLM
chunk): gaps are between steps' outputs, tokens of one step have no gap between them.

A request decodes in one *stretch* of steps, or in several if it was preempted. Its recomputation
ends with a token of its own; that one is taken at the end of the last decode step before the new
stretch, which is exact if another sequence decoded meanwhile. Where none did, it is left out as
an output.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simpod.errors import ConfigError
from simpod.metrics.latency import Bools
from simpod.records.columns import (
    FINISHED,
    PACE_ROUNDING,
    Floats,
    GroupRecords,
    Ints,
    RunRecords,
)

SAME_TIME_S = 1e-9
"""Stamps closer than this are one instant: no step is as short, no ulp as long below 10^6 s."""

AT_ONCE = 2**14
"""Steps that are looked at together: the temporary arrays stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ledgers:
    """The decode ledgers of all groups in one row: group g has [offsets[g], offsets[g + 1])."""

    end_s: Floats
    decode_seqs: Ints
    new_tokens: Ints  # that each sequence gets in the step
    offsets: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretches:
    """Where requests decode: steps [start, stop) of the joined ledgers, not empty, [s].

    Ordered by row and time.
    """

    row: Ints  # of the request in its records
    start: Ints
    stop: Ints
    is_first: Bools  # the request's first stretch
    gives_first_token: Bools  # its first token came with the first of these steps, not before


def join_ledgers(records: RunRecords) -> Ledgers:
    """Put the groups' ledgers one after the other."""
    groups = records.groups
    lengths = [0, *(len(group.decode_end_s) for group in groups)]
    return Ledgers(
        end_s=_joined([group.decode_end_s for group in groups], np.float64),
        decode_seqs=_joined([group.decode_seqs for group in groups], np.int64),
        new_tokens=_all_new_tokens(groups, int(sum(lengths))),
        offsets=np.cumsum(lengths, dtype=np.int64),
    )


def _joined(columns: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    """One column of all; it may be long, so the parts of one array in a row are not copied."""
    if len(columns) == 1:
        return columns[0]
    lengths = [len(column) for column in columns]
    whole = columns[0].base if columns else None
    if whole is not None and whole.shape == (sum(lengths),):
        parts = np.split(whole, np.cumsum(lengths)[:-1])
        if all(map(_is_same, parts, columns)):
            return whole
    return np.concatenate([np.empty(0, dtype), *columns])


def _is_same(part: NDArray[Any], column: NDArray[Any]) -> bool:
    """They lie in the same place."""
    where, there = part.__array_interface__, column.__array_interface__
    return bool(where["data"] == there["data"] and where["strides"] == there["strides"])


def _all_new_tokens(groups: tuple[GroupRecords, ...], length: int) -> Ints:
    """[length] tokens that each sequence gets in each decode step of all groups."""
    if all(tokens == steps for tokens, steps in (g.tokens_per_decode_step for g in groups)):
        return np.broadcast_to(np.int64(1), length)  # one number, whatever the length
    return _joined([_new_tokens(group) for group in groups], np.int64)


def _new_tokens(group: GroupRecords) -> Ints:
    """[d] tokens that each sequence gets in each decode step."""
    tokens, per_steps = group.tokens_per_decode_step
    return np.diff(np.arange(len(group.decode_end_s) + 1) * tokens // per_steps)


def decode_stretches(records: RunRecords, ledgers: Ledgers) -> Stretches:
    """Find each request's steps; one that still decodes at the end has all steps up to the end."""
    requests, segments = records.requests, records.segments
    base = ledgers.offsets[segments[:, 1]]
    earlier_row = np.searchsorted(requests.request_id, segments[:, 0])
    earlier_start, earlier_stop = base + segments[:, 2], base + segments[:, 3]
    row = np.flatnonzero((requests.ledger >= 0) & (requests.first_decode_step >= 0))
    base, end = ledgers.offsets[requests.ledger[row]], ledgers.offsets[requests.ledger[row] + 1]
    start = base + requests.first_decode_step[row]
    stop = np.where(requests.status[row] == FINISHED, base + requests.last_decode_step[row], end)
    # a live request that waits after a preemption still names the stretch that was cut off
    length = len(ledgers.end_s) + 1
    is_open = ~np.isin(row * length + start, earlier_row * length + earlier_start)
    kept = is_open & (stop > start)
    row = np.concatenate([earlier_row, row[kept]])
    start = np.concatenate([earlier_start, start[kept]])
    stop = np.concatenate([earlier_stop, stop[kept]])
    order = np.lexsort((start, row))
    row, start, stop = row[order], start[order], stop[order]
    is_first = np.diff(row, prepend=-1) != 0
    by_step = requests.first_token_s[row] >= ledgers.end_s[start] - SAME_TIME_S
    return Stretches(
        row=row, start=start, stop=stop, is_first=is_first, gives_first_token=is_first & by_step
    )


def inter_token_gaps(records: RunRecords, ledgers: Ledgers, chosen: Bools) -> tuple[Floats, Ints]:
    """Gaps of the `chosen` requests [n], as (seconds, how often each) without a row per token.

    A gap between two steps is weighted by the chosen sequences that decode in both; the gaps
    before a stretch are each request's own. The gaps of a request add up to last output - first
    token.
    """
    all_stretches = decode_stretches(records, ledgers)
    inside = _cover(all_stretches, chosen, len(ledgers.end_s))
    before_s = _gaps_before(records, ledgers, all_stretches, chosen)
    place = len(before_s)
    gaps_s = np.empty(place + np.count_nonzero(inside[1:]))  # nothing is before the first step
    weights = np.ones(len(gaps_s), dtype=inside.dtype)
    gaps_s[:place] = before_s
    ends_s = ledgers.end_s
    for first in range(1, len(inside), AT_ONCE):
        end = min(first + AT_ONCE, len(inside))
        often = inside[first:end]
        used = often > 0
        some_s = (ends_s[first:end] - ends_s[first - 1 : end - 1])[used]
        here = slice(place, place + len(some_s))
        gaps_s[here], weights[here] = some_s, often[used]
        place = here.stop
    return gaps_s, weights


def token_times(records: RunRecords, request_id: int) -> Floats:
    """When each token of a request was ready so far, in order; the last one is its finish.

    Tokens of one step (multi-token prediction) come at one time; a step's surplus is cut off.
    """
    requests = records.requests
    rows = np.flatnonzero(requests.request_id == request_id)
    if len(rows) == 0:
        raise ConfigError(f"request {request_id}: none of the {len(requests.status)} that arrived")
    ledgers = join_ledgers(records)
    stretches = decode_stretches(records, ledgers)
    first_s = requests.first_token_s[rows]
    times = [first_s[~np.isnan(first_s)]]
    for i in np.flatnonzero(stretches.row == rows[0]):
        steps = slice(stretches.start[i], stretches.stop[i])
        if stretches.gives_first_token[i]:
            times.clear()
        if not stretches.is_first[i]:
            times.append(ledgers.end_s[[steps.start - 1]])
        group = records.groups[np.searchsorted(ledgers.offsets, steps.start, side="right") - 1]
        own = _own_tokens(ledgers.new_tokens[steps], group, float(requests.decode_pace[rows[0]]))
        times.append(np.repeat(ledgers.end_s[steps], own))
    return np.concatenate(times)[: requests.output_tokens[rows[0]]]


def _own_tokens(new_tokens: Ints, group: GroupRecords, pace: float) -> Ints:
    """[s] tokens that a request gets in each step of a stretch: floor(k * rate) after k steps."""
    if pace == 1.0:
        return new_tokens
    tokens, per_steps = group.tokens_per_decode_step
    so_far = np.floor(np.arange(len(new_tokens) + 1) * (pace * tokens / per_steps) + PACE_ROUNDING)
    return np.asarray(np.diff(so_far), dtype=np.int64)


def tokens_per_second(records: RunRecords, ledgers: Ledgers) -> Ints:
    """Output tokens of all requests in each second from the first arrival on that had any.

    With multi-token prediction the surplus of a request's last step is counted too.
    """
    stretches = decode_stretches(records, ledgers)
    comes_alone = ~np.isnan(records.requests.first_token_s)
    comes_alone[stretches.row[stretches.gives_first_token]] = False
    single_s = np.concatenate(
        [
            records.requests.first_token_s[comes_alone],
            ledgers.end_s[stretches.start[~stretches.is_first] - 1],  # recomputed
        ]
    )
    start_s = np.min(records.requests.arrival_s, initial=np.inf)
    parts = [_by_second(single_s - start_s, np.ones(len(single_s), dtype=np.int64))]
    for first in range(0, len(ledgers.end_s), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        tokens = ledgers.decode_seqs[some] * ledgers.new_tokens[some]
        parts.append(_by_second(ledgers.end_s[some] - start_s, tokens))
    second, tokens = (np.concatenate(column) for column in zip(*parts, strict=True))
    _, place = np.unique(second, return_inverse=True)
    return np.bincount(place, tokens).astype(np.int64)


def _by_second(times_s: Floats, tokens: Ints) -> tuple[Floats, Ints]:
    """Sums over neighbours in one second; times of one ledger ascend, so few sums are left."""
    if len(times_s) == 0:
        return times_s, tokens
    second = np.floor(times_s, out=times_s)
    first = np.append(0, np.flatnonzero(second[1:] != second[:-1]) + 1)
    return second[first], np.add.reduceat(tokens, first)


def _gaps_before(
    records: RunRecords, ledgers: Ledgers, stretches: Stretches, chosen: Bools
) -> Floats:
    """The gaps that end with the first step of a stretch, and those across a preemption."""
    end_s, row, start = ledgers.end_s, stretches.row, stretches.start
    is_chosen = chosen[row]
    first = is_chosen & stretches.is_first & ~stretches.gives_first_token
    again = np.flatnonzero(is_chosen & ~stretches.is_first)
    recomputed_s = end_s[start[again] - 1]
    across_s = recomputed_s - end_s[stretches.stop[again - 1] - 1]
    return np.concatenate(
        [
            end_s[start[first]] - records.requests.first_token_s[row[first]],
            end_s[start[again]] - recomputed_s,
            across_s[across_s > 0],
        ]
    )


def _cover(stretches: Stretches, chosen: Bools, length: int) -> Ints:
    """[length]: chosen sequences that decode in this step and in the one before."""
    is_chosen = chosen[stretches.row]
    begin, end = stretches.start[is_chosen] + 1, stretches.stop[is_chosen]
    change = np.concatenate([begin, end, [length]])
    order = np.argsort(change, kind="stable")
    gain = np.concatenate([np.ones(len(begin), dtype=np.int64), np.full(len(end) + 1, -1)])
    gain[-1] = 0
    lasts = np.diff(change[order], prepend=0)
    before = np.cumsum(gain[order]) - gain[order]  # in the steps up to each change
    return np.repeat(before.astype(np.int32), lasts)  # few sequences, and many steps
