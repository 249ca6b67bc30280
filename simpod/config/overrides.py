"""`--set a.b.c=3`: the only override of the command line."""

from collections.abc import Callable
from functools import cache
from typing import Any

from simpod.config.aliases import POLICY_KEYS, POOL_ALIASES, SETTINGS_OF
from simpod.config.changed_die import rename_overridden_die
from simpod.config.nodes import Node, Path, Place, dotted, from_plain
from simpod.config.problems import NOTHING, Problem, Problems, did_you_mean, listed
from simpod.config.schema import Experiment
from simpod.config.strict_yaml import parse_yaml
from simpod.config.validate import TAG_KEYS, adapter_of, keys_by_tag
from simpod.errors import ConfigError

Expand = Callable[[Path], None]
"""Replaces the name at a path by its content, if it is one of a model, profile or workload."""


def apply_override(root: Node, text: str, expand: Expand, problems: Problems) -> None:
    """Set one key of `root`; the value is YAML (also `[1, 2]` and `{a: 1}`).

    New keys under a mapping are made (the validation judges them), items of lists are replaced by
    index. A key below `model`, `hardware` or `workload` changes one value of what is named there. A
    new `use` of a policy starts without the parameters of the old one, a new `process`,
    `distribution`, `format` or `kind` without the keys that only the old one has.
    """
    place = Place(f"--set {text}")
    key, sign, value = text.partition("=")
    segments = key.strip().split(".")
    if not sign or not all(segments):
        problems.add(
            Problem(place=place, key="", what="not an override", allowed="--set key.below=value")
        )
        return
    try:
        node = from_plain(parse_yaml(value, "value").plain(), place, segments[-1])
    except ConfigError as error:
        what = error.problems[0].splitlines()[0].partition(": ")[2]  # its place is no help
        problems.add(Problem(place=place, key=key, what=what, hint="put text in quotes"))
        return
    parent = _parent(root, segments, expand, problems, place)
    if parent is not None:
        rename_overridden_die(segments, node, root)
        _put(parent, segments, node, problems)


def _parent(
    root: Node, segments: list[str], expand: Expand, problems: Problems, place: Place
) -> Node | None:
    """The collection that holds the last segment, made where it is missing."""
    node, path = root, list[str | int]()
    for segment in segments[:-1]:
        child = _child(node, segment)
        if child is None and path == ["deployment"] and segments[-1] != "role" and node.value:
            _refuse_pool(node, segment, problems, place)
            return None
        if child is None and isinstance(node.value, dict):
            child = from_plain({}, place, segment)
            node.value[segment] = child
        path.append(segment)
        if child is None:
            _refuse(node, path, problems, place)
            return None
        if isinstance(child.value, str):
            expand(tuple(path))
        if child.value is None:
            child.value = {}
        node = child
    if not isinstance(node.value, dict | list):
        _refuse(node, [*path, segments[-1]], problems, place)
        return None
    return node


def _refuse_pool(deployment: Node, name: str, problems: Problems, place: Place) -> None:
    """A key below a pool that is not there: a typing mistake, and no new pool without a role."""
    known = tuple(deployment.children())
    problems.add(
        Problem(
            place=place,
            key=f"deployment.{name}",
            what="no such pool",
            allowed=listed(known),
            hint=did_you_mean(name, known),
        )
    )


def _child(node: Node, segment: str) -> Node | None:
    if isinstance(node.value, list):
        return node.child(int(segment)) if segment.isdecimal() else None
    return node.child(segment)


def _put(parent: Node, segments: list[str], node: Node, problems: Problems) -> None:
    last = segments[-1]
    if isinstance(parent.value, list):
        if _child(parent, last) is None:
            _refuse(parent, list(segments), problems, node.place)
        else:
            parent.value[int(last)] = node
    elif isinstance(parent.value, dict):
        match segments:
            case ["policies", role, "use"] if role in POLICY_KEYS:
                kept = SETTINGS_OF.get(role, ())
                parent.value = {key: parent.value[key] for key in kept if key in parent.value}
            case ["deployment", _, key]:
                _make_way(parent.value, key, is_null=node.value is None)
            case [*section, key] if key in TAG_KEYS:
                parent.value = _of_kind(parent.value, section, key, node)
        parent.value[last] = node


@cache
def _experiment_schema() -> dict[str, Any]:
    schema: dict[str, Any] = adapter_of(Experiment).json_schema()
    return schema


def _of_kind(
    values: dict[str, Node], section: list[str], tag_key: str, tag: Node
) -> dict[str, Node]:
    """What stays where `--set` makes a mapping one of another kind: not what only the old kind has.

    What another `--set` gave beside that kind stays, to be refused.
    """
    old = values.get(tag_key)
    if old is None or old.value == tag.value:
        return values
    loc = [int(part) if part.isdecimal() else part for part in section]
    kinds = keys_by_tag(_experiment_schema(), loc)
    before, after = (kinds.get(str(each.value), frozenset()) for each in (old, tag))
    gone = before - after if after else frozenset()
    return {
        key: node
        for key, node in values.items()
        if key not in gone or (node.place.is_override and node.place != old.place)
    }


def _make_way(pool: dict[str, Node], key: str, *, is_null: bool) -> None:
    """Take out what a key of a pool replaces: the same setting under its own name, and, where the
    file splits its dies by tp alone (or by dp alone), that one for the other, which decides now."""
    canonical = POOL_ALIASES.get(key, key)
    other = {"dp": "tp", "tp": "dp"}.get(canonical, "")
    is_alone = "dies" in pool and other in pool and canonical not in pool
    if is_alone and not is_null and not pool[other].place.is_override:
        del pool[other]
    if canonical != key:
        pool.pop(canonical, None)


def _refuse(node: Node, path: list[str | int], problems: Problems, place: Place) -> None:
    if isinstance(node.value, list):
        top = len(node.value) - 1
        what, allowed = f"no item {path[-1]} in this list", f"an index from 0 to {top}"
    else:
        what, allowed = f"{dotted(path[:-1])} is not a mapping, it has no keys", ""
    scalar = not isinstance(node.value, dict | list)
    problems.add(
        Problem(
            place=place,
            key=dotted(path),
            what=what,
            got=node.value if scalar else NOTHING,
            allowed=allowed,
        )
    )
