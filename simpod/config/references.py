"""Models, profiles and workloads by name or path, as trees that know where each value stands."""

from dataclasses import asdict
from pathlib import Path as FilePath
from typing import Any, Final, TypeVar

from simpod.config import library
from simpod.config.nodes import Node, Path, Place, from_plain
from simpod.config.problems import Problem, Problems
from simpod.config.strict_yaml import read_yaml
from simpod.config.validate import validate
from simpod.errors import ConfigError, InvariantError
from simpod.hardware.base import merge_base
from simpod.hardware.spec import HardwareProfile
from simpod.model.huggingface import read_hf
from simpod.model.spec import ModelSpec

T = TypeVar("T")


def load_model(name_or_path: str, beside: FilePath | None = None) -> ModelSpec:
    """A model by name, or from a YAML file or a HuggingFace config.json."""
    found: list[Problem] = []
    return _checked(ModelSpec, model_tree(name_or_path, beside, found), found)


def load_hardware(name_or_path: str, beside: FilePath | None = None) -> HardwareProfile:
    """A hardware profile by name or from a YAML file, its `base:` merged in."""
    found: list[Problem] = []
    return _checked(HardwareProfile, hardware_tree(name_or_path, beside, found), found)


def model_tree(name_or_path: str, beside: FilePath | None, found: list[Problem]) -> Node:
    """The numbers of a model, not validated yet (those of a config.json are).

    found: takes the mistakes that leave the rest of the file readable.
    """
    path = library.find("models", name_or_path, beside)
    source = library.label(path)
    if path.suffix != ".json":
        return read_yaml(path, source, found)
    return from_plain(asdict(read_hf(path)), Place(source))


def hardware_tree(name_or_path: str, beside: FilePath | None, found: list[Problem]) -> Node:
    """The numbers of a profile with its bases, not validated yet. found: as for `model_tree`."""
    seen: list[FilePath] = []
    trees: list[Node] = []
    value, folder = name_or_path, beside
    while True:
        path = library.find("hardware_profiles", value, folder)
        if path.resolve() in seen:
            raise ConfigError(f"{library.label(path)}: base: leads back to this profile")
        seen.append(path.resolve())
        trees.append(read_yaml(path, library.label(path), found))
        base = trees[-1].child("base")
        if base is None:
            break
        if not isinstance(base.value, str):
            raise ConfigError(f"{base.place}: base: takes the name of a profile, or a path")
        value, folder = base.value, path.parent
    merged = trees[-1].plain()
    for tree in reversed(trees[:-1]):
        merged = merge_base(tree.plain(), merged)
    return _located(merged, list(trees)) if len(trees) > 1 else trees[0]


def workload_tree(name_or_path: str, beside: FilePath | None, found: list[Problem]) -> Node:
    """A workload, not validated yet; files beside its own are found. found: as for `model_tree`."""
    path = library.find("workloads", name_or_path, beside)
    tree = read_yaml(path, library.label(path), found)
    for at, node in tree.walk(()):
        if at[-1:] == ("path",) and isinstance(node.value, str):
            near = path.parent / node.value
            node.value = str(near.absolute()) if near.is_file() else node.value
    return tree


_TREES: Final = {"model": model_tree, "workload": workload_tree, "hardware": hardware_tree}


def expand_reference(root: Node, path: Path, beside: FilePath | None, problems: Problems) -> None:
    """Replace a name or path at `path` by its numbers; if that fails, tell it, leave the name."""
    node = root.find(path)
    if node is None or not isinstance(node.value, str):
        return
    read = _TREES[str(path[-1])]
    found: list[Problem] = []
    with problems.below(path):
        node.value = read(node.value, beside, found).value
    problems.add_unreadable(found)


def reference_paths(root: Node) -> list[Path]:
    """Where an experiment may name a model, a profile or a workload."""
    pools = root.child("deployment")
    names = pools.children() if pools else {}
    return [
        ("model",),
        ("hardware",),
        ("workload",),
        *(("deployment", name, "hardware") for name in names),
    ]


def _checked(kind: type[T], root: Node, found: list[Problem]) -> T:
    problems = Problems(root)
    problems.add_unreadable(found)
    spec = validate(kind, root, problems)
    problems.stop()
    if spec is None:
        raise InvariantError(f"{kind.__name__} is invalid without a problem")
    return spec


def _located(data: Any, trees: list[Node]) -> Node:
    """A tree of `data` whose places are those of the first of `trees` that has the value."""
    first = trees[0]
    if not isinstance(data, dict):
        return first
    below: dict[str, Node] = {}
    for key, value in data.items():
        holders = [child for tree in trees if (child := tree.child(key)) is not None]
        below[key] = _located(value, holders)
    return Node(value=below, place=first.place, key=first.key, written=first.written)
