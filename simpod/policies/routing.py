"""Routing: which rank of a pool gets a request."""

from dataclasses import dataclass, field

import numpy as np

from simpod.policies.roles import RouteRequest, RouterView

UNLIMITED = 1 << 62


@dataclass(slots=True)
class RoundRobin:
    """One target after the other."""

    _next: int = field(default=0, init=False)

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        target = self._next % view.num_targets
        self._next = target + 1
        return target


def random(view: RouterView, request: RouteRequest) -> int:
    """Any target, all alike."""
    return int(view.rng.integers(view.num_targets))


def power_of_two(view: RouterView, request: RouteRequest) -> int:
    """The less loaded of two targets drawn at random (Mitzenmacher 2001)."""
    first, second = view.rng.integers(view.num_targets, size=2)
    held = view.held_seqs
    return int(first if held[first] <= held[second] else second)


def least_requests(view: RouterView, request: RouteRequest) -> int:
    """The target with the fewest requests, waiting or running (join the shortest queue)."""
    return int(view.held_seqs.argmin())


def least_tokens(view: RouterView, request: RouteRequest) -> int:
    """The target with the fewest prompt tokens to compute, plus one for each running request."""
    return int((view.queued_tokens + view.running_seqs).argmin())


@dataclass(frozen=True, slots=True)
class LeastKv:
    """The target with the lowest KV usage among those below the batch limit (xDeepServe, 4.3).

    Usage is what the rank last reported, plus the prompts that are on their way to it, plus a
    reserve for the output of each of its requests. If all are at the limit, all count.
    """

    reserve_tokens: int = 0
    """Space set aside for the output of each request; at least 0."""

    def __post_init__(self) -> None:
        if self.reserve_tokens < 0:
            raise ValueError(f"reserve_tokens: must be >= 0, got {self.reserve_tokens}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        held = view.held_seqs
        load = view.kv_tokens + view.queued_tokens + self.reserve_tokens * held
        full = held >= view.max_num_seqs
        if full.all():
            return int(load.argmin())
        return int(np.where(full, UNLIMITED, load).argmin())


@dataclass(slots=True)
class PrefixAffinity:
    """The target that served the longest prefix of this prompt, unless the load is out of balance.

    The cache-aware rule of SGLang's router: with a spread of more than `max_spread_seqs` requests,
    or a match below `min_match_frac` of the prompt's blocks, the least loaded target gets it.
    """

    min_match_frac: float = 0.5
    """Least share of the prompt's prefix blocks that must have been seen at a target; 0 to 1."""

    max_spread_seqs: int = 32
    """Largest difference in requests between targets that still counts as balanced; at least 0."""

    _seen: dict[int, int] = field(default_factory=dict, init=False)  # prefix id -> last target

    def __post_init__(self) -> None:
        if not 0 <= self.min_match_frac <= 1:
            raise ValueError(f"min_match_frac: must be from 0 to 1, got {self.min_match_frac}")
        if self.max_spread_seqs < 0:
            raise ValueError(f"max_spread_seqs: must be >= 0, got {self.max_spread_seqs}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        held = view.held_seqs
        hashes = request.prefix_hashes
        target = int(held.argmin())
        if held.max() - held[target] <= self.max_spread_seqs:
            matched, last = 0, target
            for unit in hashes:
                if unit not in self._seen:
                    break
                matched, last = matched + 1, self._seen[unit]
            if matched and matched >= self.min_match_frac * len(hashes):
                target = last
        self._seen.update(dict.fromkeys(hashes, target))
        return target
