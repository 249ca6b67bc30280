"""One mistake of the user, told well: where, which key, what is wrong, what is allowed."""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from simpod.config.nodes import Node, Path, Place, dotted
from simpod.errors import ConfigError

NOTHING: Final = object()
"""No value was given (None is a value)."""

_MAX_VALUE_CHARS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`place: key: what (got value); allowed: ...; did you mean "x"?`, source line, caret."""

    place: Place
    key: str
    what: str
    got: Any = NOTHING
    allowed: str = ""
    hint: str = ""

    def __str__(self) -> str:
        parts = [self.what if self.got is NOTHING else f"{self.what} (got {show(self.got)})"]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.hint:
            parts.append(self.hint)
        head = ": ".join(part for part in (str(self.place), self.key, "; ".join(parts)) if part)
        return head + self._caret()

    def _caret(self) -> str:
        if not self.place.line:
            return ""
        shown = self.place.text.replace("\t", " ")
        return f"\n    {shown}\n    {' ' * (self.place.column - 1)}^"


@dataclass(slots=True)
class Problems:
    """All mistakes of one configuration, collected; `stop` raises them together."""

    root: Node
    found: list[Problem] = field(default_factory=list)
    silent: set[Path] = field(default_factory=set)  # told already: what lies below is not reported
    unreadable: set[Place] = field(default_factory=set)  # told already: what stands there is null

    def at(
        self,
        path: Path,
        what: str,
        *,
        allowed: str = "",
        hint: str = "",
        show_value: bool = True,
    ) -> None:
        """A mistake in the value at `path`; if it is not written, in what stands nearest."""
        node, written = self.root.nearest(path)
        whole = written == path and not isinstance(node.value, dict | list)
        self.add(
            Problem(
                place=node.place if whole else node.key,
                key=dotted(path),
                what=what,
                got=node.value if whole and show_value else NOTHING,
                allowed=allowed,
                hint=hint,
            )
        )

    def blamed(self, section: Path, *keys: str) -> Path:
        """Of values that do not go together the one that an override gave, else the first."""
        for key in keys:
            node = self.root.find((*section, key))
            if node is not None and node.place.is_override:
                return *section, key
        return *section, keys[0]

    def add(self, problem: Problem) -> None:
        """Keep a mistake, once; none that follows from what could not be read."""
        if problem not in self.found and problem.place not in self.unreadable:
            self.found.append(problem)

    def add_unreadable(self, problems: Sequence[Problem]) -> None:
        """Keep the mistakes that a reader has found and went on."""
        for problem in problems:
            self.add(problem)
        self.unreadable.update(problem.place for problem in problems)

    @contextmanager
    def below(self, path: Path) -> Iterator[None]:
        """Report a ConfigError of a lower layer as a mistake at `path`, and go on."""
        try:
            yield
        except ConfigError as error:
            self.silent.add(path)
            node, _ = self.root.nearest(path)
            for text in error.problems:
                self.add(Problem(place=node.place, key=dotted(path), what=text))

    def is_silent(self, path: Path) -> bool:
        """Whether the mistake there, or above, was told already."""
        return any(path[: len(told)] == told for told in self.silent)

    def stop(self) -> None:
        """Raise everything that was found, file by file, from top to bottom."""
        if self.found:
            sources = list(dict.fromkeys(problem.place.source for problem in self.found))
            ordered = sorted(
                self.found,
                key=lambda problem: (
                    sources.index(problem.place.source),
                    problem.place.line,
                    problem.place.column,
                ),
            )
            raise ConfigError([str(problem) for problem in ordered])


def show(value: Any) -> str:
    """A value as it would stand in YAML, cut where it gets long."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else text
    return text if len(text) <= _MAX_VALUE_CHARS else text[: _MAX_VALUE_CHARS - 3] + "..."


def closest(word: str, known: Iterable[str]) -> str:
    """The name most like `word`, empty when none is near."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"?`, or nothing when no name is near."""
    name = closest(word, known)
    return f'did you mean "{name}"?' if name else ""


def listed(names: Sequence[str]) -> str:
    """Names as a reader wants them: sorted as given, separated by commas."""
    return ", ".join(names)
