"""Constants for a kernel that nobody measured on a die: the die's, and those of its library.

How fast a core multiplies, what the memory gives: that is the die's, and much the same whatever
library is timed. How long a kernel takes to launch, how it tiles and splits, what it copies before
and how many bytes it keeps in flight: that is the library's, and much the same on another die
(`LIBRARY` of each class). Taken over from another generation as a whole, constants miss by the
library; taken by halves, by what the dies differ in. The figures: docs/calibration.md.
"""

from dataclasses import replace
from typing import Any, TypeVar

C = TypeVar("C")


def with_library(die: C, library: C) -> C:
    """The constants `die` with those of a library's from `library`, fitted on another die.

    Classes without `LIBRARY` (links) and constants of two classes give `die`.
    """
    names: frozenset[str] = getattr(type(die), "LIBRARY", frozenset())
    if type(die) is not type(library) or not names:
        return die
    changed: Any = die
    found: C = replace(changed, **{name: getattr(library, name) for name in names})
    return found
