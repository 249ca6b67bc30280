"""The resolved experiment in plain data, and where each of its values came from."""

from collections.abc import Iterator, Sequence
from typing import Any

from simpod.config.layouts import Derived
from simpod.config.nodes import Node, Path, dotted
from simpod.config.schema import Experiment


def build_document(
    experiment: Experiment, order: Sequence[str], derived: Derived
) -> dict[str, Any]:
    """Canonical keys, defaults and derived values filled in; what is null is left
    out, but for the fields of the model, which must all be there.

    order: of the pools.
    """
    document: dict[str, Any] = experiment.model_dump(mode="json", exclude_none=True)
    document["model"] = experiment.model_dump(mode="json", include={"model"})["model"]
    document["deployment"] = {name: document["deployment"][name] for name in order}
    policies = {
        key: {"use": entry.use, **entry.settings, **entry.params}
        for key, entry in experiment.policies
        if entry is not None
    }
    document["policies"] = policies
    if len(order) == 1:
        del document["kv_transfer"]
    for path, (value, _) in derived.items():
        _put(document, path, value)
    return document


def _put(document: dict[str, Any], path: Path, value: object) -> None:
    for segment in path[:-1]:
        document = document.setdefault(str(segment), {})
    document[str(path[-1])] = value


def leaves(data: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Values that are not mappings, with their paths; lists of mappings are opened, others kept."""
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif isinstance(data, list) and any(isinstance(item, dict) for item in data):
        for index, value in enumerate(data):
            yield from leaves(value, (*path, index))
    else:
        yield path, data


def origins_of(document: dict[str, Any], root: Node, derived: Derived) -> dict[str, str]:
    """Dotted key -> `file:line`, `--set`, `default`, or `derived: how`."""
    origins: dict[str, str] = {}
    for path, _ in leaves(document):
        node = root.find(path)
        if path in derived:
            how = derived[path][1]
            origins[dotted(path)] = f"derived: {how}" if how else "default"
        elif node is not None and node.value is not None:
            origins[dotted(path)] = node.place.origin
        else:
            origins[dotted(path)] = "default"
    return origins
