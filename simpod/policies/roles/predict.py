"""The role of a length predictor: how long outputs are thought to be."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simpod.policies.roles.route import Floats, Ints


class PredictorView(Protocol):
    """The requests of a run, in columns [n].

    A real predictor reads the prompt's text, which a simulation lacks. The true length stands in
    for the text: a predictor here says how far from it a real one would be. So no scheduler, router
    or admission policy sees it, only what the predictor makes of it.
    """

    @property
    def prompt_tokens(self) -> Ints:
        """Lengths of the prompts."""

    @property
    def output_tokens(self) -> Ints:
        """True lengths of the outputs."""

    @property
    def rng(self) -> np.random.Generator:
        """Random stream of the predictor alone."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a predictor says of every request, and what it takes to say it."""

    predicted_tokens: Floats  # [n], positive: lengths, or scores that grow with the length
    cost_s: float = 0.0
    """Between a request's arrival and the moment that its prediction is there."""


class LengthPredictor(Protocol):
    """Predicts output lengths, once before the run: they do not depend on what the cluster does."""

    def __call__(self, view: PredictorView, /) -> Prediction:
        """Predict every request's output length."""
