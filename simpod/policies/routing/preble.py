"""Exploitation and exploration of prefixes."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from simpod.policies.roles import Floats, Ints, RouteRequest, RouterView


@dataclass(slots=True)
class Preble:
    """E2: exploit a cached prefix if most of the prompt is in it, else explore the least loaded.

    Load of a target: prompt tokens that it had to compute for the requests that were sent there in
    the last `window_s`, plus `output_weight` for each of these requests. Exploration takes the
    target with the least of load + the request's uncached tokens there. A target that carries more
    than `max_ratio` times the least load does not get more of what it has cached.

    Source: Srivatsa et al., Preble, ICLR 2025 (arXiv:2407.00023), the E2 algorithm; the eviction
    cost of a target is left out, as its cache tells it to nobody.
    Sees: contents of the prefix caches, what it sent itself.
    """

    window_s: float = 180.0
    """History that counts as load; above 0."""

    output_weight: float = 100.0
    """Load of the output of a request, prompt tokens; at least 0."""

    max_ratio: float = 2.0
    """Largest load of a target, in loads of the least loaded, that still exploits; at least 1."""

    _sent: deque[tuple[float, int, float]] = field(default_factory=deque, init=False)
    _load: Floats = field(default_factory=lambda: np.zeros(0), init=False)

    def __post_init__(self) -> None:
        if not self.window_s > 0:
            raise ValueError(f"window_s: must be > 0, got {self.window_s}")
        if not self.output_weight >= 0:
            raise ValueError(f"output_weight: must be >= 0, got {self.output_weight}")
        if not self.max_ratio >= 1:
            raise ValueError(f"max_ratio: must be >= 1, got {self.max_ratio}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        if len(self._load) != view.num_targets:
            self._load = np.zeros(view.num_targets)
        while self._sent and self._sent[0][0] < view.now_s - self.window_s:
            _, target, cost = self._sent.popleft()
            self._load[target] -= cost
        hits = view.hit_tokens(request)
        target = self._choose(hits, request.prompt_tokens)
        cost = float(request.prompt_tokens - hits[target]) + self.output_weight
        self._sent.append((view.now_s, target, cost))
        self._load[target] += cost
        return target

    def _choose(self, hits: Ints, prompt_tokens: int) -> int:
        best = int(hits.max())
        if 2 * best > prompt_tokens:
            having = np.flatnonzero(hits == best)
            target = int(having[self._load[having].argmin()])
            if self._load[target] <= self.max_ratio * max(self._load.min(), 1.0):
                return target
        return int((self._load + (prompt_tokens - hits)).argmin())
