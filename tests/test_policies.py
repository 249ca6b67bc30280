"""Policies: the contract of every built-in, one exact case each, parameters, name resolution."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policy_cases import KEY_OF_ROLE, make, pool, prompt, rank, request

from simpod.cli.check import RoleName
from simpod.errors import ConfigError, PolicyError
from simpod.policies import BUILT_IN, ROLE_OF_KEY, BatchPlan, PolicyRef, resolve
from simpod.policies.catalogue import described
from simpod.policies.checks import CHECKS
from simpod.policies.fakes import FakeBatchView

ALL = [(role, name) for role, names in BUILT_IN.items() for name in names]
ROUTERS = list(BUILT_IN["router"])
REQUIRED: dict[str, dict[str, Any]] = {
    "oracle": {"allow_oracle": True},
    "kubernetes_hpa": {"target": 4.0},
    "optimum": {"max_variables": 40},  # seconds a layer otherwise
    "dynamo_planner": {
        "prefill_tokens_per_s": 1e4,
        "tpot_at_0_s": 0.01,
        "tpot_per_seq_s": 1e-4,
    },
}


# --- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "name"), ALL)
def test_built_ins_keep_their_contract(role: str, name: str) -> None:
    given = (
        {"batch_seqs": 32} if (role, name) == ("scaling", "pd_serve") else REQUIRED.get(name, {})
    )
    factory = resolve(KEY_OF_ROLE[role], PolicyRef(name, given))
    assert CHECKS[role](factory, name, views=150) == []


@pytest.mark.parametrize(("role", "name"), ALL)
def test_every_built_in_says_what_it_does_whence_it_is_and_what_it_must_see(
    role: str, name: str
) -> None:
    said = described(BUILT_IN[role][name])
    assert said["about"].endswith((".", ")."))
    assert said["source"]
    assert said["sees"]


def test_every_built_in_has_a_file_of_its_own() -> None:
    places = [where.partition(":")[0] for names in BUILT_IN.values() for where in names.values()]
    assert len(set(places)) == len(places)


def test_every_role_has_a_check_and_a_key() -> None:
    assert set(BUILT_IN) == set(CHECKS) == set(ROLE_OF_KEY.values())
    assert set(RoleName) == set(CHECKS)


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


class Pulls:
    """`fcfs` that answers the same whenever a prompt could be pulled."""

    def __init__(self, answer: Any) -> None:
        self.plan, self.answer = make("batching", "fcfs"), answer

    def __call__(self, view: FakeBatchView) -> BatchPlan:
        return self.plan(view)

    def may_pull(self, view: FakeBatchView, coming: Any, seq: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [(False, "may_pull refuses sequence"), (None, "may_pull returned None"), (True, "")],
)
def test_the_check_finds_decode_ranks_that_starve(answer: Any, said: str) -> None:
    problems = CHECKS["batching"](lambda: Pulls(answer), "mine")
    assert any(said in problem for problem in problems) is bool(said)


@pytest.mark.parametrize("choice", [-1, 1 << 20, 0.0, None, "0"])
def test_the_check_finds_broken_routers(choice: Any) -> None:
    problems = CHECKS["router"](lambda: lambda view, request: choice, "mine", views=20)
    assert any(f"chose {choice!r}" in problem for problem in problems)


def test_what_a_policy_raises_is_its_own_fault() -> None:
    def broken(view: FakeBatchView) -> BatchPlan:
        raise KeyError("oops")

    said = r"policy mine: raised KeyError\('oops'\) \(.*test_policies.py:\d+\)"
    with pytest.raises(PolicyError, match=said):
        CHECKS["batching"](lambda: broken, "mine")


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
