"""Other tools' formats: names, values, and the schema where there is one."""

import json
from importlib.util import find_spec

import pytest
from cli_runs import call
from measured_tables import table
from report_cases import apart, together

from simpod.report.export import llmd_report, sglang_line
from simpod.report.sources import requests_of, result_of

FOLDERS = pytest.mark.parametrize("folder", [apart, together])


@FOLDERS
def test_sglang_line_has_its_names_and_our_figures(folder) -> None:
    line, summary = sglang_line(folder()), result_of(folder()).summary
    assert line["p99_e2e_latency_ms"] == summary["p99_e2el_ms"]
    assert line["total_throughput"] == pytest.approx(
        line["input_throughput"] + line["output_throughput"]
    )
    assert line["goodput_slos_ms"]["tpot"] == 50.0
    assert line["accept_length"] == (1.9 if folder is apart else None)
    assert 0 < line["concurrency"] <= line["max_concurrent_requests"]


@FOLDERS
def test_llmd_report_fits_its_schema(folder) -> None:
    if find_spec("jsonschema") is None:
        pytest.skip("needs jsonschema")
    import jsonschema

    schema = json.loads(table("schemas/llmd_br_v0_2_1_json_schema.json").read_text())
    jsonschema.validate(llmd_report(folder()), schema)


def test_llmd_report_has_our_figures() -> None:
    found, rows = llmd_report(apart()), requests_of(apart())
    aggregate = found["results"]["request_performance"]["aggregate"]
    ttft = aggregate["latency"]["time_to_first_token"]
    assert ttft["units"] == "s"
    assert ttft["p99"] == pytest.approx(rows["ttft_s"].quantile(0.99))
    assert 1e3 * ttft["mean"] == pytest.approx(result_of(apart()).summary["mean_ttft_ms"])
    assert aggregate["requests"]["total"] == len(rows)
    assert [part["standardized"]["role"] for part in found["scenario"]["stack"]] == [
        "prefill",
        "decode",
    ]


def test_the_command_prints_a_line_or_writes_a_file(tmp_path) -> None:
    done = call("export", apart(), "--format", "sglang")
    assert done.exit_code == 0
    assert json.loads(done.output)["backend"] == "simpod"
    assert len(done.output.splitlines()) == 1
    assert json.loads(call("export", apart(), "--format", "llmd").output)["version"] == "0.2.1"
    out = tmp_path / "report.json"
    assert call("export", apart(), "--format", "llmd", "-o", out).exit_code == 0
    assert json.loads(out.read_text())["version"] == "0.2.1"
    assert call("export", apart(), "--format", "llmd", "-o", out).exit_code == 2
