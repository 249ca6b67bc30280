"""A tiny experiment, and commands run in this process or in a real one."""

import os
import subprocess
import sys
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from simpod.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"

TINY = """\
# Does one GPU serve a chat or two?
model: llama-3.1-8b
hardware: a100
workload:
  arrivals: {process: poisson, rate_per_s: 4}
  prompt_tokens: {distribution: lognormal, mean: 300, cv: 1.0, max: 2000}
  output_tokens: {distribution: uniform, min: 4, max: 40}
  num_requests: 40
deployment:
  server: {role: mixed, instances: 2, dies: 1, max_step_tokens: 1024}
slo: {ttft_s: 1.0, tpot_s: 0.05}
"""


def tiny(folder: Path, *changes: tuple[str, str]) -> Path:
    """The tiny experiment as a file, texts in it replaced."""
    text = TINY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def call(*arguments: object) -> Result:
    """A command in this process; what it raises beyond an exit is raised here."""
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def real(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "simpod", *(str(each) for each in arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "160"},
    )
