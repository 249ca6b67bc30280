"""Tokens of each slot in one step, drawn: the exact mode.

A token chooses `top_k` different experts; a set S has a probability in proportion to the product of
its experts' odds (conditional Poisson sampling, Hajek 1964: of all laws with these popularities
that of largest entropy). Odds are fitted so that each expert is chosen exactly as often as its
popularity says (Chen, Dempster and Liu, Biometrika 1994; their fixed point is found by steps in the
logarithm of the odds). Going through the experts one by one, a token that still has r to choose
takes expert e with

    p(e) B(e + 1, r - 1) / B(e, r),    B(e, r) = P(r of the experts e, e + 1, ... say yes),

whatever it took before. So tokens with the same r are alike, and how many of them take e is
binomial: one draw for each layer, expert and r, however many tokens there are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.experts.placement import EMPTY, ExpertPlacement
from simpod.cluster.experts.routing import of_step
from simpod.errors import InvariantError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLOSE = 1e-12
"""Largest error of a popularity after the fit."""
MOST_ROUNDS = 200
"""Rounds of the fit; ten are usual."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choices:
    """`takes` [num_experts, num_layers, top_k]: probability that a token with r = 1, 2, ... left
    to choose takes an expert.
    """

    takes: Floats
    shares: Floats
    """[num_layers, num_experts] popularity."""
    says_yes: Floats
    """[num_experts, num_layers]: what the odds are of."""

    @classmethod
    def of(cls, shares: Floats, top_k: int) -> "Choices":
        """For popularity [num_layers, num_experts]."""
        return cls._by_odds(shares, _fitted(shares.T, top_k), top_k)

    def of_step(self, log_scale: float, rng: np.random.Generator) -> "Choices":
        """For the popularity of one step (`routing.of_step`): odds change as those of shares do."""
        if log_scale == 0.0:
            return self
        shares = of_step(self.shares, log_scale * rng.standard_normal(self.shares.shape))
        others = np.where(self.shares < 1.0, 1.0 - self.shares, 1.0)
        change = (shares / np.where(self.shares > 0.0, self.shares, 1.0)) * others
        moved = self.says_yes * change.T
        left = (1.0 - self.says_yes) * (1.0 - shares.T)
        says_yes = np.where(self.says_yes < 1.0, moved / (moved + left), 1.0)
        return self._by_odds(shares, says_yes, self.takes.shape[2])

    @classmethod
    def _by_odds(cls, shares: Floats, says_yes: Floats, top_k: int) -> "Choices":
        later = _counts(says_yes[::-1], top_k)[::-1]
        wanted = later[:-1, :, 1:]
        joint = says_yes[..., np.newaxis] * later[1:, :, :-1]
        takes = np.divide(joint, wanted, out=np.zeros_like(joint), where=wanted > 0.0)
        return cls(takes=np.minimum(takes, 1.0), shares=shares, says_yes=says_yes)

    def draw(self, num_tokens: int, rng: np.random.Generator) -> Ints:
        """[num_layers, num_experts] tokens of one step of `num_tokens` tokens of all ranks."""
        num_experts, num_layers, top_k = self.takes.shape
        counts = np.empty((num_experts, num_layers), dtype=np.int64)
        left = np.zeros((num_layers, top_k + 1), dtype=np.int64)  # tokens by what they have left
        left[:, top_k] = num_tokens
        for expert, takes in enumerate(self.takes):
            taken = rng.binomial(left[:, 1:], takes)
            left[:, 1:] -= taken
            left[:, :-1] += taken
            counts[expert] = taken.sum(axis=1)
        return counts.T


def _counts(says_yes: Floats, most: int) -> Floats:
    """[n + 1, num_layers, most + 1]: P(so many of the first 0, 1, ... n say yes)."""
    found = np.zeros((len(says_yes) + 1, says_yes.shape[1], most + 1))
    found[0, :, 0] = 1.0
    for place, yes in enumerate(says_yes[..., np.newaxis]):
        found[place + 1] = (1.0 - yes) * found[place]
        found[place + 1, :, 1:] += yes * found[place, :, :-1]
    return found


def _fitted(shares: Floats, top_k: int) -> Floats:
    """[num_experts, num_layers] p(e) with which experts are chosen as often as `shares` say."""
    says_yes = shares.copy()
    certain = (shares >= 1.0) | (shares <= 0.0)
    inner = np.where(certain, 0.5, shares)
    free = np.maximum(1, (~certain).sum(axis=0))
    damping = np.maximum(1, free - 1) / free  # a step moves all experts, so each must move less
    for _ in range(MOST_ROUNDS):
        before, after = _counts(says_yes, top_k), _counts(says_yes[::-1], top_k)[::-1]
        others = np.einsum("elr,elr->el", before[:-1, :, :-1], after[1:, :, -2::-1])
        chosen = says_yes * others / before[-1, :, top_k]
        if np.abs(chosen - shares).max() < CLOSE:
            return says_yes
        seen = np.where(certain, 0.5, chosen)
        odds = says_yes / np.where(certain, 1.0, 1.0 - says_yes)
        odds *= (inner * (1.0 - seen) / (seen * (1.0 - inner))) ** damping
        says_yes = np.where(certain, shares, odds / (1.0 + odds))
    raise InvariantError("popularity of experts: the odds of top-k choices do not settle")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CopyTable:
    """Slots of each expert's copies in their order; arrays [num_layers, num_experts, most copies].

    slots: -1 beyond the last copy. copies [num_layers, num_experts].
    """

    slots: Ints
    copies: Ints
    num_slots: int

    @classmethod
    def of(cls, placement: ExpertPlacement) -> "CopyTable":
        """Of a placement."""
        copies = placement.copies
        slots = np.full((*copies.shape, int(copies.max())), -1)
        for layer, experts in enumerate(placement.experts):
            order = np.argsort(experts, kind="stable")[int((experts == EMPTY).sum()) :]
            own = experts[order]
            first = np.cumsum(copies[layer]) - copies[layer]
            slots[layer, own, np.arange(len(order)) - first[own]] = order
        return cls(slots=slots, copies=copies, num_slots=placement.slots.num_slots)

    def deal(self, chosen: Ints, num_tokens: int, rng: np.random.Generator) -> Ints:
        """[num_layers, num_slots] tokens, of tokens [num_layers, num_experts] of experts.

        Token i of the batch uses copy i mod copies of each of its experts (xDeepServe 4.5). Which
        tokens chose an expert is as likely as any other, so that a copy's number is hypergeometric.
        """
        found = np.zeros((len(chosen), self.num_slots), dtype=np.int64)
        unseen = np.full(chosen.shape, num_tokens)
        left = chosen.copy()
        for copy in range(self.slots.shape[2]):
            layer, expert = np.nonzero(self.copies > copy)
            copies = self.copies[layer, expert]
            places = -(-(num_tokens - copy) // copies)  # in the batch, that use this copy
            places = np.maximum(places, 0)
            rest, still = unseen[layer, expert], left[layer, expert]
            drawn = still.copy()
            more = copies > copy + 1
            drawn[more] = rng.hypergeometric(places[more], (rest - places)[more], still[more])
            found[layer, self.slots[layer, expert, copy]] = drawn
            unseen[layer, expert] = rest - places
            left[layer, expert] = still - drawn
        return found
