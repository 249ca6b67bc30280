"""Where the measured tables are, for tests that read them; they skip without."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("SIMPOD_SHARED", REPOSITORY.parent / "shared"))


def table(name: str) -> Path:
    """`kernels/...` or `measured/...`; skips the test if it is not there."""
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"needs {path}: set SIMPOD_SHARED")
    return path
