"""The shape of the code: sizes, units in names, exports, and which library is used where.

Layers themselves are checked by import-linter (`make check`).
"""

import ast
import dataclasses
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import simpod

PACKAGE = Path(simpod.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50

UNIT = re.compile(
    r"(^|_)(s|ms|frac|bytes|tokens|flops|seqs|steps|blocks|dies|npus|rate|scale|usd)$|_per_[a-z_]+$"
)
NO_UNIT = {
    "acceptance": "a share, called so by every engine",
    "alpha": "exponent of a power law, called so by AIConfigurator",
    "cv": "standard deviation / mean",
    "shape": "of a Weibull distribution",
    "exponent": "of a power law",
    "overlap_exponent": "of a smooth maximum",
    "wide_head_exponent": "of a power law",
    "latency_exponent": "of a p-norm of times",
    "switch_power": "of a power of dies",
    "target": "of any metric",
    "mean_instances": "a number of instances",
    "average_instances": "the same",
    "average_ranks": "a number of ranks",
    "mean": "of whatever the distribution is of",
    "std": "of whatever the distribution is of",
    "difference": "of any metric",
    "value": "of any metric",
    "measured": "of any metric",
    "simulated": "of any metric",
    "low": "of any metric",
    "high": "of any metric",
    "min": "of any swept key",
    "max": "of any swept key",
    "threshold": "of any metric",
    "p50": "of whatever the distribution is of",
    "p90": "of whatever the distribution is of",
    "p95": "of whatever the distribution is of",
    "p99": "of whatever the distribution is of",
    "mtp_acceptance": "a share, called so by every engine",
    "mtp_acceptance_std": "of that share",
    "mtp_share": "a share",
    "topk": "experts of a token; a float where it is an array's scalar",
    "num_slots": "a count, as above",
    "num_up_matrices": "a count, as above",
    "hidden_size": "elements, called so by every model",
    "inter_size": "elements, called so by AIConfigurator",
    "columns": "elements of a matrix",
    "inner": "elements of a matrix",
    "source_rows": "elements of a matrix",
    "prompt_weight": "service of a prompt token, relative",
    "output_weight": "service of an output token, relative",
    "log_std": "of a logarithm",
    "kendall_tau": "a rank correlation, called so by every paper",
    "max_ratio": "of two loads",
    "balancing_ratio": "of two lengths",
    "share": "relative to the others'",
    "mean_in_system": "a number of requests",
    "tile_rows": "rows of a matrix tile; a float so that it is a constant like the others",
    "small_tile_rows": "the same",
    "most_small_tiles": "a number of tiles",
    "cast_passes": "a multiple of the bytes of a cache",
    "head_passes": "a multiple of the bytes of a key and a value",
    "latent_passes": "a multiple of the bytes of a latent",
}
"""Float fields without a unit, and why."""


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """What the tests below ask about, of a module's syntax."""
    kinds = (
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.Call,
        ast.Global,
        ast.Nonlocal,
    )
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(node for node in ast.walk(tree) if isinstance(node, kinds))


@cache
def imported(path: Path) -> frozenset[str]:
    """Top-level packages that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return frozenset(found)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def test_modules_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: n for name, n in lengths.items() if n > MAX_MODULE_LINES} == {}


def test_functions_are_short() -> None:
    """Signatures don't count: a command's is the list of its options."""
    lengths = {
        f"{name_of(path)}:{node.name}": (node.end_lineno or 0) - node.body[0].lineno + 1
        for path in MODULES
        for node in nodes_of(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize(
    ("library", "layer"),
    [
        ("pydantic", "config"),
        ("yaml", "config"),
        ("simpy", "engine"),
        ("networkx", "cluster"),
        ("matplotlib", "report"),
    ],
)
def test_library_stays_in_its_layer(library: str, layer: str) -> None:
    assert {layer_of(path) for path in MODULES if library in imported(path)} == {layer}


def test_only_the_command_line_prints() -> None:
    printing = [
        name_of(path)
        for path in MODULES
        if layer_of(path) != "cli"
        for node in nodes_of(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert printing == []


def test_no_global_state() -> None:
    kinds = (ast.Global, ast.Nonlocal)
    users = [name_of(p) for p in MODULES for n in nodes_of(p) if isinstance(n, kinds)]
    assert users == []


def packages() -> list[str]:
    names = [info.name for info in pkgutil.walk_packages([str(PACKAGE)], "simpod.")]
    return [name for name in names if not name.rpartition(".")[2].startswith("_")]


@pytest.mark.parametrize("name", packages())
def test_exports_exist_and_are_sorted(name: str) -> None:
    module = import_module(name)
    exported = getattr(module, "__all__", None)
    if exported is None:
        return
    assert [entry for entry in exported if not hasattr(module, entry)] == []
    constants = [e for e in exported if e.isupper()]
    classes = [e for e in exported if not e.isupper() and e[0].isupper()]
    functions = [e for e in exported if e[0].islower()]
    assert list(exported) == sorted(constants) + sorted(classes) + sorted(functions)


def is_float(hint: object) -> bool:
    """The type is float, annotated or optional."""
    if typing.get_origin(hint) is typing.Annotated:
        return is_float(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(is_float(member) for member in typing.get_args(hint))
    return hint is float


def float_fields() -> Iterator[str]:
    """Every float field of every dataclass, as module.Class.field."""
    for name in packages():
        for cls in vars(import_module(name)).values():
            if inspect.isclass(cls) and cls.__module__ == name and dataclasses.is_dataclass(cls):
                for field in dataclasses.fields(cls):
                    if is_float(field.type):
                        yield f"{name}.{cls.__name__}.{field.name}"


def test_float_fields_carry_their_unit() -> None:
    names = {field: field.rpartition(".")[2] for field in float_fields()}
    assert len(names) > 50  # the search itself works
    without = [f for f, name in names.items() if not UNIT.search(name) and name not in NO_UNIT]
    assert without == []


def test_import_is_light() -> None:
    heavy = (
        "networkx",
        "matplotlib",
        "pandas",
        "pyarrow",
        "pydantic",
        "simpy",
        "yaml",
        "rich",
        "typer",
        "numpy",
        "numba",
    )
    code = f"import json, sys, simpod; print(json.dumps([n for n in {heavy} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
