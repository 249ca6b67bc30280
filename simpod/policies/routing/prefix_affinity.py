"""Where the prefix is."""

from dataclasses import dataclass, field

from simpod.policies.roles import RouteRequest, RouterView


@dataclass(slots=True)
class PrefixAffinity:
    """The target that served the longest prefix of this prompt, unless the load is out of balance.

    The cache-aware rule of SGLang's router: with a spread of more than `max_spread_seqs` requests,
    or a match below `min_match_frac` of the prompt's blocks, the least loaded target gets it.

    Source: the cache-aware router of SGLang (sgl-router), with an approximate tree of prefixes.
    Sees: requests at every target, prefixes that it sent there itself.
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
