"""Drafts that a decode step keeps: a chain, which ends at the first that is wrong.

A draft is verified beside the token it continues, so it counts only if all before it did. With
c_k the share of drafts k that are right where those before them were, a step gives a sequence

    1 + c_1 + c_1 c_2 + ... + c_1 ... c_n    tokens

on average: 1 + a + a^2 + ... where each is right with the same probability a (Leviathan et al.,
arXiv:2211.17192, equation 1).
"""

from collections.abc import Sequence

from simpod.cost.work import Amount


def kept_of_chain(shares: Sequence[Amount]) -> Amount:
    """Drafts that are kept, of one for each of `shares`: of those at its place that are right where
    all before them were; numbers or arrays [n].
    """
    kept: Amount = 0.0
    for share in reversed(shares):
        kept = share * (1.0 + kept)
    return kept


def shares_in_place(
    layers: int, acceptance: float | tuple[float, ...], std: float = 0.0
) -> tuple[float, ...]:
    """[layers] shares of drafts that are right where all before them were.

    acceptance: these shares (all of them, unless `layers` is 0), or one for all places. One that
    differs between requests by a beta law with standard deviation `std` < sqrt(a (1 - a)) is larger
    further on, since those who got there accept more: (a + r s) / (1 + r s) at place r = 0, 1, ...
    with s = std^2 / (a (1 - a) - std^2), the mean of the beta law that r successes leave.
    """
    if isinstance(acceptance, tuple):
        return acceptance[:layers]
    scale = std**2 / (acceptance * (1.0 - acceptance) - std**2) if std else 0.0
    return tuple((acceptance + r * scale) / (1.0 + r * scale) for r in range(layers))


def mean_tokens(layers: int, acceptance: float | tuple[float, ...], std: float = 0.0) -> float:
    """That a decode step gives a sequence: one, and the drafts that are kept."""
    return 1.0 + float(kept_of_chain(shares_in_place(layers, acceptance, std)))
