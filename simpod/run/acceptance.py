"""Drafts that requests accept: each its own share, for all of its life."""

from collections.abc import Sequence

import numpy as np

from simpod.cluster import PoolSpec
from simpod.cost import kept_of_chain
from simpod.engine.steps import token_clock
from simpod.records.columns import Floats
from simpod.workload import Stream


def decode_paces(pools: Sequence[PoolSpec], num_requests: int, stream: Stream) -> Floats | None:
    """[n] tokens of a decode step of each request over the mean of the pool that decodes it.

    The share of accepted drafts, the same at all places of a request's chain, has a beta law with
    the pool's mean and standard deviation: with nu = mean (1 - mean) / std^2 - 1 it is
    Beta(mean nu, (1 - mean) nu). None where all are alike.
    """
    layout = next(spec.layout for spec in reversed(pools))
    mean, std = layout.mtp_acceptance, layout.mtp_acceptance_std
    if not layout.mtp_layers or not std or isinstance(mean, tuple):
        return None
    nu = mean * (1.0 - mean) / std**2 - 1.0
    accepted = stream("mtp acceptance").beta(mean * nu, (1.0 - mean) * nu, num_requests)
    clock = token_clock(layout)
    kept = kept_of_chain([accepted] * layout.mtp_layers)
    return np.asarray((1.0 + kept) * clock.per_steps / clock.tokens)
