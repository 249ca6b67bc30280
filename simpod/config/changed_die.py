"""A die that a profile or `--set` makes faster or slower is not the one that was measured."""

from typing import Final

from simpod.config.nodes import Node, Place, from_plain

NAME: Final = "name"
_NO_RATE: Final = frozenset({NAME, "hbm_bytes"})
"""Keys of a die that no kernel's time depends on."""


def rename_changed_die(die: Node | None, name: object, below: object) -> None:
    """Add "(changed)" to the name of a die whose rates `die` changes, unless it gives a name.

    Kernel constants belong to a die by its name: those of a changed one are its family's, no longer
    calibrated. die: what is laid over a profile; name, below: of the die in that profile.
    """
    if die is None or NAME in die.children() or not isinstance(below, dict):
        return
    changed = [
        key
        for key, node in die.children().items()
        if key not in _NO_RATE and not _is_part(node.plain(), below.get(key))
    ]
    if changed and isinstance(name, str):
        die.children()[NAME] = from_plain(_changed(name), _place(die, changed[0]), NAME)


def rename_overridden_die(segments: list[str], value: Node, root: Node) -> None:
    """The same for one key below `hardware.die`, before `--set` puts `value` there."""
    if "hardware" not in segments or "die" not in segments[:-1]:
        return
    start = segments.index("hardware")
    if segments[start + 1 : start + 2] != ["die"] or segments[-1] in _NO_RATE:
        return
    die, old = root.find(tuple(segments[: start + 2])), root.find(tuple(segments))
    name = None if die is None else die.child(NAME)
    if die is None or name is None or name.place.is_override or not isinstance(name.value, str):
        return
    if old is None or old.plain() != value.plain():
        place = Place(f"derived: --set changes {segments[-1]}")
        die.children()[NAME] = from_plain(_changed(name.value), place, NAME)


def _changed(name: str) -> str:
    return name if name.endswith("(changed)") else f"{name} (changed)"


def _place(die: Node, key: str) -> Place:
    return Place(f"derived: {die.place.origin} changes {key}")


def _is_part(value: object, below: object) -> bool:
    """All that `value` says stands in `below` already."""
    if isinstance(value, dict) and isinstance(below, dict):
        return all(_is_part(item, below.get(key)) for key, item in value.items())
    return value == below
