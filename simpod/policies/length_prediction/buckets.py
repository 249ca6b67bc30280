"""A classifier of length buckets."""

from dataclasses import dataclass

import numpy as np

from simpod.policies.roles import Prediction, PredictorView


@dataclass(frozen=True, slots=True)
class Buckets:
    """A classifier: the right bucket of lengths with some accuracy, else a neighbour of it.

    Buckets end at `smallest_tokens` x 2^i up to `largest_tokens`; what is longer belongs to the
    last. The prediction is the end of the bucket, so that space reserved by it suffices. A wrong
    one is a bucket lower or higher with equal chance, at an end the only neighbour.

    Source: Jin et al., S3 (arXiv:2306.06000); Response Length Perception (arXiv:2305.13144).
    Sees: the bucket up to its accuracy, standing in for the prompt's text.
    """

    accuracy_frac: float = 0.8
    """Share of requests whose bucket is right; 0 to 1."""

    smallest_tokens: int = 32
    """End of the first bucket; at least 1."""

    largest_tokens: int = 4096
    """End of the last bucket, at least; above `smallest_tokens`."""

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy_frac <= 1:
            raise ValueError(f"accuracy_frac: must be from 0 to 1, got {self.accuracy_frac}")
        if self.smallest_tokens < 1:
            raise ValueError(f"smallest_tokens: must be >= 1, got {self.smallest_tokens}")
        if self.largest_tokens <= self.smallest_tokens:
            raise ValueError(
                f"largest_tokens: must be > {self.smallest_tokens}, got {self.largest_tokens}"
            )

    def __call__(self, view: PredictorView) -> Prediction:
        ends = [self.smallest_tokens]
        while ends[-1] < self.largest_tokens:
            ends.append(2 * ends[-1])
        last = len(ends) - 1
        bucket = np.minimum(np.searchsorted(ends, view.output_tokens), last)
        num = len(bucket)
        is_wrong = view.rng.random(num) >= self.accuracy_frac
        side = np.where(view.rng.random(num) < 0.5, -1, 1)
        side = np.where(bucket == 0, 1, np.where(bucket == last, -1, side))
        chosen = np.where(is_wrong, bucket + side, bucket)
        return Prediction(np.array(ends, dtype=float)[chosen])
