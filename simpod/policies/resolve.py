"""From `use:` to a callable: a built-in's short name, `package.module:Name` or
`./file.py:Name`."""

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from simpod.errors import ConfigError
from simpod.policies.roles import PolicyRef

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "batching": {
        "fcfs": "simpod.policies.batching:Fcfs",
        "prefill_first": "simpod.policies.batching:PrefillFirst",
        "shortest_prompt": "simpod.policies.batching:ShortestPrompt",
    },
    "experts": {
        "none": "simpod.policies.experts:keep",
        "eplb": "simpod.policies.experts:Eplb",
        "deepseek_eplb": "simpod.policies.experts:DeepSeekEplb",
    },
    "router": {
        "round_robin": "simpod.policies.routing:RoundRobin",
        "random": "simpod.policies.routing:random",
        "power_of_two": "simpod.policies.routing:power_of_two",
        "least_requests": "simpod.policies.routing:least_requests",
        "least_tokens": "simpod.policies.routing:least_tokens",
        "least_kv": "simpod.policies.routing:LeastKv",
        "prefix_affinity": "simpod.policies.routing:PrefixAffinity",
    },
}
"""Role -> short name -> where it is; strings only, so nothing is imported for nothing."""

ROLE_OF_KEY: Mapping[str, str] = {
    "batching": "batching",
    "experts": "experts",
    "router": "router",
    "prefill_router": "router",
    "decode_router": "router",
}
"""Keys of `policies:` in an experiment -> the role that the policy plays."""

Policy = Callable[..., Any]


def resolve(key: str, ref: PolicyRef) -> Callable[[], Policy]:
    """Find the policy that `ref` names for `policies.<key>`; return a factory of fresh ones.

    Each call of the factory gives a policy with its own memory. Raises ConfigError for a name that
    is not there, a file that does not load, and parameters that the policy lacks or refuses.
    """
    role = ROLE_OF_KEY[key]
    where = BUILT_IN[role].get(ref.use, ref.use)
    if ":" not in where:
        raise ConfigError(_unknown(key, role, ref.use))
    target: Policy = _load(key, where)
    if inspect.isclass(target):
        _check_params(key, ref, target)
        make = cast(Callable[..., Policy], target)
        _try(key, ref, make)
        return lambda: make(**ref.params)
    if ref.params:
        raise ConfigError(
            f"policies.{key}: {ref.use} takes no parameters, got {sorted(ref.params)}"
        )
    if not callable(target):
        raise ConfigError(f"policies.{key}: {ref.use} is not callable: {target!r}")
    return lambda: target


def _unknown(key: str, role: str, use: str) -> str:
    names = sorted(BUILT_IN[role])
    close = difflib.get_close_matches(use, names, n=1)
    hint = f' did you mean "{close[0]}"?' if close else ""
    return (
        f'policies.{key}: unknown {role} policy "{use}";{hint} built in: {", ".join(names)}; '
        "or give package.module:Name or ./file.py:Name"
    )


def _load(key: str, where: str) -> Any:
    module_name, _, name = where.rpartition(":")
    module = _import_file(key, module_name) if module_name.endswith(".py") else None
    if module is None:
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ConfigError(f"policies.{key}: can't import {module_name}: {error}") from error
        except (Exception, SystemExit) as error:  # the user's module, as in _import_file
            raise ConfigError(f"policies.{key}: {module_name} does not load: {error!r}") from error
    if not hasattr(module, name):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        close = difflib.get_close_matches(name, public, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else ""
        raise ConfigError(f'policies.{key}: {module_name} has no "{name}"{hint}')
    return getattr(module, name)


def _import_file(key: str, path: str) -> ModuleType:
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ConfigError(f"policies.{key}: no policy file {path} (looked at {file})")
    spec = importlib.util.spec_from_file_location(f"simpod_user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"policies.{key}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's file: what it raises is the user's to see
        sys.modules.pop(spec.name, None)
        raise ConfigError(f"policies.{key}: {path} does not load: {error!r}") from error
    return module


def _try(key: str, ref: PolicyRef, make: Callable[..., Policy]) -> None:
    """Make one, to see that it can be; `parameter: what is wrong` is told at its key."""
    where = f"policies.{key}"
    try:
        made = make(**ref.params)
    except (Exception, SystemExit) as error:  # the user's class, as in _import_file
        text = str(error) if isinstance(error, ValueError | TypeError) else repr(error)
        name, _, what = text.partition(": ")
        if what and name in ref.params:
            raise ConfigError(f"{where}.{name}: {ref.use}: {what}") from error
        raise ConfigError(f"{where}: {ref.use} refuses its parameters: {text}") from error
    if not callable(made):
        raise ConfigError(f"{where}: {ref.use} is not callable: it has no __call__")


def _check_params(key: str, ref: PolicyRef, cls: type) -> None:
    if not dataclasses.is_dataclass(cls):
        raise ConfigError(f"policies.{key}: {ref.use} must be a function or a dataclass")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    problems = []
    for name, value in ref.params.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            allowed = ", ".join(fields) or "none"
            problems.append(
                f'policies.{key}.{name}: {ref.use} has no parameter "{name}"{hint} '
                f"(parameters: {allowed})"
            )
        elif not _fits(value, fields[name].type):
            problems.append(
                f"policies.{key}.{name}: expected {_type_name(fields[name].type)}, got {value!r}"
            )
    for name, field in fields.items():
        no_default = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if no_default and name not in ref.params:
            problems.append(f'policies.{key}: {ref.use} needs the parameter "{name}"')
    if problems:
        raise ConfigError(problems)


def _type_name(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "a value")


def _fits(value: Any, annotation: Any) -> bool:
    """Judge plain scalar annotations only; a richer one is the policy's own business."""
    name = _type_name(annotation)
    if name == "bool":
        return isinstance(value, bool)
    if name == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if name == "str":
        return isinstance(value, str)
    return True
