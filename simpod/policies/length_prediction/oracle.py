"""The truth: no real system has it."""

from dataclasses import dataclass

from simpod.policies.roles import Prediction, PredictorView


@dataclass(frozen=True, slots=True)
class Oracle:
    """The true output lengths: a bound on what prediction can bring, possible in no real system.

    Source: none; the base line that papers on prediction call oracle or optimal.
    Sees: the future.
    """

    allow_oracle: bool = False
    """Must be true: whoever uses the truth says so."""

    def __post_init__(self) -> None:
        if not self.allow_oracle:
            raise ValueError(
                "allow_oracle: must be true to use the true output lengths, which no real scheduler"
                " knows"
            )

    def __call__(self, view: PredictorView) -> Prediction:
        return Prediction(view.output_tokens.astype(float))
