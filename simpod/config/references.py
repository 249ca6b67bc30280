"""Models, profiles and workloads by name or path, as trees that know where each value stands."""

from dataclasses import asdict
from pathlib import Path as FilePath
from typing import Any, Final, TypeVar

from simpod.config import library
from simpod.config.changed_die import rename_changed_die
from simpod.config.nodes import Node, Path, Place, from_plain
from simpod.config.problems import Problem, Problems
from simpod.config.strict_yaml import read_yaml
from simpod.config.validate import validate
from simpod.errors import ConfigError, InvariantError
from simpod.hardware.base import BASE, KERNELS_OF, merge_base
from simpod.hardware.kernels.fits import LINK_KERNELS
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
    return _profile(name_or_path, beside, found, above=())


def _profile(
    name_or_path: str,
    beside: FilePath | None,
    found: list[Problem],
    above: tuple[tuple[FilePath, str], ...],
) -> Node:
    """above: the profiles on the way here, and the key that led on from each."""
    path = library.find("hardware_profiles", name_or_path, beside)
    if path.resolve() in [each for each, _ in above]:
        raise ConfigError(f"{library.label(path)}: {above[-1][1]}: leads back to this profile")
    tree = read_yaml(path, library.label(path), found)
    layers = [tree]
    for key in (KERNELS_OF, BASE):
        named = tree.child(key)
        if named is None:
            continue
        if not isinstance(named.value, str):
            raise ConfigError(f"{named.place}: {key}: takes the name of a profile, or a path")
        on_the_way = (*above, (path.resolve(), key))
        below = _profile(named.value, path.parent, found, on_the_way)
        if key == BASE:
            die = below.child("die") or below
            rename_changed_die(tree.child("die"), die.plain().get("name"), die.plain())
        layers.append(_die_kernels(below, named) if key == KERNELS_OF else below)
    if len(layers) == 1:
        return tree
    merged = layers[-1].plain()
    for layer in reversed(layers[:-1]):
        merged = merge_base(layer.plain(), merged)
    return _located(merged, layers)


def _die_kernels(profile: Node, named: Node) -> Node:
    """What `kernels_of` takes from a profile: constants of its die, not those of its links."""
    kernels = profile.child("kernels")
    known = kernels.children() if kernels is not None else {}
    taken = {key: node for key, node in known.items() if key not in LINK_KERNELS}
    if kernels is None or not taken:
        raise ConfigError(
            f"{named.place}: {KERNELS_OF}: {named.value} has no constants of its die's kernels"
        )
    below = Node(value=dict(taken), place=kernels.place, key=kernels.key, written="kernels")
    return Node(value={"kernels": below}, place=profile.place, key=profile.key)


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
