"""Where a result comes from: enough to make it again, nothing that differs between two makings."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

import simpod


def provenance(
    document: Mapping[str, Any], *, seed: int, hardware: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe a run: software, the resolved experiment `document`, and the profiles it ran on.

    hardware: a `HardwareProfile` for each pool; every distinct profile is hashed under its name.
    """
    return {
        "simpod_version": simpod.__version__,
        "git_commit": git_commit(),
        "python_version": platform.python_version(),
        "numpy_version": np.__version__,
        "seed": seed,
        "experiment": _plain(document),
        "experiment_sha256": sha256(document),
        "hardware_sha256": {profile.name: sha256(profile) for profile in hardware.values()},
    }


def sha256(value: Any) -> str:
    """Hash of a document or spec: of its JSON with sorted keys, so that key order is no matter."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def git_commit() -> str | None:
    """Commit of the checkout that the package runs from, `-dirty` if edited; None if installed."""
    root = Path(simpod.__file__).resolve().parent.parent
    if not (root / ".git").exists():  # an environment inside another project's checkout
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _plain(value: Any) -> Any:
    """Specs and mappings as dicts, sequences as lists, paths as text."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
