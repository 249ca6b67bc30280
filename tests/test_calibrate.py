"""Fitting a device's constants, and writing them into its profile; both commands.

The table is made with known constants, so that the fit must find prices near its rows.
"""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_runs import ROOT, call
from kernel_examples import REAL_GEMM, fit_of
from validate_cases import KNOWN, deployments, forwards, gemm_rows, gemm_table, request_log

from simpod.config import load_hardware, write_kernel_fits
from simpod.errors import ConfigError
from simpod.validate.calibrate import calibrate, tables_of

OWN = """\
# A device of my own.
base: h100      # the same die

name: mine
source: a made-up device  # that is faster
die: {name: my die, hbm_bytes_per_s: 4.0e+12}
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    gemm_table(folder, "h100_sxm.gemm.csv")
    gemm_table(folder, "mine.gemm.csv")
    return folder


def fits(**changes: Any) -> dict[str, dict[str, Any]]:
    fit = fit_of(replace(REAL_GEMM, **changes), device="my die", family="hopper", rows=33)
    return {"gemm": {"bf16": replace(fit, median_abs_error_frac=0.0123456)}}


# --- the section of the profile -------------------------------------------------------------------


def test_fits_are_written_and_read_again(profile: Path) -> None:
    write_kernel_fits(profile, fits())
    read = load_hardware(str(profile))
    fit = read.kernels.gemm["bf16"]
    assert fit.constants == REAL_GEMM
    assert (fit.rows, fit.device, fit.median_abs_error_frac) == (33, "my die", 0.0123)
    assert fit.status(read.die.name, read.family) == "calibrated"
    others = load_hardware("h100").kernels
    assert read.kernels.decode_mla == others.decode_mla  # those of the base stay


def test_writing_twice_is_writing_once(profile: Path) -> None:
    write_kernel_fits(profile, fits())
    once = profile.read_text()
    write_kernel_fits(profile, fits())
    assert profile.read_text() == once
    assert [path.name for path in profile.parent.iterdir()] == ["mine.yaml"]


def test_every_line_above_is_kept(profile: Path) -> None:
    write_kernel_fits(profile, fits())
    text = profile.read_text()
    assert text.startswith(OWN)
    assert text[len(OWN) :].startswith("kernels:\n")


def test_other_operators_and_variants_stay(profile: Path) -> None:
    write_kernel_fits(profile, fits())
    write_kernel_fits(profile, {"gemm": {"fp8": fit_of(REAL_GEMM)}})
    write_kernel_fits(profile, fits(launch_s=1e-6))
    gemm = yaml.safe_load(profile.read_text())["kernels"]["gemm"]
    assert set(gemm) == {"bf16", "fp8"}
    assert gemm["bf16"]["constants"]["launch_s"] == 1e-6
    assert "median_abs_error_frac" not in gemm["fp8"]  # nothing was left by no fit


def test_constants_have_six_digits(profile: Path) -> None:
    write_kernel_fits(profile, fits(compute_frac=0.123456789))
    written = yaml.safe_load(profile.read_text())["kernels"]["gemm"]["bf16"]
    assert written["constants"]["compute_frac"] == 0.123457


def test_a_shipped_profile_survives_the_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "h100.yaml"
    shutil.copy(ROOT / "hardware_profiles" / "h100.yaml", path)
    before, above = load_hardware(str(path)), path.read_text().partition("\nkernels:")[0]
    section = {"gemm": dict(before.kernels.gemm), "decode_mla": dict(before.kernels.decode_mla)}
    write_kernel_fits(path, section)
    assert load_hardware(str(path)) == before
    assert path.read_text().partition("\nkernels:")[0] == above


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("kernels: {}\nhost: {num_cpus: 2}\n", "must be the last section, after host"),
        ("kernels: [unclosed\n", "cannot be read"),
    ],
)
def test_a_bad_place_is_refused_and_nothing_is_written(
    profile: Path, tail: str, message: str
) -> None:
    profile.write_text(OWN + tail)
    with pytest.raises(ConfigError, match=message):
        write_kernel_fits(profile, fits())
    assert profile.read_text() == OWN + tail
    assert [path.name for path in profile.parent.iterdir()] == ["mine.yaml"]


# --- fitting --------------------------------------------------------------------------------------


def test_tables_are_those_of_the_device(data: Path) -> None:
    assert [table.path.name for table in tables_of("h100", data)] == ["h100_sxm.gemm.csv"]
    assert [table.path.name for table in tables_of("mine", data)] == ["mine.gemm.csv"]
    with pytest.raises(ConfigError, match=r"no table of b200; they are called b200\.KIND"):
        tables_of("b200", data)
    with pytest.raises(ConfigError, match="no table of h100"):
        tables_of("h100", data, ["moe"])
    with pytest.raises(ConfigError, match="no tables of kind gem; allowed: gemm"):
        tables_of("h100", data, ["gem"])


def test_a_fit_finds_its_way_back(data: Path) -> None:
    hardware = load_hardware("h100")
    told: list[str] = []
    found = calibrate(hardware, tables_of("h100", data), told.append)
    fit = found["gemm"]["bf16"]
    assert told == ["gemm bf16"]
    assert fit.median_abs_error_frac < 0.02
    assert 20 < fit.rows < len(gemm_rows())  # the rest is kept aside
    assert fit.constants.hbm_frac == pytest.approx(KNOWN.hbm_frac, rel=0.1)
    assert (fit.device, fit.family) == ("NVIDIA H100 SXM", "hopper")
    assert "h100_sxm.gemm.csv" in fit.source


def test_few_rows_are_not_fitted(tmp_path: Path) -> None:
    gemm_table(tmp_path, num_rows=10)
    with pytest.raises(ConfigError, match="30 rows"):
        calibrate(load_hardware("h100"), tables_of("h100", tmp_path), lambda _: None)


# --- simpod calibrate -----------------------------------------------------------------------------


def test_calibrate_writes_a_profile_that_runs(profile: Path, data: Path) -> None:
    done = call("calibrate", profile, "--data", data)
    assert done.exit_code == 0
    assert "gemm" in done.stdout
    assert f"Written: {profile}" in done.stdout
    fit = load_hardware(str(profile)).kernels.gemm["bf16"]
    assert fit.device == "my die"
    assert profile.read_text().startswith(OWN)
    again = json.loads(call("calibrate", profile, "--data", data, "--json").stdout)
    (row,) = again
    assert set(row) == {
        "operator",
        "variant",
        "rows",
        "median_abs_error_frac",
        "p90_abs_error_frac",
    }
    assert (row["operator"], row["variant"], row["rows"]) == ("gemm", "bf16", fit.rows)
    assert load_hardware(str(profile)).kernels.gemm["bf16"] == fit  # the same rows, the same fit


def test_calibrate_dry_run_writes_nothing(profile: Path, data: Path) -> None:
    done = call("calibrate", profile, "--data", data, "--dry-run", "--only", "gemm")
    assert done.exit_code == 0
    assert "Nothing was written" in done.stdout
    assert profile.read_text() == OWN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "moe"], "no table of mine"),
        (["--only", "gem"], "no tables of kind gem"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_calibrate_mistakes_exit_with_2(
    profile: Path, data: Path, arguments: list[str], message: str
) -> None:
    done = call("calibrate", profile, "--data", data, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert profile.read_text() == OWN


def test_calibrate_needs_the_columns(profile: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    gemm_rows().drop(columns="n").to_csv(folder / "mine.gemm.csv", index=False)
    done = call("calibrate", profile, "--data", folder)
    assert done.exit_code == 2
    assert "missing column 'n'" in done.stderr
    assert profile.read_text() == OWN
    assert call("calibrate", "h1000", "--data", folder).exit_code == 2


# --- simpod validate ------------------------------------------------------------------------------


def test_validate_prints_groups_and_points(tmp_path: Path, data: Path) -> None:
    rows = ({}, {"model": "org/Unknown"})
    arguments = ("validate", "--kernels", data, "--forwards", forwards(tmp_path, *rows))
    done = call(*arguments)
    assert done.exit_code == 0
    assert "kernels/h100_sxm/gemm" in done.stdout
    assert "forward_s" in done.stdout
    assert "refused, 1 of forwards/" in done.stdout
    found = json.loads(call(*arguments, "--json").stdout)
    groups = {group["group"]: group for group in found["groups"]}
    assert groups["kernels/h100_sxm/gemm"]["rows"] == len(gemm_rows())
    assert groups["kernels/mine/gemm"]["rows"] == 0  # no profile of that name is shipped
    assert [point["metric"] for point in found["points"]] == ["forward_s"]
    only = json.loads(call(*arguments, "--group", "forwards", "--json").stdout)
    assert {group["group"].partition("/")[0] for group in only["groups"]} == {"forwards"}


def test_validate_takes_every_kind_at_once(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    request_log(tmp_path / "logs")
    table = deployments(tmp_path, {})
    done = call(
        *("validate", "--requests", tmp_path / "logs", "--deployments", table),
        *("--jobs", 1, "--page", page, "--quiet"),
    )
    assert (done.exit_code, done.stdout) == (0, "")
    text = page.read_text()
    assert "| requests/mean_ttft | 1 |" in text
    assert "| deployments/agg/Llama-3.1-8B-Instruct/h100_sxm/vllm/tpot | 1 |" in text


def test_validate_takes_a_data_folder(tmp_path: Path, data: Path) -> None:
    shutil.copytree(data, tmp_path / "kernels")
    done = call("validate", "--data", tmp_path, "--group", "kernels", "--json")
    assert done.exit_code == 0
    names = [group["group"] for group in json.loads(done.stdout)["groups"]]
    own = [name for name in names if not name.startswith("kernels/ascend_910b/")]
    assert own == ["kernels/h100_sxm/gemm", "kernels/mine/gemm"]
    assert len(names) > 2  # and the sample that ships


@pytest.mark.parametrize(
    "arguments",
    [
        ["--kernels", "nowhere"],
        ["--data", "nowhere"],
        ["--points", "empty.yaml"],
        ["--deployments", "wrong.csv"],
        ["--forwards", "wrong.csv"],
        ["--requests", "empty"],
        ["--kernels", "empty"],
    ],
)
def test_validate_mistakes_exit_with_2_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.csv").write_text("a,b\n1,2\n")
    Path("empty.yaml").write_text("- {id: x}\n")
    Path("empty").mkdir()
    done = call("validate", *arguments, "--page", "page.md", "--json")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert not Path("page.md").exists()


def test_known_constants_are_within_their_bounds() -> None:
    """What the tables are made with could be the answer of a fit."""
    from simpod.validate.fit import bounds_of

    for name, (low, high) in bounds_of(type(KNOWN)).items():
        assert low <= asdict(KNOWN)[name] <= high
