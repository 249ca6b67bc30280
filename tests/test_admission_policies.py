"""Admission: one exact case each, and what a refusal does in a run."""

from typing import Any

import numpy as np
import pytest
from engine_cases import LinearPricer, at, simulate
from policy_cases import make, pool, request

from simpod.errors import PolicyError
from simpod.policies.fakes import FakeAdmissionView, FakeRouterView
from simpod.records.columns import FINISHED, REFUSED


def view(
    entry: FakeRouterView, decode: FakeRouterView | None = None, **given: Any
) -> FakeAdmissionView:
    columns: dict[str, Any] = {"now_s": 0.0, "decode_step_s": np.array([0.02])}
    return FakeAdmissionView(entry=entry, decode=decode or entry, **(columns | given))


def test_always_is_always() -> None:
    assert make("admission", "always")(view(pool(waiting=[10**6])), request())


def test_queue_limit_counts_those_who_wait() -> None:
    policy = make("admission", "queue_limit", max_waiting_seqs=5)
    assert policy(view(pool(waiting=[2, 2], running=[64, 64])), request())
    assert not policy(view(pool(waiting=[2, 3], running=[64, 64])), request())
    loss = make("admission", "queue_limit", max_waiting_seqs=0)
    assert loss(view(pool(running=[64, 63])), request())
    assert not loss(view(pool(running=[64, 64])), request())


def test_slo_feasible_asks_for_both_targets() -> None:
    policy = make("admission", "slo_feasible")
    entry = pool(queued=[900, 1500], running=[64, 3], prompt_tokens_per_s=1000.0)
    fits = request(tokens=1100, ttft_deadline_s=2.0)
    assert policy(view(entry, decode_step_s=np.array([0.09, 0.05])), fits)
    too_long = request(tokens=1101, ttft_deadline_s=2.0)
    assert not policy(view(entry, decode_step_s=np.array([0.0, 0.05])), too_long)
    # the fast one is full
    assert not policy(view(entry, decode_step_s=np.array([0.01, 0.06])), fits)


def test_early_rejection_looks_at_the_load_when_the_prompt_is_done() -> None:
    entry = pool(queued=[1000], prompt_tokens_per_s=1000.0)
    full = pool(kv=[950], kv_capacity_tokens=1000)
    now = make("admission", "early_rejection", predict=False)
    assert not now(view(entry, full, ttft_target_s=5.0), request(tokens=500))
    later = make("admission", "early_rejection", decode_s=10.0)
    empty = {"ttft_target_s": 5.0}
    assert later(view(entry, full, **empty), request(tokens=500))  # done at 1.5 s, until 11.5 s
    assert not later(view(entry, full, **empty), request(tokens=500))  # 500 + 500 > 900
    assert later(view(entry, full, now_s=10.0, **empty), request(tokens=500))  # done at 11.5 s
    assert not later(view(entry, full, now_s=40.0, ttft_target_s=1.0), request(tokens=500))


def test_token_bucket_fills_at_its_rate_for_each_tenant() -> None:
    policy = make(
        "admission", "token_bucket", tokens_per_s=10.0, burst_tokens=100.0, rates={"1": 20.0}
    )
    idle = pool(waiting=[0])

    def ask(now_s: float, tokens: int, **given: Any) -> bool:
        return bool(policy(view(idle, now_s=now_s), request(tokens=tokens, **given)))

    assert ask(0.0, 60)
    assert not ask(3.9, 80)  # 40 + 39
    assert ask(4.0, 80)
    assert not ask(4.0, 1)
    assert ask(4.0, 100, tenant=1)
    assert ask(5.0, 20, tenant=1)
    assert ask(14.0, 40, predicted_tokens=60.0)
    assert not ask(14.0, 1)


# --- in a run -------------------------------------------------------------------------------------


def test_a_refused_request_is_recorded_and_leaves_nothing() -> None:
    records = simulate(
        at([0.0, 0.5, 0.6, 5.0], 1, 4),
        max_num_seqs=1,
        run={
            "make_admission": lambda: make("admission", "queue_limit", max_waiting_seqs=1),
            "admission_name": "queue_limit",
        },
    )
    assert records.requests.status.tolist() == [FINISHED, FINISHED, REFUSED, FINISHED]
    assert records.requests.finish_s.tolist()[:2] == [4.0, 8.0]


def test_an_admission_policy_that_answers_no_bool_is_blamed() -> None:
    with pytest.raises(PolicyError, match="policy odd: returned 1 for request 0"):
        simulate(at([0.0]), run={"make_admission": lambda: lambda v, r: 1, "admission_name": "odd"})


def test_what_an_admission_policy_sees_of_a_run() -> None:
    seen: list[tuple[float, ...]] = []

    def look(view: Any, request: Any) -> bool:
        speed, step_s = view.entry.prompt_tokens_per_s, view.decode_step_s.tolist()
        seen.append((view.now_s, speed, *step_s, view.ttft_target_s, request.ttft_deadline_s))
        return True

    simulate(
        at([0.0, 3.5], 100, 9),
        LinearPricer(base_s=1.0, s_per_prompt_token=0.01),
        run={"make_admission": lambda: look, "ttft_target_s": 7.0},
    )
    # a step with 100 prompt tokens takes 2 s, then decodes take 1 s each
    assert seen == [(0.0, 0.0, 0.0, 7.0, 7.0), (3.5, 50.0, 1.0, 7.0, 10.5)]
