"""One step of a result taken apart: by part, by kind of layer, by rank, by sparse layer.

A result keeps no batch by rank: the run is repeated up to the step, which shows what was in it.
"""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simpod.cluster import PoolSpec
from simpod.cluster.experts.placement import SlotsSeen, imbalance
from simpod.config import ResolvedExperiment, resolve_document
from simpod.cost import Batch, Pricer, step_pricer
from simpod.cost.die_waits import DieExchanges, Seen, die_exchanges
from simpod.cost.expert_imbalance import LoadModel
from simpod.cost.layer_times import LayerTimes
from simpod.cost.parts import PartCosts
from simpod.cost.pipeline.disaggregated import SplitTimes
from simpod.cost.pricer import halves_of, layer_times_of, meetings_of
from simpod.errors import ConfigError
from simpod.model.spec import ModelSpec
from simpod.policies.expert_optimum import load_bound
from simpod.records.columns import STEP_PARTS, Floats, Ints
from simpod.run.replay import CaughtStep, StepPlace, replay
from simpod.run.results import ResultFiles

if TYPE_CHECKING:
    import pandas as pd

KERNELS = "a2e", "experts", "e2a"
"""Of an expert die, which work at the same time."""
SAME = 1e-9
"""Relative difference of a step's time, then and now, that is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpectedImbalance:
    """Fullest die over mean [sparse layers], if tokens came as the popularity says."""

    placed: Floats
    bound: Floats  # no placement in these slots has less: `load_bound`


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OneStep:
    """Seconds of the parts in the order of STEP_PARTS; ranks in their order."""

    start_s: float
    parts_s: Floats  # [parts] of the whole step
    layers_s: dict[str, tuple[int, Floats]]  # kind -> how many, [parts] of one
    rank_seqs: Ints  # that decode
    rank_context_tokens: Ints
    rank_prompt_tokens: Ints
    rank_busy_s: Floats  # until dispatch, all layers
    rank_wait_s: Floats  # for the slowest rank
    layer_imbalance: Floats | None  # [sparse layers] fullest die over mean; None: all alike
    expected: ExpectedImbalance | None  # the same of the popularity alone
    die_exchanges: (
        DieExchanges | None
    )  # of one draw; None: with prompts, without meetings, or hidden
    layer_times: LayerTimes | None  # of sparse layers and dies; None: dies send nothing
    halves: SplitTimes | None  # of attention dies and expert dies; None: dies do both
    operators_s: dict[str, float] | None  # of a layer, fullest rank; None: cores or dies are split


def one_step(result: ResultFiles, step: int, pool: str | None = None, instance: int = 0) -> OneStep:
    """`step_of` a result folder."""
    try:
        experiment = resolve_document(result.provenance["experiment"])
    except ConfigError as error:
        made = f"{result.provenance['simpod_version']}, commit {result.provenance['git_commit']}"
        hint = f"this version reads the experiment otherwise than the one that ran it ({made})"
        raise ConfigError([*error.problems, hint]) from error
    return step_of(experiment, result.steps, step, pool, instance)


def step_of(
    experiment: ResolvedExperiment,
    steps: "pd.DataFrame",
    step: int,
    pool: str | None = None,
    instance: int = 0,
) -> OneStep:
    """Take apart the `step`-th decode step (1, 2, ...) of an instance; the last pool by default.

    steps: rows of `step_columns` of a run of the experiment. Of a prefill pool all steps count. A
    layer costs what the step would take less without it. `start_s` is of the run of like steps that
    it is in. Raises ConfigError where there is no such step, and where the run does not come again
    as it was.
    """
    spec = _spec(experiment, pool)
    row, place = _row_of(steps, spec, instance, step)
    caught = replay(experiment, place)
    batch, prices = caught.batch, caught.prices
    pricer = _pricer(experiment, spec, experiment.model, caught.loads)
    if place.offset:
        prices = pricer.price(batch)
    meetings = None if batch.prefill_tokens.any() else meetings_of(pricer, batch)
    busy_s = np.zeros(1) if prices.rank_busy_s is None else prices.rank_busy_s
    return OneStep(
        start_s=float(row["start_s"]),
        parts_s=_recorded(row, prices.parts(), caught.pause_s),
        layers_s=_layers(experiment, spec, caught.loads, batch, pricer),
        rank_seqs=batch.decode_seqs,
        rank_context_tokens=batch.context_tokens + batch.decode_seqs * batch.gained_tokens,
        rank_prompt_tokens=batch.prefill_tokens,
        rank_busy_s=busy_s,
        rank_wait_s=prices.rank_wait_s,
        layer_imbalance=_imbalance(caught, spec, experiment.model),
        expected=_expected(caught, experiment.model),
        die_exchanges=None if meetings is None else die_exchanges(meetings),
        layer_times=layer_times_of(pricer, batch),
        halves=halves_of(pricer, batch),
        operators_s=_operators_s(experiment, spec, batch),
    )


def _operators_s(
    experiment: ResolvedExperiment, spec: PoolSpec, batch: Batch
) -> dict[str, float] | None:
    """Of one layer of the rank with most tokens, where it has all cores of its dies.

    Decodes by themselves run as the graph that holds them.
    """
    layout = spec.layout
    if layout.micro_batches > 1 or layout.expert_dies:
        return None
    hardware = experiment.hardware[spec.name]
    costs = PartCosts(experiment.model, hardware, layout, experiment.semantics)
    decoded = layout.tokens_per_decode
    tokens = int((batch.decode_seqs * decoded + batch.prefill_tokens).max())
    if not batch.prefill_tokens.any():
        tokens = experiment.semantics.graphs.of_rank(layout.max_num_seqs).rows(tokens, decoded)
    return costs.operators_s(tokens)


def _spec(experiment: ResolvedExperiment, pool: str | None) -> PoolSpec:
    names = [spec.name for spec in experiment.pools]
    if (pool or names[-1]) not in names:
        raise ConfigError(f"pool {pool}: unknown; allowed: {', '.join(names)}")
    return next(spec for spec in experiment.pools if spec.name == (pool or names[-1]))


def _row_of(
    steps: "pd.DataFrame", spec: PoolSpec, instance: int, step: int
) -> tuple[Any, StepPlace]:
    """The run that the step is in, and where in it."""
    mine = steps[(steps["pool"] == spec.name) & (steps["instance"] == instance)]
    kind = "steps" if spec.role == "prefill" else "decode steps"
    if spec.role != "prefill":
        mine = mine[mine["decode_seqs"] > 0]
    last = mine["num_steps"].cumsum().to_numpy()
    if not len(last) or not 1 <= step <= last[-1]:
        most = int(last[-1]) if len(last) else 0
        raise ConfigError(f"step {step}: {spec.name} {instance} has {kind} 1 to {most}")
    index = int(np.searchsorted(last, step))
    row = mine.iloc[index]
    place = StepPlace(
        pool=spec.name,
        instance=instance,
        first_step=int(row["first_step"]),
        offset=step - int(last[index] - row["num_steps"]) - 1,
        end_s=float(row["end_s"]),
    )
    return row, place


def _recorded(row: Any, parts_s: Floats, pause_s: float) -> Floats:
    """[parts] of the step: as recorded if it is a run of its own, which may have waited for layers
    of prefixes; else as priced, and the pause of its hosts.
    """
    if row["num_steps"] > 1:
        parts_s[STEP_PARTS.index("dispatch_wait")] += pause_s
        return parts_s
    found = np.array([row[f"{part}_s"] for part in STEP_PARTS], dtype=np.float64)
    if parts_s.sum() + pause_s > found.sum() * (1.0 + SAME):
        raise ConfigError(
            f"this step took {found.sum():.6f} s, and takes {parts_s.sum() + pause_s:.6f} s now:"
            " simpod, a trace or a policy is not what the result was made with"
        )
    return found


def _pricer(
    experiment: ResolvedExperiment, spec: PoolSpec, model: ModelSpec, loads: LoadModel | None
) -> Pricer:
    hardware = experiment.hardware[spec.name]
    return step_pricer(model, hardware, spec.layout, experiment.semantics, loads)


def _layers(
    experiment: ResolvedExperiment,
    spec: PoolSpec,
    loads: LoadModel | None,
    batch: Batch,
    pricer: Pricer,
) -> dict[str, tuple[int, Floats]]:
    """Of each kind that the model has: how many, and what the step would take less without one.

    pricer: of the whole model.
    """
    model = experiment.model

    def parts_s(fewer: ModelSpec) -> Floats:
        return _pricer(experiment, spec, fewer, loads).price(batch).parts()

    def without(num_moe_layers: int) -> ModelSpec:
        left = model.num_layers - 1
        windows = min(model.num_window_layers, left)
        return replace(
            model, num_layers=left, num_window_layers=windows, num_moe_layers=num_moe_layers
        )

    whole_s = pricer.price(batch).parts()
    found = {}
    if model.num_dense_layers and model.num_layers > 1:
        found["dense"] = model.num_dense_layers, whole_s - parts_s(without(model.num_moe_layers))
    if model.num_moe_layers > 1:
        found["sparse"] = model.num_moe_layers, whole_s - parts_s(without(model.num_moe_layers - 1))
    return found


def _imbalance(caught: CaughtStep, spec: PoolSpec, model: ModelSpec) -> Floats | None:
    """[sparse layers]: mean over the draws of the loads; without MTP layers."""
    if caught.loads is None:
        return None
    batch = caught.batch
    tokens = batch.decode_seqs.sum() * spec.layout.tokens_per_decode + batch.prefill_tokens.sum()
    drawn = caught.loads(float(tokens)).imbalance
    by_layer = drawn.reshape(-1, caught.loads.num_layers).mean(axis=0)
    return np.asarray(by_layer[: model.num_moe_layers])


def _expected(caught: CaughtStep, model: ModelSpec) -> ExpectedImbalance | None:
    if caught.experts is None:
        return None
    shares, placement = caught.experts
    tokens = placement.die_tokens(shares, 1.0)
    bound = load_bound(shares, SlotsSeen(placement=placement, tokens=1.0))
    own = slice(model.num_moe_layers)
    return ExpectedImbalance(
        placed=imbalance(tokens)[own], bound=(bound / tokens.mean(axis=1))[own]
    )


def as_json(step: OneStep) -> dict[str, Any]:
    """The same in plain lists and mappings, seconds by part."""

    def named(parts_s: Floats) -> dict[str, float]:
        return dict(zip(STEP_PARTS, parts_s.tolist(), strict=True))

    uneven, seen, halves = step.layer_imbalance, step.die_exchanges, step.halves
    expected = step.expected
    return {
        "start_s": step.start_s,
        "step_s": float(step.parts_s.sum()),
        "parts_s": named(step.parts_s),
        "layers": {
            kind: {"count": count, "total_s": float(parts_s.sum()), "parts_s": named(parts_s)}
            for kind, (count, parts_s) in step.layers_s.items()
        },
        "ranks": {
            "seqs": step.rank_seqs.tolist(),
            "context_tokens": step.rank_context_tokens.tolist(),
            "prompt_tokens": step.rank_prompt_tokens.tolist(),
            "busy_s": step.rank_busy_s.tolist(),
            "wait_s": step.rank_wait_s.tolist(),
        },
        "halves": None
        if halves is None
        else {
            "layers_s": halves.total_s,
            "attention_busy_s": halves.attention_busy_s.tolist(),
            "experts_busy_s": dict(zip(KERNELS, halves.kernels_busy_s.tolist(), strict=True)),
        },
        "operators_s": step.operators_s,
        "sparse_layers": _sparse_layers(step),
        "dies": _dies(step),
        "sparse_layer_imbalance": None if uneven is None else uneven.tolist(),
        "sparse_layer_imbalance_expected": expected and expected.placed.tolist(),
        "sparse_layer_imbalance_bound": expected and expected.bound.tolist(),
        "die_exchanges": None
        if seen is None
        else {
            "dispatch": asdict(Seen.of(seen.dispatch_s)),
            "combine": asdict(Seen.of(seen.combine_s)),
        },
    }


def _sparse_layers(step: OneStep) -> dict[str, list[float]] | None:
    """Lists by layer."""
    if (times := step.layer_times) is None:
        return None
    out, back = ("dispatch", "combine") if step.halves is None else ("a2e", "e2a")
    seconds = {
        f"{out}_s": times.dispatch_s,
        "dispatch_wait_s": times.dispatch_wait_s,
        "experts_s": times.experts_s,
        f"{back}_s": times.combine_s,
        "combine_wait_s": times.combine_wait_s,
        "idle_s": times.idle_s,
    }
    return {name: layers.tolist() for name, layers in seconds.items()}


def _dies(step: OneStep) -> dict[str, list[float]] | None:
    """Lists by die."""
    if (times := step.layer_times) is None:
        return None
    return {
        "experts_s": times.die_experts_s.tolist(),
        "combine_wait_s": times.die_combine_wait_s.tolist(),
        "dispatch_wait_s": times.die_dispatch_wait_s.tolist(),
    }
