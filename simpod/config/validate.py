"""From a tree to a checked object: pydantic finds the mistakes, this tells them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from simpod.config.aliases import NOT_MODELLED, POOL_ALIASES
from simpod.config.halves import HALF_ROLES
from simpod.config.nodes import Node, Path, dotted
from simpod.config.problems import NOTHING, Problem, Problems, closest, did_you_mean, listed

T = TypeVar("T")

_NAMES: Final = "names of letters, digits, - and _, a letter first"
_MESSAGES: Final[Mapping[str, tuple[str, str, str]]] = {
    "finite_number": ("not a finite number", "a finite number", ""),
    "string_pattern_mismatch": ("not a name", _NAMES, ""),
    "too_short": ("empty", "at least one entry", ""),
    "string_too_short": ("empty", "text", ""),
}
_REFERENCES: Final = (("model",), ("hardware",), ("workload",))
_TYPES: Final[Mapping[str, str]] = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "dataclass_type": "a mapping (key: value)",
    "dataclass_exact_type": "a mapping (key: value)",
    "list_type": "a list",
    "tuple_type": "a list",
}
_BOUNDS: Final[Mapping[str, tuple[str, str, str]]] = {  # error -> what, sign, key of the bound
    "greater_than": ("too small", ">", "gt"),
    "greater_than_equal": ("too small", ">=", "ge"),
    "less_than": ("too large", "<", "lt"),
    "less_than_equal": ("too large", "<=", "le"),
}
TAG_KEYS: Final = frozenset({"process", "distribution", "format", "kind"})
"""Keys that say which member of a union a mapping is."""
_UNKNOWN_KEY: Final = frozenset({"extra_forbidden", "unexpected_keyword_argument"})


@cache
def adapter_of(kind: Any) -> TypeAdapter[Any]:
    """The validator of a type, built once: building costs more than validating."""
    return TypeAdapter(kind)


def validate(kind: type[T], root: Node, problems: Problems) -> T | None:
    """Check `root` strictly against `kind`; None and all problems told if it does not fit.

    The detour over JSON is deliberate: pydantic's strict mode then takes lists and mappings for
    tuples and dataclasses, but no text for numbers and no 1 for true.
    """
    key: Any = kind
    adapter: TypeAdapter[T] = adapter_of(key)
    plain = root.plain()
    try:
        return adapter.validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
    schema = adapter.json_schema()
    _tell([*found, *_behind_tags(adapter, schema, root, found)], schema, root, problems)
    return None


def _behind_tags(
    adapter: TypeAdapter[Any], schema: Mapping[str, Any], root: Node, found: Sequence[ErrorDetails]
) -> list[ErrorDetails]:
    """What else is wrong where a tag (`process: poison`) is unknown, which pydantic does not say.

    The value is checked again with the tag that is most like what was written. If none is near, the
    keys decide which, and only mistakes in values are told: the keys need not be this one's.
    """
    plain, guesses = root.plain(), dict[Path, bool]()  # path of the value -> the tag was like it
    for details in found:
        path = _written_path(root, details)
        node = root.find(path)
        if not details["type"].startswith("union_tag") or node is None:
            continue
        tag_key = str(details["ctx"]["discriminator"]).strip("'")
        written = node.child(tag_key)
        near = closest(str(written.value), allowed_tags(schema, details["loc"])) if written else ""
        tag = near or _tag_by_keys(schema, details["loc"], node)
        if tag:
            _at_path(plain, path)[tag_key] = tag
            guesses[path] = bool(near)
    if not guesses:
        return []
    try:
        adapter.validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        return [
            details
            for details in error.errors(include_url=False)
            for path, is_near in guesses.items()
            if _is_below(_written_path(root, details), path)
            and (is_near or not details["type"].startswith(("missing", *_UNKNOWN_KEY)))
        ]
    return []


def _tag_by_keys(schema: Mapping[str, Any], loc: Sequence[str | int], node: Node) -> str:
    """The member of the union at `loc` that has most of the keys; empty if it has none of them."""
    keys = set(node.children())
    shared = {tag: len(keys & set(found["properties"])) for found, tag in _at(schema, loc) if tag}
    best = max(shared, key=lambda tag: shared[tag], default="")
    return best if best and shared[best] else ""


def _at_path(plain: Any, path: Path) -> Any:
    for segment in path:
        plain = plain[segment]
    return plain


def _is_below(path: Path, above: Path) -> bool:
    return len(path) > len(above) and path[: len(above)] == above


def _tell(
    found: Sequence[ErrorDetails], schema: Mapping[str, Any], root: Node, problems: Problems
) -> None:
    """All of pydantic's errors; a missing key is not told when it stands there misspelt, nor a type
    that one member of a union refuses where another finds a mistake further in.
    """
    tellers = [
        _Teller(root, schema, details, path)
        for details in found
        if not problems.is_silent(path := _written_path(root, details))
    ]
    misspelt = {(*t.path[:-1], t.meant()) for t in tellers if t.is_unknown_key}
    inner = [t.path for t in tellers]
    wanted = [
        t
        for t in tellers
        if not (t.is_missing and t.path in misspelt)
        and not (t.kind in _TYPES and any(_is_below(path, t.path) for path in inner))
    ]
    for problem in _joined([teller.problem() for teller in wanted]):
        problems.add(problem)


def _joined(found: Sequence[Problem]) -> list[Problem]:
    """The members of a union each refuse a value: one problem, with what all of them allow."""
    joined: list[Problem] = []
    for problem in found:
        last = joined[-1] if joined else None
        is_same = last is not None and (last.place, last.key) == (problem.place, problem.key)
        if last is not None and is_same and last.allowed and problem.allowed:
            joined[-1] = replace(last, allowed=f"{last.allowed}, or {problem.allowed}")
        else:
            joined.append(problem)
    return joined


def _written_path(root: Node, details: ErrorDetails) -> Path:
    """pydantic's location without the names of union members, which are not in the file."""
    node, path, loc = root, list[str | int](), details["loc"]
    for position, segment in enumerate(loc):
        deeper = node.child(segment)
        last = position == len(loc) - 1 and details["type"].startswith("missing")
        if deeper is not None:
            node = deeper
            path.append(segment)
        elif last and isinstance(node.value, dict):
            path.append(segment)  # a key that is missing; others name members of unions
    return tuple(path)


class _Teller:
    """Words one of pydantic's errors."""

    def __init__(
        self, root: Node, schema: Mapping[str, Any], details: ErrorDetails, path: Path
    ) -> None:
        self.root, self.schema, self.details, self.path = root, schema, details, path
        self.kind = details["type"]
        self.ctx = details.get("ctx", {})

    @property
    def is_unknown_key(self) -> bool:
        return self.kind in _UNKNOWN_KEY

    @property
    def is_missing(self) -> bool:
        return self.kind.startswith("missing")

    def meant(self) -> str:
        """The known key that an unknown one is most like; empty if it is like none."""
        known = allowed_keys(self.schema, self.details["loc"][:-1])
        aliases = tuple(POOL_ALIASES) if "max_num_seqs" in known else ()
        return closest(str(self.path[-1]), (*known, *aliases))

    def problem(self) -> Problem:
        if self.is_unknown_key:
            return self._unknown_key()
        if self.is_missing:
            return self._missing()
        if self.kind.startswith("union_tag"):
            return self._tag()
        what, allowed, hint = self._words()
        node, written = self.root.nearest(self.path)
        collection = isinstance(node.value, dict | list)
        return Problem(
            place=node.key if collection else node.place,
            key=self._key(),
            what=what,
            got=NOTHING if collection or written != self.path else node.value,
            allowed=allowed,
            hint=hint,
        )

    def _words(self) -> tuple[str, str, str]:
        """What is wrong, what is allowed, a hint."""
        if self.kind in _TYPES:
            named = "a name, a path or " if self.path[-1:] in _REFERENCES else ""
            return "wrong type", named + _TYPES[self.kind], ""
        if self.kind in _BOUNDS:
            what, sign, bound = _BOUNDS[self.kind]
            return what, f"a number {sign} {self.ctx[bound]:g}", ""
        if self.kind in {"literal_error", "enum"}:
            allowed = str(self.ctx["expected"]).replace("'", "").replace(" or ", ", ")
            names = allowed.split(", ")
            if self.path[0] == "deployment" and self.path[-1] == "role":
                names += HALF_ROLES
                allowed = ", ".join(names)
            return "unknown value", allowed, did_you_mean(str(self.details["input"]), names)
        if self.kind == "value_error":
            return str(self.ctx["error"]), "", ""
        text = self.details["msg"]
        return _MESSAGES.get(self.kind, (text[:1].lower() + text[1:], "", ""))

    def _unknown_key(self) -> Problem:
        node, _ = self.root.nearest(self.path)
        word = str(self.path[-1])
        known = allowed_keys(self.schema, self.details["loc"][:-1])
        instead = NOT_MODELLED.get(word, "") if "max_num_seqs" in known else self._other_kind()
        meant = self.meant()
        return Problem(
            place=node.key,
            key=self._key(),
            what="unknown key",
            got=node.value if not isinstance(node.value, dict | list) else NOTHING,
            allowed=listed(known) or _NAMES,
            hint=instead or (f'did you mean "{meant}"?' if meant else ""),
        )

    def _other_kind(self) -> str:
        """Of an unknown key that other members of a tagged union have: which."""
        kinds = keys_by_tag(self.schema, self.path[:-1])
        owners = [kind for kind, keys in kinds.items() if self.path[-1] in keys]
        section = self.root.find(self.path[:-1])
        for key, node in section.children().items() if section and owners else ():
            if key in TAG_KEYS and node.value in kinds:
                return f"it belongs to {key}: {listed(owners)}"
        return ""

    def _missing(self) -> Problem:
        node, _ = self.root.nearest(self.path)
        return Problem(
            place=node.key,
            key=self._key(),
            what=f'missing key "{self.path[-1]}"',
            hint=self._way_to_set(),
        )

    def _way_to_set(self) -> str:
        """Of a key that is missing because `--set` chose another member of the union."""
        section = self.root.find(self.path[:-1])
        for key, node in section.children().items() if section else ():
            if key in TAG_KEYS and node.place.is_override:
                where = dotted(self.path[:-1])
                return (
                    f"give it with --set {dotted(self.path)}=..., or all keys at once:"
                    f" --set '{where}={{{key}: {node.value}, {self.path[-1]}: ...}}'"
                )
        return ""

    def _tag(self) -> Problem:
        tag_key = str(self.ctx["discriminator"]).strip("'")
        path = (*self.path, tag_key)
        node, written = self.root.nearest(path)
        known = allowed_tags(self.schema, self.details["loc"])
        if written != path:
            return Problem(
                place=node.key,
                key=dotted(path),
                what=f'missing key "{tag_key}"',
                allowed=listed(known),
            )
        return Problem(
            place=node.place,
            key=dotted(path),
            what="unknown value",
            got=node.value,
            allowed=listed(known),
            hint=did_you_mean(str(node.value), known),
        )

    def _key(self) -> str:
        """The dotted path, its last key as the user spelled it."""
        node = self.root.find(self.path)
        if node is None or not node.written or not self.path:
            return dotted(self.path)
        return dotted((*self.path[:-1], node.written))


def allowed_keys(schema: Mapping[str, Any], loc: Sequence[str | int]) -> tuple[str, ...]:
    """Keys of the object at pydantic's location `loc`, from the JSON schema."""
    keys: dict[str, None] = {}
    for found, _ in _at(schema, loc):
        keys.update(dict.fromkeys(found.get("properties", {})))
    return tuple(keys)


def allowed_tags(schema: Mapping[str, Any], loc: Sequence[str | int]) -> tuple[str, ...]:
    """Values of the discriminator of the union at `loc`."""
    return tuple(dict.fromkeys(tag for _, tag in _at(schema, loc) if tag))


def keys_by_tag(schema: Mapping[str, Any], loc: Sequence[str | int]) -> dict[str, frozenset[str]]:
    """Of the union at `loc`: tag -> keys of the member that has it; empty if it has no tags."""
    return {tag: frozenset(found["properties"]) for found, tag in _at(schema, loc) if tag}


_Found = tuple[Mapping[str, Any], str]


def _at(schema: Mapping[str, Any], loc: Sequence[str | int]) -> list[_Found]:
    current = list(_alternatives(schema, schema))
    for segment in loc:
        below = [deeper for found, _ in current for deeper in _below(found, segment)]
        if below:
            current = [found for deeper in below for found in _alternatives(schema, deeper)]
        else:  # the name of a union member
            named = [found for found in current if segment in (found[1], found[0].get("title"))]
            current = named or current
    return current


def _below(found: Mapping[str, Any], segment: str | int) -> Iterator[Mapping[str, Any]]:
    if segment in found.get("properties", {}):
        yield found["properties"][segment]
    elif "patternProperties" in found:  # a mapping whose keys have a rule
        yield from found["patternProperties"].values()
    elif isinstance(found.get("additionalProperties"), dict):
        yield found["additionalProperties"]
    elif isinstance(found.get("items"), dict) and isinstance(segment, int):
        yield found["items"]


def _alternatives(
    schema: Mapping[str, Any], found: Mapping[str, Any], tag: str = ""
) -> Iterator[_Found]:
    """Follow references and unions down to plain schemas; the tag is that of the union member."""
    if "$ref" in found:
        name = str(found["$ref"]).rpartition("/")[2]
        yield from _alternatives(schema, schema["$defs"][name], tag)
        return
    members = [*found.get("anyOf", ()), *found.get("oneOf", ()), *found.get("allOf", ())]
    tags = {ref: tag for tag, ref in found.get("discriminator", {}).get("mapping", {}).items()}
    for member in members:
        yield from _alternatives(schema, member, tags.get(member.get("$ref"), tag))
    if not members:
        yield found, tag
