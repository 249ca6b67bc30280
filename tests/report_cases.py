"""Small results on the disk, made once: one with a prefill and a decode pool, some of one pool."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from expert_cases import FEW_LAYERS

from simpod.config import load_experiment
from simpod.run import Result, run, write_results

APART = """\
name: apart
model: deepseek-r1
hardware: cloudmatrix384
workload:
  arrivals: {process: poisson, rate_per_s: 20}
  prompt_tokens: {distribution: lognormal, mean: 1500, cv: 1.0, max: 8192}
  output_tokens: {distribution: lognormal, mean: 60, cv: 0.8, max: 300}
  num_requests: 300
deployment:
  prefill: {role: prefill, instances: 2, dies: 32, dp: 8, tp: 4, ep: 32}
  decode: {role: decode, dies: 32, dp: 32, ep: 32, mtp: {layers: 1, acceptance: 0.9}}
slo: {ttft_s: 0.8, tpot_s: 0.05}
"""
TOGETHER = """\
name: together
model: llama-3.1-8b
hardware: a100
workload:
  arrivals: {process: poisson, rate_per_s: 4}
  prompt_tokens: {distribution: lognormal, mean: 300, cv: 1.0, max: 2000}
  output_tokens: {distribution: uniform, min: 4, max: 40}
  num_requests: 120
deployment:
  server: {role: mixed, instances: 2, dies: 1, max_step_tokens: 1024}
slo: {ttft_s: 0.3, tpot_s: 0.05}
"""
UNEVEN = """\
name: uneven
model: deepseek-r1
hardware: cloudmatrix384
workload:
  arrivals: {process: closed_loop, concurrency: 256}
  prompt_tokens: {distribution: constant, value: 1000}
  output_tokens: {distribution: constant, value: 24}
  num_requests: 256
deployment:
  decode: {role: decode, dies: 32, dp: 32, ep: 32, shared_expert_dies: 4}
expert_routing: {kind: correlated, log_scale: 0.64}
policies:
  experts: {use: eplb, redundant_slots: 60}
"""
DRIFT = (
    *FEW_LAYERS,
    "expert_routing.drift_s=0.15",
    "expert_routing.epoch_s=0.3",
    "policies.experts.every_s=0.2",
    "workload.output_tokens.value=100",
)
"""Changes of UNEVEN: popularity wanders, and placements follow, in 3 layers."""
_FOLDER = TemporaryDirectory(prefix="simpod-report-")
RATES = (2, 20, 200)
SEEDS = (0, 1)


@cache
def apart() -> Path:
    """A result of two pools."""
    return _made(APART, "apart")


@cache
def uneven(*changes: str) -> Path:
    """A result of one decode pool whose experts have loads of their own."""
    return _made(UNEVEN, f"uneven-{abs(hash(changes))}", *changes)


@cache
def in_memory() -> Result:
    """The same, as `run` gives it."""
    return _run(APART, "again")


@cache
def together(rate_per_s: int = 4, seed: int = 0) -> Path:
    """A result of one pool."""
    changes = (f"workload.arrivals.rate_per_s={rate_per_s}", f"seed={seed}")
    return _made(TOGETHER, f"together-{rate_per_s}-{seed}", *changes)


@cache
def crowded() -> Path:
    """A result of one pool with so little memory that sequences are preempted."""
    few = ("deployment.server.kv_blocks=140", "workload.output_tokens.max=400")
    return _made(TOGETHER, "crowded", "workload.arrivals.rate_per_s=40", *few)


def curve() -> list[Path]:
    """Three rates with two seeds each; the highest is beyond what is served."""
    return [together(rate, seed) for rate in RATES for seed in SEEDS]


def _made(text: str, name: str, *changes: str) -> Path:
    result = _run(text, name, *changes)
    folder = Path(_FOLDER.name) / name
    return write_results(folder, result.records, result.summary, result.provenance)


def _run(text: str, name: str, *changes: str) -> Result:
    experiment = Path(_FOLDER.name) / f"{name}.yaml"
    experiment.write_text(text, encoding="utf-8")
    return run(load_experiment(str(experiment), list(changes)))
