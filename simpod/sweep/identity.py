"""Which run is which: the hash of its resolved experiment, its seed and the simulator's version."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import simpod
from simpod.config import ResolvedExperiment

ID_DIGITS: Final = 16
"""Hex digits of a run's identity: 64 bits, by chance the same twice in 1e5 runs once in 4e9."""

_NO_INFLUENCE: Final = frozenset({"cli", "sweep", "validate", "report"})
"""Packages above `run`: no summary depends on them."""


@cache
def version() -> str:
    """The version and a hash of the source that summaries depend on: an edit makes other runs."""
    package = Path(simpod.__file__).resolve().parent
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in _NO_INFLUENCE:
            whole.update(f"{name.as_posix()}\n".encode())
            whole.update(path.read_bytes())
    return f"{simpod.__version__}+{whole.hexdigest()[:12]}"


def with_seed(experiment: ResolvedExperiment, seed: int) -> ResolvedExperiment:
    """The same experiment under another seed; without `origins`, which only `explain` reads."""
    return replace(
        experiment, seed=seed, document={**experiment.document, "seed": seed}, origins={}
    )


def run_id(experiment: ResolvedExperiment) -> str:
    """Identity of a run: equal experiments have equal ones however they were written.

    Files that an experiment names (traces, policies) count by their content, not by their place.
    """
    content = {"experiment": _by_content(experiment.document), "version": version()}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def _by_content(value: Any, key: str = "") -> Any:
    """Traces (`path: FILE`) and policies (`use: FILE.py:NAME`) by a hash of the file."""
    if isinstance(value, Mapping):
        return {name: _by_content(item, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_by_content(item) for item in value]
    if not isinstance(value, str) or key not in {"path", "use"}:
        return value
    path, colon, name = value.rpartition(":") if key == "use" else (value, "", "")
    found = _stamp(path)
    return value if found is None else _file_sha256(path, *found) + colon + name


def _stamp(path: str) -> tuple[int, int] | None:
    """Size and time of change of a file; None if there is none."""
    if not Path(path).is_file():
        return None
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns


@cache
def _file_sha256(path: str, size_bytes: int, changed_ns: int) -> str:
    """Hash of a file, computed again when its size or time of change differs."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
