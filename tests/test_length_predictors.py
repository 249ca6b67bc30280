"""Length predictors: what each makes of the truth, and what it costs."""

import numpy as np
import pytest
from engine_cases import at, simulate
from policy_cases import make

from simpod.errors import ConfigError
from simpod.policies import Prediction
from simpod.policies.fakes import FakePredictorView


def lengths(*outputs: int, seed: int = 3) -> FakePredictorView:
    return FakePredictorView(
        prompt_tokens=np.full(len(outputs), 10),
        output_tokens=np.array(outputs, dtype=np.int64),
        rng=np.random.default_rng(seed),
    )


def many(seed: int = 3) -> FakePredictorView:
    outputs = np.random.default_rng(8).lognormal(5.0, 1.0, 2000).astype(int) + 1
    return lengths(*outputs.tolist(), seed=seed)


def test_the_oracle_must_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="allow_oracle: must be true"):
        make("length_predictor", "oracle")
    oracle = make("length_predictor", "oracle", allow_oracle=True)
    assert oracle(lengths(3, 700)).predicted_tokens.tolist() == [3.0, 700.0]


def test_constant_uses_no_truth() -> None:
    policy = make("length_predictor", "constant", output_tokens=40)
    assert policy(lengths(3, 700)).predicted_tokens.tolist() == [40.0, 40.0]


@pytest.mark.parametrize("name", ["noisy", "proxy"])
def test_the_error_of_a_regression_is_as_large_as_said(name: str) -> None:
    view = many()
    error = np.log(make("length_predictor", name, log_std=0.5)(view).predicted_tokens)
    error -= np.log(view.output_tokens)
    # standard error of a standard deviation of 2000 normal values: 0.5 / sqrt(4000) = 0.008
    assert error.std() == pytest.approx(0.5, abs=0.03)
    assert abs(np.median(error)) < 0.05


def test_buckets_end_above_the_length_as_often_as_said() -> None:
    exact = make("length_predictor", "buckets", accuracy_frac=1.0)
    assert exact(lengths(1, 32, 33, 4096, 9999)).predicted_tokens.tolist() == [
        32.0,
        32.0,
        64.0,
        4096.0,
        4096.0,
    ]
    never = make("length_predictor", "buckets", accuracy_frac=0.0)
    wrong = never(lengths(*[100] * 50, 1, 5000)).predicted_tokens
    assert set(wrong[:50]) == {64.0, 256.0}
    assert wrong[50:].tolist() == [64.0, 2048.0]
    view = many()
    right = make("length_predictor", "buckets", accuracy_frac=0.8)(view).predicted_tokens
    truth = exact(many()).predicted_tokens
    # four standard errors of a share of 0.8 in 2000: 0.036
    assert (right == truth).mean() == pytest.approx(0.8, abs=0.036)


@pytest.mark.parametrize("tau", [-0.3, 0.0, 0.6, 0.9])
def test_ranking_has_the_tau_that_was_asked_for(tau: float) -> None:
    view = many()
    score = make("length_predictor", "ranking", kendall_tau=tau)(view).predicted_tokens
    truth = view.output_tokens
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, len(truth), (2, 200_000))
    agree = np.sign(score[first] - score[second]) * np.sign(truth[first] - truth[second])
    # the standard error of tau of 2000 values is below 2 / 3 / sqrt(2000) = 0.015
    assert agree.mean() == pytest.approx(tau, abs=0.06)


def test_a_prediction_delays_its_request_by_its_cost() -> None:
    slow = Prediction(np.array([3.0, 3.0]), cost_s=0.25)
    records = simulate(at([0.0, 4.0], 1, 1), run={"prediction": slow})
    assert records.requests.arrival_s.tolist() == [0.0, 4.0]
    assert records.requests.first_token_s.tolist() == [1.25, 5.25]


def test_schedulers_see_predictions_and_nothing_else() -> None:
    seen = []

    def look(view):  # type: ignore[no-untyped-def]
        from simpod.policies import BatchPlan

        prompts = list(view.prefilling)
        seen.extend(seq.predicted_tokens for seq in prompts)
        return BatchPlan({seq.seq_id: seq.uncached_tokens for seq in prompts})

    prediction = Prediction(np.array([3.0, 8.0]))
    simulate(at([0.0, 0.0], 1, 7), run={"prediction": prediction, "batching": lambda: look})
    assert seen == [3.0, 8.0]
