"""`simpod list`: what is shipped, one line each."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from simpod.cli.options import JsonOption
from simpod.cli.output import add_rows, in_yaml, plain_table, print_json, show
from simpod.units import GB, GIGA, TB

if TYPE_CHECKING:
    from rich.table import Table

    from simpod.hardware.kernels.fits import Status

EPILOG: Final = """Examples:

simpod list

simpod list policies

simpod list models --json"""

Row = dict[str, Any]

_NO_LIMIT: Final = 2**53


class Kind(StrEnum):
    """What can be listed."""

    ALL = "all"
    EXPERIMENTS = "experiments"
    MODELS = "models"
    HARDWARE = "hardware"
    WORKLOADS = "workloads"
    POLICIES = "policies"


def list_command(
    kind: Annotated[Kind, typer.Argument(help="Which of them.")] = Kind.ALL,
    as_json: JsonOption = False,
) -> None:
    """List shipped experiments, models, hardware, workloads and built-in policies."""
    wanted = [each for each in Kind if each is not Kind.ALL and kind in (Kind.ALL, each)]
    found = {each: rows_of(each) for each in wanted}
    if as_json:
        print_json({each.value: rows for each, rows in found.items()})
        return
    for position, (each, rows) in enumerate(found.items()):
        if position:
            typer.echo()
        show(_table(each, rows))


def rows_of(kind: Kind) -> list[Row]:
    """One mapping a thing of this kind, in SI units, as `--json` prints it."""
    from simpod.config import names

    match kind:
        case Kind.EXPERIMENTS:
            return [_described("experiments", name) for name in names("experiments")]
        case Kind.WORKLOADS:
            return [_described("workloads", name) for name in names("workloads")]
        case Kind.MODELS:
            return [_model(name) for name in names("models")]
        case Kind.HARDWARE:
            return [_hardware(name) for name in names("hardware_profiles")]
        case Kind.POLICIES:
            return _policies()
    return []


def _described(folder: Any, name: str) -> Row:
    """A file and its first comment, the schema line aside."""
    from simpod.config import library

    lines = library.find(folder, name).read_text(encoding="utf-8").splitlines()
    comments = [
        line.removeprefix("# ")
        for line in lines
        if line.startswith("# ") and "yaml-language-server" not in line
    ]
    return {"name": name, "about": comments[0] if comments else ""}


def _model(name: str) -> Row:
    from simpod.config import load_model
    from simpod.model.weights import weight_bytes

    model = load_model(name)
    return {
        "name": name,
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "kv_elements_per_token": model.kv_elements_per_token,
        "weight_bytes": weight_bytes(model),
    }


def _hardware(name: str) -> Row:
    from simpod.config import load_hardware

    profile = load_hardware(name)
    return {
        "name": name,
        "num_nodes": profile.num_nodes,
        "num_npus": profile.npus_per_node * profile.num_nodes,
        "num_dies": profile.num_dies,
        "hbm_bytes": profile.die.hbm_bytes,
        "hbm_bytes_per_s": profile.die.hbm_bytes_per_s,
        "constants": profile.kernels.statuses(profile.die.name, profile.family),
    }


def _policies() -> list[Row]:
    import dataclasses
    import inspect
    from importlib import import_module

    from simpod.policies import BUILT_IN

    rows = []
    for role, built_in in BUILT_IN.items():
        for name, where in built_in.items():
            module, _, attribute = where.partition(":")
            policy = getattr(import_module(module), attribute)
            fields = dataclasses.fields(policy) if dataclasses.is_dataclass(policy) else ()
            rows.append(
                {
                    "role": role,
                    "name": name,
                    "about": (inspect.getdoc(policy) or "").partition("\n")[0],
                    "parameters": {
                        field.name: None if field.default is dataclasses.MISSING else field.default
                        for field in fields
                        if field.init
                    },
                }
            )
    return rows


def _table(kind: Kind, rows: list[Row]) -> "Table":
    match kind:
        case Kind.MODELS:
            figures: tuple[str, ...] = ("parameters", "active", "KV elements a token", "weights")
            table = plain_table("Model", *figures, right=figures)
            return add_rows(table, map(_model_line, rows))
        case Kind.HARDWARE:
            figures = ("nodes", "NPUs", "dies", "memory a die", "bandwidth a die")
            table = plain_table("Hardware", *figures, "constants", right=figures)
            return add_rows(table, map(_hardware_line, rows))
        case Kind.POLICIES:
            table = plain_table("Policy for", "use", "does", "parameters")
            return add_rows(table, map(_policy_line, rows))
    title = kind.value.removesuffix("s").capitalize()
    return add_rows(plain_table(title, "about"), [(row["name"], row["about"]) for row in rows])


def _model_line(row: Row) -> tuple[str, ...]:
    return (
        row["name"],
        f"{row['parameters'] / GIGA:,.1f} B",
        f"{row['active_parameters'] / GIGA:,.1f} B",
        f"{row['kv_elements_per_token']:,}",
        f"{row['weight_bytes'] / GB:,.0f} GB",
    )


def _hardware_line(row: Row) -> tuple[str, ...]:
    return (
        row["name"],
        *(str(row[key]) for key in ("num_nodes", "num_npus", "num_dies")),
        f"{row['hbm_bytes'] / GB:,.1f} GB",
        f"{row['hbm_bytes_per_s'] / TB:,.2f} TB/s",
        in_words(row["constants"]),
    )


def in_words(statuses: "Mapping[Status, int]") -> str:
    """How many kernel constants are how sure: `28 calibrated, 3 family`."""
    return ", ".join(f"{number} {status}" for status, number in statuses.items()) or "none"


def _policy_line(row: Row) -> tuple[str, ...]:
    parameters = (f"{name}={_default(value)}" for name, value in row["parameters"].items())
    return row["role"], row["name"], row["about"], ", ".join(parameters)


def _default(value: object) -> str:
    """A whole number that no token count reaches stands for no limit."""
    return "no limit" if isinstance(value, int) and value >= _NO_LIMIT else in_yaml(value)
