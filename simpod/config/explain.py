"""What an experiment, a model or a profile comes to, value by value."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

from simpod.config import library
from simpod.config.document import leaves
from simpod.config.nodes import dotted
from simpod.config.references import load_hardware, load_model
from simpod.config.resolved import ResolvedExperiment
from simpod.config.strict_yaml import read_yaml
from simpod.errors import ConfigError
from simpod.hardware.spec import HardwareProfile
from simpod.model.weights import weight_bytes

Explainable = Literal["experiment", "model", "hardware"]

_KIND_OF_FOLDER: Final[Mapping[library.Kind, Explainable]] = {
    "experiments": "experiment",
    "models": "model",
    "hardware_profiles": "hardware",
}
_KIND_OF_KEY: Final[Mapping[str, Explainable]] = {  # of what only one kind has
    "deployment": "experiment",
    "workload": "experiment",
    "die": "hardware",
    "base": "hardware",
    "kernels_of": "hardware",
    "attention": "model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One resolved value."""

    key: str
    value: Any
    origin: str  # file:line, --set, default, or derived: how


def explain(resolved: ResolvedExperiment) -> tuple[Explained, ...]:
    """Every value of the experiment with its origin, and the memory of each pool."""
    written = [
        Explained(key=dotted(path), value=value, origin=resolved.origins[dotted(path)])
        for path, value in leaves(resolved.document)
    ]
    return (*written, *_memory_rows(resolved))


def memory_of(resolved: ResolvedExperiment, pool: str) -> dict[str, float]:
    """The memory of a die of a pool, as it runs: its KV blocks may be fewer than would fit.

    kv_capacity_tokens: of one rank. unused_bytes: what memory_frac would allow beyond the blocks.
    """
    plan = resolved.memory[pool]
    spec = next(spec for spec in resolved.pools if spec.name == pool)
    tokens = spec.kv_blocks * spec.block_tokens
    kv_bytes = tokens * plan.kv_bytes_per_token
    return {
        "weight_bytes": plan.weight_bytes,
        "buffer_bytes": plan.buffer_bytes,
        "kv_bytes_per_token": plan.kv_bytes_per_token,
        "kv_capacity_tokens": tokens,
        "kv_bytes": kv_bytes,
        "unused_bytes": plan.kv_bytes - kv_bytes,
    }


def _memory_rows(resolved: ResolvedExperiment) -> Iterator[Explained]:
    for name in resolved.memory:
        for key, value in memory_of(resolved, name).items():
            how = "memory of one rank" if key == "kv_capacity_tokens" else "memory of one die"
            yield Explained(key=f"memory.{name}.{key}", value=value, origin=f"derived: {how}")


def explain_model(name_or_path: str) -> dict[str, Any]:
    """Counts of a model, then its fields."""
    model = load_model(name_or_path)
    return {
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "mtp_parameters": model.mtp_parameters,
        "kv_elements_per_token": model.kv_elements_per_token,
        "weight_bytes": weight_bytes(model),
        **asdict(model),
    }


def explain_hardware(name_or_path: str) -> dict[str, Any]:
    """Sizes of a pod, where its kernel constants are from, its profile with bases merged in."""
    hardware = load_hardware(name_or_path)
    num_npus = hardware.npus_per_node * hardware.num_nodes
    return {
        "num_dies": hardware.num_dies,
        "num_npus": num_npus,
        "dies_per_node": hardware.dies_per_node,
        "hbm_bytes": hardware.num_dies * hardware.die.hbm_bytes,
        "kernel_status": _kernel_status(hardware),
        **asdict(hardware),
    }


def _kernel_status(hardware: HardwareProfile) -> dict[str, dict[str, str]]:
    """How far the constants of each operator's variants are from the die: see `Fit.status`."""
    return {
        each.name: {
            variant: fit.status(hardware.die.name, hardware.family) for variant, fit in fits.items()
        }
        for each in fields(hardware.kernels)
        if (fits := getattr(hardware.kernels, each.name))
    }


def kind_of(name_or_path: str) -> Explainable:
    """Whether a name or a file is an experiment, a model or a hardware profile."""
    if not library.is_path(name_or_path):
        for folder, kind in _KIND_OF_FOLDER.items():
            if folder in library.kinds_of(name_or_path):
                return kind
        raise library.unknown_everywhere(name_or_path, tuple(_KIND_OF_FOLDER))
    path = library.find_path(name_or_path, None)
    if path.suffix == ".json":
        return "model"
    keys = read_yaml(path, library.label(path), found=[]).children()
    for key, kind in _KIND_OF_KEY.items():
        if key in keys:
            return kind
    raise ConfigError(
        f"{library.label(path)}: neither an experiment (deployment:), nor a model (attention:),"
        " nor a hardware profile (die: or base:)"
    )
