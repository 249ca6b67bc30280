"""`simpod check`: the contract test of a policy, before it meets an experiment."""

import inspect
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from simpod.cli.options import JsonOption
from simpod.cli.output import print_json
from simpod.errors import ConfigError, PolicyError

EPILOG: Final = """Examples:

simpod check my_edf.py:EarliestDeadline

simpod check my_edf.py:EarliestDeadline -s max_chunk_tokens=512

simpod check my_package.routing:cheapest --role router"""

_SHOWN: Final = 10
_ROLE_OF_ARGUMENTS: Final = {1: "batching", 2: "router"}


class RoleName(StrEnum):
    """Roles that have a contract test."""

    BATCHING = "batching"
    EXPERTS = "experts"
    ROUTER = "router"
    PREFILL_LEADER = "prefill_leader"
    ADMISSION = "admission"
    LENGTH_PREDICTOR = "length_predictor"
    CACHE = "cache"
    MIGRATION = "migration"
    SCALING = "scaling"


def check_command(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:NAME",
            help="A policy: ./file.py:Name, package.module:Name, or a built-in's name.",
            show_default=False,
        ),
    ],
    role: Annotated[
        RoleName | None,
        typer.Option(
            "--role",
            help="What it is for; default: batching if it takes one argument, router if two;"
            " say so for another role.",
            show_default=False,
        ),
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="PARAM=VALUE",
            help="A parameter of the policy; may be repeated.",
            show_default=False,
        ),
    ] = None,
    views: Annotated[
        int, typer.Option("--views", metavar="N", min=1, help="How many random views.")
    ] = 500,
    as_json: JsonOption = False,
) -> None:
    """Test a policy's contract on random views: budgets, presence, repeatability, no idling."""
    from simpod.policies import PolicyRef, resolve
    from simpod.policies.checks import CHECKS

    chosen = role.value if role else _built_in_role(policy)
    ref = PolicyRef(use=policy, params=_parameters(params or ()))
    make = resolve(_key_of(chosen), ref)  # a path or module is found alike in every role
    chosen = chosen or _role_by_arguments(policy, make)
    problems = _problems(CHECKS[chosen], make, policy, views)
    if as_json:
        print_json({"policy": policy, "role": chosen, "views": views, "problems": problems})
    elif problems:
        typer.echo(_complaint(policy, chosen, problems), err=True)
    else:
        typer.echo(f"OK: {policy} keeps the contract of the role {chosen} on {views} random views")
    if problems:
        raise typer.Exit(PolicyError.exit_code)


def _key_of(role: str | None) -> str:
    """A key of `policies:` of that role."""
    from simpod.policies import ROLE_OF_KEY

    return next((key for key, played in ROLE_OF_KEY.items() if played == role), "batching")


def _built_in_role(policy: str) -> str | None:
    from simpod.policies import BUILT_IN

    return next((role for role, names in BUILT_IN.items() if policy in names), None)


def _role_by_arguments(policy: str, make: Callable[[], Callable[..., Any]]) -> str:
    """Batching policies take a view, routers a view and a request."""
    wanted = [
        parameter
        for parameter in inspect.signature(make()).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(wanted) not in _ROLE_OF_ARGUMENTS:
        raise ConfigError(
            f"{policy} takes {len(wanted)} arguments; allowed: 1 (view) for batching,"
            " 2 (view, request) for a router; or say --role"
        )
    return _ROLE_OF_ARGUMENTS[len(wanted)]


def _parameters(texts: Sequence[str]) -> dict[str, Any]:
    from simpod.config.strict_yaml import parse_yaml

    parameters = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise ConfigError(f"--set {text}: not a parameter; allowed: --set name=value")
        parameters[name.strip()] = parse_yaml(value, f"--set {name.strip()}").plain()
    return parameters


def _problems(
    check: Callable[..., list[str]], make: Callable[[], Any], policy: str, views: int
) -> list[str]:
    try:
        return check(make, policy, views=views)
    except PolicyError as error:  # it raised: nothing more can be asked of it
        return [error.rule]


def _complaint(policy: str, role: str, problems: list[str]) -> str:
    lines = [f"error: policy {policy} breaks the contract of the role {role}"]
    lines += [f"  {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN:,} more")
    return "\n".join(lines)
