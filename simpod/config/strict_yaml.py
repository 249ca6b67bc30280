"""YAML without its traps: YAML 1.2 scalars, no duplicate keys, and the place of everything.

`1e9` is a number; `yes`, `on`, `2024-05-10` and `1:30` are words. A whole number with an exponent
(`1e6`) is an integer, so that counts can be written so.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any, Final

import yaml

from simpod.config.nodes import Node, Place
from simpod.config.problems import Problem
from simpod.errors import ConfigError

_TAG: Final = "tag:yaml.org,2002:"
_EXACT_FLOAT: Final = 2.0**53
MOST_VALUES: Final = 1_000_000
"""Of one document, aliases counted each time they stand: a few lines can mean billions."""
_LINE_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_SCALARS: Final[tuple[tuple[str, str, str], ...]] = (  # tag, pattern, first characters
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
    ("merge", r"^(?:<<)$", "<"),
)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {"": []}
    for tag, pattern, first in _SCALARS:
        for character in first:
            table.setdefault(character, []).append((_TAG + tag, re.compile(pattern)))
    table[""].append((_TAG + "null", re.compile(r"^$")))
    return table


class _Loader(yaml.SafeLoader):
    """The composer alone is used; scalars are read below."""

    yaml_implicit_resolvers = _resolvers()


def read_yaml(path: FilePath, label: str | None = None, found: list[Problem] | None = None) -> Node:
    """The tree of a file; `label` is how messages call it. found: as for `parse_yaml`."""
    source = str(path) if label is None else label
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from None
    return parse_yaml(text, source, found)


@lru_cache(maxsize=64)
def _compose(text: str) -> yaml.Node | None:
    """The nodes of a text, which nobody changes: many runs read the same profiles."""
    node: yaml.Node | None = _Loader(text).get_single_node()
    return node


def parse_yaml(text: str, source: str, found: list[Problem] | None = None) -> Node:
    """The tree of a YAML text; ConfigError with every duplicate key, or the syntax error.

    found: takes the mistakes that leave the rest of the text readable, which are not raised then:
    of a key that stands twice the first value counts, what cannot be read is null.
    """
    lines = _LINE_BREAK.split(text)
    builder = _Builder(source, lines)
    try:
        composed = _compose(text)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(str(builder.syntax(error))) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{source}: collections nested too deeply") from None
    if composed is None:
        start = Place(source, 1, 1, lines[0] if lines else "")
        return Node(value=None, place=start, key=start)
    node = builder.node(composed, None, "")
    if found is not None:
        found += builder.problems
    elif builder.problems:
        raise ConfigError([str(problem) for problem in builder.problems])
    return node


class _Builder:
    """Turns composed YAML nodes into `Node`s; keeps the problems of one document."""

    def __init__(self, source: str, lines: list[str]) -> None:
        self.source = source
        self.lines = lines
        self.problems: list[Problem] = []
        self._open: list[yaml.Node] = []
        self._made = 0

    def place(self, mark: Any) -> Place:
        text = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return Place(self.source, mark.line + 1, mark.column + 1, text)

    def syntax(self, error: yaml.MarkedYAMLError) -> Problem:
        mark = error.problem_mark or error.context_mark
        place = self.place(mark) if mark else Place(self.source)
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return Problem(place=place, key="", what=f"not YAML: {what}")

    def problem(self, composed: yaml.Node, what: str) -> None:
        found = Problem(place=self.place(composed.start_mark), key="", what=what)
        if found not in self.problems:
            self.problems.append(found)

    def node(self, composed: yaml.Node, key: Place | None, written: str) -> Node:
        place = self.place(composed.start_mark)
        value: Any = None
        self._made += 1
        if self._made > MOST_VALUES:
            raise ConfigError(f"{self.source}: more than {MOST_VALUES:,} values, by its aliases")
        if composed in self._open:
            self.problem(composed, "an alias inside its own anchor")
        elif isinstance(composed, yaml.ScalarNode):
            value = self.scalar(composed)
        else:
            self._open.append(composed)
            value = self.collection(composed)
            self._open.pop()
        return Node(value=value, place=place, key=key or place, written=written)

    def collection(self, composed: yaml.Node) -> dict[str, Node] | list[Node] | None:
        if isinstance(composed, yaml.MappingNode) and composed.tag == _TAG + "map":
            return self.mapping(composed)
        if isinstance(composed, yaml.SequenceNode) and composed.tag == _TAG + "seq":
            return [self.node(item, None, "") for item in composed.value]
        self.problem(composed, f"the tag {composed.tag} is not allowed here")
        return None

    def mapping(self, composed: yaml.MappingNode) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key_node, value_node in composed.value:
            if key_node.tag == _TAG + "merge":
                for key, node in self.merge(value_node).items():
                    merged.setdefault(key, node)
                continue
            key = self.key(key_node)
            place = self.place(key_node.start_mark)
            if key in own:
                first = own[key].key
                self.problems.append(
                    Problem(
                        place=place,
                        key="",
                        what=f'duplicate key "{key}"',
                        hint=f"it stands at line {first.line}, column {first.column} already",
                    )
                )
            else:
                own[key] = self.node(value_node, place, key)
        return {**merged, **own}

    def merge(self, composed: yaml.Node) -> dict[str, Node]:
        if isinstance(composed, yaml.SequenceNode):
            found: dict[str, Node] = {}
            for item in composed.value:
                found = {**self.merge(item), **found}
            return found
        if isinstance(composed, yaml.MappingNode) and composed not in self._open:
            return self.node(composed, None, "").children()
        self.problem(composed, "<<: takes a mapping or a list of mappings")
        return {}

    def key(self, composed: yaml.Node) -> str:
        if isinstance(composed, yaml.ScalarNode) and composed.tag == _TAG + "str":
            return str(composed.value)
        shown = composed.value if isinstance(composed, yaml.ScalarNode) else "a collection"
        self.problem(composed, f'a key must be text: write "{shown}" in quotes')
        return str(shown)

    def scalar(self, composed: yaml.ScalarNode) -> Any:
        kind, text = composed.tag.removeprefix(_TAG), composed.value
        if kind not in _READERS:
            self.problem(composed, f"the tag {composed.tag} is not allowed here")
            return None
        try:
            return _READERS[kind](text)
        except (ValueError, KeyError):
            self.problem(composed, f"{text!r} is not of type {kind}")
            return None


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in {"0o", "0x"} else int(text, 10)


def _number(text: str) -> int | float:
    lowered = text.lower()
    value = float(lowered.replace(".inf", "inf").replace(".nan", "nan"))
    whole = "e" in lowered and "." not in lowered and value.is_integer()
    return int(value) if whole and abs(value) <= _EXACT_FLOAT else value


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "str": str,
    "merge": str,  # `<<` as a value is a word
    "null": lambda text: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": _integer,
    "float": _number,
}
