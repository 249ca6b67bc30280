"""From a name or a file to a resolved experiment, or to all the reasons why not."""

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath

from simpod.cluster import PoolSpec
from simpod.config import library
from simpod.config.aliases import POLICY_KEYS, SETTINGS_OF, canonicalise
from simpod.config.clients import resolve_workload
from simpod.config.document import build_document, origins_of
from simpod.config.halves import join_halves
from simpod.config.layouts import Derived
from simpod.config.libraries import require_library, with_libraries
from simpod.config.links import (
    DEFAULT_POLICIES,
    OPTIONAL_POLICIES,
    check_policy_keys,
    kv_plane,
    ordered_pools,
    policy_keys,
)
from simpod.config.network import resolve_network, starts_in_order
from simpod.config.nodes import Node, Path, Place, from_plain
from simpod.config.output import resolve_output
from simpod.config.overrides import apply_override
from simpod.config.pools import ResolvedPool, resolve_pools
from simpod.config.problems import Problem, Problems
from simpod.config.references import expand_reference, reference_paths
from simpod.config.resolved import ResolvedExperiment
from simpod.config.rules import resolve_semantics
from simpod.config.scaling import resolve_scaling
from simpod.config.schema import Experiment
from simpod.config.strict_yaml import read_yaml
from simpod.config.validate import validate
from simpod.cost.semantics import Semantics
from simpod.errors import ConfigError, InvariantError
from simpod.hardware.spec import HardwareProfile
from simpod.policies.resolve import resolve
from simpod.policies.roles import PolicyRef


def load_experiment(name_or_path: str, overrides: Sequence[str] = ()) -> ResolvedExperiment:
    """Read an experiment, apply overrides (`a.b=3`) in order, check everything that can be known.

    Raises ConfigError with all mistakes at once, each with its place.
    """
    path = library.find("experiments", name_or_path)
    found: list[Problem] = []
    problems = Problems(read_yaml(path, library.label(path), found))
    problems.add_unreadable(found)
    return resolve_tree(problems, overrides, path.parent, default_name=path.stem)


def resolve_tree(
    problems: Problems, overrides: Sequence[str], beside: FilePath, default_name: str
) -> ResolvedExperiment:
    """Resolve the experiment `problems.root`; paths in it are relative to `beside` first."""
    root = problems.root
    if not isinstance(root.value, dict):
        problems.add(Problem(place=root.place, key="", what="an experiment is a mapping of keys"))
        problems.stop()
    if root.child("name") is None:
        root.children()["name"] = from_plain(
            default_name, Place("derived: the file's name"), "name"
        )
    canonicalise(root, problems)

    def expand(at: Path) -> None:
        if at in reference_paths(root):
            expand_reference(root, at, beside, problems)

    for text in overrides:
        apply_override(root, text, expand, problems)
        canonicalise(root, problems)
    join_halves(root, problems)
    for reference in reference_paths(root):
        expand_reference(root, reference, beside, problems)
    _find_files(root, beside, problems)
    _check_policies(root, beside, problems)
    experiment = validate(Experiment, root, problems)
    if experiment is None:
        problems.stop()
        raise InvariantError("an experiment is invalid without a problem")
    return _resolve(experiment, root, problems)


def _resolve(experiment: Experiment, root: Node, problems: Problems) -> ResolvedExperiment:
    """Cross-checks of a file whose every key is right by itself."""
    hardware = _profiles(experiment)
    order = ordered_pools(experiment, problems)
    pools = resolve_pools(experiment, hardware, problems)
    plane = None
    if order is not None:
        plane = kv_plane(experiment, order, hardware, problems)
        check_policy_keys(experiment, len(order), problems)
    if order is None or any(name not in pools for name in order):
        problems.stop()
        raise InvariantError("a deployment without a shape and without a problem")
    specs = tuple(pools[name].spec for name in order)
    links: Derived = {}
    network = resolve_network(experiment, specs, hardware, problems, links)
    scaling = resolve_scaling(experiment, specs, hardware, problems)
    frontend = resolve_output(experiment, problems, links)
    workload = resolve_workload(experiment, specs, problems, links)
    semantics = resolve_semantics(experiment, specs, problems)
    balancer = experiment.policies.experts
    problems.stop()
    policies = _policies(experiment, (*policy_keys(len(order)), *OPTIONAL_POLICIES), semantics)
    derived = _derived(experiment, pools, policies, plane, semantics) | links
    document = build_document(experiment, order, derived)
    return ResolvedExperiment(
        name=experiment.name,
        seed=experiment.seed,
        model=experiment.model,
        pools=specs,
        hardware=_with_libraries(experiment, specs, hardware, semantics, problems),
        workload=workload,
        policies=policies,
        expert_routing=experiment.expert_routing,
        rebalance_every_s=None if balancer is None else balancer.every_s,
        staging_slots=None if balancer is None else balancer.staging_slots,
        starts_in_order=starts_in_order(experiment),
        kv_plane=plane,
        first_token_from=experiment.kv_transfer.first_token_from,
        frontend=frontend,
        slo=experiment.slo,
        measure=experiment.measure,
        skip_ahead=experiment.engine.skip_ahead,
        samples_s=experiment.engine.samples_s,
        semantics=semantics,
        network=network,
        scaling=scaling,
        memory={name: pools[name].memory for name in order},
        document=document,
        origins=origins_of(document, root, derived),
    )


def _profiles(experiment: Experiment) -> dict[str, HardwareProfile]:
    """Of each pool: its own, or that of the experiment."""
    pools = experiment.deployment.items()
    return {name: pool.hardware or experiment.hardware for name, pool in pools}


def _derived(
    experiment: Experiment,
    pools: Mapping[str, ResolvedPool],
    policies: Mapping[str, PolicyRef],
    plane: str | None,
    semantics: Semantics,
) -> Derived:
    """Everything that the file leaves open, by its path in the document."""
    derived: Derived = {}
    for pool in pools.values():
        derived.update(pool.derived)
    for key, ref in policies.items():
        if getattr(experiment.policies, key) is None:
            derived["policies", key, "use"] = (ref.use, "")
    if plane is not None and experiment.kv_transfer.plane is None:
        derived["kv_transfer", "plane"] = (plane, "the fastest plane that joins the pools")
    if experiment.engine.semantics is None:
        derived["engine", "semantics"] = (semantics.name, f"usual on {experiment.hardware.family}")
    return derived


def _with_libraries(
    experiment: Experiment,
    specs: Sequence[PoolSpec],
    hardware: Mapping[str, HardwareProfile],
    semantics: Semantics,
    problems: Problems,
) -> dict[str, HardwareProfile]:
    told = experiment.engine.experts_library
    found = {}
    for spec in specs:
        with problems.below(("engine", "experts_library")):
            found[spec.name] = own = with_libraries(hardware[spec.name], semantics, told)
            if told is not None:
                require_library(own, told, experiment.model, spec.layout.weight_dtype)
    problems.stop()
    return found


def _policies(
    experiment: Experiment, keys: Sequence[str], semantics: Semantics
) -> dict[str, PolicyRef]:
    refs: dict[str, PolicyRef] = {}
    for key in keys:
        entry = getattr(experiment.policies, key)
        if entry is None and key in OPTIONAL_POLICIES:
            continue
        refs[key] = (
            PolicyRef(use=semantics.batching if key == "batching" else DEFAULT_POLICIES[key])
            if entry is None
            else PolicyRef(use=entry.use, params=entry.params)
        )
    for key in SETTINGS_OF:
        if (entry := getattr(experiment.policies, key)) is not None:
            refs[key] = PolicyRef(use=entry.use, params=entry.params)
    return refs


def _find_files(root: Node, beside: FilePath, problems: Problems) -> None:
    """Replace every `path` of the workload or the routing by an existing file's absolute path."""
    sections = [(key, root.child(key)) for key in ("workload", "expert_routing")]
    found = [at for key, section in sections if section for at in section.walk((key,))]
    for path, node in found:
        if path[-1] != "path" or not isinstance(node.value, str):
            continue
        try:
            node.value = str(library.find_path(node.value, beside).absolute())
        except ConfigError as error:
            key = ".".join(str(segment) for segment in path)
            problems.at(path, str(error), hint=f"give it with --set {key}=FILE", show_value=False)


def _check_policies(root: Node, beside: FilePath, problems: Problems) -> None:
    """Find every policy that is named, so that a misspelt one fails before the run."""
    section = root.child("policies")
    for key, entry in section.children().items() if section else ():
        use = entry.child("use")
        if key not in POLICY_KEYS or use is None or not isinstance(use.value, str):
            continue
        within = entry.child("router")  # of another router
        for named in (use, within, within.child("use") if within else None):
            if named is not None and isinstance(named.value, str):
                named.value = _beside(named.value, beside)
        ours = ("use", *SETTINGS_OF.get(key, ()))
        params = {name: node.plain() for name, node in entry.children().items() if name not in ours}
        try:
            resolve(key, PolicyRef(use=use.value, params=params))
        except ConfigError as error:
            for text in error.problems:
                _tell_policy(key, text, problems)


def _beside(use: str, folder: FilePath) -> str:
    """`file.py:Name` of a file in that folder with the whole path; else as it is."""
    file, colon, name = use.rpartition(":")
    is_there = colon and file.endswith(".py") and (folder / file).is_file()
    return f"{(folder / file).absolute()}:{name}" if is_there else use


def _tell_policy(key: str, text: str, problems: Problems) -> None:
    """`policies.batching.chunk: what is wrong`, at that key."""
    where, _, what = text.partition(": ")
    path: Path = tuple(where.split("."))
    node = problems.root.find(path)
    if path[:2] == ("policies", key) and len(path) == 3 and node is not None:
        problems.add(Problem(place=node.key, key=where, what=what))
        return
    known = path == ("policies", key)
    problems.at(("policies", key, "use"), what if known else text, show_value=False)
