"""Prefill of one instance, given out step by step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simpod.policies.prompt_cost import prompt_cost
from simpod.policies.roles import Floats, Ints, LeaderView


class _Prompt(NamedTuple):
    """A waiting prompt and its first chunk on each rank, arrays [num_ranks]."""

    seq_id: int
    waited_s: float
    new: Ints  # tokens that need room
    chunks: Ints  # of those that are computed
    costs: Floats  # in tokens without context
    least: float  # cost on the best rank, or of a step that is too short to matter

    @property
    def precedence(self) -> tuple[float, int]:
        """Largest waited time over cost first, then order of arrival."""
        return -self.waited_s / self.least, self.seq_id


@dataclass(frozen=True, slots=True)
class Collaborative:
    """Prompts of like cost together, each on the rank that would be done with it first.

    A step lasts as long as its slowest rank. So what is under way sets the pace, or with nothing
    under way the prompt that has waited longest for its cost; a rank gets at most `max_ratio`
    times that, and what does not fit waits for a later step. Cost of a chunk of u tokens behind h
    that are cached or can be read, for tokens and attention: u + u (h + u/2) / attention_tokens.

    Source: xDeepServe (arXiv:2508.02520), collaborative prefill scheduling: before a step a leader
    gathers the ranks' states and gives out batches by a cost model with prefix hits and lengths, so
    that short and long prompts do not mix. Precedence: highest response ratio next (Brinch Hansen,
    1971), under which all that waits sets the pace some day, if steps begin with nothing under way.
    Sees: prompts that wait at any rank of the instance, contents of the prefix caches and of the
    shared memory, free KV.
    """

    attention_tokens: float = 32_768.0
    """Context at which attention costs as much as everything else; above 0."""

    max_ratio: float = 2.0
    """Cost of a rank's prompts over that of the prompt that sets the pace, at most; at least 1."""

    launch_tokens: int = 2048
    """Prompts of fewer tokens cost as much: the step is as long as its launches; at least 1."""

    def __post_init__(self) -> None:
        if not self.attention_tokens > 0:
            raise ValueError(f"attention_tokens: must be > 0, got {self.attention_tokens}")
        if not self.max_ratio >= 1:
            raise ValueError(f"max_ratio: must be >= 1, got {self.max_ratio}")
        if self.launch_tokens < 1:
            raise ValueError(f"launch_tokens: must be >= 1, got {self.launch_tokens}")

    def __call__(self, view: LeaderView) -> dict[int, int]:
        """Return seq_id -> rank of the prompts of the next step."""
        load, tokens = self._under_way(view)
        free, budget = view.free_tokens.copy(), view.max_step_tokens - tokens
        pace = float(load.max())
        given: dict[int, int] = {}
        for prompt in sorted(self._waiting(view), key=lambda each: each.precedence):
            pace = max(pace, self.launch_tokens) if pace else prompt.least
            has_room = (prompt.new <= free) & (prompt.chunks <= budget)
            done = np.where(has_room, load + prompt.costs, np.inf)
            rank = int(done.argmin())
            is_first = not given and not load.any()
            if is_first or done[rank] <= self.max_ratio * pace:
                given[prompt.seq_id] = rank
                load[rank] += prompt.costs[rank]
                free[rank] -= prompt.new[rank]
                budget[rank] -= prompt.chunks[rank]
        return given

    def _under_way(self, view: LeaderView) -> tuple[Floats, Ints]:
        """Cost and tokens of the next chunks of prompts that have begun, [num_ranks] each."""
        load = np.zeros(view.num_ranks)
        tokens = np.zeros(view.num_ranks, dtype=np.int64)
        for rank, prompt in view.under_way:
            chunk = min(prompt.uncached_tokens, view.max_step_tokens)
            before = np.array([prompt.context_tokens])
            load[rank] += prompt_cost(np.array([chunk]), before, self.attention_tokens).item()
            tokens[rank] += chunk
        return load, tokens

    def _waiting(self, view: LeaderView) -> Iterator[_Prompt]:
        for prompt in view.waiting:
            reused = view.reusable_tokens(prompt)
            chunks = np.minimum(prompt.uncached_tokens - reused, view.max_step_tokens)
            costs = prompt_cost(chunks, reused, self.attention_tokens)
            new = prompt.uncached_tokens - view.hit_tokens(prompt)
            least = max(float(costs.min()), float(self.launch_tokens))
            waited_s = view.now_s - prompt.arrival_s
            yield _Prompt(prompt.seq_id, waited_s, new, chunks, costs, least)
