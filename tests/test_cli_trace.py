"""`simpod trace`: statistics by hand; what is written is what is read."""

import json
from pathlib import Path

import pytest
from cli_runs import call, tiny

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:00:00.0000000,100,10
2023-11-16 18:00:10.0000000,300,30
2023-11-16 18:00:20.0000000,200,20
"""


@pytest.fixture
def azure(tmp_path: Path) -> Path:
    path = tmp_path / "azure.csv"
    path.write_text(AZURE)
    return path


def test_statistics_by_hand(azure: Path) -> None:
    found = json.loads(call("trace", "stats", azure, "--format", "azure", "--json").stdout)
    assert found["num_requests"] == 3
    assert found["duration_s"] == pytest.approx(20.0)
    assert found["mean_rate_per_s"] == pytest.approx(0.1)
    assert found["prompt_tokens"]["mean"] == pytest.approx(200.0)
    table = call("trace", "stats", azure, "-f", "azure").stdout
    assert "prompt_tokens.mean" in table


def test_a_converted_trace_reads_the_same_at_the_scaled_rate(azure: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = call("trace", "convert", azure, "-f", "azure", "-o", out, "--rate-scale", 2)
    assert done.exit_code == 0, done.stderr
    assert "3 requests" in done.stdout
    assert json.loads(out.read_text().splitlines()[1]) == {
        "timestamp": 5000, "input_length": 300, "output_length": 30,
    }  # fmt: skip
    found = json.loads(call("trace", "stats", out, "-f", "mooncake", "--json").stdout)
    assert found["duration_s"] == pytest.approx(10.0)


def test_windows_and_limits(azure: Path) -> None:
    arguments = ("trace", "stats", azure, "-f", "azure", "--json")
    windowed = json.loads(call(*arguments, "-s", "window.end_s=15").stdout)
    assert windowed["num_requests"] == 2
    assert json.loads(call(*arguments, "-n", 1).stdout)["num_requests"] == 1


def test_columns_and_lengths(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("t,in,out\n0,10,1\n4,20,2\n")
    keys = ("-s", "arrival=t", "-s", "prompt_tokens=in", "-s", "output_tokens=out")
    timed = json.loads(call("trace", "stats", path, "-f", "columns", *keys, "--json").stdout)
    assert timed["duration_s"] == pytest.approx(4.0)
    lengths = tmp_path / "lengths.csv"
    lengths.write_text("num_prefill_tokens,num_decode_tokens\n10,1\n30,2\n")
    untimed = json.loads(call("trace", "stats", lengths, "-f", "lengths", "--json").stdout)
    assert untimed["prompt_tokens"]["mean"] == 20.0
    assert untimed["num_timed"] == 0
    arrivals = ("duration_s", "mean_rate_per_s", "peak_requests_per_minute", "interarrival_cv")
    assert [untimed[key] for key in arrivals] == [None] * 4
    without_arrival = call("trace", "stats", path, "-f", "columns", *keys[2:], "--json").stdout
    assert json.loads(without_arrival)["peak_requests_per_minute"] is None
    refused = call("trace", "convert", lengths, "-f", "lengths", "-o", tmp_path / "x.jsonl")
    assert refused.exit_code == 2
    assert "no times" in refused.stderr


def test_generate_writes_what_the_experiment_would_send(tmp_path: Path) -> None:
    file, out = tiny(tmp_path), tmp_path / "requests.jsonl"
    assert call("trace", "generate", file, "-o", out).exit_code == 0
    replay = tiny(
        tmp_path,
        ("  arrivals: {process: poisson, rate_per_s: 4}\n", ""),
        ("  prompt_tokens: {distribution: lognormal, mean: 300, cv: 1.0, max: 2000}\n", ""),
        ("  output_tokens: {distribution: uniform, min: 4, max: 40}\n", ""),
        ("  num_requests: 40", "  trace: {path: requests.jsonl, format: mooncake}"),
    )
    replayed = json.loads(call("run", replay, "--json").stdout)
    sent = json.loads(call("run", tiny(tmp_path), "--json").stdout)
    assert replayed["total_input_tokens"] == sent["total_input_tokens"]
    assert replayed["mean_ttft_ms"] == pytest.approx(sent["mean_ttft_ms"], rel=1e-9)


def test_only_a_trace_of_simpod_is_replaced(azure: Path, tmp_path: Path) -> None:
    arguments = ("trace", "convert", azure, "-f", "azure", "--overwrite", "-o")
    out = tmp_path / "out.jsonl"
    for content, code in (
        ("years of work\n", 2),
        ('{"years": "of work"}\n', 2),
        (AZURE, 2),
        ("[1]\n", 2),
        ("", 0),  # nothing is lost
        ('{"timestamp": 1, "input_length": 2, "output_length": 3}\n', 0),
    ):
        out.write_text(content)
        done = call(*arguments, out)
        assert done.exit_code == code, content
        assert (out.read_text() == content) is (code == 2)
        assert ("no trace that simpod has written" in done.stderr) is (code == 2)
    assert call(*arguments, out).exit_code == 0  # what it has just written
    onto_itself = call("trace", "convert", out, "-f", "mooncake", "--overwrite", "-o", out)
    assert onto_itself.exit_code == 2
    assert "is the trace that is read" in onto_itself.stderr
    assert len(out.read_text().splitlines()) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"azure.csv", "out.jsonl"}


def test_generate_neither_replaces_its_experiment_nor_its_trace(tmp_path: Path) -> None:
    file, trace = tiny(tmp_path), tmp_path / "t.jsonl"
    assert call("trace", "generate", file, "-o", trace).exit_code == 0
    assert call("trace", "generate", file, "-o", file, "--overwrite").exit_code == 2
    section = f"workload={{trace: {{path: {trace}, format: mooncake}}}}"
    onto_itself = call("trace", "generate", file, "-s", section, "-o", trace, "--overwrite")
    assert onto_itself.exit_code == 2
    assert "is the trace that is read" in onto_itself.stderr


def test_a_link_is_written_through(azure: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "link.jsonl"
    link.symlink_to(Path("data") / "real.jsonl")  # points at nothing yet
    for _ in range(2):
        done = call("trace", "convert", azure, "-f", "azure", "--overwrite", "-o", link)
        assert done.exit_code == 0, done.stderr
        assert link.is_symlink()
        assert len((tmp_path / "data" / "real.jsonl").read_text().splitlines()) == 3
    link.unlink()
    link.symlink_to(link.name)
    circle = call("trace", "convert", azure, "-f", "azure", "-o", link)
    assert circle.exit_code == 2
    assert "leads nowhere" in circle.stderr


def test_mistakes(azure: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    kept.write_text("mine")
    refused = call("trace", "convert", azure, "-f", "azure", "-o", kept)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert kept.read_text() == "mine"
    assert call("trace", "stats", "nowhere.csv", "-f", "azure").exit_code == 2
    unknown = call("trace", "stats", azure, "-f", "azure", "-s", "rate_scal=2")
    assert unknown.exit_code == 2
    assert 'did you mean "rate_scale"?' in unknown.stderr
    wrong_format = call("trace", "stats", azure, "-f", "mooncake")
    assert wrong_format.exit_code == 2
    assert "azure.csv:1" in wrong_format.stderr
    assert "Traceback" not in wrong_format.stderr
