"""The true length with an error."""

from dataclasses import dataclass

import numpy as np

from simpod.policies.roles import Prediction, PredictorView


@dataclass(frozen=True, slots=True)
class Noisy:
    """A regression: the output length times a lognormal error whose median is 1.

    `log_std` is the standard deviation of ln(predicted / true): 0.5 puts two thirds of the
    predictions within a factor of 1.65. 0 would be the oracle.

    Source: regressions such as Magnus's (arXiv:2406.04785) and TetriInfer's; the error is a choice.
    Sees: the length up to the error, standing in for the prompt's text.
    """

    log_std: float = 0.5
    """Standard deviation of the logarithm of the error; above 0."""

    def __post_init__(self) -> None:
        if not 0 < self.log_std < float("inf"):
            raise ValueError(f"log_std: must be > 0 and finite, got {self.log_std}")

    def __call__(self, view: PredictorView) -> Prediction:
        normal = view.rng.standard_normal(len(view.output_tokens))
        return Prediction(np.maximum(1.0, view.output_tokens * np.exp(self.log_std * normal)))
