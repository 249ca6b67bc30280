"""Writes what the documentation repeats from the code: tables of keys, policies, JSON Schemas.

`python docs/generate.py` rewrites the files; the tests compare them with `pages()` and `schemas()`.
A table stands in its page between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
BLOCK = re.compile(r"<!-- generated: (\S+) -->\n.*?<!-- end -->", re.DOTALL)

ALIAS = re.compile(r"(Another name|The opposite) of (\w+)\.")
TAGS = ("process", "distribution", "format")
KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true, false",
    "array": "list",
    "object": "mapping by name",
}

Json = dict[str, Any]

SECTIONS: Mapping[str, Sequence[str]] = {
    "experiment": (),
    "pool": ("Pool", "Mtp", "LaunchJitter", "HostPause"),
    "workload": ("WorkloadSpec",),
    "arrivals": (
        "ConstantArrivals",
        "PoissonArrivals",
        "GammaArrivals",
        "WeibullArrivals",
        "MmppArrivals",
        "MmppState",
        "DiurnalArrivals",
        "BurstArrivals",
        "ClosedLoopArrivals",
    ),
    "lengths": (
        "ConstantLengths",
        "UniformLengths",
        "LognormalLengths",
        "GeometricLengths",
        "ZipfLengths",
        "EmpiricalLengths",
    ),
    "window": ("WindowSpec",),
    "structure": ("SharedPrefixSpec", "SessionsSpec", "TenantSpec"),
    "think": ("ConstantThink", "ExponentialThink", "LognormalThink"),
    "routing": (
        "BalancedRouting",
        "ZipfRouting",
        "PowerLawRouting",
        "CorrelatedRouting",
        "ReplayedRouting",
    ),
    "rest": (
        "KvTransfer",
        "Output",
        "FabricOptions",
        "SharedMemory",
        "Policies",
        "PolicyEntry",
        "ExpertPolicyEntry",
        "ScalingPolicyEntry",
        "Slo",
        "Measure",
        "Engine",
    ),
}
"""Generated block of experiment.md -> definitions of the schema in it; none: the file itself."""


TRACES = (
    "MooncakeTrace",
    "BailianTrace",
    "AzureTrace",
    "BurstGptTrace",
    "ColumnsTrace",
    "LengthsTrace",
)


PAGES = ("experiment.md", "kernels.md", "results.md", "policies.md")
"""Pages with generated blocks."""


def main() -> None:
    """Rewrite every page and schema."""
    for path, text in {**pages(), **schemas()}.items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """Pages with generated blocks, and what they should be."""
    from simpod.policies import BUILT_IN

    blocks = {
        **{f"keys-{name}": _keys(names) for name, names in SECTIONS.items()},
        "keys-traces": _traces(),
        "kernels": _kernels(),
        "slo-presets": _slo_presets(),
        "summary-keys": _summary_keys(),
        **_columns(),
        **{f"policies-{role}": _policies(role) for role in BUILT_IN},
    }
    found = {}
    for path in (DOCS / name for name in PAGES):
        found[path] = _filled(path.read_text(encoding="utf-8"), blocks)
    return found


def schemas() -> dict[Path, str]:
    """The JSON Schemas that editors read."""
    from simpod.config import SCHEMAS, schema_text

    return {DOCS / "schema" / f"{name}.schema.json": schema_text(name) for name in SCHEMAS}


def _filled(text: str, blocks: Mapping[str, str]) -> str:
    def block(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- generated: {name} -->\n{blocks[name]}<!-- end -->"

    return BLOCK.sub(block, text)


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _keys(names: Sequence[str]) -> str:
    """Tables of keys: of the whole file, or of each of the definitions `names`."""
    from simpod.config.json_schema import experiment_schema

    schema = experiment_schema()
    definitions = schema["$defs"]
    parts = [definitions[name] for name in names] or [schema]
    return "\n".join(_part(part, is_alone=not names) for part in parts)


def _traces() -> str:
    """What traces share, once, then the rest of each format."""
    from simpod.config.described import described_schema
    from simpod.config.json_schema import experiment_schema
    from simpod.workload.traces.spec import TimedTrace, TraceFile

    definitions = experiment_schema()["$defs"]
    shared = [described_schema(kind) for kind in (TraceFile, TimedTrace)]
    parts = [shared[0], _without(shared[1], shared[0])]
    parts += [_without(definitions[name], shared[1]) for name in TRACES]
    return "\n".join(_part(part, is_alone=False) for part in parts)


def kernel_definitions() -> dict[str, tuple[str, list[str]]]:
    """Operator class -> definition of its fits, and those of its constants."""
    from simpod.config.json_schema import experiment_schema

    definitions = experiment_schema()["$defs"]
    found = {}
    for operator, value in definitions["KernelFits"]["properties"].items():
        fit = _name(value["additionalProperties"])
        constants = definitions[fit]["properties"]["constants"]
        found[operator] = fit, [_name(each) for each in constants.get("anyOf", [constants])]
    return found


def _name(reference: Json) -> str:
    name: str = reference["$ref"].rpartition("/")[2]
    return name


def _kernels() -> str:
    """A fit, once; then a section an operator class with a table for each kind of constants."""
    from simpod.config.json_schema import experiment_schema

    definitions = experiment_schema()["$defs"]
    operators = definitions["KernelFits"]["properties"]
    found = kernel_definitions()
    fit, kinds = next(iter(found.values()))  # they differ in their constants alone
    parts = [_part(definitions[fit], is_alone=False).replace(_words(kinds[0]), "see below")]
    for operator, (_, kinds) in found.items():
        parts.append(f"## {operator}\n\n{_sentence(operators[operator]['description'])}\n")
        parts += [_part(definitions[kind], is_alone=False) for kind in kinds]
    return "\n".join(parts)


def _without(part: Json, other: Json) -> Json:
    """The part without the keys that `other` has as well."""
    kept = {k: v for k, v in part["properties"].items() if k not in other["properties"]}
    return {**part, "properties": kept}


def _part(part: Json, *, is_alone: bool) -> str:
    """A heading and a table of one definition's keys; aliases stand beside the key they mean."""
    required = part.get("required", ())
    own, aliases = _without_aliases(part["properties"])
    head = ["key", "value", "default", "meaning"] + (["other names"] if aliases else [])

    def rows() -> Iterator[list[str]]:
        for key, value in own.items():
            cells = [
                f"`{key}`",
                _allowed(value),
                "required" if key in required else _default(value),
                _sentence(value.get("description", "")),
            ]
            yield [*cells, ", ".join(aliases.get(key, []))] if aliases else cells

    title = "" if is_alone else f"**{_title(part)}** {_sentence(part.get('description', ''))}\n\n"
    return title + (_table(head, rows()) if own else "")


def _without_aliases(properties: Json) -> tuple[Json, dict[str, list[str]]]:
    """Keys of their own (not those that only tell members of a union apart), and other names."""
    aliases: dict[str, list[str]] = {}
    own: Json = {}
    for key, value in properties.items():
        other = ALIAS.fullmatch(value.get("description", ""))
        if other is not None:
            sign = "not " if other.group(1) == "The opposite" else ""
            aliases.setdefault(other.group(2), []).append(f"{sign}`{key}`")
        elif key not in TAGS:
            own[key] = value
    return own, aliases


def _tag(part: Json) -> tuple[str, str] | None:
    """The key and value that tell this member of a union from the others."""
    tags = ((key, part["properties"].get(key, {}).get("const")) for key in TAGS)
    return next(((key, value) for key, value in tags if value), None)


def _title(part: Json) -> str:
    tag = _tag(part)
    return f"`{tag[0]}: {tag[1]}`." if tag else f"{_words(part['title']).capitalize()}."


def _words(title: str) -> str:
    """MmppState -> mmpp state."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", title.removesuffix("Spec")).lower()


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(value: Json) -> str:
    default = value.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{json.dumps(default)}`"


def _allowed(value: Json) -> str:
    """What may stand there, in few words."""
    if "$ref" in value:
        return _words(value["$ref"].rpartition("/")[2])
    if "discriminator" in value:
        choices = (f"`{choice}`" for choice in value["discriminator"]["mapping"])
        return f"by `{value['discriminator']['propertyName']}`: {', '.join(choices)}"
    if "anyOf" in value:
        members = [m for m in value["anyOf"] if m.get("type") != "null"]
        return ", or ".join(dict.fromkeys(_allowed(member) for member in members))
    if "enum" in value:
        return _choice(value["enum"])
    word = KINDS.get(value.get("type", ""), "any")
    inner = value.get("items") or next(iter(value.get("patternProperties", {}).values()), None)
    if inner:
        return f"{word} of {_allowed(inner)}"
    return word + _limits(value)


def _choice(choices: Sequence[str]) -> str:
    return ", ".join(f"`{choice}`" for choice in choices) if len(choices) < 9 else "a preset"


def _limits(value: Json) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return ",".join(f" {sign} {value[key]:g}" for key, sign in signs.items() if key in value)


def _slo_presets() -> str:
    from simpod.config import SLO_PRESETS

    rows = (
        [f"`{name}`", f"{targets['ttft_s']:g}", f"{targets['tpot_s']:g}"]
        for name, targets in SLO_PRESETS.items()
    )
    return _table(["preset", "`ttft_s`", "`tpot_s`"], rows)


def _columns() -> dict[str, str]:
    from simpod.records.table_columns import TABLE_COLUMNS

    return {
        f"columns-{name}": _table(
            ["column", "meaning"],
            ([", ".join(f"`{c}`" for c in names), text] for names, text in columns.items()),
        )
        for name, columns in TABLE_COLUMNS.items()
    }


def _summary_keys() -> str:
    from simpod.metrics.keys import SUMMARY_KEYS

    return _table(["key", "meaning"], ([f"`{k}`", _sentence(v)] for k, v in SUMMARY_KEYS.items()))


def _policies(role: str) -> str:
    from simpod.policies.catalogue import BUILT_IN, described

    def rows() -> Iterator[list[str]]:
        for name, where in BUILT_IN[role].items():
            said = described(where)
            cells = (said["about"], _params(said["parameters"]), said["sees"], said["source"])
            yield [f"`{name}`", *map(_sentence, cells)]

    return _table(["`use:`", "what it does", "parameters and defaults", "sees", "source"], rows())


def _params(parameters: Mapping[str, Any]) -> str:
    unlimited = 1 << 62

    def default(value: Any) -> str:
        return "no limit" if isinstance(value, int) and value == unlimited else str(value)

    return ", ".join(f"`{name}: {default(value)}`" for name, value in parameters.items())


if __name__ == "__main__":
    main()
