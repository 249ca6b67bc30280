"""A configuration as a tree of values that remember where they were written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file, or (line 0) something without lines: an override, a whole file."""

    source: str
    line: int = 0
    column: int = 0
    text: str = ""  # the source line

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    @property
    def is_override(self) -> bool:
        """On the command line."""
        return self.source.startswith("--set")

    @property
    def origin(self) -> str:
        """`file:line`, or `--set` for every override."""
        if self.is_override:
            return "--set"
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(slots=True, kw_only=True)
class Node:
    """A value, the place where it stands, and the key before it as the user spelled it."""

    value: "dict[str, Node] | list[Node] | str | int | float | bool | None"
    place: Place
    key: Place
    written: str = ""

    def child(self, segment: str | int) -> "Node | None":
        """What stands under a key or an index, if anything."""
        if isinstance(self.value, dict):
            return self.value.get(str(segment))
        if isinstance(self.value, list) and isinstance(segment, int):
            return self.value[segment] if 0 <= segment < len(self.value) else None
        return None

    def find(self, path: Path) -> "Node | None":
        """The node at `path`, if it is written."""
        node: Node | None = self
        for segment in path:
            if node is None:
                return None
            node = node.child(segment)
        return node

    def nearest(self, path: Path) -> "tuple[Node, Path]":
        """The deepest written node on the way to `path`, and its own path."""
        node, done = self, 0
        for segment in path:
            deeper = node.child(segment)
            if deeper is None:
                break
            node, done = deeper, done + 1
        return node, path[:done]

    def children(self) -> "dict[str, Node]":
        """The keys of a mapping; none for everything else."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:
        """The same tree in plain dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def walk(self, path: Path = ()) -> "Iterator[tuple[Path, Node]]":
        """Every node below and this one, with its path."""
        yield path, self
        if isinstance(self.value, dict):
            for key, node in self.value.items():
                yield from node.walk((*path, key))
        elif isinstance(self.value, list):
            for index, node in enumerate(self.value):
                yield from node.walk((*path, index))


def from_plain(data: Any, place: Place, written: str = "") -> Node:
    """A tree whose values all stand at one place: an override, a file that is not YAML."""
    if isinstance(data, dict):
        below: Any = {str(key): from_plain(value, place, str(key)) for key, value in data.items()}
    elif isinstance(data, list | tuple):
        below = [from_plain(value, place) for value in data]
    else:
        below = data
    return Node(value=below, place=place, key=place, written=written)


def dotted(path: Sequence[str | int]) -> str:
    """`deployment.decode.dp`."""
    return ".".join(str(segment) for segment in path)
