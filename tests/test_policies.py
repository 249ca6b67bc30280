"""Policies: the contract of every built-in, one exact case each, parameters, name resolution."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simpod.errors import ConfigError, PolicyError
from simpod.policies import BUILT_IN, ROLE_OF_KEY, BatchPlan, PolicyRef, resolve
from simpod.policies.checks import CHECKS, FakeBatchView, FakeRouterView, FakeSequence

KEY_OF_ROLE = {role: key for key, role in ROLE_OF_KEY.items()}
ALL = [(role, name) for role, names in BUILT_IN.items() for name in names]
ROUTERS = list(BUILT_IN["router"])
REQUIRED: dict[str, dict[str, Any]] = {"oracle": {"allow_oracle": True}}


def make(role: str, name: str, **params: Any) -> Any:
    return resolve(KEY_OF_ROLE[role], PolicyRef(name, params))()


def prompt(seq_id: int, uncached: int, *, is_running: bool = False) -> FakeSequence:
    return FakeSequence(
        seq_id=seq_id,
        arrival_s=float(seq_id),
        prompt_tokens=uncached,
        uncached_tokens=uncached,
        is_running=is_running,
        ttft_deadline_s=float("inf"),
    )


def rank(
    *sequences: FakeSequence, budget: int = 100, decoding: int = 0, slots: int = 8
) -> FakeBatchView:
    return FakeBatchView(
        now_s=50.0,
        max_step_tokens=budget,
        num_decoding=decoding,
        sequences=sequences,
        free_seq_slots=slots,
        free_blocks=1000,
    )


def pool(
    *,
    waiting: Sequence[int] = (),
    running: Sequence[int] = (),
    queued: Sequence[int] = (),
    kv: Sequence[int] = (),
    slots: int = 64,
) -> FakeRouterView:
    num = max(map(len, (waiting, running, queued, kv)))
    columns = [
        np.array(column if len(column) else [0] * num, dtype=np.int64)
        for column in (waiting, running, queued, kv)
    ]
    return FakeRouterView(
        now_s=0.0,
        num_targets=num,
        waiting_seqs=columns[0],
        running_seqs=columns[1],
        queued_tokens=columns[2],
        kv_tokens=columns[3],
        max_num_seqs=slots,
    )


def request(*hashes: int, session_id: int = -1) -> FakeSequence:
    return FakeSequence(
        seq_id=0,
        arrival_s=0.0,
        prompt_tokens=10,
        uncached_tokens=10,
        is_running=False,
        ttft_deadline_s=float("inf"),
        session_id=session_id,
        prefix_hashes=hashes,
    )


# --- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "name"), ALL)
def test_built_ins_keep_their_contract(role: str, name: str) -> None:
    factory = resolve(KEY_OF_ROLE[role], PolicyRef(name, REQUIRED.get(name, {})))
    assert CHECKS[role](factory, name, views=150) == []


def test_every_role_has_a_check_and_a_key() -> None:
    assert set(BUILT_IN) == set(CHECKS) == set(ROLE_OF_KEY.values())


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (lambda view: {1: 5}, "not a BatchPlan"),
        (lambda view: BatchPlan({999: 1}), "is not there"),
        (lambda view: BatchPlan({s.seq_id: 0 for s in view.prefilling}), "chunk of 0 tokens"),
        (lambda view: BatchPlan({s.seq_id: 10**6 for s in view.prefilling}), "chunk of 1000000"),
        (lambda view: BatchPlan({s.seq_id: s.uncached_tokens for s in view.prefilling}), "budget"),
        (lambda view: BatchPlan({s.seq_id: 1 for s in view.prefilling}), "slots are free"),
        (lambda view: BatchPlan(), "idles while"),
    ],
)
def test_the_check_finds_broken_schedulers(
    plan: Callable[[FakeBatchView], Any], complaint: str
) -> None:
    problems = CHECKS["batching"](lambda: plan, "mine", views=150)
    assert any(complaint in problem for problem in problems)


def test_the_check_finds_a_scheduler_that_draws_lots() -> None:
    rng = np.random.default_rng(3)

    def moody(view: FakeBatchView) -> BatchPlan:
        first = next(view.prefilling, None)
        if first is None or view.free_seq_slots == 0:
            return BatchPlan()
        return BatchPlan({first.seq_id: int(rng.integers(1, 3))})

    assert any("other plans" in p for p in CHECKS["batching"](lambda: moody, "moody"))


@pytest.mark.parametrize("choice", [-1, 1 << 20, 0.0, None, "0"])
def test_the_check_finds_broken_routers(choice: Any) -> None:
    problems = CHECKS["router"](lambda: lambda view, request: choice, "mine", views=20)
    assert any(f"chose {choice!r}" in problem for problem in problems)


def test_what_a_policy_raises_is_its_own_fault() -> None:
    def broken(view: FakeBatchView) -> BatchPlan:
        raise KeyError("oops")

    with pytest.raises(PolicyError, match=r"policy mine: raised KeyError\('oops'\)"):
        CHECKS["batching"](lambda: broken, "mine")


# --- batch schedulers, by hand --------------------------------------------------------------------


def chunks_of(plan: BatchPlan) -> list[tuple[int, int]]:
    return list(plan.prefill_chunks.items())


def test_fcfs_gives_decodes_their_tokens_and_cuts_the_last_prompt() -> None:
    view = rank(prompt(7, 30, is_running=True), prompt(8, 50), prompt(9, 40), decoding=4)
    plan = make("batching", "fcfs")(view)
    assert chunks_of(plan) == [(7, 30), (8, 50), (9, 16)]
    assert plan.decode


def test_fcfs_cuts_long_prompts_at_its_threshold() -> None:
    view = rank(prompt(1, 90), prompt(2, 90), prompt(3, 90))
    assert chunks_of(make("batching", "fcfs", max_chunk_tokens=40)(view)) == [
        (1, 40),
        (2, 40),
        (3, 20),
    ]


def test_fcfs_keeps_to_the_free_slots() -> None:
    view = rank(prompt(1, 5), prompt(2, 5), prompt(3, 5), slots=2)
    assert chunks_of(make("batching", "fcfs")(view)) == [(1, 5), (2, 5)]


def test_a_budget_that_decodes_use_up_leaves_no_chunk() -> None:
    for name in ("fcfs", "shortest_prompt"):
        assert make("batching", name)(rank(prompt(1, 5), budget=6, decoding=6)) == BatchPlan()


def test_prefill_first_pauses_decodes_only_for_a_prompt() -> None:
    policy = make("batching", "prefill_first")
    plan = policy(rank(prompt(1, 70), prompt(2, 50), decoding=20))
    assert chunks_of(plan) == [(1, 70), (2, 30)]
    assert not plan.decode
    assert policy(rank(decoding=20)) == BatchPlan(decode=True)


def test_shortest_prompt_serves_the_least_work_after_what_runs() -> None:
    view = rank(prompt(3, 60, is_running=True), prompt(4, 30), prompt(5, 10), prompt(6, 10))
    plan = make("batching", "shortest_prompt")(view)
    assert chunks_of(plan) == [(3, 60), (5, 10), (6, 10), (4, 20)]
    assert plan.decode


# --- routers, by hand -----------------------------------------------------------------------------


def test_round_robin_goes_round() -> None:
    router = make("router", "round_robin")
    view = pool(waiting=[9, 0, 0])
    assert [router(view, request()) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_random_uses_every_target_alike() -> None:
    router, view = make("router", "random"), pool(waiting=[0] * 4)
    counts = np.bincount([router(view, request()) for _ in range(4000)], minlength=4)
    # chi-square with 3 degrees of freedom: 21.1 has a probability of 1e-4
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 21.1


def test_power_of_two_avoids_the_one_full_target_unless_it_draws_it_twice() -> None:
    router, view = make("router", "power_of_two"), pool(waiting=[9, 0, 0, 0])
    counts = np.bincount([router(view, request()) for _ in range(4800)], minlength=4)
    expected = 4800 / 16  # both draws must hit target 0
    assert abs(counts[0] - expected) < 4 * np.sqrt(expected)


def test_least_requests_counts_waiting_and_running() -> None:
    view = pool(waiting=[0, 3, 1], running=[5, 0, 1], queued=[0, 0, 10**6])
    assert make("router", "least_requests")(view, request()) == 2


def test_least_tokens_counts_prompts_to_come_and_a_token_a_decode() -> None:
    view = pool(waiting=[0, 9, 1], running=[40, 0, 1], queued=[100, 130, 139])
    assert make("router", "least_tokens")(view, request()) == 1


def test_least_kv_takes_the_emptiest_below_the_batch_limit() -> None:
    view = pool(kv=[10, 90, 50], running=[4, 1, 3], slots=4)
    assert make("router", "least_kv")(view, request()) == 2  # 0 is full
    assert make("router", "least_kv", reserve_tokens=21)(view, request()) == 1  # 111 < 113
    everyone_full = pool(kv=[10, 90, 5], running=[4, 4, 4], slots=4)
    assert make("router", "least_kv")(everyone_full, request()) == 2


def test_prefix_affinity_follows_the_longest_match_while_balanced() -> None:
    router = make("router", "prefix_affinity", max_spread_seqs=3)
    assert router(pool(waiting=[1, 0, 1]), request(1, 2, 3, 4)) == 1
    assert router(pool(waiting=[0, 3, 1]), request(1, 2, 9, 10)) == 1  # half of it matches
    assert router(pool(waiting=[0, 3, 1]), request(1, 20, 21, 22)) == 0  # a quarter does
    assert router(pool(waiting=[4, 9, 0]), request(1, 2, 3, 4)) == 2  # out of balance
    assert router(pool(waiting=[0, 0, 0]), request()) == 0  # nothing to match


@pytest.mark.parametrize("name", ["least_requests", "least_tokens", "least_kv"])
def test_equal_targets_are_taken_from_the_first(name: str) -> None:
    assert make("router", name)(pool(waiting=[1, 1, 1]), request()) == 0


# --- names and parameters -------------------------------------------------------------------------


def complaint_of(key: str, use: str, **params: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(key, PolicyRef(use, params))
    return str(caught.value)


def test_each_factory_call_gives_a_policy_with_its_own_memory() -> None:
    factory = resolve("router", PolicyRef("round_robin"))
    first, second = factory(), factory()
    view = pool(waiting=[0, 0])
    assert first(view, request()) == 0
    assert first(view, request()) == 1
    assert second(view, request()) == 0


def test_an_unknown_name_is_answered_with_a_suggestion_and_the_choice() -> None:
    message = complaint_of("decode_router", "least_kw")
    assert 'policies.decode_router: unknown router policy "least_kw"' in message
    assert 'did you mean "least_kv"?' in message
    assert all(name in message for name in ROUTERS)


def test_a_policy_of_another_role_is_unknown() -> None:
    assert 'unknown batching policy "round_robin"' in complaint_of("batching", "round_robin")


def test_all_wrong_parameters_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve("batching", PolicyRef("fcfs", {"max_chunk_token": 5, "max_chunk_tokens": "many"}))
    assert len(caught.value.problems) == 2
    assert 'did you mean "max_chunk_tokens"?' in caught.value.problems[0]
    assert "expected int, got 'many'" in caught.value.problems[1]


@pytest.mark.parametrize(
    ("role", "name", "param", "value", "allowed"),
    [
        ("batching", "fcfs", "max_chunk_tokens", 0, ">= 1"),
        ("batching", "shortest_prompt", "max_chunk_tokens", -3, ">= 1"),
        ("router", "least_kv", "reserve_tokens", -1, ">= 0"),
        ("router", "prefix_affinity", "min_match_frac", 1.5, "from 0 to 1"),
        ("router", "prefix_affinity", "min_match_frac", float("nan"), "from 0 to 1"),
        ("router", "prefix_affinity", "max_spread_seqs", -1, ">= 0"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_at_its_key(
    role: str, name: str, param: str, value: float, allowed: str
) -> None:
    expected = f"policies.{role}.{param}: {name}: must be {allowed}, got {value}"
    assert complaint_of(role, name, **{param: value}) == expected


def test_the_ends_of_the_ranges_are_allowed() -> None:
    assert make("batching", "fcfs", max_chunk_tokens=1)(rank(prompt(1, 5))) == BatchPlan({1: 1})
    assert make("router", "least_kv", reserve_tokens=0) is not None
    for frac in (0, 1):
        assert make("router", "prefix_affinity", min_match_frac=frac, max_spread_seqs=0) is not None


def test_a_function_takes_no_parameters() -> None:
    assert "takes no parameters" in complaint_of("router", "random", seed=3)


def test_a_module_that_is_not_there_and_a_name_that_is_not_in_it() -> None:
    assert "can't import no_such_module" in complaint_of("router", "no_such_module:Thing")
    message = complaint_of("router", "simpod.policies.routing.round_robin:RoundRobbin")
    assert 'has no "RoundRobbin"; did you mean "RoundRobin"?' in message


USER_POLICY = """
from dataclasses import dataclass
from simpod.policies import BatchPlan

@dataclass(frozen=True)
class Patient:
    at_least: int
    def __call__(self, view):
        prompts = list(view.prefilling)
        return BatchPlan({prompts[0].seq_id: 1} if len(prompts) >= self.at_least else {})

class NotADataclass:
    pass

number = 3
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(USER_POLICY)
    return file


def test_a_users_file_is_loaded_with_its_parameters(user_file: Path) -> None:
    policy = resolve("batching", PolicyRef(f"{user_file}:Patient", {"at_least": 2}))()
    assert policy(rank(prompt(1, 5))) == BatchPlan()
    assert policy(rank(prompt(1, 5), prompt(2, 5))) == BatchPlan({1: 1})


def test_what_is_wrong_with_a_users_file_is_said(user_file: Path, tmp_path: Path) -> None:
    assert 'needs the parameter "at_least"' in complaint_of("batching", f"{user_file}:Patient")
    assert "must be a function or a dataclass" in complaint_of(
        "batching", f"{user_file}:NotADataclass", at_least=2
    )
    assert "is not callable" in complaint_of("batching", f"{user_file}:number")
    assert "no policy file" in complaint_of("batching", f"{tmp_path}/absent.py:Patient")
    (tmp_path / "bad.py").write_text("def broken(:\n")
    assert "does not load: SyntaxError" in complaint_of("batching", f"{tmp_path}/bad.py:broken")


STUBBORN = """
import sys
from dataclasses import dataclass

@dataclass
class Stubborn:
    mood: str = "bad"
    least: int = 0
    def __post_init__(self):
        if self.mood == "bad":
            raise ValueError(f"mood: must be good, got {self.mood}")
        if self.mood == "odd":
            raise TypeError("I take no odd moods")
        if self.mood == "gone":
            sys.exit(7)
        if self.mood == "lost":
            {}["nothing"]

@dataclass
class Silent:
    mood: str = "good"
"""


def test_what_a_users_constructor_says_is_told(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    use = f"{tmp_path}/stubborn.py:Stubborn"
    assert complaint_of("batching", use, mood="bad") == (
        f"policies.batching.mood: {use}: must be good, got bad"
    )
    refuses = f"policies.batching: {use} refuses its parameters: "
    assert complaint_of("batching", use) == f"{refuses}mood: must be good, got bad"
    assert complaint_of("batching", use, mood="odd") == f"{refuses}I take no odd moods"
    assert complaint_of("batching", use, mood="gone") == f"{refuses}SystemExit(7)"
    assert complaint_of("batching", use, mood="lost") == f"{refuses}KeyError('nothing')"
    silent = f"{tmp_path}/stubborn.py:Silent"
    assert "is not callable: it has no __call__" in complaint_of("batching", silent)


def test_a_file_or_module_that_exits_is_a_mistake_in_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaver.py").write_text("import sys\nsys.exit(0)\n")
    message = complaint_of("batching", f"{tmp_path}/leaver.py:anything")
    assert message.endswith("leaver.py does not load: SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    assert "leaver does not load: SystemExit(0)" in complaint_of("batching", "leaver:anything")
