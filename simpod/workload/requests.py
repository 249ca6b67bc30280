"""The requests of one run, in columns: what clients send, before any engine has seen it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simpod.errors import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def _none() -> Ints:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """`n` requests; row order is the order of submission and row number is the request's id.

    arrival_s [n]: when the client sends it, ascending; NaN where it waits for another request
    (`after`) or for a free client (`concurrency`), and only there.
    after [n]: id of the request whose finish triggers this one, or -1.
    think_s [n]: the delay after it.
    session_id [n]: -1 when it belongs to no session.
    tenant, priority [n]: who pays for it, and how urgent it is (larger: more); 0 if left out.
    max_tokens [n]: longest answer that the client allows; 0, or left out: it says nothing.
    ignores_eos: every answer is as long as its client allows.
    hash_offsets [n+1], hash_ids: prefix identity. hash_ids[hash_offsets[i]:hash_offsets[i+1]] names
    the successive blocks of `hash_block_tokens` tokens of request i; an id stands for its whole
    prefix up to and including that block, so equal ids mean equal prefixes. Ids beyond the prompt
    name blocks that the output will fill (known for synthetic sessions). Blocks after the last id
    are nobody else's. Empty arrays and 0 when the source has no identity.
    names_whole_blocks: every named block will be filled by prompt and output. Otherwise (recorded
    traces) only those that the prompt fills are known to be whole: the last id may name a rest.
    concurrency: closed loop: at most so many requests in flight, the next starts when one finishes;
    then every arrival is NaN and every `after` is -1.
    """

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    after: Ints
    think_s: Floats
    session_id: Ints
    hash_offsets: Ints
    hash_ids: Ints
    hash_block_tokens: int = 0
    names_whole_blocks: bool = False
    concurrency: int | None = None
    tenant: Ints = field(default_factory=_none)
    priority: Ints = field(default_factory=_none)
    max_tokens: Ints = field(default_factory=_none)
    ignores_eos: bool = False
    skipped_rows: int = 0  # bad rows of a trace that were left out on request
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("tenant", "priority", "max_tokens"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.zeros(len(self.prompt_tokens), dtype=np.int64))
        problems = _shape_problems(self)
        if not problems:
            problems = _token_problems(self) + _time_problems(self) + _identity_problems(self)
        if problems:
            raise ConfigError([f"requests: {problem}" for problem in problems])

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    def prefix_ids(self, request_id: int) -> Ints:
        """Ids of the blocks of one request, first block first; empty if unknown."""
        first, last = self.hash_offsets[request_id : request_id + 2]
        return self.hash_ids[first:last]

    def prefix_units(self, request_id: int, unit_tokens: int) -> list[int]:
        """Ids of the full units of a request; a unit's last block stands for all of it.

        unit_tokens: a multiple of `hash_block_tokens`. Without prefix identity there are none.
        """
        block = self.hash_block_tokens
        if not block:
            return []
        ids = self.prefix_ids(request_id)
        if not self.names_whole_blocks:
            ids = ids[: self.prompt_tokens[request_id] // block]
        blocks = unit_tokens // block
        units: list[int] = ids[blocks - 1 :: blocks].tolist()
        return units


def make_requests(
    arrival_s: ArrayLike, prompt_tokens: ArrayLike, output_tokens: ArrayLike, **columns: Any
) -> Requests:
    """Requests from the three columns that all have; others (`after`, `notes`, ...) by name.

    One number stands for a whole column. Without more, the requests are independent and without
    prefix identity.
    """
    shape = np.broadcast(arrival_s, prompt_tokens, output_tokens).shape or (1,)
    filled: dict[str, Any] = {
        "arrival_s": np.broadcast_to(np.asarray(arrival_s, dtype=np.float64), shape),
        "prompt_tokens": np.broadcast_to(np.asarray(prompt_tokens, dtype=np.int64), shape),
        "output_tokens": np.broadcast_to(np.asarray(output_tokens, dtype=np.int64), shape),
        "after": np.full(shape, -1, dtype=np.int64),
        "think_s": np.zeros(shape),
        "session_id": np.full(shape, -1, dtype=np.int64),
        "hash_offsets": np.zeros(shape[0] + 1, dtype=np.int64),
        "hash_ids": np.empty(0, dtype=np.int64),
    }
    return Requests(**(filled | columns))


def _shape_problems(requests: Requests) -> list[str]:
    num = len(requests.prompt_tokens)
    wanted = dict.fromkeys(("arrival_s", "output_tokens", "after", "think_s"), num)
    wanted |= dict.fromkeys(("session_id", "tenant", "priority", "max_tokens"), num)
    wanted["hash_offsets"] = num + 1
    return [
        f"{name} has {len(column)} values; allowed: {length}, to match {num} prompt_tokens"
        for name, length in wanted.items()
        if len(column := getattr(requests, name)) != length
    ]


def _token_problems(requests: Requests) -> list[str]:
    problems = []
    for name in ("prompt_tokens", "output_tokens"):
        bad = np.flatnonzero(getattr(requests, name) < 1)
        if len(bad):
            value = getattr(requests, name)[bad[0]]
            problems.append(f"request {bad[0]}: {name} {value}; allowed: >= 1")
    short = (requests.max_tokens < requests.output_tokens) & (requests.max_tokens != 0)
    if len(bad := np.flatnonzero(short)):
        limit, output = requests.max_tokens[bad[0]], requests.output_tokens[bad[0]]
        problems.append(f"request {bad[0]}: max_tokens {limit}; allowed: >= its answer of {output}")
    return problems


def _time_problems(requests: Requests) -> list[str]:
    problems = []
    arrival_s, after = requests.arrival_s, requests.after
    known = arrival_s[~np.isnan(arrival_s)]
    if np.any(np.isinf(known)) or np.any(known < 0):
        problems.append("arrival_s holds negative or infinite times; allowed: >= 0, or NaN")
    if np.any(np.diff(known) < 0):
        problems.append("arrival_s descends; allowed: ascending times")
    waits = (after >= 0) | (requests.concurrency is not None)
    if np.any(wrong := np.isnan(arrival_s) != waits):
        problems.append(
            f"request {np.flatnonzero(wrong)[0]}: arrival_s must be NaN exactly where the request "
            "waits for another one (after >= 0) or for a free client (concurrency)"
        )
    if np.any(wrong := (after < -1) | (after >= np.arange(len(after)))):
        row = np.flatnonzero(wrong)[0]
        problems.append(f"request {row}: after {after[row]}; allowed: -1, or an earlier request")
    if requests.concurrency is not None and (requests.concurrency < 1 or np.any(after >= 0)):
        problems.append("concurrency must be >= 1 and does not go with `after`")
    if not np.all((requests.think_s >= 0) & np.isfinite(requests.think_s)):
        problems.append("think_s holds negative or undefined delays; allowed: >= 0")
    return problems


def _identity_problems(requests: Requests) -> list[str]:
    if np.any(requests.tenant < 0):
        return ["tenant holds negative numbers; allowed: 0, 1, ..."]
    offsets = requests.hash_offsets
    if offsets[0] != 0 or offsets[-1] != len(requests.hash_ids) or np.any(np.diff(offsets) < 0):
        return ["hash_offsets must ascend from 0 to the number of hash_ids"]
    if len(requests.hash_ids) and requests.hash_block_tokens < 1:
        return [f"hash_block_tokens {requests.hash_block_tokens}; allowed: >= 1 with hash_ids"]
    return []
