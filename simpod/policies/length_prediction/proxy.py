"""A small model that reads the prompt first, at a price."""

from dataclasses import dataclass

import numpy as np

from simpod.policies.roles import Prediction, PredictorView


@dataclass(frozen=True, slots=True)
class ProxyModel:
    """A proxy model: lengths with a lognormal error, `cost_s` after the arrival.

    The request waits for the prediction before it is routed, so the cost is part of its TTFT.

    Source: Qiu et al., SSJF (arXiv:2404.08509): a BERT-base proxy takes a few milliseconds.
    Sees: the length up to the error, standing in for the prompt's text.
    """

    log_std: float = 0.5
    """Standard deviation of ln(predicted / true); above 0."""

    cost_s: float = 0.005
    """Time of one prediction; at least 0."""

    def __post_init__(self) -> None:
        if not 0 < self.log_std < float("inf"):
            raise ValueError(f"log_std: must be > 0 and finite, got {self.log_std}")
        if not 0 <= self.cost_s < float("inf"):
            raise ValueError(f"cost_s: must be >= 0 and finite, got {self.cost_s}")

    def __call__(self, view: PredictorView) -> Prediction:
        normal = view.rng.standard_normal(len(view.output_tokens))
        predicted = np.maximum(1.0, view.output_tokens * np.exp(self.log_std * normal))
        return Prediction(predicted, cost_s=self.cost_s)
