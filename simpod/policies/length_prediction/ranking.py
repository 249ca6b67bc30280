"""A predicted order of lengths."""

import math
from dataclasses import dataclass

import numpy as np

from simpod.policies.roles import Prediction, PredictorView


@dataclass(frozen=True, slots=True)
class Ranking:
    """A learned order: scores whose Kendall tau with the true lengths is about what is given.

    The normal score of a length's rank in the workload is mixed with normal noise to a correlation
    of sin(pi tau / 2), for which a Gaussian pair has that tau. Scores are positive and tell nothing
    of the length itself.

    Source: Fu et al., Learning to Rank (arXiv:2408.15792), which reports tau of 0.5 to 0.7;
    Kruskal, JASA 1958, for tau of Gaussian pairs.
    Sees: the order up to tau, standing in for the prompt's text.
    """

    kendall_tau: float = 0.6
    """Concordant minus discordant pairs, as a share; above -1, below 1."""

    def __post_init__(self) -> None:
        if not -1 < self.kendall_tau < 1:
            raise ValueError(f"kendall_tau: must be above -1 and below 1, got {self.kendall_tau}")

    def __call__(self, view: PredictorView) -> Prediction:
        num = len(view.output_tokens)
        tie_breaks = view.rng.random(num)
        rank = np.empty(num)
        rank[np.lexsort((tie_breaks, view.output_tokens))] = np.arange(num)
        correlation = math.sin(math.pi * self.kendall_tau / 2)
        normal = normal_quantile((rank + 0.5) / num)
        noise = view.rng.standard_normal(num)
        return Prediction(np.exp(correlation * normal + math.sqrt(1 - correlation**2) * noise))


def normal_quantile(share: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> "np.ndarray":
    """Quantiles of the standard normal distribution, [n], to 1e-9."""
    from statistics import NormalDist

    inverse = NormalDist().inv_cdf
    return np.array([inverse(p) for p in share.tolist()])
