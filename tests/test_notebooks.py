"""Every notebook runs, makes one claim, shows a picture, and says what would overturn it."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
NAMES = [path.stem for path in NOTEBOOKS]


def cells(path: Path) -> list[str]:
    return re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs, with pictures in `tmp_path`."""
    monkeypatch.setenv("SIMPOD_FAST", "1")
    monkeypatch.setenv("SIMPOD_PICTURES", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.syspath_prepend(ROOT / "notebooks")
    monkeypatch.delitem(sys.modules, "pictures", raising=False)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_runs_and_makes_its_pictures(path: Path, tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    runpy.run_path(str(path), run_name="__main__")
    plt.close("all")
    shown = re.findall(r'"(\d\d-[a-z-]+)"', path.read_text(encoding="utf-8"))
    made = sorted(tmp_path.glob("*.png"))
    assert [picture.stem for picture in made] == sorted(shown)
    for picture in made:
        assert (ROOT / "docs" / "pictures" / picture.name).is_file(), "run `make pictures`"


@pytest.mark.usefixtures("environment")
def test_a_notebook_runs_as_a_script() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", NOTEBOOKS[0]],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_has_its_parts(path: Path) -> None:
    found = cells(path)
    assert found[0].startswith(" [markdown]")
    assert "**Claim.**" in found[0]
    assert "**What would overturn it.**" in found[-1]
    assert path.name in (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
