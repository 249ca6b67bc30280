"""JSON Schemas of the files, for editors: completion, descriptions and checks as you type."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from simpod.config.aliases import INVERTED, POLICY_KEYS, POOL_ALIASES
from simpod.config.described import described_schema
from simpod.config.presets import SLO_PRESETS
from simpod.config.schema import Experiment
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

Schema = dict[str, Any]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


@cache
def experiment_schema() -> Schema:
    """Of experiments/*.yaml, aliases and short forms included."""
    schema = _headed(described_schema(Experiment), "simpod experiment")
    properties, definitions = schema["properties"], schema["$defs"]
    for key in ("model", "hardware", "workload"):
        properties[key] = _or_text(properties[key])
    pool = definitions["Pool"]["properties"]
    pool["hardware"] = _or_text(pool["hardware"])
    pool["role"]["enum"] += ["attention", "expert"]
    for alias, canonical in POOL_ALIASES.items():
        what = "The opposite" if alias in INVERTED else "Another name"
        pool[alias] = {**pool[canonical], "description": f"{what} of {canonical}."}
        if canonical == "kv_dtype":
            pool[alias] = {"type": "string", "description": f"Another name of {canonical}."}
    policies = definitions["Policies"]["properties"]
    for key in POLICY_KEYS:
        policies[key] = _or_text(policies[key])
    properties["slo"]["anyOf"] = [
        {"$ref": properties["slo"].pop("$ref")},
        {"type": "string", "enum": sorted(SLO_PRESETS)},
    ]
    return schema


def model_schema() -> Schema:
    """Of models/*.yaml."""
    return _headed(described_schema(ModelSpec), "simpod model")


def hardware_schema() -> Schema:
    """Of hardware_profiles/*.yaml; with `base:` nothing else is required."""
    schema = _headed(
        described_schema(HardwareProfile),
        "simpod hardware profile",
    )
    schema["properties"]["base"] = {
        "type": "string",
        "description": "A profile, by name or path, that this one changes.",
    }
    schema["properties"]["kernels_of"] = {
        "type": "string",
        "description": "A profile, by name or path, whose kernel constants stand in where this one"
        " and its base have none or others; not those of collectives and exchanges.",
    }
    required = {name: _take_required(part) for name, part in _parts(schema).items()}
    schema["anyOf"] = [{"required": ["base"]}, {"required": required[""]}]
    return schema


SCHEMAS: Final[Mapping[str, Callable[[], Schema]]] = {
    "experiment": experiment_schema,
    "model": model_schema,
    "hardware": hardware_schema,
}
"""What `simpod schema` writes, as docs/schema/<name>.schema.json."""


def schema_text(name: str) -> str:
    """The file docs/schema/<name>.schema.json."""
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"


def _headed(schema: Schema, title: str) -> Schema:
    return {"$schema": _DIALECT, **schema, "title": title}


def _parts(schema: Schema) -> dict[str, Schema]:
    """The schema itself as "", and its definitions: with a base, parts of parts may be given."""
    return {"": schema, **schema.get("$defs", {})}


def _take_required(part: Schema) -> list[str]:
    taken: list[str] = part.pop("required", [])
    return taken


def _or_text(of: Schema) -> Schema:
    """Also a name or a path."""
    described: Schema = {key: of[key] for key in ("description", "default", "title") if key in of}
    rest = {key: value for key, value in of.items() if key not in described}
    members = rest.get("anyOf", [rest])
    return {**described, "anyOf": [{"type": "string"}, *members]}
