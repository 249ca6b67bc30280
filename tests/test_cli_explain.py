"""`simpod explain`, `list` and `schema`: the same figures for people and for scripts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import ROOT, call, tiny

from simpod.config import load_experiment, names
from simpod.policies import BUILT_IN


def test_explain_names_the_origin_of_every_value(tmp_path: Path) -> None:
    file = tiny(tmp_path)
    arguments = ("explain", file, "-s", "workload.num_requests=7")
    found = json.loads(call(*arguments, "--json").stdout)
    assert found["origins"]["workload.num_requests"] == "--set"
    assert found["origins"]["deployment.server.instances"].endswith("tiny.yaml:10")
    assert found["origins"]["deployment.server.max_num_seqs"] == "default"
    assert found["document"]["workload"]["num_requests"] == 7
    memory = found["memory"]["server"]
    parts = ("weight_bytes", "buffer_bytes", "kv_bytes", "unused_bytes")
    assert sum(memory[part] for part in parts) == pytest.approx(memory["usable_bytes"])
    assert 0 <= memory["unused_bytes"] < 16 * memory["kv_bytes_per_token"]
    table = call(*arguments).stdout
    assert "workload.num_requests" in table
    assert "KV cache" in table
    assert f"{memory['kv_capacity_tokens']:,} tokens" in table


def test_kv_blocks_that_are_given_are_what_the_memory_shows(tmp_path: Path) -> None:
    arguments = ("explain", tiny(tmp_path), "-s", "deployment.server.kv_blocks=100")
    found = json.loads(call(*arguments, "--json").stdout)["memory"]["server"]
    assert found["kv_capacity_tokens"] == 1600
    assert found["kv_bytes"] == 1600 * found["kv_bytes_per_token"]
    free = found["usable_bytes"] - found["weight_bytes"] - found["buffer_bytes"]
    assert found["unused_bytes"] == pytest.approx(free - found["kv_bytes"])
    table = call(*arguments).stdout
    assert "1,600 tokens" in table
    assert "left free (kv_blocks)" in table
    assert "left free (kv_blocks)" not in call("explain", tiny(tmp_path)).stdout


def test_the_explained_document_is_the_experiment_again(tmp_path: Path) -> None:
    file = tiny(tmp_path)
    document = json.loads(call("explain", file, "--json").stdout)["document"]
    again = tmp_path / "again.yaml"
    again.write_text(json.dumps(document))  # JSON is YAML
    assert load_experiment(str(again)).document == load_experiment(str(file)).document


def test_a_models_counts() -> None:
    found = json.loads(call("explain", "deepseek-v3", "--json").stdout)
    assert found["parameters"] == pytest.approx(671.0e9, rel=1e-3)
    assert found["active_parameters"] == pytest.approx(37.6e9, rel=2e-3)
    assert found["kv_elements_per_token"] == 35_136
    assert found["weight_bytes"] > found["parameters"] * 0.99
    table = call("explain", "deepseek-v3").stdout
    assert "671.0 G" in table
    assert "attention.kv_lora_rank" in table


def test_hardware_and_prefixes() -> None:
    found = json.loads(call("explain", "hardware:cloudmatrix384", "--json").stdout)
    assert (found["num_dies"], found["num_npus"]) == (768, 384)
    assert call("explain", "h100").exit_code == 0
    wrong_kind = call("explain", "model:h100")
    assert wrong_kind.exit_code == 2
    assert "unknown model" in wrong_kind.stderr
    assert call("explain", "experiment:quickstart").exit_code == 0


def test_kernel_constants_are_a_line_a_variant_and_in_full_as_json(tmp_path: Path) -> None:
    table = call("explain", "h100").stdout
    found = json.loads(call("explain", "h100", "--json").stdout)
    assert "matmul_frac" not in table
    lines = [line.split() for line in table.splitlines()]
    for operator, variants in found["kernels"].items():
        for variant, fit in variants.items():
            (line,) = [each for each in lines if each[:2] == [operator, variant]]
            assert line[2] == found["kernel_status"][operator][variant]
            assert line[3] == f"{fit['rows']:,}"
            assert len(fit["constants"]) >= 3


def test_an_experiment_counts_its_kernel_constants_and_has_them_in_json(tmp_path: Path) -> None:
    file = tiny(tmp_path)
    table = call("explain", file).stdout
    assert "matmul_frac" not in table
    assert "hardware.kernels" not in table
    assert "Kernels of a100, with the libraries of vllm-v1: 17 calibrated" in table
    rests_on = " ".join(table.split())
    assert (
        "Parts of a step of pool server: calibrated: attention, projections, ffn, head" in rests_on
    )
    document = json.loads(call("explain", file, "--json").stdout)["document"]
    assert document["hardware"]["kernels"]["gemm"]["bf16"]["constants"]["hbm_frac"] > 0.5


def test_list_counts_how_sure_kernel_constants_are() -> None:
    rows = {
        row["name"]: row
        for row in json.loads(call("list", "hardware", "--json").stdout)["hardware"]
    }
    assert set(rows["h100"]["constants"]) <= {"calibrated", "family", "assumed"}
    assert rows["h200"]["constants"].keys() == {"family"}
    assert (
        f"{rows['h100']['constants']['calibrated']} calibrated" in call("list", "hardware").stdout
    )


def test_a_clash_of_names_is_decided_by_a_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("experiments", "models", "hardware_profiles"):
        (tmp_path / kind).mkdir()
    tiny(tmp_path / "experiments").rename(tmp_path / "experiments" / "twin.yaml")
    for name in ("llama-3.1-8b", "twin"):
        shutil.copy(ROOT / "models" / "llama-3.1-8b.yaml", tmp_path / "models" / f"{name}.yaml")
    shutil.copy(ROOT / "hardware_profiles" / "a100.yaml", tmp_path / "hardware_profiles")
    monkeypatch.setattr("simpod.config.library.folder", lambda kind: tmp_path / kind)
    assert "document" in json.loads(call("explain", "twin", "--json").stdout)
    assert "parameters" in json.loads(call("explain", "model:twin", "--json").stdout)


def test_overrides_are_for_experiments_only() -> None:
    done = call("explain", "h100", "-s", "num_nodes=2")
    assert done.exit_code == 2
    assert "experiments only" in done.stderr


def test_what_is_unknown_is_met_with_names() -> None:
    done = call("explain", "quickstat")
    assert done.exit_code == 2
    assert 'did you mean "quickstart"?' in done.stderr


def test_list_names_everything_that_is_shipped() -> None:
    found = json.loads(call("list", "--json").stdout)
    assert [row["name"] for row in found["models"]] == list(names("models"))
    assert [row["name"] for row in found["hardware"]] == list(names("hardware_profiles"))
    assert [row["name"] for row in found["experiments"]] == list(names("experiments"))
    policies = {(row["role"], row["name"]) for row in found["policies"]}
    assert policies == {(role, name) for role, known in BUILT_IN.items() for name in known}
    assert all(row["about"] for row in (*found["policies"], *found["experiments"]))
    everything = call("list").stdout
    assert all(name in everything for name in (*names("models"), *names("workloads")))


def test_list_of_one_kind() -> None:
    done = call("list", "policies")
    assert "min_match_frac=" in done.stdout
    assert "4611686018427387904" not in done.stdout
    assert "quickstart" not in done.stdout
    assert list(json.loads(call("list", "models", "--json").stdout)) == ["models"]
    assert call("list", "pots").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("schema",)],
    ids=["table", "JSON"],
)
def test_a_reader_that_closes_the_pipe_is_no_failure(arguments: tuple[str, ...]) -> None:
    """As in `simpod list | head`."""
    done = subprocess.Popen(
        [sys.executable, "-m", "simpod", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout is not None
    done.stdout.close()
    _, stderr = done.communicate(timeout=60)
    assert (done.returncode, stderr) == (0, b"")


@pytest.mark.parametrize("kind", ["experiment", "model", "hardware"])
def test_schema_is_json(kind: str) -> None:
    schema = json.loads(call("schema", kind).stdout)
    assert schema["title"].startswith("simpod")
    assert schema["properties"]


def test_help_keeps_what_stands_in_brackets() -> None:
    """An unescaped bracket in a help text is markup to rich, and is not shown."""
    for command, said in (
        (("search",), "simpod[opt]"),
        (("report",), "[layers,"),
        (("plot", "experts"), "[layers,"),
        (("calibrate",), "simpod[fit]"),
    ):
        assert said in call(*command, "--help").stdout
