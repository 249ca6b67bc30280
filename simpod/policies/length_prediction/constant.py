"""The same length for all."""

from dataclasses import dataclass

import numpy as np

from simpod.policies.roles import Prediction, PredictorView


@dataclass(frozen=True, slots=True)
class Constant:
    """One length for all requests, such as the mean of yesterday's: uses no truth at all.

    Source: textbook.
    Sees: nothing.
    """

    output_tokens: int = 256
    """The length; at least 1."""

    def __post_init__(self) -> None:
        if self.output_tokens < 1:
            raise ValueError(f"output_tokens: must be >= 1, got {self.output_tokens}")

    def __call__(self, view: PredictorView) -> Prediction:
        return Prediction(np.full(len(view.output_tokens), float(self.output_tokens)))
