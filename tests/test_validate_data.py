"""Measured data of every kind: read, refused with a reason, or wrong with a place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_runs import call, tiny
from validate_cases import (
    DEPLOYMENT,
    FORWARD,
    deployments,
    forwards,
    gemm_rows,
    gemm_table,
    request_log,
)

from simpod.errors import ConfigError
from simpod.run import one_step
from simpod.validate import runs
from simpod.validate.deployments import document_of, read_deployments, validate_deployments
from simpod.validate.forwards import validate_forwards
from simpod.validate.kernels import find_tables, validate_kernels
from simpod.validate.points import read_points, shipped_points, validate_points
from simpod.validate.report import Report
from simpod.validate.request_logs import (
    document_of as document_of_log,
)
from simpod.validate.request_logs import find_logs, read_log, validate_requests


def refusals(report: Report) -> list[str]:
    return [refusal.reason for refusal in report.refusals]


# --- kernels --------------------------------------------------------------------------------------


def test_kernel_tables_are_priced_row_by_row(tmp_path: Path) -> None:
    report = validate_kernels(gemm_table(tmp_path))
    (group,) = report.groups()
    assert group.group == "kernels/h100_sxm/gemm"
    assert group.errors is not None
    assert group.errors.rows == len(gemm_rows())
    assert group.errors.median_abs_error_frac < 0.3  # made with other constants than the profile's


def test_variants_of_a_table_are_groups_too(tmp_path: Path) -> None:
    frame = gemm_rows()
    frame.loc[::2, "gemm_dtype"] = "fp8"
    frame.to_csv(tmp_path / "h100.gemm.csv", index=False)
    names = [group.group for group in validate_kernels(tmp_path).groups()]
    assert names == [f"kernels/h100/gemm{end}" for end in ("", "/bf16", "/fp8")]


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    gemm_table(tmp_path / "csv")
    (tmp_path / "parquet").mkdir()
    gemm_rows().to_parquet(tmp_path / "parquet" / "h100_sxm.gemm.parquet")
    first, second = (
        [group.as_json() for group in validate_kernels(tmp_path / kind).groups()]
        for kind in ("csv", "parquet")
    )
    assert first == second


def test_tables_that_cannot_be_priced_are_refused(tmp_path: Path) -> None:
    gemm_table(tmp_path, "h100.sparse_gemm.csv")
    gemm_table(tmp_path, "tpu.gemm.csv")
    encoder = {"batch_size": [1], "isl": 64, "num_heads": 16, "head_dim": 64}
    encoder |= {"attn_dtype": "bfloat16", "kernel_source": "x", "latency_us": 9.0}
    pd.DataFrame(encoder).to_csv(tmp_path / "a100.encoder_attention.csv", index=False)
    gemm_rows().drop(columns="m").to_csv(tmp_path / "h100.gemm.csv", index=False)
    (tmp_path / "h100.moe.parquet").write_text("not a table")
    reasons = " ".join(refusals(validate_kernels(tmp_path)))
    for part in (
        "no kernel model for tables of kind 'sparse_gemm'",
        "no hardware profile for 1 dies of 'tpu'",
        "hardware a100 has no constants of encoder_attention",
        "missing column 'm'",
        "cannot be read as a table",
    ):
        assert part in reasons
    assert all(group.errors is None for group in validate_kernels(tmp_path).groups())


def test_a_folder_without_tables_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("a\n1\n")
    with pytest.raises(ConfigError, match=r"DEVICE\.KIND\.parquet"):
        find_tables(tmp_path)
    with pytest.raises(ConfigError, match="not a folder"):
        find_tables(tmp_path / "notes.csv")


# --- deployments ----------------------------------------------------------------------------------


def test_a_deployment_gives_two_points(tmp_path: Path) -> None:
    rows = read_deployments(deployments(tmp_path, {}))
    report = validate_deployments(rows, processes=1)
    assert [point.id for point in report.points] == ["row/ttft", "row/tpot"]
    assert [point.measured for point in report.points] == [20.0, 8.0]
    assert [point.metric for point in report.points] == ["mean_ttft_ms", "mean_tpot_ms"]
    group = "deployments/agg/Llama-3.1-8B-Instruct/h100_sxm/vllm"
    assert [point.group for point in report.points] == [f"{group}/ttft", f"{group}/tpot"]
    assert all(0.2 < point.simulated / point.measured < 5.0 for point in report.points)


def test_deployments_are_closed_loops_of_clients() -> None:
    document = document_of(DEPLOYMENT)
    assert document["workload"]["arrivals"] == {"process": "closed_loop", "concurrency": 2}
    assert document["workload"]["num_requests"] == 20
    assert document["workload"]["prompt_tokens"]["max"] == 300
    assert list(document["deployment"]) == ["mixed"]
    assert document["engine"]["semantics"] == "vllm-v1"
    split = document_of(
        DEPLOYMENT | {"mode": "disagg", "decode_num_workers": 2, "decode_tp_size": 2}
    )
    assert set(split["deployment"]) == {"prefill", "decode"}
    decode = split["deployment"]["decode"]
    assert (decode["role"], decode["instances"], decode["dies"]) == ("decode", 2, 2)


def test_deployments_that_cannot_be_said_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = deployments(
        tmp_path,
        {"pp_size": 2},
        {"mode": "afd"},
        {"backend": "mystery"},
        {"gemm_quant_mode": "int3"},
        {"model_path": "org/Unknown"},
        {"system": "tpu"},
        {"tp_size": 3, "gpus": 3},  # 32 heads over 3 dies
    )
    ticks: list[int] = []
    report = validate_deployments(read_deployments(path), 1, lambda: ticks.append(1))
    assert report.points == []
    reasons = refusals(report)
    assert reasons[:2] == ["pipeline parallelism", "mode afd, backend vllm: not known"]
    assert "mystery" in reasons[2]
    assert reasons[3] == "gemm_quant_mode int3"
    assert "Unknown" in reasons[4]
    assert "'tpu'" in reasons[5]
    assert len(ticks) == len(reasons) == 7


def test_a_table_with_other_columns_is_a_mistake(tmp_path: Path) -> None:
    path = deployments(tmp_path, {})
    pd.read_csv(path).drop(columns=["isl", "system"]).to_csv(path, index=False)
    with pytest.raises(ConfigError, match="missing system, isl; has id, model_path"):
        read_deployments(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as CSV"):
        read_deployments(path)


# --- forward passes -------------------------------------------------------------------------------


def test_forward_passes_are_points(tmp_path: Path) -> None:
    prompt = {"case": "prefill", "phase": "prefill", "query_len": 512, "num_queries": 2}
    report = validate_forwards(forwards(tmp_path, {}, prompt, {"case": "long", "query_len": 2}))
    assert [point.id for point in report.points] == ["decode", "prefill", "long"]
    assert {point.group for point in report.points} == {f"forwards/{FORWARD['device']}"}
    decode, prefill, drafts = (point.simulated for point in report.points)
    assert 0.002 < decode < 0.05
    assert decode < prefill
    assert decode < drafts  # two tokens of each sequence
    assert report.points[0].error_frac == pytest.approx(decode / 0.02 - 1.0)


def test_forward_passes_that_cannot_be_said_are_refused(tmp_path: Path) -> None:
    path = forwards(
        tmp_path,
        {"model": "org/Unknown"},
        {"device": "TPU"},
        {"linear_quant": "W2A2"},
        {"phase": "prefill", "description": "prefill, img=3x1080p"},
    )
    reasons = refusals(validate_forwards(path))
    assert len(reasons) == 4
    assert "linear_quant 'W2A2'; allowed: DISABLED" in reasons[2]
    assert "vision encoder" in reasons[3]


def test_a_table_of_something_else_is_no_table_of_forward_passes(tmp_path: Path) -> None:
    path = forwards(tmp_path, {})
    pd.read_csv(path).drop(columns="tp").to_csv(path, index=False)
    with pytest.raises(ConfigError, match="missing tp"):
        validate_forwards(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as CSV"):
        validate_forwards(path)


# --- request logs ---------------------------------------------------------------------------------


def test_a_log_is_read_on_one_clock(tmp_path: Path) -> None:
    """The engine saw the second request soonest: there the clocks are joined."""
    log = read_log(request_log(tmp_path))
    assert (log.name, log.device) == ("h100.llama", "h100")
    assert log.arrival_s.tolist() == [0.0, 0.5, 1.0]
    assert log.prompt_tokens.tolist() == [100, 200, 50]
    measured = log.measured_ms()
    assert measured["ttft"] == pytest.approx([50.0, 100.0, 100.0])
    assert measured["e2el"] == pytest.approx([150.0, 100.0, 300.0])
    assert measured["tpot"] == pytest.approx([10.0, 10.0])  # one token has no gap


def test_a_log_is_replayed(tmp_path: Path) -> None:
    request_log(tmp_path / "logs")
    report = validate_requests(tmp_path / "logs")
    assert len(report.points) == 9
    by_metric = {point.metric: point for point in report.points}
    assert by_metric["mean_ttft_ms"].measured == pytest.approx(250 / 3)
    assert by_metric["median_tpot_ms"].group == "requests/median_tpot"
    assert all(0.0 < point.simulated < 1e3 for point in report.points)


def test_a_log_says_its_deployment(tmp_path: Path) -> None:
    kwargs = {
        "tensor_parallel_size": 2,
        "data_parallel_size": 2,
        "enable_expert_parallel": True,
        "kv_cache_dtype": "fp8",
        "max_num_batched_tokens": 2048,
    }
    dense = read_log(request_log(tmp_path, "h100.a", engine_kwargs=kwargs))
    pool = document_of_log(dense, tmp_path / "x.csv")["deployment"]["mixed"]
    assert (pool["dies"], pool["tp"], pool["dp"], pool["ep"]) == (4, 2, 2, 1)
    assert (pool["kv_dtype"], pool["max_step_tokens"]) == ("fp8", 2048)
    moe = read_log(
        request_log(tmp_path, "h100.b", engine_kwargs=kwargs, model="Qwen/Qwen3-30B-A3B")
    )
    assert document_of_log(moe, tmp_path / "x.csv")["deployment"]["mixed"]["ep"] == 4


def test_broken_logs_are_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no request log"):
        find_logs(tmp_path)
    path = request_log(tmp_path)
    (path / "meta.json").write_text(json.dumps({"model": "x"}))
    frame = pd.read_json(path / "requests.jsonl", lines=True).drop(columns="queued_ts")
    frame.to_json(path / "requests.jsonl", orient="records", lines=True)
    with pytest.raises(ConfigError, match="queued_ts, engine_kwargs"):
        read_log(path)
    (path / "meta.json").write_text("{")
    with pytest.raises(ConfigError, match="not a request log"):
        read_log(path)
    (path / "requests.jsonl").unlink()
    with pytest.raises(ConfigError, match="not a request log"):
        read_log(path)


# --- published points -----------------------------------------------------------------------------

POINTS = """\
- id: {group}.first
  source: a paper
  experiment: {experiment}
  set: {{workload.num_requests: 8}}
  metric: mean_ttft_ms
  value: 100
  unit: ms
  tolerance_frac: 0.1
- {{id: {group}.second, source: a paper, experiment: {experiment}, metric: finished, value: 40,
   unit: requests}}
"""


def points_file(folder: Path, old: str = "", new: str = "") -> Path:
    path = folder / "points.yaml"
    text = POINTS.format(group="test.tiny", experiment=tiny(folder))
    path.write_text(text.replace(old, new) if old else text)
    return path


def test_points_are_experiments_and_one_number_of_their_summary(tmp_path: Path) -> None:
    points = read_points(points_file(tmp_path))
    assert [point.group for point in points] == ["points/test.tiny"] * 2
    assert points[0].overrides == ("workload.num_requests=8",)
    report = validate_points(points, processes=1)
    assert report.points[0].simulated > 0
    assert report.points[0].tolerance_frac == 0.1
    assert report.points[1].error_frac == 0.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: mean_ttft_ms", "metric: mean_tffb_ms", "no 'mean_tffb_ms'"),
        ("metric: mean_ttft_ms", "metric: mean_ttft_ms.x", "has nothing below it"),
        ("metric: mean_ttft_ms", "metric: step_breakdown", "not a number"),
    ],
)
def test_a_metric_that_a_summary_lacks_is_a_mistake(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    points = read_points(points_file(tmp_path, old, new))
    with pytest.raises(ConfigError, match=message):
        validate_points(points, processes=1)


STEPS = """\
- {{id: steps.layer, step: 2, metric: step_s, {more}}}
- {{id: steps.share, step: 2, metric: parts_s.attention, {more}}}
- {{id: steps.later, step: 5, metric: step_s, {more}}}
- {{id: steps.run, metric: finished, {more}}}
"""


def steps_file(folder: Path, old: str = "", new: str = "") -> Path:
    path = folder / "steps.yaml"
    more = f"source: a paper, experiment: {tiny(folder)}, value: 1, unit: s"
    text = STEPS.format(more=more)
    path.write_text(text.replace(old, new) if old else text)
    return path


def test_points_of_steps_cost_one_run_and_one_replay_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noting(name: str, call: Any) -> Any:
        def noted(*arguments: Any) -> Any:
            done.append(name)
            return call(*arguments)

        return noted

    monkeypatch.setattr(runs, "simulate", noting("run", runs.simulate))
    monkeypatch.setattr(one_step, "replay", noting("replay", one_step.replay))
    report = validate_points(read_points(steps_file(tmp_path)), processes=1)
    assert done == ["run", "replay", "replay"]
    step_s, attention_s, later_s, finished = (point.simulated for point in report.points)
    assert 0.0 < attention_s < step_s
    assert later_s > 0.0
    assert finished == 40
    folder = tmp_path / "result"
    assert call("run", tmp_path / "tiny.yaml", "--out", folder, "--quiet").exit_code == 0
    shown = json.loads(call("explain", folder, "--step", 2, "--json").output)
    assert shown["step_s"] == pytest.approx(step_s)
    assert shown["parts_s"]["attention"] == pytest.approx(attention_s)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "step: 5",
            "step: 99999",
            r"point steps.later: step 99999: server 0 has decode steps 1 to",
        ),
        ("step: 5, metric: step_s", "step: 5, metric: step", "point steps.later.*no 'step'; has"),
        ("metric: parts_s.attention", "metric: parts_s", "not a number"),
    ],
)
def test_a_step_or_a_key_that_is_not_there_is_a_mistake(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    points = read_points(steps_file(tmp_path, old, new))
    with pytest.raises(ConfigError, match=message):
        validate_points(points, processes=1)


def test_steps_are_counted_from_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="step"):
        read_points(steps_file(tmp_path, "step: 5", "step: 0"))


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = points_file(tmp_path, "value: 100", "valeu: 100")
    with pytest.raises(ConfigError) as caught:
        read_points(path)
    text = str(caught.value)
    assert "valeu" in text
    assert "value" in text
    path.write_text("just text")
    with pytest.raises(ConfigError):
        read_points(path)
    path.write_text("- [unclosed")
    with pytest.raises(ConfigError):
        read_points(path)


def test_shipped_points_are_sourced_and_unique() -> None:
    points = shipped_points()
    assert len({point.id for point in points}) == len(points) >= 4
    assert all(len(point.source) > 10 for point in points)
    assert all(np.isfinite(point.value) for point in points)
