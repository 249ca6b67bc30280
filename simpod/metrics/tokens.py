"""Token times and inter-token gaps, derived from the decode ledgers without a record per token.

A *gap* lies between successive outputs of one request: its first token and then each decode step.
With multi-token prediction a step puts out several tokens at once, which is one output (a vLLM
chunk): gaps are between steps' outputs, tokens of one step have no gap between them.
"""

from dataclasses import dataclass

import numpy as np

from simpod.errors import ConfigError
from simpod.metrics.latency import Bools
from simpod.records.columns import FINISHED, Floats, Ints, RunRecords

SAME_TIME_S = 1e-9
"""Stamps closer than this are one instant: no step is as short, no ulp as long below 10^6 s."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ledgers:
    """The decode ledgers of all groups in one row: group g has [offsets[g], offsets[g + 1])."""

    end_s: Floats
    decode_seqs: Ints
    new_tokens: Ints  # that each sequence gets in the step
    offsets: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spans:
    """Where in the joined ledgers each request decodes: steps [start, stop), [n].

    Of a preempted request, the last stretch only. start = stop where it did not decode.
    """

    start: Ints
    stop: Ints
    is_first_in_step: Bools  # its first token came with the first of these steps, not before


def join_ledgers(records: RunRecords) -> Ledgers:
    """Put the groups' ledgers one after the other."""
    lengths = [len(group.decode_end_s) for group in records.groups]
    none = [np.empty(0, dtype=np.int64)]
    return Ledgers(
        end_s=np.concatenate([np.empty(0), *(group.decode_end_s for group in records.groups)]),
        decode_seqs=np.concatenate(none + [group.decode_seqs for group in records.groups]),
        new_tokens=np.concatenate(
            none
            + [
                np.diff(np.arange(len(group.decode_end_s) + 1) * up // down)
                for group in records.groups
                for up, down in [group.tokens_per_decode_step]
            ]
        ),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
    )


def decode_spans(records: RunRecords, ledgers: Ledgers) -> Spans:
    """Find each request's steps. One that still decodes at the end has all steps up to the end."""
    requests = records.requests
    decodes = (requests.ledger >= 0) & (requests.first_decode_step >= 0)
    group = np.where(decodes, requests.ledger, 0)
    base, end = ledgers.offsets[group], ledgers.offsets[np.minimum(group + 1, len(records.groups))]
    start = base + requests.first_decode_step
    goes_on = (requests.status != FINISHED) & (requests.num_preemptions == 0)
    stop = np.where(goes_on, end, base + requests.last_decode_step)
    start = np.where(decodes, np.minimum(start, end), 0)
    stop = np.where(decodes, np.clip(stop, start, end), 0)
    has_steps = stop > start
    first_end_s = np.full(len(start), np.nan)
    first_end_s[has_steps] = ledgers.end_s[start[has_steps]]
    is_first_in_step = requests.first_token_s >= first_end_s - SAME_TIME_S
    return Spans(
        start=start,
        stop=stop,
        is_first_in_step=is_first_in_step & (requests.num_preemptions == 0),
    )


def inter_token_gaps(records: RunRecords, chosen: Bools) -> tuple[Floats, Ints]:
    """Gaps of the `chosen` requests [n] as (seconds, how often): a row a step, and one a request.

    Each gap is weighted by the chosen sequences that decode in both its steps; the gap from a
    first token to the first decode step is each request's own. Exact without preemption: the gaps
    of a request add up to finish - first token. Records do not say who decoded where before a
    preemption, but how many did (`decode_seqs` less all known spans): these stretches, and
    `extra_gaps_s` across preemptions, are counted for all requests, and re-entry is taken at a
    decode step's end.
    """
    ledgers = join_ledgers(records)
    spans = decode_spans(records, ledgers)
    preempted = records.requests.num_preemptions > 0
    decodes = spans.stop > spans.start
    joins = spans.start + ~preempted  # the step after which gaps follow the ledger
    weights = _cover(joins, spans.stop, chosen & decodes, len(ledgers.end_s))
    if preempted.any():
        known = _cover(spans.start, spans.stop, decodes, len(ledgers.end_s))
        weights = weights + np.maximum(ledgers.decode_seqs - known, 0)
    gaps_s = np.diff(ledgers.end_s, prepend=np.nan)
    first_steps = ledgers.offsets[:-1][np.diff(ledgers.offsets) > 0]
    weights[first_steps] = 0  # nothing came before
    used = weights > 0
    own = chosen & decodes & ~preempted & ~spans.is_first_in_step
    own_gaps_s = ledgers.end_s[spans.start[own]] - records.requests.first_token_s[own]
    single = np.ones(len(own_gaps_s) + len(records.extra_gaps_s), dtype=np.int64)
    values = np.concatenate([gaps_s[used], own_gaps_s, records.extra_gaps_s])
    return values, np.concatenate([weights[used], single])


def token_times(records: RunRecords, request_id: int) -> Floats:
    """When each token of a request was ready so far, in order; the last one is its finish.

    Tokens of one step (multi-token prediction) come at one time. Of a finished request that was
    preempted, tokens between the first and the last stretch are NaN: the records do not hold them.
    """
    requests = records.requests
    if not 0 <= request_id < len(requests.status):
        raise ConfigError(f"request {request_id}: there are 0 to {len(requests.status) - 1}")
    first_s = requests.first_token_s[request_id]
    if np.isnan(first_s):
        return np.empty(0)
    ledgers = join_ledgers(records)
    spans = decode_spans(records, ledgers)
    steps = slice(int(spans.start[request_id]), int(spans.stop[request_id]))
    times = np.repeat(ledgers.end_s[steps], ledgers.new_tokens[steps])
    num_tokens = int(requests.output_tokens[request_id])
    if spans.is_first_in_step[request_id]:
        return times[:num_tokens]
    if requests.num_preemptions[request_id] == 0:
        return np.concatenate([[first_s], times[: num_tokens - 1]])
    if requests.status[request_id] != FINISHED:
        return np.array([first_s])
    times = times[: num_tokens - 1]
    return np.concatenate([[first_s], np.full(num_tokens - 1 - len(times), np.nan), times])


def tokens_per_second(records: RunRecords) -> Ints:
    """Output tokens of all requests in each second from the first arrival on that had any.

    A request's last step may give more than it asks for with multi-token prediction: that is
    counted.
    """
    ledgers = join_ledgers(records)
    spans = decode_spans(records, ledgers)
    first = records.requests.first_token_s[~spans.is_first_in_step]
    first = first[~np.isnan(first)]
    times = np.concatenate([ledgers.end_s, first])
    tokens = np.concatenate(
        [ledgers.decode_seqs * ledgers.new_tokens, np.ones(len(first), dtype=np.int64)]
    )
    if len(times) == 0:
        return np.empty(0, dtype=np.int64)
    start_s = np.nanmin(records.requests.arrival_s)
    _, second = np.unique(np.floor(times - start_s), return_inverse=True)
    return np.bincount(second, tokens).astype(np.int64)


def _cover(start: Ints, stop: Ints, chosen: Bools, length: int) -> Ints:
    """How many of the chosen intervals [start, stop) hold each of `length` places."""
    chosen = chosen & (stop > start)
    edges = np.bincount(start[chosen], minlength=length + 1)
    edges = edges - np.bincount(stop[chosen], minlength=length + 1)
    return np.cumsum(edges[:length])
