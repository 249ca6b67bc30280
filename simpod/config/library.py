"""Where models, profiles, workloads and experiments are, and which there are."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from simpod.config.problems import did_you_mean, listed
from simpod.errors import ConfigError

Kind = Literal["experiments", "hardware_profiles", "models", "workloads"]
KINDS: Final[tuple[Kind, ...]] = ("experiments", "hardware_profiles", "models", "workloads")
SINGULAR: Final = {
    "experiments": "experiment",
    "hardware_profiles": "hardware profile",
    "models": "model",
    "workloads": "workload",
}
_SUFFIXES: Final = (".yaml", ".yml", ".json")


def folder(kind: Kind) -> Path:
    """The folder of shipped files: inside an installed package, else beside it (repository)."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_data" / kind
    return installed if installed.is_dir() else package.parent / kind


def names(kind: Kind) -> tuple[str, ...]:
    """Names of the shipped files, sorted."""
    return tuple(sorted(path.stem for path in folder(kind).glob("*.yaml")))


def is_path(value: str) -> bool:
    """Whether a value is meant as a path and not as a name."""
    return "/" in value or os.sep in value or value.lower().endswith(_SUFFIXES)


def find(kind: Kind, value: str, beside: Path | None = None) -> Path:
    """The file that a name or path means; ConfigError with close matches if there is none."""
    if is_path(value):
        return find_path(value, beside, SINGULAR[kind])
    path = folder(kind) / f"{value}.yaml"
    if path.is_file():
        return path
    known = names(kind)
    parts = [f'unknown {SINGULAR[kind]} "{value}"', did_you_mean(value, known)]
    parts += [_folder_hint(value), f"allowed: {listed(known) or 'none is shipped'}"]
    parts += ["or a path to a file"]
    raise ConfigError("; ".join(part for part in parts if part))


def find_path(value: str, beside: Path | None, what: str = "") -> Path:
    """An existing path: relative to the folder `beside` first, then to the working directory.

    A folder stands for the config.json in it (a downloaded model).
    """
    given = Path(value).expanduser()
    tried = [given] if given.is_absolute() or beside is None else [beside / given, given]
    for path in tried:
        if path.is_file():
            return path
        if (path / "config.json").is_file():
            return path / "config.json"
    looked = listed(tuple(dict.fromkeys(str(path.absolute()) for path in tried)))
    raise ConfigError(f'{what} file "{value}" not found (looked at {looked})'.lstrip())


def kinds_of(value: str) -> tuple[Kind, ...]:
    """The kinds of shipped files that have this name."""
    return tuple(kind for kind in KINDS if value in names(kind))


def label(path: Path) -> str:
    """How messages call a file: relative to the working directory where it lies below it."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def _folder_hint(value: str) -> str:
    """What a name lacks to be the path of something that is there; else nothing."""
    path = Path(value)
    near = next((path.with_suffix(each) for each in _SUFFIXES if _is_file(path, each)), None)
    if (path / "config.json").is_file():
        return f"a folder is written ./{value}"
    return f"there is a file {near}" if near is not None else ""


def _is_file(path: Path, suffix: str) -> bool:
    return bool(path.name) and path.with_suffix(suffix).is_file()


def unknown_everywhere(value: str, kinds: Sequence[Kind]) -> ConfigError:
    """The error for a name that no kind has."""
    every = [name for kind in kinds for name in names(kind)]
    what = " or ".join(SINGULAR[kind] for kind in kinds)
    parts = [f'unknown {what} "{value}"', _folder_hint(value) or did_you_mean(value, every)]
    parts += [f"allowed: {listed(every)}"]
    return ConfigError("; ".join(part for part in parts if part))
