"""Tokens of each slot in one step, each slot for itself: the fast mode.

Tokens are independent, so a slot's count is binomial(n / copies, p), and those of copies are
independent, which serve different tokens. Experts of one token exclude each other, so that all
counts of a layer add up to n * top_k: what they don't is made up for in proportion, or by shifting
all luck of a layer where few tokens come.

Counts are quantiles of their law at normal numbers, so that a step of few tokens more is drawn with
the same luck: the binomial law itself while few are expected, its expansion by Cornish and Fisher
(mean, variance, third moment) beyond.
"""

from dataclasses import dataclass
from math import erf, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.experts.placement import ExpertPlacement

Floats = NDArray[np.float64]

FEW: Final = 8.0
"""Expected tokens of a slot from which on its law is expanded."""
MOST_OF_FEW: Final = 40
"""Tokens that a slot of a few never has: 1e-15 of Poisson(8)."""
FEW_IN_ALL: Final = 64.0
"""Expected tokens of a layer below which luck is shifted until they add up: to scale counts of 0
and 1 would lose all tokens of some layers, and give a slot of others more than there are."""
TINY: Final = 1e-300
"""Instead of a divisor of 0."""
GRID: Final = np.linspace(-8.0, 8.0, 4001)
NORMAL_LAW: Final = np.array([0.5 * (1.0 + erf(z / sqrt(2.0))) for z in GRID.tolist()])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Luck:
    """Quantiles at which counts are taken."""

    z: Floats
    """Standard normal."""
    share: Floats
    """Of a law, what lies below."""

    @classmethod
    def of(cls, z: Floats) -> "Luck":
        """For normal quantiles of any shape."""
        return cls(z=z, share=np.interp(z, GRID, NORMAL_LAW))


def binomial_quantiles(tokens: Floats, chance: Floats, luck: Luck) -> Floats:
    """[...] counts of `tokens` [...] trials, whole or not."""
    z = luck.z
    mean = tokens * chance
    variance = mean * (1.0 - chance)
    deviation = np.sqrt(np.maximum(variance, TINY))
    skew = (1.0 - 2.0 * chance) / deviation
    many = mean + deviation * (z + skew / 6.0 * (z * z - 1.0))
    counts = np.maximum(np.where(variance > 0.0, many, mean), 0.0)
    few = (mean < FEW) & (chance < 1.0)
    counts[few] = _few(tokens[few], chance[few], luck.share[few])
    return counts


def _few(tokens: Floats, chance: Floats, share: Floats) -> Floats:
    """[n] smallest counts whose law exceeds `share`."""
    odds = chance / (1.0 - chance)
    term = (1.0 - chance) ** tokens
    law, counts = term.copy(), np.zeros(len(term))
    for count in range(1, MOST_OF_FEW + 1):
        more = share > law
        if not more.any():
            break
        counts += more
        term = term * odds * np.maximum(tokens - count + 1.0, 0.0) / count
        law = law + term
    return np.minimum(counts, np.ceil(tokens))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotCounts:
    """Of a placement and one popularity; arrays [num_layers, num_slots]."""

    placement: ExpertPlacement
    chance: Floats
    """That a token chooses the slot's expert."""
    portion: Floats
    """Of the tokens, those that the slot serves if they choose its expert."""

    @classmethod
    def of(cls, placement: ExpertPlacement, shares: Floats) -> "SlotCounts":
        """For popularity [num_layers, num_experts]."""
        own = np.take_along_axis(shares, np.maximum(placement.experts, 0), axis=1)
        return cls(placement=placement, chance=own, portion=placement.slot_share)

    def luck(self, rng: np.random.Generator) -> Luck:
        """Of one step."""
        return Luck.of(rng.standard_normal(self.chance.shape))

    def sample(self, num_tokens: float, luck: Luck) -> Floats:
        """[num_layers, num_dies, slots of a die] of one step of `num_tokens` of all ranks."""
        tokens = num_tokens * self.portion
        expected = (tokens * self.chance).sum(axis=1, keepdims=True)
        if expected.max() < FEW_IN_ALL:
            counts = self._adding_up(tokens, expected, luck)
        else:
            counts = binomial_quantiles(tokens, self.chance, luck)
        total = counts.sum(axis=1, keepdims=True)
        scale = np.divide(expected, total, out=np.ones_like(total), where=total > 0.0)
        return self.placement.table(counts * scale, num_tokens)

    def _adding_up(self, tokens: Floats, expected: Floats, luck: Luck) -> Floats:
        """Counts at luck that is shifted, layer by layer, by the least that gives all tokens.

        A slot has another token from the shift on at which its law stops to be below its luck.
        """
        odds = np.where(self.chance < 1.0, self.chance / np.maximum(1.0 - self.chance, TINY), 0.0)
        term = (1.0 - self.chance) ** tokens
        law, shifts = np.zeros_like(term), []
        for count in range(1, int(np.ceil(tokens.max())) + 1):
            law = law + term
            reached = np.interp(law, NORMAL_LAW, GRID) - luck.z
            shifts.append(np.where(count < tokens + 1.0, reached, np.inf))
            term = term * odds * np.maximum(tokens - count + 1.0, 0.0) / count
        every = np.stack(shifts)
        dealt = round(float(expected.max()))
        by_layer = np.moveaxis(every, 1, 0).reshape(len(expected), -1)
        last = np.partition(by_layer, dealt - 1, axis=1)[:, dealt - 1, np.newaxis]
        counts: Floats = (every <= last).sum(axis=0, dtype=np.float64)
        return counts
