"""Twelve kinds of broken input: exit code 2 or 3, one clear message, no traceback, no file."""

import json
from pathlib import Path

import pytest
from cli_runs import DATA, call, real, tiny

ROWS = [
    {"timestamp": 0, "input_length": 100, "output_length": 10},
    {"timestamp": 500, "input_length": 120, "output_length": 12},
    {"timestamp": 900, "input_length": 90, "output_length": 9},
]
SYNTHETIC = """\
  arrivals: {process: poisson, rate_per_s: 4}
  prompt_tokens: {distribution: lognormal, mean: 300, cv: 1.0, max: 2000}
  output_tokens: {distribution: uniform, min: 4, max: 40}
  num_requests: 40
"""
TRACE = (SYNTHETIC, "  trace: {path: trace.jsonl, format: mooncake}\n")

MISTAKES: dict[str, tuple[tuple[tuple[str, str], ...], int, tuple[str, ...]]] = {
    "misspelt key": (
        (("  server: {role", "  server: {rolle"),),
        2,
        ("tiny.yaml:10:", "rolle", 'did you mean "role"?'),
    ),
    "wrong type": (
        (("rate_per_s: 4", "rate_per_s: often"),),
        2,
        ("tiny.yaml:5:", "rate_per_s", '"often"', "a number"),
    ),
    "not a number": (
        (("rate_per_s: 4", "rate_per_s: .nan"),),
        2,
        ("tiny.yaml:5:", "rate_per_s", "finite"),
    ),
    "negative": (
        (("rate_per_s: 4", "rate_per_s: -4"),),
        2,
        ("tiny.yaml:5:", "rate_per_s", "-4", "> 0"),
    ),
    "duplicate key": (
        (("hardware: a100\n", "hardware: a100\nhardware: h100\n"),),
        2,
        ("tiny.yaml:4:", "hardware", "duplicate"),
    ),
    "missing file": (
        ((SYNTHETIC, "  trace: {path: nowhere.jsonl, format: mooncake}\n"),),
        2,
        ("nowhere.jsonl", "not found"),
    ),
    "bad row": ((TRACE,), 2, ("trace.jsonl:2", "input_length", "-5")),
    "out of order": ((TRACE,), 2, ("trace.jsonl:3", "sort")),
    "unknown policy": (
        (("slo:", "policies: {batching: {use: fcsf}}\nslo:"),),
        2,
        ("fcsf", 'did you mean "fcfs"?'),
    ),
    "policy over its budget": (
        (("slo:", "policies: {batching: {use: './bad_policies.py:over_budget'}}\nslo:"),),
        3,
        ("over_budget", "1024"),
    ),
    "model that does not fit": (
        (("llama-3.1-8b", "llama-3.1-70b"),),
        2,
        ("deployment.server", "does not fit", "GB"),
    ),
    "dies that do not divide": (
        (("dies: 1,", "dies: 4, tp: 3,"),),
        2,
        ("deployment.server", "4", "3"),
    ),
}


def _folder(tmp_path: Path, name: str) -> Path:
    """The broken experiment and what it names, in a folder."""
    changes, _, _ = MISTAKES[name]
    rows = [dict(row) for row in ROWS]
    if name == "bad row":
        rows[1]["input_length"] = -5
    if name == "out of order":
        rows[2]["timestamp"] = 100
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "bad_policies.py").write_text((DATA / "bad_policies.py").read_text())
    return tiny(tmp_path, *changes)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_once_and_nothing_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _folder(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    done = call("run", file.name, "--out", "result")
    _, code, words = MISTAKES[name]
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == before


@pytest.mark.parametrize("name", ["misspelt key", "policy over its budget"])
def test_a_real_process_says_the_same(name: str, tmp_path: Path) -> None:
    file = _folder(tmp_path, name)
    done = real("run", file.name, "-o", "result", cwd=tmp_path)
    _, code, words = MISTAKES[name]
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words)
    assert not (tmp_path / "result").exists()


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    file = tiny(tmp_path, ("rate_per_s: 4", "rate_per_s: -4"), ("min: 4", "min: x"))
    done = call("run", file, "-s", "slo.ttft=1")
    assert done.exit_code == 2
    assert "tiny.yaml:5:" in done.stderr
    assert "tiny.yaml:7:" in done.stderr
    assert "--set slo.ttft=1" in done.stderr
    assert done.stderr.count("error: ") == 1


def test_a_typing_mistake_on_the_command_line_is_2() -> None:
    assert call("run").exit_code == 2
    assert call("run", "quickstart", "--sed", 3).exit_code == 2
    assert call("walk").exit_code == 2
