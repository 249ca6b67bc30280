"""The documentation's site builds without a warning, and its pages are all there."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for module in ("mkdocs", "mkdocstrings"):
        if find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'simpod[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"}
    built = {path.stem for path in tmp_path.glob("*.html")}
    assert pages | {"index", "CONTRIBUTING", "notebooks"} <= built
    reference = (tmp_path / "api.html").read_text(encoding="utf-8")
    for name in ("simpod.run.run", "simpod.report.plot_slo_curve"):
        assert f'id="{name}"' in reference
