"""The result folder: round trip, same bytes, whole or not at all."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from records_builder import NAN, group, pool, requests, run, steps, transfers

import simpod
from simpod.errors import ConfigError
from simpod.metrics import TTFT_PARTS, summary
from simpod.records.columns import FINISHED, LIVE, REFUSED, STEP_PARTS, RunRecords
from simpod.records.slo import Slo
from simpod.run import results
from simpod.run.provenance import git_commit, provenance, sha256
from simpod.run.results import read_results, read_summary, write_results


def records() -> RunRecords:
    return run(
        requests(
            [0.0, 0.25, 0.5],
            request_id=[3, 5, 9],
            status=[FINISHED, LIVE, REFUSED],
            first_token_s=[1.0, NAN, NAN],
            scheduled_s=[0.5, NAN, NAN],
        ),
        pools=(pool("p", "prefill"), pool("d", "decode")),
        groups=(group(pool="p"), group(pool="d"), group(pool="d", instance=1)),
        steps=steps(
            [
                {"group": 2, "start_s": 0.0, "end_s": 0.5, "parts": {"experts": 0.5}},
                {"group": 0, "start_s": 0.5, "end_s": 1.0, "num_steps": 4},
            ]
        ),
        transfers=transfers([(3, 0, 1, 0.5, 0.75, 1e6)]),
    )


def write(folder: Path, **options: bool) -> Path:
    ran = records()
    source = provenance({"name": "test"}, seed=7, hardware={})
    return write_results(folder, ran, summary(ran, slo=Slo()), source, **options)


def test_round_trip(tmp_path: Path) -> None:
    got = read_results(write(tmp_path / "deep" / "result"))
    rows = got.requests
    assert rows["request_id"].tolist() == [3, 5, 9]
    assert rows["status"].tolist() == ["finished", "live", "refused"]
    np.testing.assert_array_equal(rows["arrival_s"], [0.0, 0.25, 0.5])
    np.testing.assert_array_equal(rows["ttft_s"], [1.0, NAN, NAN])
    np.testing.assert_array_equal(rows["queue_s"], [0.5, NAN, NAN])
    assert {f"{part}_s" for part in TTFT_PARTS} | {"tpot_s", "e2e_s"} <= set(rows.columns)
    assert rows["prompt_tokens"].dtype == np.int64
    assert got.steps["pool"].tolist() == ["d", "p"]
    assert got.steps["instance"].tolist() == [1, 0]
    assert got.steps["num_steps"].tolist() == [1, 4]
    assert got.steps["experts_s"].tolist() == [0.5, 0.0]
    assert {f"{part}_s" for part in STEP_PARTS} <= set(got.steps.columns)
    assert got.transfers.to_dict("list") == {
        "request_id": [3],
        "kind": ["kv"],
        "plane": ["scale_up"],
        "source": [0],
        "destination": [1],
        "source_die": [0],
        "destination_die": [1],
        "host": [-1],
        "start_s": [0.5],
        "end_s": [0.75],
        "size_bytes": [1e6],
        "wait_s": [0.0],
        "alone_s": [0.25],
    }
    assert got.summary == summary(records(), slo=Slo())
    assert got.provenance["seed"] == 7
    assert read_summary(got.folder) == got.summary


def test_an_empty_run_has_all_columns(tmp_path: Path) -> None:
    empty = run(requests([]), groups=(), pools=())
    got = read_results(write_results(tmp_path / "r", empty, summary(empty, slo=Slo()), {}))
    assert len(got.requests) == len(got.steps) == len(got.transfers) == 0
    assert {"status", "ttft_s", "back_pressure_s"} <= set(got.requests.columns)
    assert {"pool", "num_steps", "host_gap_s"} <= set(got.steps.columns)


def test_same_run_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert len(names) == 5
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_an_existing_result_is_kept_unless_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "r")
    (folder / "summary.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a result already"):
        write(folder)
    assert read_summary(folder) == {}
    write(folder, overwrite=True)
    assert read_summary(folder)["arrived"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_result_with_other_things_in_it_is_kept(tmp_path: Path, is_folder: bool) -> None:
    folder = write(tmp_path / "r")
    for name in ("notes.txt", "plots"):
        (folder / name).mkdir() if is_folder else (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.txt and 1 more, which simpod has not"):
        write(folder, overwrite=True)
    assert {path.name for path in folder.iterdir()} == {*results.FILES, "notes.txt", "plots"}
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_link_is_written_through(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "disk").mkdir()
    link, real = tmp_path / "link", tmp_path / "disk" / "r"
    if exists:
        write(real)
        (real / "summary.json").write_text("{}")
    link.symlink_to(Path("disk") / "r")
    assert write(link, overwrite=True) == link
    assert link.is_symlink()
    assert read_summary(real)["arrived"] == 3
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["r"]
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "link"}


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(ConfigError, match="leads nowhere"):
        write(tmp_path / "a")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_result_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is no result of simpod"):
        write(tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is no result of simpod"):
        write(tmp_path / "file", overwrite=True)
    with pytest.raises(ConfigError, match="cannot be written"):
        write(tmp_path / "file" / "below")


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    assert read_summary(write(tmp_path / "r"))["arrived"] == 3


@pytest.mark.parametrize("had_result", [False, True])
def test_failure_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, had_result: bool
) -> None:
    before = write(tmp_path / "r") if had_result else None
    whole = results._write_table

    def fail(path: Path, columns: dict[str, object]) -> None:
        if path.name == "transfers.parquet":
            raise KeyboardInterrupt
        whole(path, columns)

    monkeypatch.setattr(results, "_write_table", fail)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "r", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == (["r"] if had_result else [])
    if before is not None:
        assert read_summary(before)["arrived"] == 3


def test_failure_of_the_last_rename_brings_the_old_result_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "r")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if ".draft-" in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ConfigError, match="cannot be written: No space left"):
        write(folder, overwrite=True)
    assert read_summary(folder)["arrived"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_reading_what_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no result of simpod; a result holds provenance"):
        read_results(tmp_path)
    with pytest.raises(ConfigError, match="there is no such folder"):
        read_results(tmp_path / "nowhere")
    folder = write(tmp_path / "r")
    (folder / "summary.json").write_text("{")
    with pytest.raises(ConfigError, match=r"summary\.json: damaged"):
        read_results(folder)


def test_provenance_names_software_input_and_hardware() -> None:
    profile = pool("die-384")  # any spec that has a name
    document = {"name": "x", "deployment": {"dies": 8, "limits": (1, 2)}, "trace": Path("a/b")}
    got = provenance(document, seed=3, hardware={"prefill": profile, "decode": profile})
    assert json.loads(json.dumps(got)) == got
    assert got["simpod_version"] == simpod.__version__
    assert got["numpy_version"] == np.__version__
    assert got["experiment"]["deployment"] == {"dies": 8, "limits": [1, 2]}
    assert got["hardware_sha256"] == {"die-384": sha256(profile)}


def test_hash_ignores_order_of_keys_and_nothing_else() -> None:
    assert sha256({"a": 1, "b": 2}) == sha256({"b": 2, "a": 1})
    assert sha256({"a": 1}) != sha256({"a": 1.5})
    assert sha256(pool("a")) != sha256(pool("b"))


def test_commit_only_of_our_own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simpod, "__file__", str(tmp_path / "simpod" / "__init__.py"))
    assert git_commit() is None  # installed, wherever that may be
    (tmp_path / ".git").mkdir()
    assert git_commit() is None  # no commit in it


def test_commit_of_a_checkout_and_whether_it_was_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simpod, "__file__", str(tmp_path / "simpod" / "__init__.py"))
    (tmp_path / "simpod").mkdir()
    (tmp_path / "simpod" / "__init__.py").write_text("")
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = git_commit()
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "simpod" / "__init__.py").write_text("edited")
    assert git_commit() == f"{commit}-dirty"
