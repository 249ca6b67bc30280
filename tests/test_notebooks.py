"""Every notebook runs, makes one claim, shows a picture, and says what would overturn it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
SECONDS = 60


def cells(path: Path) -> list[str]:
    return re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook_runs_and_makes_its_pictures(path: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SIMPOD_FAST": "1",
        "SIMPOD_PICTURES": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", path],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    shown = re.findall(r'"(\d\d-[a-z-]+)"', path.read_text(encoding="utf-8"))
    made = sorted(tmp_path.glob("*.png"))
    assert [picture.stem for picture in made] == sorted(shown)
    for picture in made:
        assert (ROOT / "docs" / "pictures" / picture.name).is_file(), "run `make pictures`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook_has_its_parts(path: Path) -> None:
    found = cells(path)
    assert found[0].startswith(" [markdown]")
    assert "**Claim.**" in found[0]
    assert "**What would overturn it.**" in found[-1]
    assert path.name in (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
