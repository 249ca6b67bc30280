"""Tokens of each slot in one step, each slot for itself: the fast mode.

Tokens are independent, so a slot's count is binomial(n / copies, p), and those of copies are
independent, which serve different tokens. Experts of one token exclude each other, so that all
counts of a layer add up to n * top_k: what they don't is made up for in proportion, or by shifting
all luck of a layer where few tokens come.

Counts are quantiles of their law at normal numbers, so that a step of few tokens more is drawn with
the same luck: the binomial law itself while few are expected, its expansion by Cornish and Fisher
(mean, variance, third moment) beyond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.experts.placement import ExpertPlacement
from simpod.cost.normal_law import TINY, normal_law, normal_quantiles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEW: Final = 8.0
"""Expected tokens of a slot from which on its law is expanded."""
MOST_OF_FEW: Final = 40
"""Tokens that a slot of a few never has: 1e-15 of Poisson(8)."""
FEW_IN_ALL: Final = 64.0
"""Expected tokens of a layer below which luck is shifted until they add up: to scale counts of 0
and 1 would lose all tokens of some layers, and give a slot of others more than there are."""
PART_SLOTS: Final = 8192
"""Slots whose counts are taken together: what that needs stays in a core's cache."""


def odds_of(chance: Floats) -> Floats:
    """0 of a chance of 1."""
    return np.where(chance < 1.0, chance / np.maximum(1.0 - chance, TINY), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlikeSlots:
    """Slots [n] that get about as many tokens as each other, for any number of tokens of the step.

    While many are expected, a slot gets tokens * mean + sqrt(tokens) * off + bend.
    """

    z: Floats
    share: Floats
    """Of the law, what lies below."""
    mean: Floats
    off: Floats
    """Standard deviation times z."""
    bend: Floats
    """Third moment over six times the variance, times z^2 - 1."""
    few_below: Floats
    """Tokens from which on many are expected; 0 where nothing is left to chance."""
    odds: Floats
    portion: Floats
    log_none: Floats
    """Of the probability to get none of one token."""

    @classmethod
    def of(cls, portion: Floats, chance: Floats, z: Floats) -> "AlikeSlots":
        """For normal quantiles z."""
        mean, others = portion * chance, 1.0 - chance
        variance = mean * others
        bend = (1.0 - 2.0 * chance) / 6.0 * (z * z - 1.0)
        return cls(
            z=z,
            share=normal_law(z),
            mean=mean,
            off=np.sqrt(variance) * z,
            bend=np.where(variance > 0.0, bend, 0.0),
            few_below=np.where(others > 0.0, FEW / np.maximum(mean, TINY), 0.0),
            odds=odds_of(chance),
            portion=portion,
            log_none=portion * np.log(np.maximum(others, TINY)),
        )

    def counts(self, num_tokens: float) -> Floats:
        """[n], whole where few are expected."""
        few = num_tokens < self.few_below
        if few.all():
            return self._few(num_tokens, slice(None))
        many = num_tokens * self.mean + np.sqrt(num_tokens) * self.off + self.bend
        counts: Floats = np.maximum(many, 0.0)
        if few.any():
            counts[few] = self._few(num_tokens, few)
        return counts

    def _few(self, num_tokens: float, slots: slice | NDArray[np.bool_]) -> Floats:
        """Of these slots, the smallest counts whose law is not below the share."""
        odds = self.odds[slots]
        growth = odds * (num_tokens * self.portion[slots] + 1.0)
        term = np.exp(num_tokens * self.log_none[slots])
        left, counts = self.share[slots] - term, np.zeros(len(term), dtype=np.uint8)
        for count in range(1, MOST_OF_FEW + 1):
            term *= np.maximum(growth * (1.0 / count) - odds, 0.0)
            more = (left > 0.0) & (term > 0.0)
            if not more.any():
                break
            counts += more
            left -= term
        return counts.astype(np.float64)

    def first_shifts(self, num_tokens: float) -> Floats:
        """[n]: of z, that gives a slot its first token."""
        shifts = normal_quantiles(np.exp(num_tokens * self.log_none)) - self.z
        return np.asarray(np.where(self.portion > 0.0, shifts, np.inf))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Luck:
    """Quantiles at which the counts of one step are taken; arrays of one shape."""

    chance: Floats
    portion: Floats
    z: Floats
    """Standard normal."""
    mean: Floats
    """Expected for one token of the step."""
    parts: tuple[AlikeSlots, ...]
    """All slots, few by few: a loop goes round as often as the fullest of them needs."""
    place: Ints
    """Among the slots of all parts."""

    @classmethod
    def of(cls, chance: Floats, portion: Floats, z: Floats) -> "Luck":
        """For normal quantiles of any shape."""
        mean = portion * chance
        usual = FEW / 2.0 * mean / max(float(mean.mean()), TINY)
        order = np.argsort(usual + np.sqrt(usual) * z, axis=None)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        parts = [
            AlikeSlots.of(portion.take(slots), chance.take(slots), z.take(slots))
            for slots in np.array_split(order, -(-len(order) // PART_SLOTS))
        ]
        return cls(
            chance=chance,
            portion=portion,
            z=z,
            mean=mean,
            parts=tuple(parts),
            place=place.reshape(mean.shape),
        )

    def in_place(self, of_parts: Sequence[Floats]) -> Floats:
        """What the parts' slots have, in the order of all slots."""
        return np.concatenate(of_parts).take(self.place)


def binomial_quantiles(num_tokens: float, luck: Luck) -> Floats:
    """Counts of `num_tokens` * portion trials, which need not be whole."""
    return luck.in_place([part.counts(num_tokens) for part in luck.parts])


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
        return Luck.of(self.chance, self.portion, rng.standard_normal(self.chance.shape))

    def sample(self, num_tokens: float, luck: Luck) -> Floats:
        """[num_layers, num_dies, slots of a die] of one step of `num_tokens` of all ranks."""
        expected = num_tokens * luck.mean.sum(axis=1, keepdims=True)
        most = float(expected.max())
        if most < FEW_IN_ALL:
            counts = dealt(num_tokens, luck, round(most))
        else:
            counts = binomial_quantiles(num_tokens, luck)
        total = counts.sum(axis=1, keepdims=True)
        scale = np.divide(expected, total, out=np.ones_like(total), where=total > 0.0)
        return self.placement.table(counts * scale, num_tokens)


def dealt(num_tokens: float, luck: Luck, number: int) -> Floats:
    """Counts at luck that is shifted, layer by layer, by the least that gives `number` to all.

    A slot has another token from the shift on at which its law stops to be below its luck. Those
    that are not among the first `number` to have one have none.
    """
    shift = luck.in_place([part.first_shifts(num_tokens) for part in luck.parts])
    first = min(number, shift.shape[1])
    slots = np.argpartition(shift, first - 1, axis=1)[:, :first]
    portion, chance, z, shifts = (
        np.take_along_axis(each, slots, axis=1)
        for each in (luck.portion, luck.chance, luck.z, shift)
    )
    tokens = num_tokens * portion
    term = (1.0 - chance) ** tokens
    odds, law, last, count = odds_of(chance), term, np.array(np.inf), 1
    while True:
        if shifts.shape[1] >= number:
            last = np.partition(shifts, number - 1, axis=1)[:, number - 1 : number]
        term = term * odds * np.maximum(tokens - count + 1.0, 0.0) / count
        law = law + term
        more = np.where(count < tokens, normal_quantiles(law) - z, np.inf)
        if not (more < last).any():
            break
        shifts, count = np.concatenate([shifts, more], axis=1), count + 1
    found = (shifts <= last).reshape(len(shifts), count, -1).sum(axis=1, dtype=np.float64)
    counts = np.zeros_like(shift)
    np.put_along_axis(counts, slots, found, axis=1)
    return counts
