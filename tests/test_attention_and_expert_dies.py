"""A decode instance in two halves: how it is written, what must fit, and what scales."""

from pathlib import Path

import pytest
from cli_runs import call

from simpod.config import load_experiment
from simpod.errors import ConfigError
from simpod.records.columns import FINISHED
from simpod.run import run

HEAD = """\
model: deepseek-r1
hardware: cloudmatrix384
workload:
  arrivals: {process: poisson, rate_per_s: 20}
  prompt_tokens: {distribution: constant, value: 2048}
  output_tokens: {distribution: constant, value: 100}
  num_requests: 300
deployment:
  prefill: {role: prefill, dies: 32, dp: 8, tp: 4, ep: 32}
"""
HALVES = """\
  attention: {role: attention, dies: 48, domains: 3, micro_batches: 2, max_seqs_per_rank: 96,
              weight_dtype: int8}
  experts: {role: expert, dies: 32, shared_expert_dies: 4}
"""
WHOLE = """\
  decode: {role: decode, dies: 48, tp: 1, expert_dies: 32, shared_expert_dies: 4, domains: 3,
           micro_batches: 2, max_num_seqs: 96, weight_dtype: int8}
"""


def written(folder: Path, pools: str, more: str = "") -> str:
    file = folder / "pod.yaml"
    file.write_text(HEAD + pools + more, encoding="utf-8")
    return str(file)


def test_two_halves_are_one_pool(tmp_path: Path) -> None:
    halves = load_experiment(written(tmp_path, HALVES))
    whole = load_experiment(written(tmp_path, WHOLE))
    assert halves.pools == whole.pools
    assert halves.document == whole.document
    assert halves.origins["deployment.decode.expert_dies"].endswith("pod.yaml:12")


def test_they_exchange_over_one_scale_up_plane(tmp_path: Path) -> None:
    servers = ("hardware=atlas-a2-376t", "hardware.num_nodes=36")
    with pytest.raises(ConfigError, match=r"scale_up, which joins 8 dies.*allowed: at most 8"):
        load_experiment(written(tmp_path, WHOLE), servers)


def test_each_half_can_be_set_on_its_own(tmp_path: Path) -> None:
    file = written(tmp_path, HALVES)
    sets = ("deployment.experts.dies=64", "deployment.attention.dies=96")
    layout = load_experiment(file, sets).pools[1].layout
    assert (layout.dies, layout.dp, layout.expert_dies) == (96, 96, 64)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("deployment.experts.dp=4", r"experts\.dp: is no key .*allowed: role, dies, shared"),
        ("deployment.attention.role=decode", "0 pools with role attention and 1 with role expert"),
        ("deployment.experts.role=mixed", "1 pools with role attention and 0 with role expert"),
        ("deployment.decode={role: decode, dies: 8, dp: 8}", "no pool named decode"),
        ("deployment.experts={role: expert}", "needs dies"),
        ("deployment.experts.dies=8", r"84\.29 GB of experts \(int8\) on each die"),
        ("deployment.attention.domains=7", "domains 7 do not divide"),
    ],
)
def test_mistakes_in_halves(tmp_path: Path, change: str, complaint: str) -> None:
    """84.29 GB: 33 slots of 58 layers with 7168 x 2048 x 3 bytes."""
    with pytest.raises(ConfigError, match=complaint):
        load_experiment(written(tmp_path, HALVES), (change,))


def test_instances_scale_with_both_halves(tmp_path: Path) -> None:
    """A second instance takes 48 + 32 dies of the spare ones."""
    (tmp_path / "grow.py").write_text(
        "from simpod.policies import AddInstance\n\n\n"
        "def grow(view):\n"
        '    return [AddInstance("decode")] if view.now_s == 2.0 else []\n',
        encoding="utf-8",
    )
    scaling = "{use: './grow.py:grow', every_s: 2, sample_s: 1, window_s: 2, spare_dies: 80}"
    file = written(tmp_path, HALVES, f"policies:\n  scaling: {scaling}\n")
    result = run(load_experiment(file))
    scaled, requests = result.summary["scaling"], result.records.requests
    assert (requests.status == FINISHED).all()
    assert set(requests.decode_target // 48) == {0, 1}
    assert scaled["added"] == 1
    took_s = scaled["load_s"]["mean"]
    assert scaled["die_seconds"]["decode"]["loading"] == pytest.approx(took_s * (48 + 32))


def test_explain_says_what_an_expert_die_holds(tmp_path: Path) -> None:
    table = call("explain", written(tmp_path, HALVES)).stdout
    slots = 9 * 58  # 256 experts and 4 copies of the shared one on 32 dies, in each sparse layer
    experts_gb = slots * 3 * 7168 * 2048 / 1e9
    (line,) = [line for line in table.splitlines() if line.startswith("Weights on one of its 32")]
    assert float(line.partition(": ")[2].split()[0]) == pytest.approx(experts_gb, rel=0.01)
