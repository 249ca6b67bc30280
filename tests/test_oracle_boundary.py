"""No policy knows how long an output will be: two requests that look alike are treated alike.

Their output lengths are swapped. Until one of them ends, in either run, every decision must be the
same; only the oracle, which has to be asked for by name, may decide differently before.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from engine_cases import LinearPricer, at, chained, in_two_stages, pool_inputs, pool_spec
from policy_cases import KEY_OF_ROLE

from simpod.policies import BUILT_IN, PolicyRef, Prediction, resolve
from simpod.policies.fakes import FakePredictorView
from simpod.workload import Requests

SHORT, LONG = 3, 40
ALIKE = (6, 7)  # the two requests
PRICES = LinearPricer(base_s=1.0, s_per_prompt_token=0.01, s_per_decode=0.1)


def load(first: int, second: int) -> Requests:
    """Twenty requests; two of them come together and differ in nothing that can be seen."""
    num = 20
    rng = np.random.default_rng(4)
    outputs = rng.integers(5, 30, num)
    outputs[list(ALIKE)] = first, second
    prompts = rng.integers(8, 40, num)
    prompts[list(ALIKE)] = 16
    arrival_s = np.sort(rng.uniform(0.0, 30.0, num))
    arrival_s[ALIKE[1]] = arrival_s[ALIKE[0]]
    classes = {"tenant": np.arange(num) % 3, "priority": np.arange(num) % 2}
    for column in classes.values():
        column[list(ALIKE)] = 1
    sessions = np.arange(num) % 4
    sessions[list(ALIKE)] = -1
    names = [[100 + row % 3, 1000 + row] for row in range(num)]
    for row in ALIKE:
        names[row] = []
    prefixes = chained(*names, block_tokens=4)
    return at(arrival_s, prompts, outputs, session_id=sessions, **classes, **prefixes)


def decisions(
    outputs: tuple[int, int],
    refs: dict[str, PolicyRef],
    predict: Callable[[Requests], Prediction],
) -> tuple[list[Any], float]:
    """Every decision with its time, and when the first of the two requests ended."""
    requests = load(*outputs)
    log: list[Any] = []

    def logged(key: str) -> Callable[[], Any]:
        make = resolve(key, refs[key])

        def fresh() -> Any:
            policy = make()

            def decide(view: Any, *rest: Any) -> Any:
                answer = policy(view, *rest)
                log.append((view.now_s, key, [request.seq_id for request in rest], repr(answer)))
                return answer

            return decide

        return fresh

    pools = [
        pool_inputs(
            pool_spec(
                name=role,
                role=role,
                instances=2,
                max_num_seqs=2,
                max_step_tokens=64,
                block_tokens=4,
                kv_blocks=40,
                prefix_caching=role == "prefill",
            ),
            PRICES,
            logged("router")(),
        )
        for role in ("prefill", "decode")
    ]
    records = in_two_stages(
        requests,
        prefill=pools[0],
        decode=pools[1],
        transfer_s=0.5,
        batching=logged("batching"),
        make_admission=logged("admission"),
        ttft_target_s=30.0,
        tpot_target_s=5.0,
        prediction=predict(requests),
    )
    ends = records.requests.finish_s[list(ALIKE)]
    return log, float(np.nan_to_num(ends, nan=np.inf).min())


def same_for_all(requests: Requests) -> Prediction:
    return Prediction(np.arange(1.0, len(requests) + 1.0) * 0 + 10.0)


def compare(refs: dict[str, PolicyRef], predict: Callable[[Requests], Prediction]) -> bool:
    """The decisions before the first of the two ends are the same."""
    defaults = {"batching": "fcfs", "router": "least_requests", "admission": "always"}
    chosen = {key: refs.get(key, PolicyRef(name)) for key, name in defaults.items()}
    first, first_s = decisions((SHORT, LONG), chosen, predict)
    second, second_s = decisions((LONG, SHORT), chosen, predict)
    until_s = min(first_s, second_s)
    before = [[entry for entry in log if entry[0] < until_s] for log in (first, second)]
    assert len(before[0]) > 10
    return before[0] == before[1]


@pytest.mark.parametrize(
    ("role", "name"),
    [(role, name) for role in ("batching", "router", "admission") for name in BUILT_IN[role]],
)
def test_requests_that_look_alike_are_treated_alike(role: str, name: str) -> None:
    assert compare(
        {KEY_OF_ROLE[role] if role != "router" else "router": PolicyRef(name)}, same_for_all
    )


def from_predictor(name: str, **params: Any) -> Callable[[Requests], Prediction]:
    def predict(requests: Requests) -> Prediction:
        view = FakePredictorView(
            prompt_tokens=requests.prompt_tokens,
            output_tokens=requests.output_tokens,
            rng=np.random.default_rng(2),
        )
        prediction: Prediction = resolve("length_predictor", PolicyRef(name, params))()(view)
        return prediction

    return predict


@pytest.mark.parametrize("name", ["sjf", "trail", "ltr"])
def test_only_the_oracle_tells_them_apart(name: str) -> None:
    refs = {"batching": PolicyRef(name)}
    assert not compare(refs, from_predictor("oracle", allow_oracle=True))
    assert compare(refs, from_predictor("constant"))
