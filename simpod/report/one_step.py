"""One decode step of a result taken apart: by part, by kind of layer, by rank, by sparse layer.

A result keeps no batch by rank; it follows from when requests joined and left, to the token, and
the step is priced again from it.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simpod.cluster import PoolSpec
from simpod.config import ResolvedExperiment, resolve_document
from simpod.cost import Batch, Pricer, step_pricer
from simpod.cost.expert_imbalance import LoadModel
from simpod.engine.steps import TokenClock, token_clock
from simpod.errors import ConfigError
from simpod.model.spec import ModelSpec
from simpod.records.columns import STEP_PARTS, Floats, Ints
from simpod.run.experts import expert_timeline
from simpod.run.results import ResultFiles
from simpod.workload import streams

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OneStep:
    """Seconds of the parts in the order of STEP_PARTS; ranks in their order."""

    start_s: float
    parts_s: Floats  # [parts] of the whole step
    layers_s: dict[str, tuple[int, Floats]]  # kind -> how many, [parts] of one
    rank_seqs: Ints
    rank_context_tokens: Ints
    rank_busy_s: Floats  # until dispatch, all layers
    rank_wait_s: Floats  # for the slowest rank
    layer_imbalance: Floats | None  # [sparse layers] fullest die over mean; None: all alike


def one_step(result: ResultFiles, step: int, pool: str | None = None, instance: int = 0) -> OneStep:
    """Take apart the `step`-th decode step (1, 2, ...) of an instance; the last pool by default.

    A layer costs what the step would take less without it. Raises ConfigError where there is no
    such step, where it had prompts beside it, where a preemption hides who was in it, where hosts
    pause, and where the popularity of experts changes over time. `start_s` is of the run of like
    steps that it is in.
    """
    experiment = resolve_document(result.provenance["experiment"])
    spec = _spec(experiment, pool)
    if spec.pauses:
        raise ConfigError(f"{result.folder}: launch_jitter: pauses belong to no layer or rank")
    clock = token_clock(spec.layout)
    row, first = _row_of(result.steps, spec.name, instance, step)
    seqs, context = _batch(result, spec, instance, step, clock)
    gained = int(seqs.sum()) * (clock.at(step - 1) - clock.at(first - 1))
    if row["decode_seqs"] != seqs.sum() or row["context_tokens"] + gained != context.sum():
        raise ConfigError(f"{result.folder}: step {step}: a preemption hides who was in it")
    loads = _loads(experiment, spec)
    batch = Batch.of(seqs, context)
    prices = _pricer(experiment, spec, experiment.model, loads).price(batch)
    busy_s = np.zeros(1) if prices.rank_busy_s is None else prices.rank_busy_s
    tokens = float(seqs.sum() * spec.layout.tokens_per_decode)
    return OneStep(
        start_s=float(row["start_s"]),
        parts_s=prices.parts(),
        layers_s=_layers(experiment, spec, loads, batch),
        rank_seqs=seqs,
        rank_context_tokens=context,
        rank_busy_s=busy_s,
        rank_wait_s=prices.rank_wait_s,
        layer_imbalance=None if loads is None else _imbalance(loads, tokens, experiment.model),
    )


def _spec(experiment: ResolvedExperiment, pool: str | None) -> PoolSpec:
    names = [spec.name for spec in experiment.pools if spec.role != "prefill"]
    if (pool or names[-1]) not in names:
        raise ConfigError(f"pool {pool}: decodes nothing; allowed: {', '.join(names)}")
    return next(spec for spec in experiment.pools if spec.name == (pool or names[-1]))


def _row_of(steps: "pd.DataFrame", pool: str, instance: int, step: int) -> tuple[Any, int]:
    """The run that the step is in, and the number of its first decode step."""
    mine = steps[(steps["pool"] == pool) & (steps["instance"] == instance)]
    mine = mine[mine["decode_seqs"] > 0]
    last = mine["num_steps"].cumsum().to_numpy()
    if not len(last) or not 1 <= step <= last[-1]:
        most = int(last[-1]) if len(last) else 0
        raise ConfigError(f"step {step}: {pool} {instance} has decode steps 1 to {most}")
    place = int(np.searchsorted(last, step))
    row = mine.iloc[place]
    if row["prefill_tokens"]:
        raise ConfigError(f"step {step}: has prompts beside its decodes, of which no rank is kept")
    return row, int(last[place] - row["num_steps"]) + 1


def _batch(
    result: ResultFiles, spec: PoolSpec, instance: int, step: int, clock: TokenClock
) -> tuple[Ints, Ints]:
    """[ranks] sequences and their tokens before the step."""
    rows, ranks = result.requests, spec.layout.dp
    first, last = (rows[f"{end}_decode_step"].to_numpy() for end in ("first", "last"))
    is_here = (rows["decode_target"] // ranks == instance).to_numpy()
    is_in = (rows["ledger"] >= 0).to_numpy() & (first < step) & ((last >= step) | (last < 0))
    is_here = is_here & is_in
    chosen = rows[is_here]
    rank = chosen["decode_target"].to_numpy() % ranks
    gained = clock.at(step - 1) - np.array([clock.at(s) for s in first[is_here].tolist()])
    context = np.zeros(ranks, dtype=np.int64)
    np.add.at(context, rank, chosen["prompt_tokens"].to_numpy() + gained.astype(np.int64))
    return np.bincount(rank, minlength=ranks), context


def _loads(experiment: ResolvedExperiment, spec: PoolSpec) -> LoadModel | None:
    timeline = expert_timeline(experiment, spec, streams(experiment.seed))
    if timeline is None:
        return None
    if not timeline.is_fixed:
        raise ConfigError("popularity of experts changes over time: no step keeps its loads")
    return timeline.loads


def _pricer(
    experiment: ResolvedExperiment, spec: PoolSpec, model: ModelSpec, loads: LoadModel | None
) -> Pricer:
    hardware = experiment.hardware[spec.name]
    return step_pricer(model, hardware, spec.layout, experiment.semantics.name, loads)


def _layers(
    experiment: ResolvedExperiment, spec: PoolSpec, loads: LoadModel | None, batch: Batch
) -> dict[str, tuple[int, Floats]]:
    """Of each kind that the model has: how many, and what the step would take less without one."""
    model = experiment.model

    def parts_s(fewer: ModelSpec) -> Floats:
        return _pricer(experiment, spec, fewer, loads).price(batch).parts()

    whole_s = parts_s(model)
    found = {}
    windows = min(model.num_window_layers, model.num_layers - 1)
    shorter = replace(model, num_layers=model.num_layers - 1, num_window_layers=windows)
    if model.num_dense_layers:
        found["dense"] = model.num_dense_layers, whole_s - parts_s(shorter)
    if model.num_moe_layers > 1:
        sparse = replace(shorter, num_moe_layers=model.num_moe_layers - 1)
        found["sparse"] = model.num_moe_layers, whole_s - parts_s(sparse)
    return found


def _imbalance(loads: LoadModel, tokens: float, model: ModelSpec) -> Floats:
    """[sparse layers]: mean over the draws of the loads."""
    drawn = loads(tokens).imbalance
    return np.asarray(drawn.reshape(-1, model.num_moe_layers).mean(axis=0))


def as_json(step: OneStep) -> dict[str, Any]:
    """The same in plain lists and mappings, seconds by part."""

    def named(parts_s: Floats) -> dict[str, float]:
        return dict(zip(STEP_PARTS, parts_s.tolist(), strict=True))

    uneven = step.layer_imbalance
    return {
        "start_s": step.start_s,
        "step_s": float(step.parts_s.sum()),
        "parts_s": named(step.parts_s),
        "layers": {
            kind: {"count": count, "parts_s": named(parts_s)}
            for kind, (count, parts_s) in step.layers_s.items()
        },
        "ranks": {
            "seqs": step.rank_seqs.tolist(),
            "context_tokens": step.rank_context_tokens.tolist(),
            "busy_s": step.rank_busy_s.tolist(),
            "wait_s": step.rank_wait_s.tolist(),
        },
        "sparse_layer_imbalance": None if uneven is None else uneven.tolist(),
    }
