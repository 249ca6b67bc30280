"""`simpod check`: contracts hold or the user learns which rule broke."""

import json

import pytest
from cli_runs import DATA, call

from simpod.policies import BUILT_IN

BAD = DATA / "bad_policies.py"


def test_a_users_scheduler_passes() -> None:
    done = call("check", f"{DATA / 'my_edf.py'}:EarliestDeadline")
    assert done.exit_code == 0
    assert done.stdout.startswith("OK: ")
    assert "role batching on 500 random views" in done.stdout


REQUIRED = {
    "oracle": ["allow_oracle=true"],
    "kubernetes_hpa": ["target=4"],
    "dynamo_planner": ["prefill_tokens_per_s=1.0e+4", "tpot_at_0_s=0.01", "tpot_per_seq_s=1.0e-4"],
}


ONE_OF_EACH = {role: next(iter(names)) for role, names in BUILT_IN.items()}


@pytest.mark.parametrize("name", [*ONE_OF_EACH.values(), *REQUIRED])
def test_built_ins_pass_by_name(name: str) -> None:
    """One of each role; the contract of every one is in test_policies.py."""
    given = [part for text in REQUIRED.get(name, ()) for part in ("-s", text)]
    found = json.loads(call("check", name, "--views", 40, "--json", *given).stdout)
    assert found["problems"] == []
    assert name in BUILT_IN[found["role"]]


def test_parameters_are_given_and_checked() -> None:
    policy = f"{BAD}:FirstTarget"
    good = call("check", policy, "-s", "offset=3", "--views", 20, "--json")
    assert json.loads(good.stdout)["role"] == "router"
    misspelt = call("check", policy, "-s", "ofset=3")
    assert misspelt.exit_code == 2
    assert 'did you mean "offset"?' in misspelt.stderr
    assert call("check", policy, "-s", "offset").exit_code == 2


@pytest.mark.parametrize(
    ("name", "role", "word"),
    [
        ("over_budget", "batching", "the budget left is"),
        ("lazy", "batching", "idles while"),
        ("raises", "batching", "no plan today"),
        ("beyond", "router", "targets"),
    ],
)
def test_a_broken_contract_is_3_with_the_rule(name: str, role: str, word: str) -> None:
    done = call("check", f"{BAD}:{name}")
    assert done.exit_code == 3
    assert done.stdout == ""
    assert f"contract of the role {role}" in done.stderr
    assert word in done.stderr
    assert len(done.stderr.splitlines()) <= 12
    as_json = call("check", f"{BAD}:{name}", "--json")
    assert as_json.exit_code == 3
    assert any(word in problem for problem in json.loads(as_json.stdout)["problems"])


def test_a_role_can_be_given_where_it_cannot_be_seen() -> None:
    unclear = call("check", f"{BAD}:three")
    assert unclear.exit_code == 2
    assert "takes 3 arguments" in unclear.stderr
    assert call("check", f"{BAD}:three", "--role", "router").exit_code == 3  # a TypeError of theirs


@pytest.mark.parametrize("policy", ["nowhere.py:X", f"{BAD}:Nothing", "no_such_module:X", "fcsf"])
def test_a_policy_that_is_not_there(policy: str) -> None:
    done = call("check", policy)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
