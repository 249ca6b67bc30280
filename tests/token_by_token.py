"""Tokens of each slot in one step, token by token: slow, and independent of `experts.sampling`.

A token chooses the `top_k` experts of the largest noisy scores logit(p) + logistic noise: Rosen's
Pareto order sampling (1997), fixed in size, without replacement, whose inclusion probabilities are
p to a good approximation (the largest error is tested). A count over many tokens is binomial.
"""

import numpy as np
from numpy.typing import NDArray

from simpod.cluster.experts.placement import ExpertPlacement, sums_by_die

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK_TOKENS = 4096
"""Tokens whose scores are held at a time."""
NEVER = 1e-12
"""Odds are kept this far from 0 and from infinity."""


def choose(shares: Floats, top_k: int, num_tokens: int, rng: np.random.Generator) -> Ints:
    """Experts [num_tokens, top_k] of one layer, for popularity [num_experts]; in no order."""
    held = np.clip(shares, NEVER, 1.0 - NEVER)
    scores = np.log(held / (1.0 - held))
    found = np.empty((num_tokens, top_k), dtype=np.int64)
    for start in range(0, num_tokens, BLOCK_TOKENS):
        count = min(BLOCK_TOKENS, num_tokens - start)
        noisy = scores + rng.logistic(size=(count, len(shares)))
        found[start : start + count] = np.argpartition(-noisy, top_k - 1, axis=1)[:, :top_k]
    return found


def sample_slots(
    placement: ExpertPlacement,
    shares: Floats,
    top_k: int,
    num_tokens: int,
    rng: np.random.Generator,
) -> Ints:
    """[num_layers, num_slots] tokens of one step of `num_tokens` tokens of all ranks.

    Token i of the batch uses copy i mod copies of each of its experts (xDeepServe 4.5).
    """
    counts = np.empty(placement.experts.shape, dtype=np.int64)
    position = np.arange(num_tokens)[:, np.newaxis]
    for layer in range(placement.num_layers):
        chosen = choose(shares[layer], top_k, num_tokens, rng)
        copies = placement.copies[layer]
        order = np.argsort(placement.experts[layer], kind="stable")  # every slot has an expert
        first = np.cumsum(copies) - copies
        used = order[first[chosen] + position % copies[chosen]]
        counts[layer] = np.bincount(used.ravel(), minlength=placement.slots.num_slots)
    return counts


def sample_dies(
    placement: ExpertPlacement,
    shares: Floats,
    top_k: int,
    num_tokens: int,
    rng: np.random.Generator,
) -> Floats:
    """[num_layers, num_dies] tokens of one step, those of shared copies included."""
    routed = sample_slots(placement, shares, top_k, num_tokens, rng).astype(np.float64)
    return sums_by_die(placement.slots, routed) + placement.shared_tokens(num_tokens)
