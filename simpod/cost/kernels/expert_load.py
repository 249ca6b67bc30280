"""How many tokens each expert of a die gets: histograms of loads, without randomness.

Loads are `levels` (token counts) with the number of experts at each level. The models of routing:

* uniform random: each token draws `topk` of `num_experts` experts, all equally popular;
* power law: AIConfigurator's convention of expert popularity, on the hottest die of the group;
* a load vector that was measured or planned (`loads_of`).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

NORMAL_POINTS = np.array([-1.4, -0.5315, 0.0, 0.5315, 1.4])
"""Mean of each fifth of a normal distribution, in standard deviations (0 in the middle)."""
POWER_LAW_LEVELS = 16
POWER_LAW_DRAWS = 16
TOP_LEVEL_POWER = 1.7
"""Levels hold fewer experts the hotter they are: shares of equal steps to this power."""
BISECTIONS = 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoads:
    """`tokens` [..., levels] of an expert at each level; `experts` [..., levels] at that level.

    A level below one token is an expert that is hit with that probability, by one token.
    """

    tokens: Floats
    experts: Floats

    @property
    def pairs(self) -> Floats:
        """(token, expert) pairs [...]: the rows of the grouped GEMMs."""
        return np.asarray((self.tokens * self.experts).sum(-1), dtype=np.float64)

    @property
    def hit(self) -> Floats:
        """Experts [...] with at least one token: the weights that are read."""
        return np.asarray((np.minimum(self.tokens, 1.0) * self.experts).sum(-1), dtype=np.float64)

    def tiles(self, tile_tokens: float) -> Floats:
        """Row tiles [...]: each expert starts its own, so small loads leave them half empty."""
        full = np.ceil(self.tokens / tile_tokens - 1e-9)
        return np.asarray(
            (np.where(self.tokens < 1.0, self.tokens, full) * self.experts).sum(-1),
            dtype=np.float64,
        )

    def scaled(self, factor: ArrayLike) -> "ExpertLoads":
        """All loads times `factor` [...]: for example max over mean load of the dies."""
        return ExpertLoads(
            tokens=self.tokens * np.asarray(factor, dtype=np.float64)[..., None],
            experts=self.experts,
        )


def loads_of(tokens: ArrayLike) -> ExpertLoads:
    """Histogram of load vectors [..., experts]: one expert a level."""
    vector = np.asarray(tokens, dtype=np.float64)
    return ExpertLoads(tokens=vector, experts=np.ones_like(vector))


def uniform_loads(
    num_tokens: ArrayLike, num_experts: ArrayLike, topk: ArrayLike, num_slots: ArrayLike
) -> ExpertLoads:
    """Loads [..., 5] of `num_slots` experts of a die under uniform random routing.

    A load is binomial(n, k/E). Experts without a token drop out; the others have five levels at
    fifths of a normal distribution of the remaining mean m and variance, shrunk towards m so that
    none falls below one token: pairs and experts hit are exact, the spread approximate.
    """
    n, experts, k, slots = np.broadcast_arrays(
        *(np.asarray(part, np.float64) for part in (num_tokens, num_experts, topk, num_slots))
    )
    share = np.minimum(k / experts, 1.0)
    hit = np.maximum(1.0 - (1.0 - share) ** n, 1e-300)
    mean = n * share / hit
    variance = (n * share * (1.0 - share) + (n * share) ** 2) / hit - mean**2
    deviation = np.sqrt(np.maximum(variance, 0.0))
    step = np.minimum(deviation, np.maximum(mean - 1.0, 0.0) / -NORMAL_POINTS[0])
    return ExpertLoads(
        tokens=mean[..., None] + step[..., None] * NORMAL_POINTS,
        experts=np.repeat((slots * hit / 5.0)[..., None], 5, axis=-1),
    )


@lru_cache(maxsize=64)
def popularity_ranks(num_experts: int) -> Floats:
    """Ranks in (0, 1) [draws, experts]: always the same points, as nodes of an integration."""
    return np.random.default_rng(num_experts).random((POWER_LAW_DRAWS, num_experts))


def power_law(ranks: Floats, *, low: ArrayLike, high: ArrayLike, alpha: float) -> Floats:
    """F^-1(ranks) of the density x^-alpha on [low, high]; broadcasts."""
    q = 1.0 - alpha if abs(1.0 - alpha) > 1e-9 else 1e-9
    least, most = np.asarray(low, np.float64) ** q, np.asarray(high, np.float64) ** q
    return np.asarray(((most - least) * ranks + least) ** (1.0 / q))


def filled(loads: Floats, total: Floats, top: Floats) -> Floats:
    """Loads [..., experts] brought to `total` [...] by lifting the lowest or cutting the highest.

    max(load, level), or min where there is too much, with the level found by bisection in
    (0, `top` [...]).
    """
    lift = (loads.sum(-1) < total)[..., None]
    low, high = np.zeros_like(total), np.broadcast_to(top, total.shape).astype(np.float64)
    for _ in range(BISECTIONS):
        level = 0.5 * (low + high)
        edge = level[..., None]
        above = np.where(lift, np.maximum(loads, edge), np.minimum(loads, edge)).sum(-1) > total
        low, high = np.where(above, low, level), np.where(above, level, high)
    edge = high[..., None]
    return np.where(lift, np.maximum(loads, edge), np.minimum(loads, edge))


def popular_loads(
    num_tokens: ArrayLike, *, num_experts: int, topk: int, ep_size: int, alpha: float
) -> tuple[Floats, Floats]:
    """Loads before the last rounding [n, draws, ep, experts / ep], and what each rank must hold.

    AIConfigurator's recipe: x = F^-1(u), the inverse distribution of a density x^-alpha on
    [1, 0.8 n] (on [0.01, 2] if there are fewer pairs than experts); loads round(n k x / sum x), at
    most n; what is then over or missing is spread over the ranks, one pair at a time.
    """
    n = np.asarray(num_tokens, np.float64).reshape(-1, 1, 1)
    many = n * topk > num_experts
    low, high = np.where(many, 1.0, 0.01), np.where(many, np.maximum(0.8 * n, 1.01), 2.0)
    draw = power_law(popularity_ranks(num_experts), low=low, high=high, alpha=alpha)
    loads = np.minimum(np.round(n * topk * draw / draw.sum(-1, keepdims=True)), n)
    missing = n[..., 0] * topk - loads.sum(-1)
    count = np.abs(missing)[..., None]
    each = np.floor(count / ep_size) + (np.arange(ep_size) < count % ep_size)
    loads = loads.reshape(*missing.shape, ep_size, num_experts // ep_size)
    total = loads.sum(-1) + np.sign(missing)[..., None] * each
    return loads, np.clip(total, 0.0, n * loads.shape[-1])


def hottest_loads(
    num_tokens: ArrayLike, *, num_experts: int, topk: int, ep_size: int, alpha: float
) -> Floats:
    """Loads [n, draws, experts / ep] of the rank with the most pairs, under a power law."""
    loads, total = popular_loads(
        num_tokens, num_experts=num_experts, topk=topk, ep_size=ep_size, alpha=alpha
    )
    hottest = total.argmax(-1)[..., None]
    own = np.take_along_axis(loads, hottest[..., None], axis=2)[:, :, 0]
    top = np.asarray(num_tokens, np.float64).reshape(-1, 1)
    return filled(own, np.take_along_axis(total, hottest, axis=2)[..., 0], top)


def summarised(loads: Floats) -> ExpertLoads:
    """Histogram [n, levels] of equally likely load vectors [n, draws, experts].

    Sorted loads of all draws in groups, smaller towards the top; each level is a group's mean, so
    that the expected number of pairs is exact.
    """
    n, draws, experts = loads.shape
    pool = np.sort(loads.reshape(n, draws * experts), axis=-1)
    steps = np.linspace(0.0, 1.0, POWER_LAW_LEVELS + 1)
    ends = np.unique(np.round(pool.shape[1] * (1.0 - (1.0 - steps) ** TOP_LEVEL_POWER)).astype(int))
    sums = np.concatenate([np.zeros((n, 1)), np.cumsum(pool, axis=-1)], axis=-1)
    sizes = np.diff(ends)
    return ExpertLoads(
        tokens=np.diff(sums[:, ends], axis=-1) / sizes,
        experts=np.broadcast_to(sizes / draws, (n, len(sizes))),
    )
