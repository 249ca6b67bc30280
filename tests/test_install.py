"""What is shipped beside the code is in the wheel: `simpod run quickstart` works anywhere."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from simpod.config import KINDS, names

ROOT = Path(__file__).resolve().parent.parent


def test_every_data_folder_goes_into_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {kind: f"simpod/_data/{kind}" for kind in KINDS}


@pytest.mark.slow
def test_the_wheel_holds_code_and_data(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("simpod-*.whl")
    files = set(zipfile.ZipFile(wheel).namelist())
    for kind in KINDS:
        wanted = {f"simpod/_data/{kind}/{name}.yaml" for name in names(kind)}
        assert wanted
        assert wanted <= files
    code = {p.relative_to(ROOT).as_posix() for p in (ROOT / "simpod").rglob("*.py")}
    assert code <= files
    assert "simpod/py.typed" in files
