"""From a workload's description to its requests."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simpod.errors import ConfigError
from simpod.workload.arrivals import ClosedLoopArrivals
from simpod.workload.requests import Floats, Ints, Requests, make_requests
from simpod.workload.sessions import (
    Turns,
    draw_prefixes,
    draw_turns,
    name_blocks,
    single_turns,
    split_long,
    whole_prompts,
)
from simpod.workload.spec import WorkloadSpec
from simpod.workload.streams import Stream
from simpod.workload.tenants import with_tenants
from simpod.workload.traces import read_trace
from simpod.workload.traces.lengths import read as read_lengths
from simpod.workload.traces.spec import ColumnsTrace, LengthsTrace, TimedTrace, has_times


def build(spec: WorkloadSpec, stream: Stream) -> Requests:
    """Draw or read the requests; the same spec and seed give the same ones.

    ConfigError for what is wrong with a file. Streams in use: arrivals, prompt_tokens,
    output_tokens, shared_prefix, turns, think_s, jitter, tenants.
    """
    requests = _with_limits(_requests(spec, stream), spec.max_tokens)
    return with_tenants(requests, spec.tenants, stream("tenants")) if spec.tenants else requests


def _with_limits(requests: Requests, limit: int | str | None) -> Requests:
    """The same requests with `max_tokens`: one for all, or that of each answer."""
    if limit is None:
        return requests
    if isinstance(limit, int):
        return replace(requests, max_tokens=np.full(len(requests), limit, dtype=np.int64))
    return replace(requests, max_tokens=requests.output_tokens, ignores_eos=True)


def _requests(spec: WorkloadSpec, stream: Stream) -> Requests:
    if isinstance(spec.trace, TimedTrace) and has_times(spec.trace):
        return read_trace(spec.trace, stream("jitter"), spec.num_requests)
    new_tokens, output_tokens, skipped = _lengths(spec, stream)
    num = len(new_tokens)
    turns = single_turns(num)
    if spec.sessions is not None:
        turns = draw_turns(num, spec.sessions.turns, stream("turns"))
        if (limit := spec.sessions.max_prompt_tokens) is not None:
            limit -= spec.shared_prefix.tokens if spec.shared_prefix else 0
            turns = split_long(turns, new_tokens + output_tokens, output_tokens, limit)
    prefixes, prefix_tokens = _prefixes(spec, turns.num_conversations, stream)
    prompt_tokens = whole_prompts(turns, prefix_tokens, new_tokens, output_tokens)
    offsets, ids = _identity(spec, turns, prefixes, prompt_tokens + output_tokens)
    follows = turns.turn > 0
    return make_requests(
        _arrivals(spec, turns, stream),
        prompt_tokens,
        output_tokens,
        after=np.where(follows, np.arange(num) - 1, -1),
        think_s=_think(spec, follows, stream),
        session_id=turns.conversation if spec.sessions else np.full(num, -1, dtype=np.int64),
        hash_offsets=offsets,
        hash_ids=ids,
        hash_block_tokens=spec.hash_block_tokens if len(ids) else 0,
        names_whole_blocks=True,
        concurrency=_concurrency(spec),
        skipped_rows=skipped,
    )


def _lengths(spec: WorkloadSpec, stream: Stream) -> tuple[Ints, Ints, int]:
    """New prompt tokens and output tokens, [n] each, and how many bad rows were skipped."""
    if isinstance(spec.trace, LengthsTrace | ColumnsTrace):
        rows = read_lengths(spec.trace)
        first = slice(spec.num_requests)
        return rows.prompt_tokens[first], rows.output_tokens[first], rows.skipped_rows
    if spec.prompt_tokens is None or spec.output_tokens is None or spec.num_requests is None:
        raise ConfigError("workload: prompt_tokens, output_tokens, num_requests: required")
    num = spec.num_requests
    prompt_tokens = spec.prompt_tokens.sample(num, stream("prompt_tokens"))
    return prompt_tokens, spec.output_tokens.sample(num, stream("output_tokens")), 0


def _prefixes(spec: WorkloadSpec, num: int, stream: Stream) -> tuple[Ints, Ints]:
    """System prompt of each of `num` conversations, -1: none; and its tokens."""
    if spec.shared_prefix is None:
        return np.full(num, -1, dtype=np.int64), np.zeros(num, dtype=np.int64)
    prefixes = draw_prefixes(spec.shared_prefix, num, stream("shared_prefix"))
    return prefixes, np.where(prefixes >= 0, spec.shared_prefix.tokens, 0)


def _arrivals(spec: WorkloadSpec, turns: Turns, stream: Stream) -> Floats:
    """Arrival times, [n]: NaN for later turns, which wait for the answer before."""
    if spec.arrivals is None:
        raise ConfigError("workload: arrivals: required without a trace that has times")
    starts_s = spec.arrivals.sample(turns.num_conversations, stream("arrivals"))
    return np.where(turns.turn > 0, np.nan, starts_s[turns.conversation])


def _think(spec: WorkloadSpec, follows: NDArray[np.bool_], stream: Stream) -> Floats:
    if spec.sessions is None:
        return np.zeros(len(follows))
    return np.where(follows, spec.sessions.think_s.sample(len(follows), stream("think_s")), 0.0)


def _identity(
    spec: WorkloadSpec, turns: Turns, prefixes: Ints, total_tokens: Ints
) -> tuple[Ints, Ints]:
    """Name the blocks that another request can meet: of conversations, or of system prompts."""
    block = spec.hash_block_tokens
    prefix_blocks = spec.shared_prefix.tokens // block if spec.shared_prefix else 0
    if spec.sessions is None:
        total_tokens = np.where(prefixes >= 0, prefix_blocks * block, 0)
    return name_blocks(turns, total_tokens, prefixes, prefix_blocks, block)


def _concurrency(spec: WorkloadSpec) -> int | None:
    """Clients of a closed loop; those that a deployment decides are known by now."""
    if not isinstance(spec.arrivals, ClosedLoopArrivals):
        return None
    if spec.arrivals.concurrency is None:
        raise ConfigError("workload: arrivals: concurrency: required without a deployment")
    return spec.arrivals.concurrency
